"""each telephone is one number: E.164 digits, read with the home country; calls that are over and nobody says how

Revision ID: 0006
Revises: 0005

Numbers were stored as they were written, so one telephone could be several. This reads all of them again. DIDs that
turn out to be one are merged. Nothing is deleted but the merged DIDs' rows: their calls go over to the one that stays.
It prints what it did.
"""

from collections.abc import Callable, Sequence

import sqlalchemy as sa
from alembic import context, op

from app.numbers import NumberRules
from app.report_fields import is_day_first, read_date

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BEFORE = "'queued', 'dialing', 'ringing', 'in_progress', 'completed', 'busy', 'no_answer', 'failed', 'canceled', 'timed_out', 'after_hours'"


def upgrade() -> None:
    _allow_statuses(_BEFORE + ", 'ended'")
    op.drop_constraint(op.f("uq_dids_key"), "dids", type_="unique")
    rules = NumberRules(context.config.attributes.get("home_country", "IN"))
    _merge_dids(rules)
    for column in ("customer_number", "agent_number", "did"):
        _rewrite_calls(column, lambda written: _read(rules, written))
    day_first = is_day_first(rules.home_country)
    _rewrite_calls("reported_date", lambda written: _read_date(written, day_first=day_first))
    op.drop_column("dids", "key")
    op.create_unique_constraint(op.f("uq_dids_number"), "dids", ["number"])


def downgrade() -> None:
    op.drop_constraint(op.f("uq_dids_number"), "dids", type_="unique")
    op.add_column("dids", sa.Column("key", sa.Text(), nullable=True))
    op.execute("UPDATE dids SET key = CASE WHEN number ~ '^91[0-9]{10}$' THEN substr(number, 3) ELSE number END")
    op.alter_column("dids", "key", nullable=False)
    op.create_unique_constraint(op.f("uq_dids_key"), "dids", ["key"])
    op.execute("UPDATE calls SET status = 'completed' WHERE status = 'ended'")
    op.execute("UPDATE call_events SET status = 'completed' WHERE status = 'ended'")
    _allow_statuses(_BEFORE)


def _allow_statuses(allowed: str) -> None:
    op.drop_constraint(op.f("ck_calls_status"), "calls")
    op.create_check_constraint(op.f("ck_calls_status"), "calls", f"status IN ({allowed})")


def _merge_dids(rules: NumberRules) -> None:
    """Of several DIDs that are one number that one stays which can be used: somebody's, not expired, the oldest."""
    connection = op.get_bind()
    rows = connection.execute(
        sa.text(
            "SELECT id, number, user_id, max_channels, allocated_channels, inbound_callback_url, inbound_transcript "
            "FROM dids ORDER BY user_id IS NULL, expired_at IS NOT NULL, created_at, id"
        )
    ).all()
    kept: dict[str, sa.Row[tuple[str, ...]]] = {}
    for row in rows:
        number = _read(rules, row.number)
        if number not in kept:
            kept[number] = row
            if number != row.number:
                print(f"DID {row.id}: {row.number} is {number}")  # noqa: T201
                connection.execute(
                    sa.text("UPDATE dids SET number = :number WHERE id = :id"), {"number": number, "id": row.id}
                )
            continue
        stays = kept[number]
        moved = connection.execute(
            sa.text("UPDATE calls SET did_id = :stays WHERE did_id = :goes"), {"stays": stays.id, "goes": row.id}
        ).rowcount
        if row.user_id == stays.user_id:  # one user's: nothing that they had is lost
            connection.execute(
                sa.text(
                    "UPDATE dids SET max_channels = greatest(max_channels, :most), allocated_channels = "
                    "least(allocated_channels + :allocated, greatest(max_channels, :most)), inbound_callback_url = "
                    "coalesce(inbound_callback_url, :url), inbound_transcript = inbound_transcript OR :transcript "
                    "WHERE id = :id"
                ),
                {
                    "most": row.max_channels,
                    "allocated": row.allocated_channels,
                    "url": row.inbound_callback_url,
                    "transcript": row.inbound_transcript,
                    "id": stays.id,
                },
            )
        connection.execute(sa.text("DELETE FROM dids WHERE id = :id"), {"id": row.id})
        owners = "" if row.user_id == stays.user_id else f", of {row.user_id or 'nobody'},"
        print(  # noqa: T201
            f"DID {row.id}: {row.number}{owners} is {number}, which is {stays.id}"
            f"{'' if row.user_id == stays.user_id else f' of {stays.user_id}'}. Merged into that, with its {moved} calls"
        )


def _rewrite_calls(column: str, read: Callable[[str], str]) -> None:
    """Each value once, however many calls have it."""
    connection = op.get_bind()
    values = connection.scalars(sa.text(f"SELECT DISTINCT {column} FROM calls WHERE {column} IS NOT NULL")).all()  # noqa: S608
    changed = {value: new for value in values if (new := read(value)) != value}
    if not changed:
        return
    connection.execute(sa.text("CREATE TEMPORARY TABLE rewritten (before text PRIMARY KEY, after text) ON COMMIT DROP"))
    connection.execute(
        sa.text("INSERT INTO rewritten VALUES (:before, :after)"),
        [{"before": before, "after": after} for before, after in changed.items()],
    )
    calls = connection.execute(
        sa.text(f"UPDATE calls SET {column} = rewritten.after FROM rewritten WHERE calls.{column} = rewritten.before")  # noqa: S608
    ).rowcount
    connection.execute(sa.text("DROP TABLE rewritten"))
    print(f"{calls} calls: {column} is in one spelling now ({len(changed)} different ones were rewritten)")  # noqa: T201


def _read(rules: NumberRules, written: str) -> str:
    """What cannot be read, an agent's extension say, stays as it is."""
    try:
        return rules.read_agent(written).digits
    except ValueError:
        return written


def _read_date(written: str, *, day_first: bool) -> str:
    try:
        return read_date(written, day_first=day_first)
    except ValueError:
        return written
