"""The worker's tasks on a real PostgreSQL, with a provider that behaves as badly as real ones do."""

import asyncio
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select, update

from app.models import CallEventRow, Recording, Task
from app.telephony import base, simulator
from app.telephony.base import CallEvent, CallStatus, Snapshot
from app.telephony.simulator import Simulator
from app.transcription.base import TranscriptionError
from app.transcription.whisper import WhisperRecognizer
from tests.integration.house import SAID, Heard, House, MakeHouse, Scripted, completed, ended
from worker import dial

AUDIO = Path(__file__).parents[1] / "audio"


async def test_a_call_from_dial_to_transcript(house_with: MakeHouse) -> None:
    house = await completed(await house_with(Scripted(recording=AUDIO / "call_callback.wav")))
    await house.run("fetch_recording")
    assert await house.open_tasks() == ["transcribe"]
    async with house.context.db.transaction() as session:
        recording = await session.get_one(Recording, house.call_id)
    assert recording.size_bytes == (AUDIO / "call_callback.wav").stat().st_size
    await house.run("transcribe")
    assert await house.open_tasks() == []
    transcript = await house.transcript()
    assert (transcript.status, transcript.outcome, transcript.language) == ("ready", "Callback requested", "en")
    assert transcript.engine == "a test's, rules"
    assert (await house.call()).provider_reference == "ref-1"


# Dialling


async def test_a_refused_order_fails_with_the_reason(house_with: MakeHouse) -> None:
    house = await house_with(Scripted(placing=base.Rejected("No credit left")))
    await house.run("dial")
    call = await house.call()
    assert (call.status, call.failure) == ("failed", "No credit left")
    assert (await house.transcript()).failure == "No credit left"


@pytest.mark.parametrize("lost", [base.Unknown("timed out"), RuntimeError("the adapter has a bug")])
async def test_a_lost_answer_is_asked_about_and_never_repeated(
    house_with: MakeHouse, lost: base.PlaceResult | Exception
) -> None:
    provider = Scripted(placing=lost, snapshot=ended())
    house = await house_with(provider)
    await house.run("dial")
    assert await house.open_tasks() == ["track"], "the dial is spent"
    await house.run("track")
    assert (await house.call()).status == "completed"
    assert len(provider.orders) == 1


async def test_an_order_that_never_arrived_fails_after_a_grace(house_with: MakeHouse) -> None:
    house = await house_with(Scripted(placing=base.Unknown("reset")))
    await house.run("dial")
    await house.run("track")
    assert (await house.call()).status == "dialing", "it may still be on its way"
    await house.age(60)
    await house.run("track")
    call = await house.call()
    assert call.status == "failed"
    assert "not dialled again" in (call.failure or "")
    assert len(house.provider.orders) == 1
    assert await house.open_tasks() == []


async def test_a_process_that_was_frozen_does_not_send(house_with: MakeHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    house = await house_with()
    clock = iter([0.0, 100.0])
    monkeypatch.setattr(dial, "monotonic", lambda: next(clock))
    await house.run("dial")
    assert house.provider.orders == []
    assert await house.open_tasks() == ["track"]


async def test_only_one_of_two_workers_dials(house_with: MakeHouse) -> None:
    house = await house_with()
    await asyncio.gather(*(house.run("dial") for _ in range(2)), return_exceptions=True)
    assert len(house.provider.orders) == 1


# Following


async def test_a_provider_that_is_away_is_asked_again(house_with: MakeHouse) -> None:
    house = await house_with(Scripted(snapshot=base.ProviderError("connection refused")))
    await house.run("dial")
    for _ in range(20):
        await house.run("track")
    assert (await house.call()).status == "dialing"
    assert await house.open_tasks() == ["track"]
    house.provider.snapshot = ended(CallStatus.COMPLETED)
    await house.run("track")
    assert (await house.call()).status == "completed"


@pytest.mark.parametrize("snapshot", [Snapshot(()), base.ProviderError("connection refused")])
async def test_a_call_nobody_reports_on_is_hung_up_and_times_out(
    house_with: MakeHouse, snapshot: Snapshot | Exception
) -> None:
    house = await house_with(Scripted(snapshot=snapshot))
    await house.run("dial")
    await house.run("track")
    await house.age(3600)
    await house.run("track")
    call = await house.call()
    assert (call.status, call.failure) == ("timed_out", "No answer was reported in time")
    await house.run("hangup")
    assert len(house.provider.hangups) == 1
    assert (await house.transcript()).status == "failed"
    assert await house.open_tasks() == []


async def test_an_end_that_is_found_only_at_the_last_look_still_counts(house_with: MakeHouse) -> None:
    house = await house_with(Scripted(snapshot=Snapshot(())))
    await house.run("dial")
    await house.age(3600)
    house.provider.snapshot = ended()
    await house.run("track")
    assert (await house.call()).status == "completed"


async def talking(house_with: MakeHouse) -> House:
    up = Snapshot((CallEvent("answered", CallStatus.IN_PROGRESS, datetime.now(UTC)),))
    house = await house_with(Scripted(snapshot=up))
    await house.run("dial")
    await house.run("track")
    assert (await house.call()).status == "in_progress"
    return house


async def test_a_call_that_is_up_for_too_long_is_cut(house_with: MakeHouse) -> None:
    house = await talking(house_with)
    await house.age(4 * 3600)
    await house.run("track")
    await house.run("hangup")
    assert len(house.provider.hangups) == 1
    assert (await house.call()).status == "in_progress", "its end is the provider's to tell"
    house.provider.snapshot = ended()
    await house.run("track")
    assert (await house.call()).status == "completed"


async def test_a_call_whose_cut_is_never_reported_times_out(house_with: MakeHouse) -> None:
    house = await talking(house_with)
    await house.age(4 * 3600)
    await house.run("track")
    await house.age(60)
    await house.run("track")
    assert (await house.call()).status == "timed_out"
    assert await house.open_tasks() == ["fetch_recording"], "what was said until then is worth having"


async def test_an_adapter_with_a_bug_ends_the_call_in_the_end(house_with: MakeHouse) -> None:
    house = await house_with(Scripted(snapshot=KeyError("a bug")))
    await house.run("dial")
    await house.run_until_given_up("track")
    assert (await house.call()).status == "failed"
    assert await house.open_tasks() == []


async def test_the_simulator_on_the_same_tasks(house_with: MakeHouse, tmp_path: Path) -> None:
    house = await house_with(Simulator(tmp_path, speed=1000), customer="15005550004")
    await house.run("dial")
    while await house.open_tasks():
        await house.run("track")
    call = await house.call()
    assert (call.status, call.hangup_cause) == ("failed", "unallocated_number")


# Recordings


async def test_no_recording_after_all(house_with: MakeHouse) -> None:
    house = await completed(await house_with(Scripted(recording=base.RecordingUnavailable("It was deleted"))))
    await house.run("fetch_recording")
    transcript = await house.transcript()
    assert (transcript.status, transcript.failure) == ("failed", "There is no usable recording: It was deleted")
    assert await house.open_tasks() == []


async def test_a_recording_that_comes_late(house_with: MakeHouse) -> None:
    house = await completed(await house_with(Scripted(recording=base.ProviderError("not yet"))))
    await house.run("fetch_recording")
    assert (await house.transcript()).status == "pending"
    house.provider.recording = AUDIO / "call_callback.wav"
    await house.run("fetch_recording")
    assert await house.open_tasks() == ["transcribe"]


async def test_a_recording_that_never_comes(house_with: MakeHouse) -> None:
    house = await completed(await house_with(Scripted(recording=base.ProviderError("not yet"))))
    await house.run_until_given_up("fetch_recording")
    transcript = await house.transcript()
    assert (transcript.status, transcript.failure) == ("failed", "not yet")
    assert await house.open_tasks() == []


# Transcripts


async def recorded(house: House, recording: Path) -> House:
    house.provider.recording = recording
    await completed(house)
    await house.run("fetch_recording")
    return house


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "The recording is empty (0 bytes)"),
        (b"RIFF", "Check that the telephony provider's file is whole"),
        (b"\0" * 5000, "Check that the telephony provider's file is whole"),
        (b"<html>not found</html>", "led to a web page, not to audio"),
    ],
)
async def test_a_corrupt_recording(house_with: MakeHouse, tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "broken.wav").write_bytes(content)
    house = await recorded(await house_with(), tmp_path / "broken.wav")
    await house.run("transcribe")
    transcript = await house.transcript()
    assert transcript.status == "failed"
    assert reason in (transcript.failure or "")
    assert await house.open_tasks() == []


