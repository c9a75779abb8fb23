"""the customer's leg, and who listens to a provider

Revision ID: 0002
Revises: 0001
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BEFORE = "kind IN ('dial', 'track', 'fetch_recording', 'transcribe')"
_AFTER = "kind IN ('dial', 'connect', 'track', 'hangup', 'fetch_recording', 'transcribe')"


def upgrade() -> None:
    op.add_column("calls", sa.Column("did", sa.Text(), nullable=True))
    op.add_column("calls", sa.Column("customer_dialed_at", sa.DateTime(timezone=True), nullable=True))
    op.drop_constraint(op.f("ck_tasks_kind"), "tasks")
    op.create_check_constraint(op.f("ck_tasks_kind"), "tasks", _AFTER)
    op.create_table(
        "listeners",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("worker_id", sa.Uuid(), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("connected_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("provider", name=op.f("pk_listeners")),
    )


def downgrade() -> None:
    op.drop_table("listeners")
    op.execute("DELETE FROM tasks WHERE kind IN ('connect', 'hangup')")
    op.drop_constraint(op.f("ck_tasks_kind"), "tasks")
    op.create_check_constraint(op.f("ck_tasks_kind"), "tasks", _BEFORE)
    op.drop_column("calls", "customer_dialed_at")
    op.drop_column("calls", "did")
