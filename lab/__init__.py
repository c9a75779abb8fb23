"""A real Asterisk and real SIP telephones on this machine, for tests, benches and a first try."""
