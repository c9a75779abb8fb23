"""Workers are killed and ARI misbehaves in the middle of calls: nobody is called twice, every call ends with the truth,
and nothing is left behind. `test_crashes.py` does the same with an Asterisk that dies.

These tests share one installation, which reaches Asterisk through a proxy. Most faults concern only the call of one
agent, so independent calls run at once.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
import soundfile
from sqlalchemy import select

from app.call_state import TERMINAL
from app.engine_models import ListenerRow
from app.models import Call
from app.telephony.base import CallRef, Rejected
from lab.proxy import Fault, FaultyProxy
from tests.asterisk.lab_installation import PATIENCE_SECONDS, Lab, LabInstallation, MakeProvider, eventually
from tests.provider_contract import new_order


@pytest.fixture(scope="module")
async def shared_proxy(lab: Lab) -> AsyncIterator[FaultyProxy]:
    started = FaultyProxy(lab.server.url)
    await started.start()
    yield started
    await started.stop()


@pytest.fixture
def proxy(shared_proxy: FaultyProxy) -> Iterator[FaultyProxy]:
    """The proxy, without the faults that a test adds."""
    yield shared_proxy
    for fault in shared_proxy.faults:
        if fault.gate is not None:
            fault.gate.set()
    shared_proxy.faults.clear()


@pytest.fixture(scope="module")
async def shared_installation(
    lab: Lab, shared_proxy: FaultyProxy, cheap_speech: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[LabInstallation]:
    opened = LabInstallation(
        lab, tmp_path_factory.mktemp("outages"), RINGBACK_ASTERISK_URL=shared_proxy.url, **cheap_speech
    )
    try:
        await opened.open("calls-1")
        yield opened
    finally:
        await opened.close()


@pytest.fixture
async def installation(shared_installation: LabInstallation) -> LabInstallation:
    """An installation that reaches Asterisk through the proxy. One worker dials and has the event stream."""
    await one_worker(shared_installation)
    return shared_installation


async def one_worker(installation: LabInstallation) -> None:
    """Start a worker if a test has killed all, and wait until it has the event stream."""
    if not installation.dialing():
        start_worker(installation)
    await eventually(lambda: leader(installation))


def start_worker(installation: LabInstallation) -> None:
    installation.installation.start_worker(f"calls-{len(installation.installation.processes)}", "calls")


async def kill_workers(
    installation: LabInstallation, only: str = "", *, number: signal.Signals = signal.SIGKILL
) -> None:
    """Kill all calls workers, or the one with this name in the log."""
    for name, process in installation.dialing().items():
        if only in (installation.installation.data_dir / f"{name}.log").read_text():
            process.send_signal(number)
            if number == signal.SIGKILL:
                await asyncio.to_thread(process.wait)


async def leader(installation: LabInstallation) -> ListenerRow | None:
    """The worker that has the event stream."""
    async with installation.db.transaction() as session:
        row = (await session.scalars(select(ListenerRow))).one_or_none()
        alive = "".join(
            (installation.installation.data_dir / f"{name}.log").read_text() for name in installation.dialing()
        )
        return row if row and row.connected_since and f"calls-{row.worker_id.hex[:6]}" in alive else None


STEPS: dict[str, tuple[str, str, str]] = {
    # Where the kill happens: method, end of the path, and part of the query that identifies the leg.
    "agent created": ("POST", "/channels/create", "-agent"),
    "agent shown": ("POST", "-agent/variable", ""),
    "agent dialed": ("POST", "-agent/dial", ""),
    "bridge made": ("POST", "/bridges", ""),
    "agent joined": ("POST", "/addChannel", "-agent"),
    "customer created": ("POST", "/channels/create", "-customer"),
    "customer joined": ("POST", "/addChannel", "-customer"),
    "customer dialed": ("POST", "-customer/dial", ""),
}


async def test_a_worker_killed_at_each_step(lab: Lab, proxy: FaultyProxy, installation: LabInstallation) -> None:
    """A call stops at each step, before and after the request arrives. Then every calls worker is killed, and another
    starts. It has until the customers hang up to take over. A step at which the worker gave up waiting before it was
    killed, because the machine was busy, is tried again."""
    open_steps = set(product(STEPS, (False, True)))
    while open_steps:
        open_steps -= await kill_at(open_steps, lab, proxy, installation)


async def kill_at(
    steps: set[tuple[str, bool]], lab: Lab, proxy: FaultyProxy, installation: LabInstallation
) -> set[tuple[str, bool]]:
    """Those of the steps at which the workers were killed."""
    await one_worker(installation)
    gate = asyncio.Event()
    calls, held = {}, {}
    for step, arrived in sorted(steps, key=lambda at: list(STEPS).index(at[0]), reverse=True):  # the longest first
        agent, (method, ending, part) = lab.number("100"), STEPS[step]
        matches = proxy.request(method, ending, part, agent=agent)
        held[step, arrived] = Fault(matches, gate=gate, lose_request=not arrived, lose_answer=arrived, times=1)
        proxy.faults.append(held[step, arrived])
        calls[step, arrived] = await installation.place(lab.number("218"), agent)

    async def all_stand_still() -> bool:
        return all(fault.hits for fault in held.values())

    await eventually(all_stand_still)
    await kill_workers(installation, number=signal.SIGSTOP)
    await asyncio.sleep(0.2)  # the proxy sees which connections were closed before
    killed_at = {at for at, fault in held.items() if fault.is_awaited}
    await kill_workers(installation)
    gate.set()
    start_worker(installation)
    ended = {at: await installation.ended(call_id) for at, call_id in calls.items()}
    await installation.nothing_is_left(*calls.values())
    for step, arrived in killed_at:
        call = ended[step, arrived]
        at = (step, "after it arrived" if arrived else "before it arrived")
        reached = lab.invites(str(call.agent_number)), lab.invites(call.customer_number)
        done = list(STEPS).index(step) + arrived  # how many steps reached Asterisk
        # If the agent's telephone rang, the next worker goes on, and has the dial attempt of the customer.
        joined = done == 8 or (step == "agent dialed" and arrived)
        assert reached == (int(done > 2), int(joined)), at
        assert call.status == ("completed" if joined else "failed"), (at, call.status, call.failure)
        assert (call.failure is None) == joined, at
    return killed_at


# Answers that are lost or wrong


@dataclass(frozen=True)
class FaultyCall:
    """A call, and the faults that it faulty_calls."""

    call: Call
    faults: list[Fault]


LOST_DIALS = list(product(("agent", "customer"), (False, True)))


@pytest.fixture(scope="module")
async def faulty_calls(
    lab: Lab, shared_proxy: FaultyProxy, shared_installation: LabInstallation
) -> dict[str, FaultyCall]:
    """A call for each kind of fault, some of them at once."""
    agents: dict[str, str] = {}
    faults: dict[str, list[Fault]] = {}

    def plan(name: str, *requests: tuple[str, str, str], **fault: Any) -> None:
        agents[name] = agent = lab.number("100")
        faults[name] = [Fault(shared_proxy.request(*request, agent=agent), **fault) for request in requests]

    for leg, arrived in LOST_DIALS:
        plan(f"{leg} {arrived}", ("POST", f"-{leg}/dial", ""), lose_answer=arrived, lose_request=not arrived)
    creates = [("POST", "/channels/create", f"-{leg}") for leg in ("agent", "customer")]
    plan("creates lost", *creates, lose_answer=True, times=2)
    for status in (500, 409):
        refused = [step for step in STEPS.values() if not step[1].endswith("/dial")]
        plan(f"refused {status}", *refused, status=status, times=1)
    plan("entering", ("POST", "/variable", ""), status=409, times=3)
    plan("gone", ("POST", "/variable", ""), status=404, times=1)

    # More at once, on a busy machine, take longer than the adapter waits.
    at_once = asyncio.Semaphore(3)

    async def run(name: str) -> FaultyCall:
        async with at_once:
            call_id = await shared_installation.place(lab.number("203"), agents[name])
            call = await shared_installation.ended(call_id)
        await shared_installation.nothing_is_left(call_id)
        await shared_installation.at_most_one_invite(call_id)
        return FaultyCall(call, faults[name])

    await one_worker(shared_installation)
    shared_proxy.faults += [fault for planned in faults.values() for fault in planned]
    results = await asyncio.gather(*map(run, faults))
    shared_proxy.faults.clear()
    return dict(zip(faults, results, strict=True))


@pytest.mark.parametrize(("leg", "arrived"), LOST_DIALS)
async def test_a_dial_whose_answer_is_lost_is_never_repeated(
    lab: Lab, faulty_calls: dict[str, FaultyCall], leg: str, arrived: bool
) -> None:
    found = faulty_calls[f"{leg} {arrived}"]
    call, (lost,) = found.call, found.faults
    assert call.status == ("completed" if arrived else "failed"), call.failure
    assert len(lost.hits) == 1
    assert lab.invites(str(call.agent_number)) == (1 if leg == "customer" or arrived else 0)
    assert lab.invites(call.customer_number) == int(arrived)


async def test_answers_to_creates_are_lost(faulty_calls: dict[str, FaultyCall]) -> None:
    found = faulty_calls["creates lost"]
    assert found.call.status == "completed", found.call.failure
    assert all(fault.hits for fault in found.faults)


@pytest.mark.parametrize("status", [500, 409])
async def test_an_asterisk_that_refuses_for_a_moment(faulty_calls: dict[str, FaultyCall], status: int) -> None:
    """Every kind of request fails once."""
    found = faulty_calls[f"refused {status}"]
    assert all(fault.hits for fault in found.faults) or found.call.status == "failed"
    if status == 500:
        assert found.call.status == "completed", found.call.failure


async def test_a_channel_that_shows_as_entered_before_it_is(faulty_calls: dict[str, FaultyCall]) -> None:
    """Until then, Asterisk answers 409 to every change of it."""
    found = faulty_calls["entering"]
    assert found.call.status == "completed", found.call.failure
    assert len(found.faults[0].hits) == 3


async def test_a_channel_that_is_gone_before_it_is_dialed(faulty_calls: dict[str, FaultyCall]) -> None:
    """As after a restart of Asterisk, while the listener connects again. The call waits in the queue."""
    found = faulty_calls["gone"]
    assert found.call.status == "completed", found.call.failure
    assert len(found.faults[0].hits) == 1


# The event stream


async def test_the_event_stream_is_cut_in_every_state(
    lab: Lab, proxy: FaultyProxy, installation: LabInstallation
) -> None:
    cut_at = {"agent:ringing": "100", "agent:answered": "100", "customer:ringing": "100", "answered": "100"}
    calls = {}
    for key, agent in cut_at.items():
        calls[key] = await installation.place(lab.number("206"), lab.number(agent))
        await installation.reached(calls[key], key)
        await proxy.cut_sockets()
    for call_id in calls.values():
        call = await installation.ends_well(call_id)
        assert (await installation.transcript(call_id)).status == "ready", call.id


async def test_what_happens_while_nobody_listens_is_read_back(
    lab: Lab, proxy: FaultyProxy, installation: LabInstallation
) -> None:
    """The customer leaves while the stream is away for a long time."""
    call_id = await installation.place(lab.number("202"), lab.number("100"))
    await installation.reached(call_id, "answered")
    no_events = Fault(proxy.request("GET", "/ari/events"), status=503)
    proxy.faults.append(no_events)
    await proxy.cut_sockets()
    call = await installation.ended(call_id)
    proxy.faults.remove(no_events)
    assert no_events.hits
    assert (call.status, call.ended_by) == ("completed", "customer")
    assert (await installation.transcript(call_id)).status == "ready"
    await installation.ends_well(call_id)


async def test_a_talk_whose_beginning_nobody_saw_is_kept_from_its_beginning(
    lab: Lab, proxy: FaultyProxy, installation: LabInstallation
) -> None:
    """The customer answers while the stream is away, which is noticed later. The agent leaves after 12 s in all."""
    customer, agent = lab.number("303"), lab.number("112")
    call_id = await installation.place(customer, agent)
    await installation.reached(call_id, "customer:dialed")
    no_events = Fault(proxy.request("GET", "/ari/events"), status=503)
    proxy.faults.append(no_events)
    await proxy.cut_sockets()
    await installation.reached(call_id, "answered")
    proxy.faults.remove(no_events)
    call = await installation.ended(call_id)
    assert (call.status, call.ended_by) == ("completed", "agent")
    samples, rate = soundfile.read(await installation.recording(call_id), always_2d=True)
    rang = {invite.number[-7:]: invite.at for invite in lab.phones.invites()}
    talked = (rang[agent[-7:]] - rang[customer[-7:]]).total_seconds() + 0.5 + 12 - 1.5
    assert len(samples) / rate > talked - 0.5, "so long the two talked, however late it was noticed"
    assert (await installation.transcript(call_id)).status == "ready"


async def test_a_leg_that_was_never_dialed_tells_nothing_of_its_call(
    lab: Lab, proxy: FaultyProxy, make_provider: MakeProvider
) -> None:
    """Asterisk refuses to dial the leg until it is given up, and its channel is deleted. The worker that did this knows
    that the call may be tried again."""
    provider = make_provider(url=proxy.url)
    order = new_order(lab.number("200"), lab.number("100"))
    after = new_order(lab.number("200"), lab.number("486"))
    proxy.faults.append(Fault(proxy.request("POST", f"{order.call_id}-agent/dial"), status=409))
    async with provider.listen() as reports, asyncio.timeout(PATIENCE_SECONDS):

        async def until_the_second_ends() -> set[str]:
            reported = set()
            async for report in reports:
                reported.add(report.call_id)
                if report.call_id == after.call_id and report.event.status in TERMINAL:
                    break
            return reported

        listening = asyncio.create_task(until_the_second_ends())
        given_up = await provider.place(order)
        assert isinstance(given_up, Rejected), given_up
        assert given_up.retry_after
        await provider.place(after)
        assert await listening == {after.call_id}
    await provider.hangup(CallRef(after.call_id, None))


async def test_an_asterisk_that_answers_slowly(lab: Lab, proxy: FaultyProxy, installation: LabInstallation) -> None:
    proxy.faults.append(Fault(lambda asked: True, delay=0.5))
    await installation.ends_well(await installation.place(lab.number("203"), lab.number("100")))


async def test_a_listener_that_dies_is_replaced(lab: Lab, installation: LabInstallation) -> None:
    for _ in range(2):
        start_worker(installation)
    first: ListenerRow = await eventually(lambda: leader(installation))
    calls = [await installation.place(lab.number("206"), lab.number("100")) for _ in range(3)]
    for call_id in calls:
        await installation.reached(call_id, "answered")
    await kill_workers(installation, only=f"calls-{first.worker_id.hex[:6]}")

    async def another() -> bool:
        now = await leader(installation)
        return now is not None and now.worker_id != first.worker_id

    await eventually(another)
    for call_id in calls:
        await installation.ends_well(call_id)
