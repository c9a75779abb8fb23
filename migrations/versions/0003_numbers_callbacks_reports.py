"""rented numbers, callbacks, reports of calls

Revision ID: 0003
Revises: 0002
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BEFORE = {
    ("tasks", "kind"): "'dial', 'connect', 'track', 'hangup', 'fetch_recording', 'transcribe'",
    ("tasks", "queue"): "'calls', 'transcripts'",
    ("workers", "queue"): "'calls', 'transcripts'",
    (
        "calls",
        "status",
    ): "'queued', 'dialing', 'ringing', 'in_progress', 'completed', 'busy', 'no_answer', 'failed', 'canceled', 'timed_out'",
}
_MORE = {
    ("tasks", "kind"): ", 'deliver'",
    ("tasks", "queue"): ", 'callbacks'",
    ("workers", "queue"): ", 'callbacks'",
    ("calls", "status"): ", 'after_hours'",
}


def _allow(states: dict[tuple[str, str], str]) -> None:
    for (table, column), allowed in states.items():
        op.drop_constraint(op.f(f"ck_{table}_{column}"), table)
        op.create_check_constraint(op.f(f"ck_{table}_{column}"), table, f"{column} IN ({allowed})")


def upgrade() -> None:
    _allow({place: states + _MORE[place] for place, states in _BEFORE.items()})
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_api_keys_user_id_users"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("sha256", name=op.f("uq_api_keys_sha256")),
    )
    op.create_index(op.f("ix_api_keys_user_id"), "api_keys", ["user_id"], unique=False)
    op.create_table(
        "dids",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("max_channels", sa.Integer(), nullable=False),
        sa.Column("allocated_channels", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("expired_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("inbound_callback_url", sa.Text(), nullable=True),
        sa.Column("inbound_transcript", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("allocated_channels BETWEEN 0 AND max_channels", name=op.f("ck_dids_allocated_channels")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_dids_user_id_users"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dids")),
        sa.UniqueConstraint("key", name=op.f("uq_dids_key")),
    )
    op.create_index("ix_dids_user", "dids", ["user_id", "id"], unique=False)
    op.create_table(
        "webhook_secrets",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_webhook_secrets_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_secrets")),
    )
    op.create_index(op.f("ix_webhook_secrets_user_id"), "webhook_secrets", ["user_id"], unique=False)
    op.create_table(
        "deliveries",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("call_id", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_answer", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('pending', 'delivered', 'failed')", name=op.f("ck_deliveries_status")),
        sa.ForeignKeyConstraint(
            ["call_id"], ["calls.id"], name=op.f("fk_deliveries_call_id_calls"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_deliveries_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("call_id", "event", "round", name=op.f("uq_deliveries_call_id")),
        sa.UniqueConstraint("message_id", name=op.f("uq_deliveries_message_id")),
    )
    op.create_index(
        "ix_deliveries_pending",
        "deliveries",
        ["call_id", "id"],
        unique=False,
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index("ix_deliveries_user_newest", "deliveries", ["user_id", sa.literal_column("id DESC")], unique=False)
    op.add_column("calls", sa.Column("did_id", sa.Text(), nullable=True))
    op.add_column("calls", sa.Column("callback_url", sa.Text(), nullable=True))
    op.add_column("calls", sa.Column("call_type", sa.Text(), server_default="C2C", nullable=False))
    op.add_column("calls", sa.Column("report_key", sa.Text(), nullable=True))
    op.add_column("calls", sa.Column("reported_seconds", sa.Integer(), nullable=True))
    op.add_column("calls", sa.Column("reported_talk_seconds", sa.Integer(), nullable=True))
    op.add_column("calls", sa.Column("recording_url", sa.Text(), nullable=True))
    op.create_index(
        "ix_calls_live",
        "calls",
        ["user_id", "did_id"],
        unique=False,
        postgresql_where=sa.text("ended_at IS NULL AND did_id IS NOT NULL"),
    )
    op.create_index(
        "uq_calls_report_key", "calls", ["report_key"], unique=True, postgresql_where=sa.text("report_key IS NOT NULL")
    )
    op.create_check_constraint(op.f("ck_calls_call_type"), "calls", "call_type IN ('C2C', 'inbound')")
    op.alter_column("calls", "agent_number", nullable=True)
    op.create_foreign_key(op.f("fk_calls_did_id_dids"), "calls", "dids", ["did_id"], ["id"])
    op.create_index("uq_tasks_deliver", "tasks", ["call_id"], unique=True, postgresql_where=sa.text("kind = 'deliver'"))
    op.add_column("transcripts", sa.Column("round", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("users", sa.Column("pool_channels", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("users", sa.Column("compat_callbacks", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.drop_index("ix_calls_user_newest", table_name="calls")
    op.create_index(
        "ix_calls_user_newest",
        "calls",
        ["user_id", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        postgresql_include=["status", "call_type", "customer_number", "agent_number", "did"],
    )
    op.add_column("transcripts", sa.Column("user_id", sa.Text(), nullable=True))
    op.execute("UPDATE transcripts SET user_id = calls.user_id FROM calls WHERE calls.id = transcripts.call_id")
    op.alter_column("transcripts", "user_id", nullable=False)
    op.create_foreign_key(
        op.f("fk_transcripts_user_id_users"), "transcripts", "users", ["user_id"], ["id"], ondelete="CASCADE"
    )
    op.create_index("ix_transcripts_user_status", "transcripts", ["user_id", "status"], postgresql_include=["call_id"])
    # Existing users get what a new user gets: 32 random bytes.
    op.execute(
        "INSERT INTO webhook_secrets (user_id, secret) SELECT id, 'whsec_' || encode("
        "uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()), 'base64') FROM users"
    )


def downgrade() -> None:
    op.execute("DELETE FROM calls WHERE agent_number IS NULL OR call_type <> 'C2C'")
    op.execute("UPDATE calls SET status = 'failed' WHERE status = 'after_hours'")
    op.execute("DELETE FROM tasks WHERE queue = 'callbacks'")
    op.execute("DELETE FROM workers WHERE queue = 'callbacks'")
    _allow(_BEFORE)
    op.drop_index("ix_transcripts_user_status", table_name="transcripts")
    op.drop_column("transcripts", "user_id")
    op.drop_index("ix_calls_user_newest", table_name="calls")
    op.create_index(
        "ix_calls_user_newest",
        "calls",
        ["user_id", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
    )
    op.alter_column("calls", "agent_number", nullable=False)
    op.drop_constraint(op.f("ck_calls_call_type"), "calls")
    op.drop_column("users", "compat_callbacks")
    op.drop_column("users", "pool_channels")
    op.drop_column("transcripts", "round")
    op.drop_index("uq_tasks_deliver", table_name="tasks", postgresql_where=sa.text("kind = 'deliver'"))
    op.drop_constraint(op.f("fk_calls_did_id_dids"), "calls", type_="foreignkey")
    op.drop_index("uq_calls_report_key", table_name="calls")
    op.drop_index(
        "ix_calls_live", table_name="calls", postgresql_where=sa.text("ended_at IS NULL AND did_id IS NOT NULL")
    )
    op.drop_column("calls", "recording_url")
    op.drop_column("calls", "reported_talk_seconds")
    op.drop_column("calls", "reported_seconds")
    op.drop_column("calls", "report_key")
    op.drop_column("calls", "call_type")
    op.drop_column("calls", "callback_url")
    op.drop_column("calls", "did_id")
    op.drop_index("ix_deliveries_user_newest", table_name="deliveries")
    op.drop_index("ix_deliveries_pending", table_name="deliveries", postgresql_where=sa.text("status = 'pending'"))
    op.drop_table("deliveries")
    op.drop_index(op.f("ix_webhook_secrets_user_id"), table_name="webhook_secrets")
    op.drop_table("webhook_secrets")
    op.drop_index("ix_dids_user", table_name="dids")
    op.drop_table("dids")
    op.drop_index(op.f("ix_api_keys_user_id"), table_name="api_keys")
    op.drop_table("api_keys")
