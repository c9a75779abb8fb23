"""calls of which only reports tell are found by number, customer and date

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


def downgrade() -> None:
    op.drop_index("ix_calls_reported", table_name="calls")
    op.add_column("calls", sa.Column("report_key", sa.Text(), nullable=True))
    op.execute("UPDATE calls SET report_key = id WHERE only_reported")
    op.create_index(
        "uq_calls_report_key", "calls", ["report_key"], unique=True, postgresql_where=sa.text("report_key IS NOT NULL")
    )
    op.drop_column("calls", "reported_date")
    op.drop_column("calls", "only_reported")
