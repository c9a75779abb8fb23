"""The process that decodes a recording: its results, and how it ends."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app.transcription.audio import load
from app.transcription.base import SAMPLE_RATE, TranscriptionError
from app.transcription.decoding.parts import NoRoom
from app.transcription.decoding.tracks import Bank
from tests.integration.test_decoding import RATE, SECONDS, SIDES, of, wav


async def test_decoding_is_done_by_another_process(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(wav(size=0))
    audio = await load(tmp_path / "a", "audio/wav", "a.wav")
    assert audio.roles == ("agent", "customer")
    assert audio.duration == pytest.approx(SECONDS, abs=0.01)
    assert len(audio.notes) == 1
    for channel, wanted in zip(audio.channels, SIDES.T, strict=True):
        assert np.abs(channel[:: SAMPLE_RATE // RATE] / 32768 - wanted).mean() < 0.001


async def test_a_decoder_that_does_not_end_is_ended(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(wav())
    with pytest.raises(TranscriptionError, match="could not be decoded within 0 s") as failed:
        await load(tmp_path / "a", timeout=0.001)
    assert not failed.value.retryable
    with pytest.raises(TranscriptionError, match="its file is gone"):
        await load(tmp_path / "missing")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_no_damage_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(wav())
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "app.transcription.decoding", str(os.getpid()), str(full.fileno())]
        done = subprocess.run(
            [*command, str(tmp_path / "a"), "", "", "1"], pass_fds=[full.fileno()], stdout=subprocess.PIPE, check=True
        )
    answer = json.loads(done.stdout)
    assert answer["retryable"]
    assert "No space left" in answer["reason"]

    def write(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Bank, "write", write)
    with pytest.raises(NoRoom, match="No space left"):
        of(tmp_path / "b", wav())


def test_a_decoder_ends_with_its_parent(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")  # opening it for reading waits for ever
    script = '"$0" -m app.transcription.decoding $$ 1 "$1" "" "" 1 & echo begun; wait'
    command = ["sh", "-c", script, sys.executable, str(tmp_path / "a")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"begun\n"
        parent.kill()
        # The pipe ends when the decoder, which holds its other end, has ended.
        assert parent.communicate(timeout=60)[0] == b""


async def test_what_an_address_answers_is_for_the_history_and_not_for_the_poller(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b'{"error": "the link has expired"}')
    with pytest.raises(TranscriptionError) as failed:
        await load(tmp_path / "a")
    assert "expired" not in failed.value.reason
    assert "expired" in failed.value.notes[0]
