"""Whatever dies in the middle of a call: nobody is called twice, it ends with the truth, nothing is left behind."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import soundfile
from sqlalchemy import select

from app.call_state import TERMINAL
from app.models import Call, ListenerRow, RecordingRow
from app.telephony.base import CallRef, ProviderError, Rejected
from lab.proxy import Fault, FaultyProxy
from tests.asterisk.lab_installation import (
    PATIENCE_SECONDS,
    Lab,
    LabInstallation,
    MakeInstallation,
    MakeProvider,
    eventually,
)
from tests.provider_contract import new_order


@pytest.fixture
async def proxy(lab: Lab) -> AsyncIterator[FaultyProxy]:
    started = FaultyProxy(lab.server.url)
    await started.start()
    yield started
    await started.stop()


@pytest.fixture
async def installation(proxy: FaultyProxy, make_installation: MakeInstallation) -> LabInstallation:
    """An installation that reaches Asterisk through the proxy."""
    return await make_installation("calls-1", RINGBACK_ASTERISK_URL=proxy.url)


async def kill_workers(installation: LabInstallation, only: str = "") -> None:
    """All that dial, or the one whose name in the log is this."""
    for name, process in installation.installation.processes.items():
        log = (installation.installation.data_dir / f"{name}.log").read_text()
        if name.startswith("calls") and only in log:
            process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(process.wait)


async def at_most_one_invite(lab: Lab, installation: LabInstallation, *calls: str) -> None:
    for call_id in calls:
        call = await installation.call(call_id)
        assert lab.invites(str(call.agent_number)) <= 1, call_id
        assert lab.invites(call.customer_number) <= 1, call_id


async def ends_well(lab: Lab, installation: LabInstallation, call_id: str, status: str = "completed") -> Call:
    call = await installation.ended(call_id)
    assert call.status == status, (call.status, call.failure)
    await installation.nothing_is_left(call_id)
    await at_most_one_invite(lab, installation, call_id)
    return call


STEPS: dict[str, tuple[str, str, str]] = {
    # what is killed at: method, end of the path, part of the query that tells the legs apart
    "agent created": ("POST", "/channels/create", "-agent"),
    "agent shown": ("POST", "-agent/variable", ""),
    "agent dialled": ("POST", "-agent/dial", ""),
    "bridge made": ("POST", "/bridges", ""),
    "agent joined": ("POST", "/addChannel", "-agent"),
    "customer created": ("POST", "/channels/create", "-customer"),
    "customer joined": ("POST", "/addChannel", "-customer"),
    "customer dialled": ("POST", "-customer/dial", ""),
}


@pytest.mark.parametrize("arrived", [False, True], ids=["before it arrived", "after it arrived"])
async def test_a_worker_killed_at_each_step(
    lab: Lab, proxy: FaultyProxy, installation: LabInstallation, arrived: bool
) -> None:
    """One call stands still at each step; then every calls worker is killed, and another started, which has until the
    customers hang up to take over."""
    gate = asyncio.Event()
    agents = {step: lab.number("100") for step in STEPS}
    for step, (method, ending, part) in STEPS.items():
        matches = proxy.request(method, ending, part, agent=agents[step])
        proxy.faults.append(Fault(matches, gate=gate, lose_request=not arrived, lose_answer=arrived, times=1))
    calls = {step: await installation.place(lab.number("218"), agent) for step, agent in agents.items()}
    held = list(proxy.faults)

    async def all_stand_still() -> bool:
        return all(fault.hits for fault in held)

    await eventually(all_stand_still)
    await kill_workers(installation)
    gate.set()
    installation.installation.start_worker("calls-2", "calls")
    ended = {step: await installation.ended(call_id) for step, call_id in calls.items()}
    await installation.nothing_is_left(*calls.values())
    for number, (step, call) in enumerate(ended.items()):
        reached = lab.invites(str(call.agent_number)), lab.invites(call.customer_number)
        done = number + arrived  # so many steps reached Asterisk
        # An agent whose telephone rang goes on with the next worker, who has the right to dial the customer.
        joined = done == 8 or (step == "agent dialled" and arrived)
        assert reached == (int(done > 2), int(joined)), step
        assert call.status == ("completed" if joined else "failed"), (step, call.status, call.failure)
        assert (call.failure is None) == joined, step


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
        call = await ends_well(lab, installation, call_id)
        assert (await installation.transcript(call_id)).status == "ready", call.id


async def test_what_happens_while_nobody_listens_is_read_back(
    lab: Lab, proxy: FaultyProxy, installation: LabInstallation
) -> None:
    """The customer leaves while the stream is away for long."""
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
    await ends_well(lab, installation, call_id)


async def test_a_talk_whose_beginning_nobody_saw_is_kept_from_its_beginning(
    lab: Lab, proxy: FaultyProxy, installation: LabInstallation
) -> None:
    """The customer answers while the stream is away, which is noticed later; the agent leaves after 8 s in all."""
    call_id = await installation.place(lab.number("303"), lab.number("108"))
    await installation.reached(call_id, "customer:dialed")
    no_events = Fault(proxy.request("GET", "/ari/events"), status=503)
    proxy.faults.append(no_events)
    await proxy.cut_sockets()
    await installation.reached(call_id, "answered")
    proxy.faults.remove(no_events)
    call = await installation.ended(call_id)
    assert (call.status, call.ended_by) == ("completed", "agent")
    samples, rate = soundfile.read(await installation.recording(call_id), always_2d=True)
    assert len(samples) / rate > 5.5, "so long the two talked, however late it was noticed"
    assert (await installation.transcript(call_id)).status == "ready"


async def test_asterisk_is_killed_and_started_again(lab: Lab, installation: LabInstallation) -> None:
    talking = await installation.place(lab.number("200"), lab.number("100"))
    await installation.reached(talking, "answered")
    await asyncio.sleep(8)  # so that there is something to hear
    waiting = await installation.place(lab.number("203"), lab.number("300"))
    await installation.reached(waiting, "agent:ringing")
    await asyncio.to_thread(lab.server.kill)
    later = await installation.place(lab.number("203"), lab.number("100"))
    await asyncio.sleep(2)
    await asyncio.to_thread(lab.server.start)
    lost = await installation.ended(waiting)
    assert lost.status == "failed"
    assert "no longer knows this call" in (lost.failure or "")
    ended = await ends_well(lab, installation, talking)
    assert ended.failure == "The end itself was not seen"
    assert (await installation.transcript(talking)).status == "ready", "what was recorded until then is used"
    await ends_well(lab, installation, later)
    await at_most_one_invite(lab, installation, waiting, talking, later)


async def test_asterisk_is_killed_before_it_wrote_any_of_the_talk(lab: Lab, installation: LabInstallation) -> None:
    """It writes a second at a time. Whether that long had passed is not left to the speed of this machine."""
    call_id = await installation.place(lab.number("200"), lab.number("100"))
    await installation.reached(call_id, "answered")
    await asyncio.to_thread(lab.server.kill)
    os.truncate(lab.server.recording_folder / f"{call_id}.raw", 0)
    await asyncio.to_thread(lab.server.start)
    await ends_well(lab, installation, call_id)
    transcript = await installation.transcript(call_id)
    assert (transcript.status, transcript.failure) == (
        "failed",
        "There is no usable recording: Asterisk wrote nothing of this call: it was stopped, or no sound reached it",
    )
    async with installation.db.transaction() as session:
        assert await session.get(RecordingRow, call_id) is None, "there is nothing to download"


async def test_an_asterisk_that_is_only_starting_is_not_believed_to_know_nothing(
    lab: Lab, make_provider: MakeProvider
) -> None:
    """For a moment its web server runs without ARI, and answers 404 to whatever it is asked."""
    provider = make_provider()
    ref = CallRef("call_00000000starting", None)
    recording = lab.server.recording_folder / f"{ref.call_id}.raw"
    await asyncio.to_thread(lab.server.kill)
    recording.write_bytes(bytes(32_000))
    starting = asyncio.create_task(asyncio.to_thread(lab.server.start))

    async def discarded() -> bool:
        with suppress(ProviderError):
            await provider.discard_recording(ref)
            return True
        return False

    await eventually(discarded)
    assert not recording.exists(), "who was told that it is gone may rely on it"
    await starting


async def test_a_leg_that_was_never_dialled_tells_nothing_of_its_call(
    lab: Lab, proxy: FaultyProxy, make_provider: MakeProvider
) -> None:
    """Asterisk takes no dial of it for so long that it is given up, and its channel deleted. Whoever did that knows
    that the call may be tried again."""
    provider = make_provider(url=proxy.url)
    order = new_order(lab.number("200"), lab.number("100"))
    after = new_order(lab.number("200"), lab.number("486"))
    proxy.faults.append(Fault(proxy.request("POST", f"{order.call_id}-agent/dial"), status=409))
    async with provider.listen() as reports, asyncio.timeout(PATIENCE_SECONDS):

        async def until_the_second_ends() -> set[str]:
            told = set()
            async for report in reports:
                told.add(report.call_id)
                if report.call_id == after.call_id and report.event.status in TERMINAL:
                    break
            return told

        listening = asyncio.create_task(until_the_second_ends())
        given_up = await provider.place(order)
        assert isinstance(given_up, Rejected), given_up
        assert given_up.retry_after
        await provider.place(after)
        assert await listening == {after.call_id}
    await provider.hangup(CallRef(after.call_id, None))


async def test_an_asterisk_that_answers_slowly(lab: Lab, proxy: FaultyProxy, installation: LabInstallation) -> None:
    proxy.faults.append(Fault(lambda asked: True, delay=0.5))
    await ends_well(lab, installation, await installation.place(lab.number("203"), lab.number("100")))


async def test_an_asterisk_that_freezes(lab: Lab, installation: LabInstallation) -> None:
    """It takes requests and answers none, for longer than we wait for an answer."""
    call_id = await installation.place(lab.number("203"), lab.number("100"))
    await installation.reached(call_id, "answered")
    lab.server.freeze()
    later = await installation.place(lab.number("203"), lab.number("100"))
    await asyncio.sleep(12)
    lab.server.thaw()
    await ends_well(lab, installation, call_id)
    await ends_well(lab, installation, later)


@pytest.mark.parametrize("status", [500, 409])
async def test_an_asterisk_that_refuses_for_a_moment(
    lab: Lab, proxy: FaultyProxy, installation: LabInstallation, status: int
) -> None:
    """Every kind of request once."""
    for method, ending, part in STEPS.values():
        if not ending.endswith("/dial"):
            proxy.faults.append(Fault(proxy.request(method, ending, part), status=status, times=1))
    call_id = await installation.place(lab.number("203"), lab.number("100"))
    call = await installation.ended(call_id)
    assert all(fault.hits for fault in proxy.faults) or call.status == "failed"
    await installation.nothing_is_left(call_id)
    await at_most_one_invite(lab, installation, call_id)
    if status == 500:
        assert call.status == "completed"


async def test_a_channel_that_shows_as_entered_before_it_is(
    lab: Lab, proxy: FaultyProxy, installation: LabInstallation
) -> None:
    """Asterisk says 409 to whatever is set on it until then."""
    entering = Fault(proxy.request("POST", "/variable"), status=409, times=3)
    proxy.faults.append(entering)
    await ends_well(lab, installation, await installation.place(lab.number("203"), lab.number("100")))
    assert len(entering.hits) == 3


@pytest.mark.parametrize("leg", ["agent", "customer"])
@pytest.mark.parametrize("arrived", [False, True], ids=["before it arrived", "after it arrived"])
async def test_a_dial_whose_answer_is_lost_is_never_repeated(
    lab: Lab, proxy: FaultyProxy, installation: LabInstallation, leg: str, arrived: bool
) -> None:
    lost = Fault(proxy.request("POST", f"-{leg}/dial"), lose_answer=arrived, lose_request=not arrived)
    proxy.faults.append(lost)
    call_id = await installation.place(lab.number("203"), lab.number("100"))
    call = await ends_well(lab, installation, call_id, "completed" if arrived else "failed")
    assert len(lost.hits) == 1
    assert lab.invites(str(call.agent_number)) == (1 if leg == "customer" or arrived else 0)
    assert lab.invites(call.customer_number) == int(arrived)


async def test_answers_to_creates_are_lost(lab: Lab, proxy: FaultyProxy, installation: LabInstallation) -> None:
    for leg in ("agent", "customer"):
        proxy.faults.append(Fault(proxy.request("POST", "/channels/create", f"-{leg}"), lose_answer=True, times=2))
    await ends_well(lab, installation, await installation.place(lab.number("203"), lab.number("100")))


async def test_a_listener_that_dies_is_replaced(lab: Lab, make_installation: MakeInstallation) -> None:
    installation = await make_installation("calls-1", "calls-2", "calls-3")

    async def leader() -> ListenerRow | None:
        async with installation.db.transaction() as session:
            row = (await session.scalars(select(ListenerRow))).one_or_none()
            return row if row and row.connected_since else None

    first: ListenerRow = await eventually(leader)
    calls = [await installation.place(lab.number("206"), lab.number("100")) for _ in range(3)]
    for call_id in calls:
        await installation.reached(call_id, "answered")
    await kill_workers(installation, only=f"calls-{first.worker_id.hex[:6]}")

    async def another() -> bool:
        now = await leader()
        return now is not None and now.worker_id != first.worker_id

    await eventually(another)
    for call_id in calls:
        await ends_well(lab, installation, call_id)
