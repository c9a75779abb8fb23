"""Asterisk dies, starts or freezes in the middle of calls: nobody is called twice, and calls end with the truth."""

import asyncio
import os
from contextlib import suppress

from app.models import RecordingRow
from app.telephony.base import CallRef, ProviderError
from tests.asterisk.lab_installation import Lab, LabInstallation, MakeProvider, eventually


async def test_asterisk_is_killed_and_started_again(lab: Lab, installation: LabInstallation) -> None:
    talking = await installation.place(lab.number("200"), lab.number("100"))
    await installation.reached(talking, "answered")
    await asyncio.sleep(8)  # long enough for a recording
    waiting = await installation.place(lab.number("203"), lab.number("300"))
    await installation.reached(waiting, "agent:ringing")
    await asyncio.to_thread(lab.server.kill)
    later = await installation.place(lab.number("203"), lab.number("100"))
    await asyncio.sleep(2)
    await asyncio.to_thread(lab.server.start)
    lost = await installation.ended(waiting)
    assert lost.status == "failed"
    assert "no longer knows this call" in (lost.failure or "")
    ended = await installation.ends_well(talking)
    assert ended.failure == "The end itself was not seen"
    assert (await installation.transcript(talking)).status == "ready", "what was recorded until then is used"
    await installation.ends_well(later)
    await installation.at_most_one_invite(waiting, talking, later)


async def test_asterisk_is_killed_before_it_wrote_any_of_the_talk(lab: Lab, installation: LabInstallation) -> None:
    """Asterisk writes one second at a time. The test does not depend on whether a second has passed."""
    call_id = await installation.place(lab.number("200"), lab.number("100"))
    await installation.reached(call_id, "answered")
    await asyncio.to_thread(lab.server.kill)
    os.truncate(lab.server.recording_folder / f"{call_id}.raw", 0)
    await asyncio.to_thread(lab.server.start)
    await installation.ends_well(call_id)
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
    """For a moment its web server runs without ARI, and answers every request with 404."""
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
    assert not recording.exists(), "the caller may rely on it"
    await starting


async def test_an_asterisk_that_freezes(lab: Lab, installation: LabInstallation) -> None:
    """It accepts requests and answers none, for longer than the adapter waits."""
    call_id = await installation.place(lab.number("203"), lab.number("100"))
    await installation.reached(call_id, "answered")
    lab.server.freeze()
    later = await installation.place(lab.number("203"), lab.number("100"))
    await asyncio.sleep(12)
    lab.server.thaw()
    await installation.ends_well(call_id)
    await installation.ends_well(later)
