"""The folder of one test run, and the process that ends whatever the run started. Linux and macOS.

Every run has its own temporary folder, so two runs at once share no file. A second process watches the run. When the
run is gone, even by kill -9, it ends all processes that the run left behind, and deletes the folder. A run with
failures keeps its folder.

A process belongs to the run if `VARIABLE` in its environment names the folder. Valkey overwrites its environment with
its title, so the two servers that run as daemons are also known by their working folder.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

VARIABLE = "TEST_RUN_FOLDER"
PARENTS = "TEST_RUN_PARENTS"
"""Process ids, comma-separated: the run ends with any of these. `tests.__main__` sets it."""

_ROOT = Path(__file__).parents[1]
_DAEMONS = ("postgres", "valkey-server")
_KEEP = "keep"
_watcher: "subprocess.Popen[bytes] | None" = None


def begin() -> Path:
    """Make this process's folder, and watch this process. Everything temporary of the run goes there."""
    global _watcher
    # Resolved, because macOS reports working folders without symbolic links.
    folder = Path(tempfile.mkdtemp(prefix="ringback-tests-")).resolve()
    os.environ[VARIABLE] = os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None  # so that TMPDIR is read again
    parents = [parent for parent in os.environ.get(PARENTS, "").split(",") if parent]
    _watcher = subprocess.Popen(
        [sys.executable, "-m", "tests.run_folder", str(folder), str(os.getpid()), *parents],
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C in the terminal is for the run alone
    )
    return folder


def keep(folder: Path) -> None:
    """Do not delete it at the end."""
    (folder / _KEEP).touch()


def processes_of(folder: Path) -> list[psutil.Process]:
    """All that run now, without this one."""
    return [process for process in psutil.process_iter() if process.pid != os.getpid() and _belongs(process, folder)]


def _belongs(process: psutil.Process, folder: Path) -> bool:
    try:
        named = process.environ().get(VARIABLE)
        if named is not None:
            return Path(named).is_relative_to(folder)
        return process.name() in _DAEMONS and Path(process.cwd()).is_relative_to(folder)
    except (psutil.Error, OSError):  # ended meanwhile, or somebody else's
        return False


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def watch(folder: Path, run: list[int]) -> None:
    """Wait until one of these processes is gone, then end and delete what is left."""
    while all(_is_alive(pid) for pid in run):
        time.sleep(0.5)
    # A process that is found may have started another one since, so look again until there is none.
    while found := processes_of(folder):
        for process in found:
            try:
                process.kill()
            except psutil.Error:
                continue
        psutil.wait_procs(found, timeout=1)
    if not (folder / _KEEP).exists():
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    watch(Path(sys.argv[1]), [int(pid) for pid in sys.argv[2:]])
