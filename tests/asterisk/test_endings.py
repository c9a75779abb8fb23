"""What the far end does, on each leg, and what the product says about it. Through the whole product."""

import asyncio
from dataclasses import dataclass

import pytest

from app.models import Call
from tests.asterisk.lab_installation import Lab, LabInstallation


@dataclass(frozen=True)
class Row:
    """The behaviour of both telephones (`lab/phones.xml`), and how the call must end."""

    agent: str
    customer: str
    status: str
    hangup_cause: str
    ended_by: str | None = None
    failure: str | None = None
    talk: float | None = None
    """The least number of seconds."""
    customer_rang: bool = True


# An agent who leaves stays far longer than connecting the customer takes, however busy the machine is.
AGENT, CUSTOMER, RINGS = "100", "200", "300"

ROWS = {
    "agent busy": Row("486", CUSTOMER, "busy", "user_busy", None, "The agent's line is busy", customer_rang=False),
    "agent rings for ever": Row(
        RINGS, CUSTOMER, "no_answer", "no_answer", None, "The agent did not answer", None, False
    ),
    "agent declines": Row("603", CUSTOMER, "no_answer", "call_rejected", None, "The agent rejected", None, False),
    "agent unknown": Row("404", CUSTOMER, "failed", "unallocated_number", None, "not in service", None, False),
    "agent network": Row("503", CUSTOMER, "failed", "normal_circuit_congestion", None, "no free line", None, False),
    "agent unavailable": Row("480", CUSTOMER, "no_answer", "no_answer", None, "The agent did not answer", None, False),
    "agent silent": Row("302", CUSTOMER, "failed", "no_user_response", None, "could not be reached", None, False),
    "agent leaves early": Row("110", RINGS, "canceled", "originator_cancel", "agent", "The agent hung up before"),
    "agent answers, and leaves": Row("120", CUSTOMER, "completed", "normal_clearing", "agent", None, 1.0),
    "customer busy": Row(AGENT, "486", "busy", "user_busy", None, "The customer's line is busy"),
    "customer rings for ever": Row(AGENT, RINGS, "no_answer", "no_answer", None, "The customer did not answer"),
    "customer declines": Row(AGENT, "603", "no_answer", "call_rejected", None, "The customer rejected"),
    "customer unknown": Row(AGENT, "404", "failed", "unallocated_number", None, "not in service"),
    "customer network": Row(AGENT, "503", "failed", "normal_circuit_congestion", None, "no free line"),
    "customer unavailable": Row(AGENT, "480", "no_answer", "no_answer", None, "The customer did not answer"),
    "customer silent": Row(AGENT, "302", "failed", "no_user_response", None, "could not be reached"),
    "customer leaves early": Row(AGENT, "201", "completed", "normal_clearing", "customer", None, 1.0),
    "customer answers, and leaves": Row(AGENT, "203", "completed", "normal_clearing", "customer", None, 3.0),
    "early media is no answer": Row(AGENT, "301", "no_answer", "no_answer", None, "The customer did not answer"),
    "early media, then an answer": Row("120", "303", "completed", "normal_clearing", "agent", None, 0.5),
    "agent's early media is no answer": Row("301", CUSTOMER, "no_answer", "no_answer", None, "The agent", None, False),
}


@dataclass(frozen=True)
class Ended:
    call: Call
    agent: str
    customer: str


@pytest.fixture(scope="module")
async def ended(lab: Lab, installation: LabInstallation) -> dict[str, Ended]:
    """All calls at once."""

    async def run(row: Row) -> Ended:
        agent, customer = lab.number(row.agent), lab.number(row.customer)
        call_id = await installation.place(customer, agent)
        return Ended(await installation.ended(call_id), agent, customer)

    results = await asyncio.gather(*(run(row) for row in ROWS.values()))
    return dict(zip(ROWS, results, strict=True))


@pytest.mark.parametrize("name", ROWS)
async def test_the_truth_about_the_end(lab: Lab, ended: dict[str, Ended], name: str) -> None:
    row, found = ROWS[name], ended[name]
    call = found.call
    assert (call.status, call.hangup_cause, call.ended_by) == (row.status, row.hangup_cause, row.ended_by), call.failure
    if row.failure is not None:
        assert row.failure in (call.failure or "")
    assert call.ended_at
    assert call.dialed_at
    assert (call.answered_at is None) == (row.talk is None)
    if row.talk is not None and call.answered_at is not None:
        talk = (call.ended_at - call.answered_at).total_seconds()
        total = (call.ended_at - call.dialed_at).total_seconds()
        assert row.talk - 0.1 <= talk, "counted from the customer's answer"
        assert total >= talk + 0.9, "both telephones rang for half a second"
    assert lab.invites(found.agent) == 1
    assert lab.invites(found.customer) == (1 if row.customer_rang else 0)


async def test_nothing_is_left_at_asterisk(installation: LabInstallation, ended: dict[str, Ended]) -> None:
    await installation.nothing_is_left(*(found.call.id for found in ended.values()))


async def test_the_sip_cause_is_in_the_timeline(installation: LabInstallation, ended: dict[str, Ended]) -> None:
    assert ended["customer busy"].call.failure == "The customer's line is busy (SIP 486, Q.850 17)"


async def test_the_number_shown_is_on_the_wire(
    lab: Lab, installation: LabInstallation, ended: dict[str, Ended]
) -> None:
    found = ended["customer answers, and leaves"]
    shown = {invite.shown_in_from for invite in lab.phones.invites() if invite.number in (found.agent, found.customer)}
    assert len(shown) == 2
    assert all("<sip:+911204567890@" in header for header in shown), shown
