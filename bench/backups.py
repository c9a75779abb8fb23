"""How long a backup and its restore take, and how large it is: `python -m bench.backups`."""

import argparse
import asyncio
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from app import recordings
from app.telephony.simulator import CONVERSATIONS
from bench.installation import Installation
from bench.recent import fill

_RECORDING = """
INSERT INTO recordings (call_id, storage_key, content_type, size_bytes, sha256)
VALUES (:call_id, :key, 'audio/wav', :size, :sha256)
"""


@dataclass(frozen=True)
class _Run:
    seconds: float
    megabytes: float
    """The most memory that the process had."""


async def _fill_recordings(installation: Installation, count: int) -> int:
    """Store this many recordings. Returns their bytes."""
    spoken = [path.read_bytes() for path in sorted(CONVERSATIONS.glob("*.wav"))]
    rows, total = [], 0
    for n in range(1, count + 1):
        call_id, content = f"call_{n:016}", spoken[n % len(spoken)]
        key = recordings.storage_key(call_id, "audio/wav")
        path = installation.data_dir / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        rows.append({"call_id": call_id, "key": key, "size": len(content), "sha256": sha256})
        total += len(content)
    engine = create_async_engine(installation.database_url)
    async with engine.begin() as connection:
        await connection.execute(text(_RECORDING), rows)
    await engine.dispose()
    return total


async def _create_database(url: str, name: str) -> str:
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
    await engine.dispose()
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def _run(environment: dict[str, str], *arguments: str) -> _Run:
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "app.cli", *arguments], env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{arguments[0]} failed")
    return _Run(time.perf_counter() - began, usage.ru_maxrss / 1000)


def main() -> None:
    """Prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--recordings", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ringback-bench-", ignore_cleanup_errors=True) as folder:
        installation, file = Installation(Path(folder) / "source"), Path(folder) / "backup"
        try:
            installation.start_servers()
            asyncio.run(fill(installation.database_url, options.calls))
            audio = asyncio.run(_fill_recordings(installation, options.recordings))
            saved = _run(installation.environment, "backup", str(file))
            url = asyncio.run(_create_database(installation.database_url, "restored"))
            target = {"RINGBACK_DATABASE_URL": url, "RINGBACK_DATA_DIR": str(Path(folder) / "restored")}
            restored = _run(installation.environment | target, "restore", str(file))
            size = file.stat().st_size / 1e6
            print(f"\n{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores. {options.calls:,} calls with transcripts,")
            print(f"{options.recordings:,} recordings of {audio / 1e6:.0f} MB, in a file of {size:.0f} MB\n")
            print("| | seconds | most memory, MB |\n|---|---|---|")
            print(f"| backup | {saved.seconds:.1f} | {saved.megabytes:.0f} |")
            print(f"| restore | {restored.seconds:.1f} | {restored.megabytes:.0f} |")
        finally:
            installation.stop()


if __name__ == "__main__":
    main()