async def test_what_could_not_be_read_is_in_the_history(house_with: MakeHouse, tmp_path: Path) -> None:
    """A recording that was cut off is transcribed as far as it goes."""
    whole = (AUDIO / "call_callback.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    house = await recorded(await house_with(), tmp_path / "cut.wav")
    await house.run("transcribe")
    assert (await house.transcript()).status == "ready"
    call = await house.call()
    async with house.context.db.transaction() as session:
        details = await session.scalars(select(CallEventRow.detail).where(CallEventRow.call_id == call.id))
        assert any("promises 46.8 s; the file ends after 23.4 s" in (detail or "") for detail in details)


async def test_a_missing_model(house_with: MakeHouse, tmp_path: Path) -> None:
    recognizer = WhisperRecognizer("large-v3", tmp_path / "models")
    house = await recorded(await house_with(recognizer=recognizer), AUDIO / "call_callback.wav")
    await house.run("transcribe")
    transcript = await house.transcript()
    assert transcript.status == "failed"
    assert "ringback models fetch large-v3" in (transcript.failure or "")


async def test_an_endpoint_that_is_away_is_tried_again_and_then_given_up(house_with: MakeHouse) -> None:
    away = TranscriptionError("The speech endpoint cannot be reached", retryable=True)
    recognizer = Heard(away)
    house = await recorded(await house_with(recognizer=recognizer), AUDIO / "call_callback.wav")
    await house.run("transcribe")
    assert (await house.transcript()).status == "processing"
    recognizer.result = SAID
    await house.run("transcribe")
    assert (await house.transcript()).status == "ready"

    house = await recorded(await house_with(recognizer=Heard(away)), AUDIO / "call_callback.wav")
    await house.run_until_given_up("transcribe")
    transcript = await house.transcript()
    assert (transcript.status, transcript.failure) == ("failed", "The speech endpoint cannot be reached")
    assert await house.open_tasks() == []


async def test_a_stored_recording_that_is_gone(house_with: MakeHouse, tmp_path: Path) -> None:
    house = await recorded(await house_with(), simulator.CONVERSATIONS / "callback.wav")
    shutil.rmtree(tmp_path / "recordings")
    await house.run_until_given_up("transcribe")
    assert "is no longer in" in ((await house.transcript()).failure or "")


async def test_workers_that_die_with_a_task_again_and_again(house_with: MakeHouse) -> None:
    house = await recorded(await house_with(), simulator.CONVERSATIONS / "callback.wav")
    async with house.context.db.transaction() as session:
        await session.execute(update(Task).where(Task.call_id == house.call_id).values(attempts=99))
    await house.run("transcribe")
    transcript = await house.transcript()
    assert transcript.status == "failed"
    assert "several times" in (transcript.failure or "")
    assert await house.open_tasks() == []
