"""The worker's tasks on a real PostgreSQL, with a provider that fails as real ones do."""

import asyncio
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sqlalchemy import select, update

from app import outcome_sets, vocabulary
from app.engine_models import Task
from app.models import Call, CallEventRow, RecordingRow, User
from app.telephony import base, simulator
from app.telephony.base import CallEvent, CallStatus, Snapshot
from app.telephony.simulator import Simulator
from app.transcription.base import Audio, Recognition, SpeechRequest, TranscriptionError, Word
from app.transcription.outcome_set import OutcomeSet, OwnOutcome
from app.transcription.whisper import WhisperRecognizer
from tests.integration.call_runner import (
    SAID,
    CallRunner,
    MakeCallRunner,
    ScriptedProvider,
    StubRecognizer,
    completed,
    ended,
)
from worker import dial

AUDIO = Path(__file__).parents[1] / "audio"


async def test_a_call_from_dial_to_transcript(make_runner: MakeCallRunner) -> None:
    runner = await completed(await make_runner(ScriptedProvider(recording=AUDIO / "call_callback.wav")))
    await runner.run("fetch_recording")
    assert await runner.open_tasks() == ["transcribe"]
    async with runner.context.db.transaction() as session:
        recording = await session.get_one(RecordingRow, runner.call_id)
    assert recording.size_bytes == (AUDIO / "call_callback.wav").stat().st_size
    await runner.run("transcribe")
    assert await runner.open_tasks() == []
    transcript = await runner.transcript()
    assert (transcript.status, transcript.outcome, transcript.language) == ("ready", "Callback requested", "en")
    assert transcript.engine == "a test's, classifier"
    assert (await runner.call()).provider_reference == "ref-1"


async def test_the_recognizer_gets_the_callers_language_and_vocabulary(make_runner: MakeCallRunner) -> None:
    runner = await completed(await make_runner(ScriptedProvider(recording=AUDIO / "call_callback.wav")))
    async with runner.context.db.transaction() as session:
        call = await session.get_one(Call, runner.call_id)
        call.language = "hi-en"
        await vocabulary.replace(session, await session.get_one(User, call.user_id), ("Sunrise", "Priya"))
    await runner.run("fetch_recording")
    recognizer = StubRecognizer(SAID)
    runner.context = replace(runner.context, recognizer=recognizer)
    await runner.run("transcribe")
    assert recognizer.requests == [SpeechRequest(("hi", "en"), ("Sunrise", "Priya"))]


async def test_the_outcomes_are_those_that_the_calls_user_chose(make_runner: MakeCallRunner) -> None:
    runner = await completed(await make_runner(ScriptedProvider(recording=AUDIO / "call_callback.wav")))
    own = OwnOutcome("Ring again", examples=("Please phone me again tomorrow",))
    user_id = (await runner.call()).user_id
    async with runner.context.db.transaction() as session:
        await outcome_sets.save(session, user_id, OutcomeSet(outcomes=(own,)))
    await runner.run("fetch_recording")
    await runner.run("transcribe")
    transcript = await runner.transcript()
    assert transcript.outcome == "Ring again"
    assert transcript.certainty is not None
    assert 0.45 <= transcript.certainty <= 1


@pytest.mark.parametrize(("agent_channel", "role"), [(1, "agent"), (2, "customer")])
async def test_the_provider_says_which_channel_is_the_agent(
    make_runner: MakeCallRunner, tmp_path: Path, agent_channel: int, role: str
) -> None:
    """Only the first channel of this recording has sound."""
    sound, rate = soundfile.read(AUDIO / "call_callback.wav")
    soundfile.write(tmp_path / "first.wav", sound * [1, 0], rate)
    provider = ScriptedProvider(recording=tmp_path / "first.wav", agent_channel=agent_channel)
    runner = await completed(await make_runner(provider))

    class Loud(StubRecognizer):
        async def recognize(self, audio: Audio, request: SpeechRequest) -> Recognition:
            said = (Word("Hello", 0, 1),)
            return Recognition(tuple(said if np.any(channel) else () for channel in audio.channels), "en")

    runner.context = replace(runner.context, recognizer=Loud(SAID))
    await runner.run("fetch_recording")
    await runner.run("transcribe")
    (turn,) = (await runner.transcript()).history or []
    assert (turn["role"], turn["content"]) == (role, "Hello")


# Dialing


async def test_a_refused_order_fails_with_the_reason(make_runner: MakeCallRunner) -> None:
    runner = await make_runner(ScriptedProvider(placing=base.Rejected("No credit left")))
    await runner.run("dial")
    call = await runner.call()
    assert (call.status, call.failure) == ("failed", "No credit left")
    assert (await runner.transcript()).failure == "No credit left"


@pytest.mark.parametrize("lost", [base.Unknown("timed out"), RuntimeError("the adapter has a bug")])
async def test_a_lost_answer_is_asked_about_and_never_repeated(
    make_runner: MakeCallRunner, lost: base.PlaceResult | Exception
) -> None:
    provider = ScriptedProvider(placing=lost, snapshot=ended())
    runner = await make_runner(provider)
    await runner.run("dial")
    assert await runner.open_tasks() == ["track"], "the dial is spent"
    await runner.run("track")
    assert (await runner.call()).status == "completed"
    assert len(provider.orders) == 1


