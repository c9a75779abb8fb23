"""Refuses migrations that make calls wait, or break the release before them: `python -m tools.check_migrations`.

While an installation is upgraded, processes of the release before run on the new tables. So a migration only expands:
what that release reads and writes stays. A later release contracts, when no process needs the old part any more.

squawk judges the SQL of each migration. The rules here add what it does not know. A migration that must break a rule
names it in `accepted`, with the reason:

    accepted = {"ban-drop-column": "0.4 was the last release that read dids.key"}
"""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory

from app.cli.migrate import alembic_config

RELEASED = "0015"
"""Revisions up to this one were written before there was this check. They are in installations, so they stay."""

OLDEST_POSTGRES = "14.0"
_SQUAWK = str(Path(sys.executable).with_name("squawk"))

_NOT_OURS = (
    "require-lock-timeout",  # migrations/env.py sets it
    "require-statement-timeout",  # a statement that waits for nobody may take its time
    "prefer-robust-stmts",  # a migration is one transaction; see `unfinished-index` for the rest
    "prefer-bigint-over-int",  # the models choose their types
    "prefer-bigint-over-smallint",
    "prefer-text-field",  # of alembic's own table
)

_EXPAND = "Leave it, and remove it in the release after the one that no longer uses it"
INSTEAD = {
    "require-concurrent-index-creation": "Create it with postgresql_concurrently=True in an "
    "autocommit_block, as 0012 does",
    "require-concurrent-index-deletion": "Drop it with postgresql_concurrently=True in an autocommit_block",
    "ban-concurrent-index-creation-in-transaction": "Put it into `with op.get_context().autocommit_block():`",
    "adding-required-field": "Add it nullable, or with a constant server_default",
    "adding-not-nullable-field": "Add CHECK (column IS NOT NULL) NOT VALID, and validate it in an "
    "autocommit_block. The release before must write the column already",
    "ban-drop-column": _EXPAND,
    "ban-drop-table": _EXPAND,
    "renaming-column": "Add a column, let one release write both and read the new one, then drop the old one",
    "renaming-table": "Add a table, let one release write both and read the new one, then drop the old one",
    "changing-column-type": "Add a column of the new type, let one release write both, then drop the old one",
    "ban-drop-constraint": "Drop and add it in one migration, with the same name and at least the same words",
    "constraint-missing-not-valid": "Add it with postgresql_not_valid=True, and validate it in an autocommit_block",
    "adding-foreign-key-constraint": "Add it with postgresql_not_valid=True, and validate it in an autocommit_block",
    "disallowed-unique-constraint": "Create a unique index concurrently. The release before must keep to it already",
    "narrowed-check": "The release before still writes these words. Narrow the constraint one release later",
    "new-check": "The release before may write rows that break it. Add it one release after the code that keeps to it",
    "new-unique": "The release before may write the same value twice. Add it one release after the code that does not",
    "several-tables": "Write a migration for each table. Calls use these tables together, in another order, so the "
    "migration would never get all locks at once. A foreign key locks the table that it refers to",
    "unfinished-index": "An interrupted build leaves an index that is not valid. Before it, execute "
    "DROP INDEX CONCURRENTLY IF EXISTS with its name",
    "rows-rewritten": "Rewritten rows are locked until the migration ends. Let a worker do it in batches, "
    "or a DO block with batches in an autocommit_block",
    "no-sql": "The check needs its SQL: no op.get_bind(), and no rows that Python reads",
}


@dataclass(frozen=True, slots=True)
class MigrationFault:
    """Something that a migration must not do."""

    revision: str
    rule: str
    statement: str

    def __str__(self) -> str:
        advice = INSTEAD.get(self.rule, f"See https://squawkhq.com/docs/{self.rule}")
        return f"migration {self.revision}: {self.rule}\n    {self.statement}\n    {advice}"


def find_faults(config: Config, after: str = RELEASED) -> list[MigrationFault]:
    """The faults of all migrations after this revision, but for those that a migration accepts."""
    faults: list[MigrationFault] = []
    for script in ScriptDirectory.from_config(config).iterate_revisions("head", after):
        accepted = getattr(script.module, "accepted", {})
        faults += [fault for fault in _find_faults_of(config, script) if fault.rule not in accepted]
    return faults


