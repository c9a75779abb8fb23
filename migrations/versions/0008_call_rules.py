"""limits, destinations, calling hours, do-not-call, and keys that make an order count once

Revision ID: 0008
Revises: 0007
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_NOW = sa.text("now()")


def _of_user(table: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_user_id_users")
    return sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=name, ondelete="CASCADE")


def _limit(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=True)


def upgrade() -> None:
    op.create_table(
        "call_rules",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=True),
        _limit("calls_at_once"),
        _limit("calls_per_minute"),
        _limit("calls_per_day"),
        _limit("talk_minutes_per_day"),
        _limit("talk_minutes_per_month"),
        sa.Column("destinations", sa.Text(), nullable=True),
        sa.Column("hours", sa.Text(), nullable=True),
        sa.Column("record", sa.Boolean(), nullable=True),
        _of_user("call_rules"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_call_rules")),
        sa.UniqueConstraint("user_id", name=op.f("uq_call_rules_user_id")),
    )
    op.create_index(
        "uq_call_rules_installation",
        "call_rules",
        [sa.text("(user_id IS NULL)")],
        unique=True,
        postgresql_where=sa.text("user_id IS NULL"),
    )
    op.create_table(
        "talk_usage",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seconds", sa.Integer(), nullable=False),
        _of_user("talk_usage"),
        sa.PrimaryKeyConstraint("user_id", "began_at", name=op.f("pk_talk_usage")),
    )
    op.create_table(
        "do_not_call",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        _of_user("do_not_call"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_do_not_call")),
    )
    op.create_index("uq_do_not_call", "do_not_call", ["number", sa.text("coalesce(user_id, '')")], unique=True)
    op.create_index("ix_do_not_call_user", "do_not_call", ["user_id", "id"])
    op.create_table(
        "idempotency_keys",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("body_sha256", sa.Text(), nullable=False),
        sa.Column("call_id", sa.Text(), nullable=False),
        sa.Column("warning", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        _of_user("idempotency_keys"),
        sa.PrimaryKeyConstraint("user_id", "key", name=op.f("pk_idempotency_keys")),
    )
    op.add_column("calls", sa.Column("record", sa.Boolean(), server_default=sa.text("true"), nullable=False))
    op.add_column("calls", sa.Column("waits_for_hours", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("calls", sa.Column("dial_after", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    for column in ("dial_after", "waits_for_hours", "record"):
        op.drop_column("calls", column)
    for table in ("idempotency_keys", "do_not_call", "talk_usage", "call_rules"):
        op.drop_table(table)
