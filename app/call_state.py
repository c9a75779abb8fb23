"""Statuses of a call, the moves between them, and the keys of our own events, as data. Pure: no I/O, no clock."""

from enum import StrEnum

from app.telephony.base import CallStatus

_S = CallStatus

TERMINAL = frozenset(
    {_S.COMPLETED, _S.BUSY, _S.NO_ANSWER, _S.FAILED, _S.CANCELED, _S.TIMED_OUT, _S.AFTER_HOURS, _S.ENDED}
)

UNANSWERED = frozenset({_S.BUSY, _S.NO_ANSWER, _S.CANCELED, _S.AFTER_HOURS})
"""Ends without a conversation, even if there is a recording. A failed call may have had a conversation."""


HANGING_UP = "hanging_up"
"""Key of the event that the provider was asked to end a call in progress."""

NOTE_KEY_PREFIX = "note:"
"""Prefix of the keys of events that are notes. A note changes nothing but the history."""

REPORT_KEY_PREFIX = "reported:"
"""Prefix of the keys of events that come from a report."""


class Mover(StrEnum):
    """Who makes a move."""

    DIALER = "dialer"
    """The worker that holds the call's dial attempt (`app.dial_attempts`)."""
    EVENT = "event"
    """An event of the provider, a cancellation, a timeout, or a worker that gives the call up."""
    REPORT = "report"
    """A report of another system (`app.reports`)."""


_EVENT_MOVES = {
    _S.QUEUED: frozenset({_S.CANCELED, _S.FAILED, _S.AFTER_HOURS}),
    _S.DIALING: frozenset({_S.RINGING, _S.IN_PROGRESS}) | TERMINAL,
    _S.RINGING: frozenset({_S.IN_PROGRESS}) | TERMINAL,
    # A call in progress was answered, so it cannot end as busy, unanswered or canceled.
    _S.IN_PROGRESS: frozenset({_S.COMPLETED, _S.FAILED, _S.TIMED_OUT}),
}

MOVES: dict[Mover, dict[CallStatus, frozenset[CallStatus]]] = {
    Mover.DIALER: {
        _S.QUEUED: frozenset({_S.DIALING}),
        # The provider refused the order for now, and has dialed nobody.
        _S.DIALING: frozenset({_S.QUEUED}),
    },
    Mover.EVENT: _EVENT_MOVES,
    Mover.REPORT: {
        **_EVENT_MOVES,
        # A call that only another system has is dialing once it is known. Of our own calls, that system may report
        # just the end.
        _S.QUEUED: TERMINAL | {_S.DIALING},
        # A call times out when no report came. A late report knows more.
        _S.TIMED_OUT: TERMINAL - {_S.TIMED_OUT},
    },
}
"""Every move that happens, by who makes it. What is not here does not happen."""

NOTED: frozenset[CallStatus] = frozenset({_S.RINGING})
"""Statuses whose events are recorded again while the call is in them: one leg rings, answers, then the other rings."""

WHY_NO_TRANSCRIPT: dict[CallStatus, str] = {
    _S.COMPLETED: "The call was answered but no recording was made of it",
    _S.BUSY: "The call was not answered: the line was busy",
    _S.NO_ANSWER: "The call was not answered",
    _S.FAILED: "The call could not be connected",
    _S.CANCELED: "The call was canceled",
    _S.TIMED_OUT: "The call timed out: the telephony provider reported no end to it",
    _S.AFTER_HOURS: "The call was refused out of hours",
    _S.ENDED: "The call is over, and no recording of it was reported",
}
"""The error that a client reads when a call ends in this status and there is nothing to transcribe."""

NOT_RECORDED = "The call was not recorded, as was ordered"
"""The same of a call that was ordered without a recording."""


def may_move(current: CallStatus, new: CallStatus, by: Mover) -> bool:
    """Whether a call in `current` may move to `new`."""
    return new in MOVES[by].get(current, ())


def sources(new: CallStatus, by: Mover) -> list[CallStatus]:
    """The statuses from which a call may move to `new`."""
    return [current for current in CallStatus if may_move(current, new, by)]


def may_note(current: CallStatus, new: CallStatus) -> bool:
    """Whether an event with the status that the call already has is recorded."""
    return current == new and new in NOTED
