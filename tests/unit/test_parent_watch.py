"""A child ends with its parent, however the parent ends."""

import os
import signal
import subprocess
import sys
import time

from app import parent_watch

CHILD = "from app import parent_watch; parent_watch.start(); print('up', flush=True); import time; time.sleep(600)"


def test_a_child_ends_when_the_parent_pipe_closes() -> None:
    ours, theirs = os.pipe()[::-1]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        pass_fds=[theirs],
        env={**os.environ, parent_watch.VARIABLE: str(theirs)},
        stdout=subprocess.PIPE,
    )
    os.close(theirs)
    assert child.stdout
    assert child.stdout.readline() == b"up\n"
    time.sleep(0.1)
    assert child.poll() is None
    os.close(ours)
    assert child.wait(60) == -signal.SIGTERM
    child.stdout.close()
