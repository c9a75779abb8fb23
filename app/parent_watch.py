"""Ends a child process when its parent is gone, even after kill -9.

The parent holds the writing end of a pipe and writes nothing. When the parent dies, the pipe ends. The child then stops
as on SIGTERM, and exits at once if that takes too long.
"""

import os
import signal
import threading

VARIABLE = "RINGBACK_PARENT_PIPE_FD"
_GRACE_SECONDS = 8.0


def start() -> None:
    """In the child, once at its start: watch the pipe that `VARIABLE` names, if any."""
    descriptor = os.environ.pop(VARIABLE, None)
    if descriptor is not None:
        threading.Thread(target=_wait_for_the_end, args=(int(descriptor),), daemon=True, name="parent_watch").start()


def _wait_for_the_end(descriptor: int) -> None:
    os.read(descriptor, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(_GRACE_SECONDS)
    os._exit(1)
