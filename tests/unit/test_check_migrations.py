"""`make check` refuses a migration that makes calls wait, or breaks the release before it, and says what to do."""

import shutil
from pathlib import Path
from textwrap import indent

import pytest
from alembic.config import Config

from app.cli.migrate import alembic_config
from tools.check_migrations import INSTEAD, find_faults

MIGRATION = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "bad", None
{more}
def upgrade():
{upgrade}
def downgrade():
{downgrade}
"""
STATUS = 'op.create_check_constraint("ck_calls_status", "calls", "status IN ({})", postgresql_not_valid=True)'
DROP_STATUS = 'op.drop_constraint("ck_calls_status", "calls")\n'
BOTH, ONE = STATUS.format("'queued', 'ended'"), STATUS.format("'queued'")
ADD_NOTE = 'op.add_column("calls", sa.Column("note", sa.Text()))\n'


def faults_of(folder: Path, upgrade: str, downgrade: str = "pass", more: str = "") -> set[str]:
    config: Config = alembic_config("postgresql+asyncpg://")
    source = Path(str(config.get_main_option("script_location")))
    (folder / "versions").mkdir()
    shutil.copy(source / "env.py", folder)
    written = MIGRATION.format(upgrade=indent(upgrade, "    "), downgrade=indent(downgrade, "    "), more=more)
    (folder / "versions/bad.py").write_text(written)
    config.set_main_option("script_location", str(folder))
    found = find_faults(config, after="base")
    for fault in found:
        assert INSTEAD[fault.rule] in str(fault), "the message says what to do instead"
    return {fault.rule for fault in found}


@pytest.mark.parametrize(
    ("upgrade", "rule"),
    [
        ('op.create_index("ix_calls_a", "calls", ["agent_number"])', "require-concurrent-index-creation"),
        ('op.drop_index("ix_calls_a", "calls")', "require-concurrent-index-deletion"),
        (
            'op.create_index("ix_calls_a", "calls", ["agent_number"], postgresql_concurrently=True)',
            "ban-concurrent-index-creation-in-transaction",
        ),
        (
            "with op.get_context().autocommit_block():\n"
            '    op.create_index("ix_calls_a", "calls", ["agent_number"], postgresql_concurrently=True)',
            "unfinished-index",
        ),
        (
            'op.create_index("uq_calls_a", "calls", ["agent_number"], unique=True, postgresql_concurrently=True)',
            "new-unique",
        ),
        ('op.add_column("calls", sa.Column("note", sa.Text(), nullable=False))', "adding-required-field"),
        ('op.alter_column("calls", "failure", nullable=False)', "adding-not-nullable-field"),
        ('op.drop_column("calls", "failure")', "ban-drop-column"),
        ('op.drop_table("turns")', "ban-drop-table"),
        ('op.alter_column("calls", "failure", new_column_name="reason")', "renaming-column"),
        ('op.rename_table("calls", "orders")', "renaming-table"),
        ('op.alter_column("calls", "failure", type_=sa.String(20))', "changing-column-type"),
        ('op.create_foreign_key("fk_x", "calls", "users", ["failure"], ["id"])', "adding-foreign-key-constraint"),
        ('op.create_unique_constraint("uq_x", "calls", ["failure"])', "disallowed-unique-constraint"),
        ('op.create_check_constraint("ck_x", "calls", "length(failure) < 9")', "constraint-missing-not-valid"),
        ('op.create_check_constraint("ck_x", "calls", "failure <> \'\'", postgresql_not_valid=True)', "new-check"),
        ('op.drop_constraint("ck_calls_status", "calls")', "ban-drop-constraint"),
        ("op.execute(\"UPDATE calls SET failure = '' WHERE failure IS NULL\")", "rows-rewritten"),
        ('op.execute("DELETE FROM tasks")', "rows-rewritten"),
        (
            ADD_NOTE + 'op.add_column("tasks", sa.Column("note", sa.Text()))',
            "several-tables",
        ),
        (
            'op.create_table("notes", sa.Column("a", sa.Text(), sa.ForeignKey("calls.id")), '
            'sa.Column("b", sa.Text(), sa.ForeignKey("users.id")))',
            "several-tables",
        ),
        ('op.get_bind().execute(sa.text("SELECT 1")).all()', "no-sql"),
    ],
)
def test_a_migration_that_breaks_calls_is_refused(tmp_path: Path, upgrade: str, rule: str) -> None:
    assert rule in faults_of(tmp_path, upgrade)


def test_a_word_that_the_release_before_writes_stays_allowed(tmp_path: Path) -> None:
    assert faults_of(tmp_path, DROP_STATUS + ONE, DROP_STATUS + BOTH) == {"narrowed-check"}


@pytest.mark.parametrize(
    ("upgrade", "downgrade"),
    [
        (DROP_STATUS + BOTH, DROP_STATUS + ONE),
        (ADD_NOTE, "pass"),
        ('op.add_column("calls", sa.Column("tries", sa.Integer(), server_default="0", nullable=False))', "pass"),
        (
            ADD_NOTE
            + 'op.create_check_constraint("ck_calls_note", "calls", "note IN (\'a\')", postgresql_not_valid=True)',
            "pass",
        ),
        (
            'op.create_table("notes", sa.Column("call_id", sa.Text(), sa.ForeignKey("calls.id"), nullable=False))\n'
            'op.create_index("uq_notes", "notes", ["call_id"], unique=True)',
            "pass",
        ),
        (
            "with op.get_context().autocommit_block():\n"
            '    op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_calls_a")\n'
            '    op.create_index("ix_calls_a", "calls", ["agent_number"], postgresql_concurrently=True)\n'
            '    op.execute("ALTER TABLE calls VALIDATE CONSTRAINT ck_calls_status")',
            "pass",
        ),
        (
            "with op.get_context().autocommit_block():\n"
            '    op.execute("DO $$ BEGIN\\nUPDATE calls SET failure = NULL;\\nCOMMIT;\\nEND $$")',
            "pass",
        ),
    ],
    ids=["a new word", "a column", "a constant default", "a check on it", "a table", "concurrently", "in batches"],
)
def test_a_migration_that_only_expands_passes(tmp_path: Path, upgrade: str, downgrade: str) -> None:
    assert faults_of(tmp_path, upgrade, downgrade) == set()


def test_a_migration_may_contract_with_a_reason(tmp_path: Path) -> None:
    accepted = 'accepted = {"ban-drop-column": "0.4 was the last release that read it"}'
    assert faults_of(tmp_path, 'op.drop_column("calls", "failure")', more=accepted) == set()


def test_old_migrations_show_that_the_check_bites() -> None:
    found = {(fault.revision, fault.rule) for fault in find_faults(alembic_config("postgresql+asyncpg://"), "base")}
    assert {
        ("0004", "ban-drop-column"),
        ("0011", "several-tables"),
        ("0013", "require-concurrent-index-creation"),
        ("0006", "no-sql"),
    } <= found
    assert {rule for revision, rule in found if revision in ("0009", "0010", "0012")} == {"new-unique"}
