"""A stored recording as audio. Another process decodes it, so that no file can harm this one."""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import IO

import numpy as np

from app.transcription.base import Audio, TranscriptionError

_LONGEST_SECONDS = 600.0
"""The longest time for decoding. Six hours of telephone audio take a minute or two."""
_ROOT = Path(__file__).parents[2]
"""The folder that contains the decoder's package."""


async def load(
    path: Path,
    content_type: str = "",
    name: str = "",
    *,
    agent_channel: int = 1,
    timeout: float = _LONGEST_SECONDS,
) -> Audio:
    """The recording's audio, with one channel for each role. `content_type` and `name` are what its sender called it.
    `agent_channel`: the channel of the agent, 1 or 2.

    Raises `TranscriptionError` with a reason for people if the file has no audio. It is retryable if there was no room
    for the audio.
    """
    with tempfile.TemporaryFile() as samples:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "app.transcription.decoding",
            str(os.getpid()),
            str(samples.fileno()),
            str(path),
            content_type,
            name,
            str(agent_channel),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=[samples.fileno()],
            env={**os.environ, "PYTHONPATH": str(_ROOT), "OPENBLAS_NUM_THREADS": "1"},
        )
        try:
            async with asyncio.timeout(timeout):
                answer, _ = await process.communicate()
        except TimeoutError:
            raise TranscriptionError(
                f"The recording could not be decoded within {timeout:.0f} s. Check what the recorder writes"
            ) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return _audio(answer, samples)


def _audio(answer: bytes, samples: IO[bytes]) -> Audio:
    try:
        result = json.loads(answer)
    except ValueError:  # killed by a limit, or by a fault of the decoder
        raise TranscriptionError(
            "The recording cannot be decoded: the decoder ran out of memory or time, or failed. Check that the "
            "telephony provider's file is whole"
        ) from None
    if "reason" in result:
        notes = tuple(result.get("notes", ()))
        raise TranscriptionError(result["reason"], retryable=result.get("retryable", False), notes=notes)
    shape = (result["length"], len(result["roles"]))
    mapped = np.memmap(samples, np.dtype("<i2"), "r", shape=shape)  # stays valid when the file is closed
    channels = tuple(mapped[:, column] for column in range(shape[1]))
    return Audio(channels, tuple(result["roles"]), tuple(result["notes"]), result["level"])