async def test_an_order_that_never_arrived_fails_after_a_grace(make_runner: MakeCallRunner) -> None:
    runner = await make_runner(ScriptedProvider(placing=base.Unknown("reset")))
    await runner.run("dial")
    await runner.run("track")
    assert (await runner.call()).status == "dialing", "it may still be on its way"
    await runner.age(60)
    await runner.run("track")
    call = await runner.call()
    assert call.status == "failed"
    assert "not dialed again" in (call.failure or "")
    assert len(runner.provider.orders) == 1
    assert await runner.open_tasks() == []


async def test_a_process_that_was_frozen_does_not_send(
    make_runner: MakeCallRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = await make_runner()
    clock = iter([0.0, 100.0])
    monkeypatch.setattr(dial, "monotonic", lambda: next(clock))
    await runner.run("dial")
    assert runner.provider.orders == []
    assert await runner.open_tasks() == ["track"]


async def test_only_one_of_two_workers_dials(make_runner: MakeCallRunner) -> None:
    runner = await make_runner()
    await asyncio.gather(*(runner.run("dial") for _ in range(2)), return_exceptions=True)
    assert len(runner.provider.orders) == 1


# Tracking


async def test_a_provider_that_is_away_is_asked_again(make_runner: MakeCallRunner) -> None:
    runner = await make_runner(ScriptedProvider(snapshot=base.ProviderError("connection refused")))
    await runner.run("dial")
    for _ in range(20):
        await runner.run("track")
    assert (await runner.call()).status == "dialing"
    assert await runner.open_tasks() == ["track"]
    runner.provider.snapshot = ended(CallStatus.COMPLETED)
    await runner.run("track")
    assert (await runner.call()).status == "completed"


@pytest.mark.parametrize("snapshot", [Snapshot(()), base.ProviderError("connection refused")])
async def test_a_call_nobody_reports_on_is_hung_up_and_times_out(
    make_runner: MakeCallRunner, snapshot: Snapshot | Exception
) -> None:
    runner = await make_runner(ScriptedProvider(snapshot=snapshot))
    await runner.run("dial")
    await runner.run("track")
    await runner.age(3600)
    await runner.run("track")
    call = await runner.call()
    assert (call.status, call.failure) == ("timed_out", "No answer was reported in time")
    await runner.run("hangup")
    assert len(runner.provider.hangups) == 1
    assert (await runner.transcript()).status == "failed"
    assert await runner.open_tasks() == []


async def test_an_end_that_is_found_only_at_the_last_look_still_counts(make_runner: MakeCallRunner) -> None:
    runner = await make_runner(ScriptedProvider(snapshot=Snapshot(())))
    await runner.run("dial")
    await runner.age(3600)
    runner.provider.snapshot = ended()
    await runner.run("track")
    assert (await runner.call()).status == "completed"


async def talking(make_runner: MakeCallRunner) -> CallRunner:
    up = Snapshot((CallEvent("answered", CallStatus.IN_PROGRESS, datetime.now(UTC)),))
    runner = await make_runner(ScriptedProvider(snapshot=up))
    await runner.run("dial")
    await runner.run("track")
    assert (await runner.call()).status == "in_progress"
    return runner


async def test_a_call_that_is_up_for_too_long_is_cut(make_runner: MakeCallRunner) -> None:
    runner = await talking(make_runner)
    await runner.age(4 * 3600)
    await runner.run("track")
    await runner.run("hangup")
    assert len(runner.provider.hangups) == 1
    assert (await runner.call()).status == "in_progress", "its end is the provider's to tell"
    runner.provider.snapshot = ended()
    await runner.run("track")
    assert (await runner.call()).status == "completed"


async def test_a_call_whose_cut_is_never_reported_times_out(make_runner: MakeCallRunner) -> None:
    runner = await talking(make_runner)
    await runner.age(4 * 3600)
    await runner.run("track")
    await runner.age(60)
    await runner.run("track")
    assert (await runner.call()).status == "timed_out"
    assert await runner.open_tasks() == ["fetch_recording"], "what was said until then is worth having"


async def test_an_adapter_with_a_bug_ends_the_call_in_the_end(make_runner: MakeCallRunner) -> None:
    runner = await make_runner(ScriptedProvider(snapshot=KeyError("a bug")))
    await runner.run("dial")
    await runner.run_until_given_up("track")
    assert (await runner.call()).status == "failed"
    assert await runner.open_tasks() == []


async def test_the_simulator_on_the_same_tasks(make_runner: MakeCallRunner, tmp_path: Path) -> None:
    runner = await make_runner(Simulator(tmp_path, speed=1000), customer="15005550004")
    await runner.run("dial")
    while await runner.open_tasks():
        await runner.run("track")
    call = await runner.call()
    assert (call.status, call.hangup_cause) == ("failed", "unallocated_number")


# Recordings


async def test_no_recording_after_all(make_runner: MakeCallRunner) -> None:
    runner = await completed(await make_runner(ScriptedProvider(recording=base.RecordingUnavailable("It was deleted"))))
    await runner.run("fetch_recording")
    transcript = await runner.transcript()
    assert (transcript.status, transcript.failure) == ("failed", "There is no usable recording: It was deleted")
    assert await runner.open_tasks() == []


async def test_a_recording_that_comes_late(make_runner: MakeCallRunner) -> None:
    runner = await completed(await make_runner(ScriptedProvider(recording=base.ProviderError("not yet"))))
    await runner.run("fetch_recording")
    assert (await runner.transcript()).status == "pending"
    runner.provider.recording = AUDIO / "call_callback.wav"
    await runner.run("fetch_recording")
    assert await runner.open_tasks() == ["transcribe"]


async def test_a_recording_that_never_comes(make_runner: MakeCallRunner) -> None:
    runner = await completed(await make_runner(ScriptedProvider(recording=base.ProviderError("not yet"))))
    await runner.run_until_given_up("fetch_recording")
    transcript = await runner.transcript()
    assert (transcript.status, transcript.failure) == ("failed", "not yet")
    assert await runner.open_tasks() == []


# Transcripts


async def recorded(runner: CallRunner, recording: Path) -> CallRunner:
    runner.provider.recording = recording
    await completed(runner)
    await runner.run("fetch_recording")
    return runner


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "The recording is empty (0 bytes)"),
        (b"RIFF", "Check that the telephony provider's file is whole"),
        (b"\0" * 5000, "Check that the telephony provider's file is whole"),
        (b"<html>not found</html>", "led to a web page, not to audio"),
    ],
)
async def test_a_corrupt_recording(make_runner: MakeCallRunner, tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "broken.wav").write_bytes(content)
    runner = await recorded(await make_runner(), tmp_path / "broken.wav")
    await runner.run("transcribe")
    transcript = await runner.transcript()
    assert transcript.status == "failed"
    assert reason in (transcript.failure or "")
    assert await runner.open_tasks() == []


