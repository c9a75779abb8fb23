"""Fills an installation's tables with the calls of two years, quickly: without indexes, which are made at the end.

A call has four events, a transcript (two in five with words), mostly a recording, and three in ten have two callbacks.
The ids are as random as real ones, because an index of random ids costs more than one in order.
"""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

USERS = 200
_CALLS_AT_ONCE = 500_000
_TABLES = ("calls", "call_events", "transcripts", "recordings", "deliveries", "delivery_attempts")
_WORDS = 2000

_USERS = """
INSERT INTO users (id, email, password_hash)
SELECT 'USR_' || lpad(upper(to_hex(n)), 8, '0'), n || '@example.com', '' FROM generate_series(1, :users) n
"""
_DO_NOT_CALL = """
INSERT INTO do_not_call (number, user_id)
SELECT '9188' || lpad(n::text, 8, '0'), NULL FROM generate_series(1, 100000) n
"""
_TALK = """
INSERT INTO talk_usage (user_id, began_at, seconds)
SELECT users.id, began_at, 600
FROM users, generate_series(date_trunc('day', now()) - interval '60 days', now(), interval '15 minutes') AS began_at
"""
# Call number n is the n-th oldest.
_NEW = """
CREATE UNLOGGED TABLE filling AS
SELECT n, 'call_' || substr(md5(n::text), 1, 16) AS id,
       'USR_' || lpad(upper(to_hex(1 + n % :users)), 8, '0') AS user_id,
       now() - (1 - n::float8 / :of) * interval '730 days' - interval '2 hours' AS at,
       (ARRAY['completed', 'completed', 'no_answer', 'busy', 'failed'])[1 + (hashint8(n) & 1023) % 5] AS status
FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) n
"""
_FILL = (
    """
INSERT INTO calls (id, user_id, customer_number, agent_number, did, status, provider_reference, hangup_cause,
                   created_at, dialed_at, rang_at, agent_answered_at, answered_at, ended_at, callback_url)
SELECT id, user_id, '9199' || lpad((n * 7919 % 100000000)::text, 8, '0'), '918888888888', '911140000001', status,
       'simulated-' || md5(id), CASE status WHEN 'completed' THEN 'ANSWER' ELSE 'NOANSWER' END, at,
       at + interval '1 second', at + interval '2 seconds', at + interval '8 seconds',
       CASE status WHEN 'completed' THEN at + interval '15 seconds' END, at + interval '80 seconds',
       CASE WHEN n % 10 < 3 THEN 'https://example.com/callbacks' END
FROM filling
""",
    """
INSERT INTO call_events (call_id, key, status, happened_at)
SELECT id, key, CASE key WHEN 'ended' THEN filling.status ELSE key END, at
FROM filling, unnest(ARRAY['queued', 'ringing', 'in_progress', 'ended']) AS key
""",
    """
INSERT INTO transcripts (id, call_id, user_id, status, failure, summary, outcome, history, created_at, updated_at)
SELECT substr(md5('t' || n), 1, 24), id, user_id,
       CASE status WHEN 'completed' THEN 'ready' ELSE 'failed' END,
       CASE status WHEN 'completed' THEN NULL ELSE 'The call was not answered' END,
       CASE status WHEN 'completed' THEN 'They talked about the order' END,
       CASE status WHEN 'completed' THEN (ARRAY['Interested', 'Not interested', 'Callback requested'])[1 + n % 3] END,
       CASE status WHEN 'completed' THEN jsonb_build_array(
           jsonb_build_object('role', 'agent', 'start', 0, 'end', 5, 'content', 'hello order' || n || said),
           jsonb_build_object('role', 'customer', 'start', 5, 'end', 9, 'content', 'yes' || said)) END,
       at, at + interval '90 seconds'
FROM filling, LATERAL (
    SELECT string_agg(' word' || power(hashint8(n * 31 + i) & 1023, 2)::bigint % :words, '') AS said
    FROM generate_series(1, CASE filling.status WHEN 'completed' THEN 12 ELSE 0 END) i
) AS words
""",
    """
INSERT INTO recordings (call_id, storage_key, content_type, size_bytes, sha256, created_at)
SELECT id, id || '.wav', 'audio/wav', 1000000, md5(id) || md5(id), at + interval '85 seconds'
FROM filling WHERE status = 'completed'
""",
    """
WITH made AS (
    INSERT INTO deliveries (message_id, user_id, call_id, event, round, url, body, status, attempts, next_attempt_at,
                            last_answer, created_at, began_at, ended_at)
    SELECT 'msg_' || substr(md5(event || n), 1, 24), user_id, id, event, 0, 'https://example.com/callbacks',
           '{"event": "call.ended", "call_id": "", "customer_number": "", "status": "", "recording_url": "pending"}',
           'delivered', 1, at, '200', at, at, at + interval '1 second'
    FROM filling, unnest(ARRAY['call.ended', 'transcript.completed']) AS event
    WHERE n % 10 < 3
    RETURNING id, created_at
)
INSERT INTO delivery_attempts (delivery_id, succeeded, answer, milliseconds, ended_at)
SELECT id, true, '200', 40, created_at FROM made
""",
    "DROP TABLE filling",
)


