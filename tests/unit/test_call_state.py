"""The state machine, driven with every sequence that hypothesis can think of."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.call_state import NOTED, TERMINAL, WHY_NO_TRANSCRIPT, Mover, may_move, may_note, sources
from app.telephony.base import CallStatus

statuses = st.sampled_from(list(CallStatus))


def test_every_end_has_a_reason_why_there_is_no_transcript() -> None:
    assert set(WHY_NO_TRANSCRIPT) == TERMINAL


def test_only_the_dialer_moves_a_call_out_of_the_queue_to_dial_and_back() -> None:
    assert sources(CallStatus.QUEUED, Mover.DIALER) == [CallStatus.DIALING]
    assert sources(CallStatus.DIALING, Mover.DIALER) == [CallStatus.QUEUED]
    assert not sources(CallStatus.QUEUED, Mover.EVENT)
    assert not sources(CallStatus.DIALING, Mover.EVENT)
    assert not sources(CallStatus.QUEUED, Mover.REPORT)


@given(statuses, statuses, st.sampled_from(list(Mover)))
def test_only_a_report_leads_out_of_an_end(current: CallStatus, new: CallStatus, by: Mover) -> None:
    if may_move(current, new, by):
        assert current not in TERMINAL or (by is Mover.REPORT and current is CallStatus.TIMED_OUT)
        assert new is not current
    if may_note(current, new):
        assert new in NOTED
        assert new not in TERMINAL


@given(statuses)
def test_every_status_can_reach_an_end(status: CallStatus) -> None:
    reached, frontier = {status}, [status]
    while frontier:
        current = frontier.pop()
        for following in CallStatus:
            if following not in reached and may_move(current, following, Mover.EVENT):
                reached.add(following)
                frontier.append(following)
    assert reached & TERMINAL


class ReportedCall(RuleBasedStateMachine):
    """A call that was dialed, whose provider reports anything, in any order, any number of times."""

    def __init__(self) -> None:
        super().__init__()
        self.path = [CallStatus.DIALING]

    @rule(reported=statuses)
    def report(self, reported: CallStatus) -> None:
        if may_move(self.path[-1], reported, Mover.EVENT):
            self.path.append(reported)

    @invariant()
    def is_never_dialed_twice(self) -> None:
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
