"""Decodes recordings of any format. Runs in its own process: see `__main__`."""
