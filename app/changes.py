"""Tells that something about a call has changed, so that a console shows it at once.

The transaction that changes a call notes it. Once it is committed, `Hints` publishes the call's id in Valkey. Whoever
subscribes reads the truth in PostgreSQL. Losing such a message costs a console seconds.
"""

from sqlalchemy.ext.asyncio import AsyncSession

CHANNEL = "ringback:changes"
"""The channel in Valkey. A message is the ids of calls, with blanks between."""

_NOTED = "changed_calls"


def note(session: AsyncSession, call_id: str) -> None:
    """Something about this call changes: its status, its history, its transcript, its recording or a callback."""
    session.info.setdefault(_NOTED, set()).add(call_id)


def take(session: AsyncSession) -> set[str]:
    """What a committed session has noted."""
    noted: set[str] = session.info.pop(_NOTED, set())
    return noted