async def fill(url: str, calls: int) -> None:
    """Fill the empty tables with so many calls, the oldest first."""
    # The pools of the server end a statement after 30 s.
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text("SET maintenance_work_mem = '1GB'"))
        await connection.execute(text("SET synchronous_commit = off"))
        await connection.execute(text(_USERS), {"users": USERS})
        await connection.execute(text(_DO_NOT_CALL))
        await connection.execute(text(_TALK))
        restore = await _drop_indexes(connection)
        for first in range(1, calls + 1, _CALLS_AT_ONCE):
            last = min(first + _CALLS_AT_ONCE - 1, calls)
            await connection.execute(text(_NEW), {"users": USERS, "of": calls, "first": first, "last": last})
            for statement in _FILL:
                await connection.execute(text(statement), {"words": _WORDS} if ":words" in statement else {})
        for statement in restore:
            await connection.exec_driver_sql(statement)
        for table in (*_TABLES, "do_not_call", "talk_usage"):
            await connection.exec_driver_sql(f"VACUUM ANALYZE {table}")
        await connection.exec_driver_sql("CHECKPOINT")
    await engine.dispose()


async def _drop_indexes(connection: AsyncConnection) -> list[str]:
    """Drop the indexes and foreign keys of the tables that are filled. Returns the statements that restore them."""
    names = "('" + "', '".join(_TABLES) + "')"
    found = await connection.exec_driver_sql(f"""
        SELECT conrelid::regclass::text AS of_table, conname AS name, contype, pg_get_constraintdef(oid) AS definition
        FROM pg_constraint
        WHERE contype IN ('p', 'u', 'f')
          AND (conrelid::regclass::text IN {names} OR confrelid::regclass::text IN {names})
        ORDER BY contype = 'f'
    """)
    constraints = list(found)
    for row in reversed(constraints):
        await connection.exec_driver_sql(f"ALTER TABLE {row.of_table} DROP CONSTRAINT IF EXISTS {row.name} CASCADE")
    indexes = list(
        await connection.exec_driver_sql(f"SELECT indexname, indexdef FROM pg_indexes WHERE tablename IN {names}")
    )
    for row in indexes:
        await connection.exec_driver_sql(f"DROP INDEX {row.indexname}")
    keys = [f"ALTER TABLE {row.of_table} ADD CONSTRAINT {row.name} {row.definition}" for row in constraints]
    return [
        *(key for key in keys if "FOREIGN" not in key),
        *(row.indexdef for row in indexes),
        *(key for key in keys if "FOREIGN" in key),
    ]
