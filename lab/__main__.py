"""`make asterisk-up`: a real Asterisk with telephones to call, for a first try, until Ctrl-C."""

import signal
import socket
import sys
import threading
from pathlib import Path

from lab.asterisk import AsteriskError, AsteriskServer, free_port
from lab.packages import PackagesError
from lab.phones import Phones

_ROOT = Path(__file__).parents[1]
_CONVERSATION = _ROOT / "app/telephony/conversations/callback.wav"
_ARI_PORT = 8088

_TELEPHONES = """\
Telephones to call; the last seven digits are yours to choose:
  +91 100 0000001   an agent: answers, and stays      +91 212 0000001   a customer: hangs up after 12 s
  +91 486 0000001   is busy                           +91 300 0000001   rings and never answers
  +91 603 0000001   declines                          +91 404 0000001   does not exist    (lab/phones.xml has more)
"""


def main(folder: Path) -> None:
    """Runs until SIGINT or SIGTERM."""
    stop = threading.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: stop.set())
    print("Fetching Asterisk and SIPp (once, 75 MB), and starting them", flush=True)
    phones = Phones(folder / "phones", port=free_port(socket.SOCK_DGRAM), conversation=_CONVERSATION)
    server = AsteriskServer(folder / "asterisk", phones_port=phones.port, ari_port=_ARI_PORT)
    try:
        phones.start()
        server.start()
        settings = folder / "asterisk.env"
        settings.write_text("".join(f"export {name}='{value}'\n" for name, value in server.settings().items()))
        shown = settings.relative_to(_ROOT) if settings.is_relative_to(_ROOT) else settings
        print(f"\nAsterisk serves ARI on {server.url}. {_TELEPHONES}")
        print(f"In another terminal:\n  . ./{shown} && make up")
        print(f"and in a third:\n  . ./{shown} && .venv/bin/ringback providers check")
        print("  .venv/bin/ringback limits set --destinations +91")
        print("  .venv/bin/ringback call +912120000001 +911000000001 --user demo@ringback.local")
        print("\nCtrl-C stops it", flush=True)
        stop.wait()
    finally:
        server.stop()
        phones.stop()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else _ROOT / "var/lab")
    except (AsteriskError, PackagesError) as error:
        sys.exit(str(error))
