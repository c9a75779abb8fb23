"""`python -m app.cli`, the same as `ringback`."""

from app.cli import main

main()
