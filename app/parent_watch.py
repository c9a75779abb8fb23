"""Ends a child process when its parent is gone, even by kill -9. A leaf.

The parent holds the writing end of a pipe and never writes. When it dies, in whatever way, the pipe ends, and the
child stops as on SIGTERM; if that takes too long, at once.
"""

import os
import signal
import threading

VARIABLE = "RINGBACK_PARENT_PIPE_FD"
_GRACE_SECONDS = 8.0


def hold() -> None:
    """In the child, once at its start: take hold of the pipe that `VARIABLE` names, if any."""
    descriptor = os.environ.pop(VARIABLE, None)
    if descriptor is not None:
        threading.Thread(target=_wait_for_the_end, args=(int(descriptor),), daemon=True, name="parent_watch").start()


def _wait_for_the_end(descriptor: int) -> None:
    os.read(descriptor, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(_GRACE_SECONDS)
    os._exit(1)
