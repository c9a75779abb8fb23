"""Decoding of recordings, whatever wrote them. Runs in a process of its own: see `__main__`."""
