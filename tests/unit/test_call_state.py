"""The state machine, driven with every sequence that hypothesis can think of."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.call_state import MOVES, NOTED, TERMINAL, WHY_NO_TRANSCRIPT, may_move, may_note
from app.telephony.base import CallStatus

statuses = st.sampled_from(list(CallStatus))


def test_every_status_has_its_row_and_every_end_its_reason() -> None:
    assert set(MOVES) == set(CallStatus)
    assert set(WHY_NO_TRANSCRIPT) == TERMINAL


@given(statuses, statuses)
def test_nothing_leads_out_of_an_end_or_back_to_the_queue(current: CallStatus, new: CallStatus) -> None:
    if may_move(current, new):
        assert current not in TERMINAL
        assert new is not CallStatus.QUEUED
        assert new is not current
    if may_note(current, new):
        assert new in NOTED
        assert new not in TERMINAL


@given(statuses)
def test_every_status_can_reach_an_end(status: CallStatus) -> None:
    reached, frontier = {status}, [status]
    while frontier:
        for following in MOVES[frontier.pop()] - reached:
            reached.add(following)
            frontier.append(following)
    assert reached & TERMINAL


class ReportedCall(RuleBasedStateMachine):
    """A call to which a provider reports anything, in any order, any number of times."""

    def __init__(self) -> None:
        super().__init__()
        self.path = [CallStatus.QUEUED]

    @rule(reported=statuses)
    def report(self, reported: CallStatus) -> None:
        if may_move(self.path[-1], reported):
            self.path.append(reported)

    @invariant()
    def is_never_dialled_twice(self) -> None:
        assert self.path.count(CallStatus.DIALING) <= 1

    @invariant()
    def ends_at_most_once(self) -> None:
        ends = [status for status in self.path if status in TERMINAL]
        assert len(ends) <= 1
        assert not ends or self.path[-1] == ends[0]

    @invariant()
    def is_answered_before_it_completes_with_talk(self) -> None:
        if CallStatus.IN_PROGRESS in self.path:
            after = self.path[self.path.index(CallStatus.IN_PROGRESS) + 1 :]
            assert set(after) <= {CallStatus.COMPLETED, CallStatus.FAILED, CallStatus.TIMED_OUT}


TestReportedCall = ReportedCall.TestCase