async def test_what_could_not_be_read_is_in_the_history(make_runner: MakeCallRunner, tmp_path: Path) -> None:
    """A recording that was cut off is transcribed as far as it goes."""
    whole = (AUDIO / "call_callback.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    runner = await recorded(await make_runner(), tmp_path / "cut.wav")
    await runner.run("transcribe")
    assert (await runner.transcript()).status == "ready"
    call = await runner.call()
    async with runner.context.db.transaction() as session:
        details = await session.scalars(select(CallEventRow.detail).where(CallEventRow.call_id == call.id))
        assert any("promises 46.8 s; the file ends after 23.4 s" in (detail or "") for detail in details)


async def test_a_missing_model(make_runner: MakeCallRunner, tmp_path: Path) -> None:
    recognizer = WhisperRecognizer("large-v3", tmp_path / "models")
    runner = await recorded(await make_runner(recognizer=recognizer), AUDIO / "call_callback.wav")
    await runner.run("transcribe")
    transcript = await runner.transcript()
    assert transcript.status == "failed"
    assert "ringback models fetch large-v3" in (transcript.failure or "")


async def test_an_endpoint_that_is_away_is_tried_again_and_then_given_up(make_runner: MakeCallRunner) -> None:
    away = TranscriptionError("The speech endpoint cannot be reached", retryable=True)
    recognizer = StubRecognizer(away)
    runner = await recorded(await make_runner(recognizer=recognizer), AUDIO / "call_callback.wav")
    await runner.run("transcribe")
    assert (await runner.transcript()).status == "processing"
    recognizer.result = SAID
    await runner.run("transcribe")
    assert (await runner.transcript()).status == "ready"

    runner = await recorded(await make_runner(recognizer=StubRecognizer(away)), AUDIO / "call_callback.wav")
    await runner.run_until_given_up("transcribe")
    transcript = await runner.transcript()
    assert (transcript.status, transcript.failure) == ("failed", "The speech endpoint cannot be reached")
    assert await runner.open_tasks() == []


async def test_a_stored_recording_that_is_gone(make_runner: MakeCallRunner, tmp_path: Path) -> None:
    runner = await recorded(await make_runner(), simulator.CONVERSATIONS / "callback.wav")
    shutil.rmtree(tmp_path / "recordings")
    await runner.run_until_given_up("transcribe")
    assert "is no longer in" in ((await runner.transcript()).failure or "")


async def test_workers_that_die_with_a_task_again_and_again(make_runner: MakeCallRunner) -> None:
    runner = await recorded(await make_runner(), simulator.CONVERSATIONS / "callback.wav")
    async with runner.context.db.transaction() as session:
        await session.execute(update(Task).where(Task.call_id == runner.call_id).values(attempts=99))
    await runner.run("transcribe")
    transcript = await runner.transcript()
    assert transcript.status == "failed"
    assert "several times" in (transcript.failure or "")
    assert await runner.open_tasks() == []
