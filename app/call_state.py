"""Statuses of a call and the legal moves between them, as data. Pure: no I/O, no clock."""

from app.telephony.base import CallStatus

_S = CallStatus

TERMINAL = frozenset(
    {_S.COMPLETED, _S.BUSY, _S.NO_ANSWER, _S.FAILED, _S.CANCELED, _S.TIMED_OUT, _S.AFTER_HOURS, _S.ENDED}
)

UNANSWERED = frozenset({_S.BUSY, _S.NO_ANSWER, _S.CANCELED, _S.AFTER_HOURS})
"""Ends without a conversation, whatever recording there is. A failed call may have had one that nobody saw."""

MOVES: dict[CallStatus, frozenset[CallStatus]] = {
    _S.QUEUED: frozenset({_S.DIALING, _S.CANCELED, _S.FAILED}),
    _S.DIALING: frozenset({_S.RINGING, _S.IN_PROGRESS}) | TERMINAL,
    _S.RINGING: frozenset({_S.IN_PROGRESS}) | TERMINAL,
    # Once both are joined the call was answered, however it ends.
    _S.IN_PROGRESS: frozenset({_S.COMPLETED, _S.FAILED, _S.TIMED_OUT}),
    **{status: frozenset() for status in TERMINAL},
}

CORRECTIONS: dict[CallStatus, frozenset[CallStatus]] = {
    # Another system may tell of any call of ours, and does not tell it step by step.
    _S.QUEUED: TERMINAL,
    # A call that timed out only had no report in time. A late report says more.
    _S.TIMED_OUT: TERMINAL - {_S.TIMED_OUT},
}
"""Moves that a report from outside may make besides: `app.reports`."""

NOTED: frozenset[CallStatus] = frozenset({_S.RINGING})
"""Statuses in which a further report of the same status is worth a line: one leg rings, answers, the other rings."""

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
"""What a poller is told when a call ends in this status and there is nothing to transcribe."""


def may_move(current: CallStatus, new: CallStatus, *, by_report: bool = False) -> bool:
    """Whether a call in `current` may go on to `new`."""
    return new in MOVES[current] or (by_report and new in CORRECTIONS.get(current, ()))


def may_note(current: CallStatus, new: CallStatus) -> bool:
    """Whether a report of the status the call is in already adds something to its timeline."""
    return current == new and new in NOTED