def _find_faults_of(config: Config, script: Script) -> Iterator[MigrationFault]:
    revision, before = script.revision, script.down_revision or "base"
    try:
        sql = _write_sql(config, command.upgrade, str(before), revision)
        back = _write_sql(config, command.downgrade, revision, str(before))
    except Exception as error:
        yield MigrationFault(revision, "no-sql", f"{type(error).__name__}: {error}")
        return
    statements = _split(sql)
    replaced = {name for name, _ in _checks(statements)} & {name for name, _ in _checks(_split(back))}
    for rule, statement in _ask_squawk(sql):
        dropped = re.search(r"DROP CONSTRAINT (\w+)", statement)
        # Its words are compared instead.
        if not (rule == "ban-drop-constraint" and dropped and dropped[1] in replaced):
            yield MigrationFault(revision, rule, statement)
    for rule, statement in _apply_own_rules(statements, _split(back)):
        yield MigrationFault(revision, rule, statement)


def _ask_squawk(sql: str) -> Iterator[tuple[str, str]]:
    """The rules that squawk finds broken, and the statement of each."""
    excluded = [f"--exclude={rule}" for rule in _NOT_OURS]
    done = subprocess.run(
        [_SQUAWK, f"--pg-version={OLDEST_POSTGRES}", "--reporter=json", *excluded, "--stdin-filepath=migration.sql"],
        input=sql,
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.stdout.startswith("["):
        sys.exit(f"squawk cannot be run: {done.stderr.strip()}. Install it with `make .venv/dev`")
    lines = sql.splitlines()
    for found in json.loads(done.stdout):
        yield found["rule_name"], lines[found["line"]].strip()


def _apply_own_rules(statements: list[str], back: list[str]) -> Iterator[tuple[str, str]]:
    created = {match[1] for statement in statements if (match := re.match(r"CREATE TABLE (\w+)", statement))}
    added = {found[1] for one in statements if (found := re.match(r"ALTER TABLE \w+ ADD COLUMN (\w+)", one))}
    before = dict(_checks(back))
    locked: set[str] = set()
    is_transaction = True
    for statement in statements:
        table = re.match(r"ALTER TABLE (\w+)", statement)
        # The release before leaves a new column alone, or a new table.
        is_of_new = bool(added & set(re.findall(r"\w+", statement))) or bool(table and table[1] in created)
        for name, words in _checks([statement]):
            if name in before:
                if not words or not before[name] <= words:
                    yield "narrowed-check", statement
            elif not is_of_new:
                yield "new-check", statement
        index = re.match(r"CREATE (UNIQUE )?INDEX (CONCURRENTLY )?(?:IF NOT EXISTS )?(\w+) ON (\w+)", statement)
        if index and index[1] and not is_of_new and index[4] not in created:
            yield "new-unique", statement
        if index and index[2] and f"DROP INDEX CONCURRENTLY IF EXISTS {index[3]}" not in statements:
            yield "unfinished-index", statement
        if statement in ("BEGIN", "COMMIT"):
            is_transaction = statement == "BEGIN"
        if not is_transaction:  # in an autocommit_block each statement has its own
            locked.clear()
        for name in re.findall(r"^ALTER TABLE (\w+)|REFERENCES (\w+)", statement):
            locked |= set(filter(None, name)) - {*created, "alembic_version"}
        if len(locked) > 1:
            yield "several-tables", statement
            locked.clear()
        rewritten = re.match(r"(?:UPDATE|DELETE FROM|TRUNCATE(?: TABLE)?) (\w+)", statement)
        if rewritten and rewritten[1] not in {*created, "alembic_version"}:
            yield "rows-rewritten", statement


def _checks(statements: list[str]) -> list[tuple[str, set[str]]]:
    """The CHECK constraints that these statements add to tables, and the words of each."""
    added = re.compile(r"ALTER TABLE \w+ ADD CONSTRAINT (\w+) CHECK (.*)", re.DOTALL)
    found = (added.match(statement) for statement in statements)
    return [(match[1], set(re.findall(r"'([^']*)'", match[2]))) for match in found if match]


def _write_sql(config: Config, move: Callable[..., None], start: str, end: str) -> str:
    """The SQL of `command.upgrade` or `command.downgrade` from one revision to the other."""
    config.output_buffer = io.StringIO()
    move(config, f"{start}:{end}", sql=True)
    return config.output_buffer.getvalue()


def _split(sql: str) -> list[str]:
    plain = re.sub(r"^--.*$", "", sql, flags=re.MULTILINE)
    plain = re.sub(r"\$(\w*)\$.*?\$\1\$", "''", plain, flags=re.DOTALL)  # a DO block is one statement
    return [statement.strip() for statement in re.split(r";\s*$", plain, flags=re.MULTILINE)]


def main() -> None:
    """Prints each fault, and what to do instead. Exits with 1 if there is one."""
    faults = find_faults(alembic_config("postgresql+asyncpg://"))
    for fault in faults:
        print(fault)
    if faults:
        sys.exit(1)


if __name__ == "__main__":
    main()
