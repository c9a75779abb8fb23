"""indexes that count a user's calls and find what retention deletes, and settings of the tables that change most

Revision ID: 0016
Revises: 0015
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_NAMES = (
    "ix_calls_user_status",
    "ix_transcripts_made",
    "ix_recordings_oldest",
    "ix_calls_recording_url",
    "ix_deliveries_unsent",
)

_SETTINGS = {
    # Rows that come, change and go within seconds. Half-filled pages leave room for the changes, and a table that
    # autovacuum cleans early stays small.
    "tasks": "fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, "
    "autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 5000",
    "turns": "fillfactor = 50",
    "workers": "fillfactor = 50",
    "listeners": "fillfactor = 50",
    "providers": "fillfactor = 50",
    # Tables that grow. By default autovacuum waits until a fifth has changed, which is weeks among millions of rows.
    # Meanwhile a count cannot rely on the index alone.
    **{
        table: "autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02, "
        "autovacuum_analyze_scale_factor = 0.02"
        for table in ("calls", "call_events", "transcripts", "recordings", "deliveries", "delivery_attempts")
    },
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # An index that an interrupted build left behind is not valid.
        for name in _NAMES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.create_index("ix_calls_user_status", "calls", ["user_id", "status"], postgresql_concurrently=True)
        op.create_index(
            "ix_transcripts_made",
            "transcripts",
            ["created_at", "call_id"],
            postgresql_where=sa.text("history IS NOT NULL"),
            postgresql_concurrently=True,
        )
        op.create_index("ix_recordings_oldest", "recordings", ["created_at", "call_id"], postgresql_concurrently=True)
        op.create_index(
            "ix_calls_recording_url",
            "calls",
            ["ended_at", "id"],
            postgresql_where=sa.text("recording_url IS NOT NULL"),
            postgresql_concurrently=True,
        )
        op.create_index(
            "ix_deliveries_unsent",
            "deliveries",
            ["status", sa.text("id DESC")],
            postgresql_where=sa.text("status <> 'delivered'"),
            postgresql_concurrently=True,
        )
        for table, settings in _SETTINGS.items():
            op.execute(f"ALTER TABLE {table} SET ({settings})")


def downgrade() -> None:
    for table, settings in _SETTINGS.items():
        names = ", ".join(setting.split(" = ")[0] for setting in settings.split(", "))
        op.execute(f"ALTER TABLE {table} RESET ({names})")
    op.drop_index("ix_deliveries_unsent", "deliveries")
    op.drop_index("ix_calls_recording_url", "calls")
    op.drop_index("ix_recordings_oldest", "recordings")
    op.drop_index("ix_transcripts_made", "transcripts")
    op.drop_index("ix_calls_user_status", "calls")
