"""calls of which only reports tell are found by number, customer and date; one task of most kinds for each call

Revision ID: 0004
Revises: 0003
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_ONE = "kind IN ('track', 'fetch_recording', 'transcribe', 'deliver')"


def upgrade() -> None:
    op.add_column("calls", sa.Column("only_reported", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("calls", sa.Column("reported_date", sa.Text(), nullable=True))
    op.execute("UPDATE calls SET only_reported = true WHERE report_key IS NOT NULL")
    op.drop_index("uq_calls_report_key", table_name="calls")
    op.drop_column("calls", "report_key")
    op.create_index(
        "ix_calls_reported",
        "calls",
        ["user_id", "customer_number", sa.literal_column("created_at DESC")],
        postgresql_where=sa.text("only_reported"),
    )

    op.add_column(
        "deliveries", sa.Column("began_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)
    )
    op.execute("UPDATE deliveries SET began_at = created_at")
    # What retention deleted was left as a JSON null, which is not nothing.
    op.execute("UPDATE transcripts SET history = NULL WHERE history = 'null'::jsonb")

    op.drop_index("uq_tasks_deliver", table_name="tasks")
    op.execute(
        "DELETE FROM tasks a USING tasks b WHERE b.kind = a.kind AND b.call_id = a.call_id AND (b.attempts, b.id) < (a.attempts, a.id) "
        "AND a.kind IN ('track', 'fetch_recording', 'transcribe', 'deliver')"
    )
    op.create_index("uq_tasks_one", "tasks", ["call_id", "kind"], unique=True, postgresql_where=sa.text(_ONE))
    op.create_index("ix_tasks_call", "tasks", ["call_id"])


def downgrade() -> None:
    op.drop_index("ix_tasks_call", table_name="tasks")
    op.drop_index("uq_tasks_one", table_name="tasks")
    op.create_index("uq_tasks_deliver", "tasks", ["call_id"], unique=True, postgresql_where=sa.text("kind = 'deliver'"))
    op.drop_column("deliveries", "began_at")
    op.drop_index("ix_calls_reported", table_name="calls")
    op.add_column("calls", sa.Column("report_key", sa.Text(), nullable=True))
    op.execute("UPDATE calls SET report_key = id WHERE only_reported")
    op.create_index(
        "uq_calls_report_key", "calls", ["report_key"], unique=True, postgresql_where=sa.text("report_key IS NOT NULL")
    )
    op.drop_column("calls", "reported_date")
    op.drop_column("calls", "only_reported")
