"""How long the import of a million numbers takes. Run it as `python -m bench.do_not_call`."""

import random
import tempfile
import time
from pathlib import Path

from bench.installation import Installation

_NUMBERS = 1_000_000


def main() -> None:
    """Prints the seconds."""
    with tempfile.TemporaryDirectory(prefix="ringback-bench-", ignore_cleanup_errors=True) as folder:
        installation = Installation(Path(folder))
        file = Path(folder) / "numbers.csv"
        numbers = random.sample(range(6 * 10**9, 10**10), _NUMBERS)
        file.write_text("phone,name\n" + "".join(f"{number},somebody\n" for number in numbers))
        try:
            installation.start_servers()
            began = time.perf_counter()
            said = installation.run("do-not-call", "import", str(file))
            print(f"{said.splitlines()[-1]}: {time.perf_counter() - began:.0f} s")
        finally:
            installation.stop()


if __name__ == "__main__":
    main()
