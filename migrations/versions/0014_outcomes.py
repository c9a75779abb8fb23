"""how sure an outcome is, its detail and fields, and outcomes of users' own

Revision ID: 0014
Revises: 0013
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("transcripts", sa.Column("certainty", sa.Float(), nullable=True))
    op.add_column("transcripts", sa.Column("detail", sa.Text(), nullable=True))
    op.add_column("transcripts", sa.Column("fields", postgresql.JSONB(), nullable=True))
    op.create_table(
        "outcome_sets",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("detailed", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("outcomes", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("fields", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_outcome_sets_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_outcome_sets")),
    )


def downgrade() -> None:
    op.drop_table("outcome_sets")
    op.drop_column("transcripts", "fields")
    op.drop_column("transcripts", "detail")
    op.drop_column("transcripts", "certainty")
