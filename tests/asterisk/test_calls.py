"""Calls through the whole product on a real Asterisk: what was said, and how calls are ended."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import soundfile
from sqlalchemy import select

from app.engine_models import ListenerRow
from lab.voices import likeness, voice
from tests.acceptance.conftest import start
from tests.asterisk.lab_installation import Lab, LabInstallation, MakeInstallation, eventually
from tests.command import invoke
from tests.word_errors import normalized, word_errors

REFERENCE = json.loads((Path(__file__).parents[1] / "audio/call_callback.json").read_text())


@pytest.fixture(scope="module")
async def installation(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LabInstallation]:
    """An installation that recognizes speech."""
    opened = LabInstallation(lab, tmp_path_factory.mktemp("calls"))
    try:
        await opened.open("calls-1", "calls-2")
        yield opened
    finally:
        await opened.close()


@pytest.fixture(scope="module", autouse=True)
async def talks(lab: Lab, installation: LabInstallation) -> dict[str, str]:
    """Two long calls that talk while other tests run."""
    return {
        "reference": await installation.place(lab.number("248"), lab.number("100")),
        "recording": await installation.place(lab.number("212"), lab.number("100")),
    }


# Cancelling


@pytest.mark.parametrize(
    ("agent", "customer", "when", "status"),
    [
        ("302", "200", "dialing", "canceled"),
        ("300", "200", "agent:ringing", "canceled"),
        ("100", "300", "customer:ringing", "canceled"),
        ("100", "302", "customer:dialed", "canceled"),
        ("100", "200", "answered", "completed"),
    ],
)
async def test_cancel_works_in_every_state(
    lab: Lab, installation: LabInstallation, agent: str, customer: str, when: str, status: str
) -> None:
    call_id = await installation.place(customer_number := lab.number(customer), agent_number := lab.number(agent))
    await installation.reached(call_id, when)
    done = invoke(installation.installation.environment, "calls", "cancel", call_id)
    assert ("being hung up" if when == "answered" else "canceled") in done.stdout, done.stderr
    call = await installation.ended(call_id)
    assert (call.status, call.ended_by) == (status, None)
    assert call.hangup_cause == ("originator_cancel" if status == "canceled" else "normal_clearing")
    await installation.nothing_is_left(call_id)
    assert lab.invites(agent_number) == 1
    assert lab.invites(customer_number) == (1 if agent == "100" else 0)


async def test_a_call_that_talks_for_too_long_is_cut(lab: Lab, make_installation: MakeInstallation) -> None:
    installation = await make_installation("calls-1", RINGBACK_MAX_CALL_SECONDS="2")
    call_id = await installation.place(lab.number("200"), lab.number("100"))
    call = await installation.ended(call_id)
    assert (call.status, call.ended_by) == ("completed", None), call.failure
    assert "hanging_up" in await installation.events(call.id)
    await installation.nothing_is_left(call_id)


async def test_the_timeline_tells_the_sip_cause(lab: Lab, installation: LabInstallation) -> None:
    call_id = await installation.place(lab.number("486"), lab.number("100"))
    await installation.ended(call_id)
    shown = invoke(installation.installation.environment, "calls", "show", call_id).stdout
    for word in ("agent:answered", "connecting", "customer:dialed", "SIP 486, Q.850 17", "user_busy"):
        assert word in shown


# Listening


async def test_exactly_one_of_the_workers_listens(lab: Lab, installation: LabInstallation) -> None:
    async with installation.db.transaction() as session:
        (row,) = (await session.scalars(select(ListenerRow))).all()
    assert row.connected_since
    assert row.problem is None


async def test_ready_names_an_asterisk_that_is_lost(lab: Lab, make_installation: MakeInstallation) -> None:
    installation = await make_installation(
        "calls-1", RINGBACK_ASTERISK_URL="http://127.0.0.1:9", ready="/healthz", others=False
    )

    async def missing() -> list[str]:
        answer = await installation.api.get(f"{installation.installation.base_url}/readyz")
        return [part for part in answer.json()["missing"] if "cannot be reached" in part]

    (said,) = await eventually(missing)
    assert said.startswith("environment: Asterisk cannot be reached at http://127.0.0.1:9")
    assert "ringback providers check" in said


async def test_the_one_command_calls_nobody_by_itself(lab: Lab, tmp_path: Path) -> None:
    """Its demonstration call needs the simulator."""
    before = lab.phones.invites()
    settings = lab.server.settings() | {"RINGBACK_ASTERISK_APP": "the-one-command"}
    running = await asyncio.to_thread(start, tmp_path / "up", demo=True, settings=settings)
    try:
        assert "Calls are real: the provider environment dials" in running.output
        assert "demonstration" not in running.output
        assert "Ready for a call" in running.ringback("telephony", "check").stdout
        assert lab.phones.invites() == before
    finally:
        await asyncio.to_thread(running.stop)


# These tests are last, because their calls talk longest.


async def test_the_reference_conversation_is_transcribed_with_the_right_words_from_the_right_person(
    installation: LabInstallation, talks: dict[str, str]
) -> None:
    """The two sides are the voices of the lab's two telephones (`lab/phones.py`)."""
    call_id = talks["reference"]
    call = await installation.ended(call_id)
    assert (call.status, call.ended_by) == ("completed", "customer")
    transcript = await installation.transcript(call_id)
    assert transcript.status == "ready", transcript.failure
    assert transcript.outcome == REFERENCE["expected_outcome"]
    for role in ("agent", "customer"):
        said = normalized(" ".join(turn["content"] for turn in REFERENCE["turns"] if turn["role"] == role))
        recognized = normalized(" ".join(turn["content"] for turn in transcript.history or () if turn["role"] == role))
        assert word_errors(said, recognized) <= 0.15, f"{role}: {' '.join(recognized)}"
    print(f"\n{len(transcript.history or ())} turns of {len(REFERENCE['turns'])}")


async def test_a_recording_is_the_talk_agent_left_customer_right(
    lab: Lab, installation: LabInstallation, talks: dict[str, str]
) -> None:
    call_id = talks["recording"]
    call = await installation.ended(call_id)
    assert call.answered_at, call.failure
    assert call.ended_at
    talk = (call.ended_at - call.answered_at).total_seconds()
    samples, rate = soundfile.read(await installation.recording(call_id), always_2d=True)
    # The telephones of a busy machine send packets late or not at all, and Asterisk records none that do not come.
    assert talk - 3 < len(samples) / rate < talk + 0.5, "from the customer's answer to the end"
    for channel, side in enumerate(("agent", "customer")):
        assert likeness(samples[:, channel], voice(lab.phones, side)) > 0.8, side
        other = voice(lab.phones, "customer" if side == "agent" else "agent")
        assert likeness(samples[:, channel], other) < 0.5, f"{side} has the other's voice"
