"""An upgrade while clients order and poll: first the tables, then the processes, and no call notices."""

import asyncio
import shutil
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import text

from app import tasks
from app.cli.migrate import alembic_config
from app.cli.processes import was_stopped
from app.schema import REVISIONS
from bench.installation import Installation, free_port
from bench.load_run import BUSY, SETTINGS, load_run
from tests.speech import speech_endpoint
from tools.check_migrations import find_faults

ROOT = Path(__file__).parents[2]
PREVIOUS_RELEASE = ROOT / "tests/previous_release.txt"
QUEUES = ("calls", "callbacks", "transcripts")
CUSTOMERS = (BUSY, BUSY, "919999999999")
PATIENCE_SECONDS = 60.0
ORDERS_PER_SECOND = 1.0  # a busy machine takes minutes for the upgrade, and more orders would keep it busy

# As much as `tools.check_migrations` lets the next release change.
_HEADER = "import sqlalchemy as sa\nfrom alembic import op\nrevision, down_revision = {revision!r}, {before!r}\n"
NEXT_MIGRATIONS = (
    """
def upgrade():
    op.add_column("calls", sa.Column("later", sa.Text(), server_default="new", nullable=False))
    op.create_table(
        "later",
        sa.Column("call_id", sa.Text(), sa.ForeignKey("calls.id", ondelete="CASCADE"), primary_key=True),
    )
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_calls_later")
        op.create_index("ix_calls_later", "calls", ["later", "created_at"], postgresql_concurrently=True)

def downgrade():
    pass
""",
    """
def upgrade():
    op.add_column("tasks", sa.Column("later", sa.BigInteger()))
    op.drop_constraint(op.f("ck_tasks_kind"), "tasks")
    op.create_check_constraint(op.f("ck_tasks_kind"), "tasks", "kind IN (KINDS, 'later')", postgresql_not_valid=True)
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE tasks VALIDATE CONSTRAINT ck_tasks_kind")

def downgrade():
    op.drop_constraint(op.f("ck_tasks_kind"), "tasks")
    op.create_check_constraint(op.f("ck_tasks_kind"), "tasks", "kind IN (KINDS)", postgresql_not_valid=True)
""",
    """
def upgrade():
    op.add_column("users", sa.Column("later", sa.Boolean(), server_default=sa.text("true"), nullable=False))

def downgrade():
    pass
""",
)


def check_out_previous_release(folder: Path) -> Path:
    commit = PREVIOUS_RELEASE.read_text().strip()
    if subprocess.run(["git", "cat-file", "-e", commit], cwd=ROOT, capture_output=True, check=False).returncode:
        pytest.fail(
            f"The previous release is commit {commit} ({PREVIOUS_RELEASE.relative_to(ROOT)}), which is not in this "
            "clone. Run `git fetch --unshallow`, or clone without --depth"
        )
    archive = folder / "previous.tar"
    subprocess.run(
        ["git", "archive", f"--output={archive}", commit, "app", "worker", "migrations"], cwd=ROOT, check=True
    )
    with tarfile.open(archive) as packed:
        packed.extractall(folder / "previous", filter="data")
    return folder / "previous"


def migrate_further(folder: Path, database_url: str) -> None:
    """Run migrations after the newest, which the check of migrations allows."""
    config = alembic_config(database_url)
    shutil.copytree(str(config.get_main_option("script_location")), folder)
    config.set_main_option("script_location", str(folder))
    kinds = ", ".join(f"'{kind.value}'" for kind in tasks.QUEUE_OF)
    before = REVISIONS[-1]
    for number, body in enumerate(NEXT_MIGRATIONS):
        revision = f"next{number}"
        header = _HEADER.format(revision=revision, before=before)
        (folder / f"versions/{revision}.py").write_text(header + body.replace("KINDS", kinds))
        before = revision
    assert find_faults(config, after=REVISIONS[-1]) == []
    command.upgrade(config, "head")


async def wait_for_start(installation: Installation, names: list[str]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        for name in names:
            while "worker_started" not in (installation.data_dir / f"{name}.log").read_text():
                await asyncio.sleep(0.05)


async def stop(installation: Installation, names: list[str]) -> None:
    """As a supervisor does it: SIGTERM, and wait."""
    for name in names:
        installation.processes[name].send_signal(signal.SIGTERM)
    for name in names:
        assert was_stopped(await asyncio.to_thread(installation.processes[name].wait, PATIENCE_SECONDS)), name


async def test_no_call_notices_an_upgrade(tmp_path: Path) -> None:
    previous = check_out_previous_release(tmp_path)
    async with speech_endpoint() as speech:
        installation = Installation(tmp_path / "data", SETTINGS | speech | {"RINGBACK_SIMULATOR_SPEED": "2"})
        new_port = free_port()
        try:
            await asyncio.to_thread(installation.start_servers, migrate=False)
            await asyncio.to_thread(installation.run, "migrate", checkout=previous)
            old, new = [[f"{version}-{queue}" for queue in QUEUES] for version in ("old", "new")]
            installation.start("old-api", "app.cli", "serve", checkout=previous)
            for name, queue in zip(old, QUEUES, strict=True):
                installation.start(name, "worker", queue, checkout=previous)
            await asyncio.to_thread(installation.wait_until_ready)
            addresses = [installation.base_url, f"http://127.0.0.1:{new_port}"]
            async with load_run(
                installation, addresses, orders_per_second=ORDERS_PER_SECOND, customers=CUSTOMERS
            ) as run:
                await run.load.accept(4)
                await asyncio.to_thread(migrate_further, tmp_path / "migrations", installation.database_url)
                await run.load.accept(4)
                installation.start("new-api", "app.cli", "serve", port=new_port)
                for name, queue in zip(new, QUEUES, strict=True):
                    installation.start(name, "worker", queue)
                await asyncio.to_thread(installation.wait_until_ready, port=new_port)
                await wait_for_start(installation, new)
                await stop(installation, ["old-api", *old])
                await run.load.accept(4)
                violations = await run.judge()
                print(len(run.load.accepted), run.load.requests, run.load.refused, run.load.moved, run.statuses)
                assert violations == []
                assert run.load.refused == 0
                assert run.statuses.keys() <= {"completed", "busy"}
                async with run.db.statement() as connection:
                    later = text("SELECT count(*) FROM calls WHERE later = 'new'")
                    assert (await connection.execute(later)).scalar_one() == len(run.load.accepted)
        finally:
            await asyncio.to_thread(installation.stop)
