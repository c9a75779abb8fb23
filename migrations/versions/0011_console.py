"""operators, browser logins, audit, attempts of callbacks, and what lists of all calls need

Revision ID: 0011
Revises: 0010
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_NOW = sa.text("now()")


def _time(name: str, *, optional: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=None if optional else _NOW, nullable=optional)


def upgrade() -> None:
    op.add_column("users", sa.Column("is_operator", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("login_sessions", sa.Column("cookie_sha256", sa.Text(), nullable=True))
    op.add_column("login_sessions", _time("numbers_until", optional=True))
    op.add_column("dids", sa.Column("label", sa.Text(), nullable=True))
    op.add_column("calls", _time("rang_at", optional=True))
    op.add_column("calls", _time("agent_answered_at", optional=True))
    op.add_column("recordings", sa.Column("peaks", sa.LargeBinary(), nullable=True))
    op.create_table(
        "delivery_attempts",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("delivery_id", sa.BigInteger(), nullable=False),
        sa.Column("succeeded", sa.Boolean(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("milliseconds", sa.Integer(), nullable=False),
        _time("ended_at"),
        sa.ForeignKeyConstraint(
            ["delivery_id"],
            ["deliveries.id"],
            name=op.f("fk_delivery_attempts_delivery_id_deliveries"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery_attempts")),
    )
    op.create_index(op.f("ix_delivery_attempts_delivery_id"), "delivery_attempts", ["delivery_id"])
    op.create_table(
        "audit_lines",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        _time("at"),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("address", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_lines")),
    )


def downgrade() -> None:
    op.drop_table("audit_lines")
    op.drop_table("delivery_attempts")
    op.drop_column("recordings", "peaks")
    op.drop_column("calls", "agent_answered_at")
    op.drop_column("calls", "rang_at")
    op.drop_column("dids", "label")
    op.drop_column("login_sessions", "numbers_until")
    op.drop_column("login_sessions", "cookie_sha256")
    op.drop_column("users", "is_operator")
