"""Makes docs/session.svg, the picture in README, from a real `ringback up` and a call beside it.

Port 8000 must be free, because the picture shows it.
"""

import io
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

TARGET = Path(__file__).parents[1] / "docs/session.svg"
WIDTH = 100
_RINGBACK = str(Path(sys.executable).with_name("ringback"))
# Rich loads its font from a CDN. Each character has its place in the picture, so any monospaced font fits.
_FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def main() -> None:
    """Runs the session and writes the picture."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "0", "COLORTERM": "truecolor"}
        env |= {"RINGBACK_DATA_DIR": f"{folder}/var", "RINGBACK_PORT": "8000"}
        shown = "$ make up\n" + run_session(env).replace(folder, "/home/you/ringback")
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text.from_ansi(shown))
    TARGET.write_text(console.export_svg(title="Ringback", code_format=_FORMAT, unique_id="session"))


def run_session(env: dict[str, str]) -> str:
    """What the terminal shows, with its colours."""
    with subprocess.Popen([_RINGBACK, "up"], env=env, stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout
        shown = ""
        for line in up.stdout:
            shown += line
            if "Ctrl-C stops" in line:
                break
        call = ["call", "15005550001", "918888888888", "--user", "demo@ringback.local"]
        done = subprocess.run([_RINGBACK, *call], env=env, capture_output=True, text=True, check=False)
        up.send_signal(signal.SIGINT)
        up.stdout.read()
    return f"{shown}\n$ .venv/bin/ringback {' '.join(call)}   # in another shell\n{done.stdout}"


if __name__ == "__main__":
    main()
