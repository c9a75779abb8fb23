"""The folder of one test run, and the process that ends everything that the run started. For Linux and macOS.

Every run has its own temporary folder, so two runs at once share no file. A second process watches the run. When the
run is gone, even by kill -9, it ends all processes that the run left behind, and deletes the folder. A run with
failures keeps its folder.

A process belongs to the run if `VARIABLE` in its environment names the folder. Valkey overwrites its environment with
its title, so the two servers that run as daemons are also recognized by their working folder.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

VARIABLE = "TEST_RUN_FOLDER"
PARENTS = "TEST_RUN_PARENTS"
"""Process ids, comma-separated. The run ends when one of these ends. `tests.__main__` sets it."""

_ROOT = Path(__file__).parents[1]
_DAEMONS = ("postgres", "valkey-server")
_KEEP = "keep"


def begin() -> Path:
    """Create this process's folder, and watch this process. All temporary files of the run go there."""
    # Resolved, because macOS reports working folders without symbolic links.
    folder = Path(tempfile.mkdtemp(prefix="ringback-tests-")).resolve()
    os.environ[VARIABLE] = os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None  # makes Python read TMPDIR again
    parents = [parent for parent in os.environ.get(PARENTS, "").split(",") if parent]
    watcher = subprocess.Popen(
        [sys.executable, "-m", "tests.run_folder", str(folder), str(os.getpid()), *parents],
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C in the terminal is for the run alone
    )
    watcher.returncode = 0  # otherwise Popen warns that it still runs, which is intended
    return folder


def keep(folder: Path) -> None:
    """Keep the folder after the run."""
    (folder / _KEEP).touch()


def processes_of(folder: Path) -> list[psutil.Process]:
    """The running processes of the run, without this one."""
    return [process for process in psutil.process_iter() if process.pid != os.getpid() and _belongs(process, folder)]


def _belongs(process: psutil.Process, folder: Path) -> bool:
    try:
        named = process.environ().get(VARIABLE)
        if named is not None:
            return Path(named).is_relative_to(folder)
        return process.name() in _DAEMONS and Path(process.cwd()).is_relative_to(folder)
    except (psutil.Error, OSError):  # ended meanwhile, or belongs to another user
        return False


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def watch(folder: Path, run: int, parents: list[int]) -> None:
    """Wait until the run or one of its parents is gone. Then end the run, and delete what is left of it."""
    try:
        watched = [psutil.Process(pid) for pid in (run, *parents)]
    except psutil.NoSuchProcess:
        watched = []
    while watched and all(map(_is_alive, watched)):
        time.sleep(0.5)
    for process in watched[:1]:  # it has set the variable itself, so its own environment does not show it
        with suppress(psutil.Error):
            process.kill()
    # A process may have started another one since, so look until there is none.
    while found := processes_of(folder):
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=1)
    if not (folder / _KEEP).exists():
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    watch(Path(sys.argv[1]), int(sys.argv[2]), [int(pid) for pid in sys.argv[3:]])
