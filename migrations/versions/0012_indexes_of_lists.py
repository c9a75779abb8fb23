"""indexes for lists of all calls, of failed callbacks, and for words said

They are built while calls go on, because the tables may have millions of rows.

Revision ID: 0012
Revises: 0011
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_NAMES = (
    "uq_login_sessions_cookie",
    "ix_calls_newest",
    "ix_calls_customer_end",
    "ix_transcripts_newest",
    "ix_transcripts_outcome",
    "ix_transcripts_words",
    "ix_deliveries_failed",
)


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # An index that an interrupted build left behind is not valid.
        for name in _NAMES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.create_index(
            "uq_login_sessions_cookie",
            "login_sessions",
            ["cookie_sha256"],
            unique=True,
            postgresql_where=sa.text("cookie_sha256 IS NOT NULL"),
            postgresql_concurrently=True,
        )
        op.create_index(
            "ix_calls_newest",
            "calls",
            [sa.text("created_at DESC"), sa.text("id DESC")],
            postgresql_concurrently=True,
        )
        op.create_index(
            "ix_transcripts_newest",
            "transcripts",
            [sa.text("created_at DESC")],
            postgresql_include=["user_id", "status", "outcome"],
            postgresql_concurrently=True,
        )
        op.create_index(
            "ix_calls_customer_end",
            "calls",
            [sa.text("reverse(customer_number) text_pattern_ops")],
            postgresql_concurrently=True,
        )
        op.create_index(
            "ix_transcripts_outcome",
            "transcripts",
            ["outcome", sa.text("created_at DESC")],
            postgresql_where=sa.text("outcome IS NOT NULL"),
            postgresql_concurrently=True,
        )
        op.create_index(
            "ix_transcripts_words",
            "transcripts",
            [sa.text("jsonb_to_tsvector('simple'::regconfig, history, '[\"string\"]'::jsonb)")],
            postgresql_using="gin",
            postgresql_where=sa.text("history IS NOT NULL"),
            postgresql_concurrently=True,
        )
        op.create_index(
            "ix_deliveries_failed",
            "deliveries",
            ["user_id", sa.text("id DESC")],
            postgresql_where=sa.text("status = 'failed'"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    op.drop_index("ix_deliveries_failed", "deliveries")
    op.drop_index("ix_transcripts_words", "transcripts")
    op.drop_index("ix_transcripts_outcome", "transcripts")
    op.drop_index("ix_calls_customer_end", "calls")
    op.drop_index("ix_transcripts_newest", "transcripts")
    op.drop_index("ix_calls_newest", "calls")
    op.drop_index("uq_login_sessions_cookie", "login_sessions")
