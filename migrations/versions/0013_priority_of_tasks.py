"""a user's tasks of one lane have a priority: transcripts of fresh calls go before those that are made again

Revision ID: 0013
Revises: 0012
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_IN_LANES = sa.text("lane IS NOT NULL")


def upgrade() -> None:
    op.add_column("tasks", sa.Column("priority", sa.SmallInteger(), server_default=sa.text("0"), nullable=False))
    op.drop_index("ix_tasks_lane", "tasks")
    op.create_index("ix_tasks_lane", "tasks", ["lane", "user_id", "priority", "due_at"], postgresql_where=_IN_LANES)


def downgrade() -> None:
    op.drop_index("ix_tasks_lane", "tasks")
    op.create_index("ix_tasks_lane", "tasks", ["lane", "user_id", "due_at"], postgresql_where=_IN_LANES)
    op.drop_column("tasks", "priority")
