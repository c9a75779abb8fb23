"""several telephony providers, each a row; tasks in which users take turns

Revision ID: 0007
Revises: 0006

What environment variables configure becomes the provider `environment`. Every call so far was its call.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_NOW = sa.text("now()")


def upgrade() -> None:
    op.create_table(
        "providers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=True),
        sa.Column("options", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("secrets", sa.Text(), nullable=True),
        sa.Column("is_default", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("drained_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("calls_at_once", sa.Integer(), nullable=True),
        sa.Column("pace_calls", sa.Integer(), nullable=True),
        sa.Column("pace_seconds", sa.Float(), nullable=True),
        sa.Column("next_dial_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_providers")),
    )
    op.create_index(
        "uq_providers_default", "providers", ["is_default"], unique=True, postgresql_where=sa.text("is_default")
    )
    op.execute("INSERT INTO providers (name, is_default) VALUES ('environment', true)")
    op.add_column("dids", sa.Column("provider", sa.Text(), nullable=True))
    op.create_foreign_key(op.f("fk_dids_provider_providers"), "dids", "providers", ["provider"], ["name"])

    op.add_column("calls", sa.Column("provider", sa.Text(), server_default="environment", nullable=False))
    op.create_index(
        "ix_calls_up", "calls", ["provider"], postgresql_where=sa.text("ended_at IS NULL AND dialed_at IS NOT NULL")
    )
    op.create_index(
        "uq_calls_provider_reference",
        "calls",
        ["provider", "provider_reference"],
        unique=True,
        postgresql_where=sa.text("provider_reference IS NOT NULL"),
    )
    op.drop_index("ix_calls_live", "calls")
    op.create_index("ix_calls_live", "calls", ["user_id", "did_id"], postgresql_where=sa.text("ended_at IS NULL"))

    op.add_column("tasks", sa.Column("lane", sa.Text(), nullable=True))
    op.add_column("tasks", sa.Column("user_id", sa.Text(), nullable=True))
    op.execute("""
        UPDATE tasks SET
            lane = CASE kind WHEN 'dial' THEN 'dial:environment' ELSE kind END,
            user_id = calls.user_id
        FROM calls WHERE calls.id = tasks.call_id AND tasks.kind IN ('dial', 'transcribe', 'deliver')
    """)
    op.create_index(
        "ix_tasks_lane", "tasks", ["lane", "user_id", "due_at"], postgresql_where=sa.text("lane IS NOT NULL")
    )
    op.create_table(
        "turns",
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_turns_user_id_users"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("lane", "user_id", name=op.f("pk_turns")),
    )
    op.execute("DELETE FROM listeners")  # their provider's name was the adapter's


def downgrade() -> None:
    op.drop_table("turns")
    op.drop_index("ix_tasks_lane", "tasks")
    op.drop_column("tasks", "user_id")
    op.drop_column("tasks", "lane")
    op.drop_index("ix_calls_live", "calls")
    op.create_index(
        "ix_calls_live",
        "calls",
        ["user_id", "did_id"],
        postgresql_where=sa.text("ended_at IS NULL AND did_id IS NOT NULL"),
    )
    op.drop_index("uq_calls_provider_reference", "calls")
    op.drop_index("ix_calls_up", "calls")
    op.drop_column("calls", "provider")
    op.drop_constraint(op.f("fk_dids_provider_providers"), "dids", type_="foreignkey")
    op.drop_column("dids", "provider")
    op.drop_table("providers")
