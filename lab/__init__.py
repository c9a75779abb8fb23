"""A real Asterisk and real SIP telephones on this machine, for tests, benchmarks and a first try."""
