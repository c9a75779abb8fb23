"""Decodes one recording, within limits: `python -m app.transcription.decoding PARENT FD PATH TYPE NAME CHANNEL`.

It is a process of its own, because a malicious file or a fault of FFmpeg must not end the worker. The samples go to the
file descriptor, 16-bit and interleaved. Their description goes to standard output as JSON. The process ends with its
parent, whose process id is the first argument. The last one is the agent's channel.
"""

import json
import os
import resource
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import av.logging

from app.transcription.decoding.parts import NoRoom, UnreadableAudio
from app.transcription.decoding.recording import read

MEMORY_BYTES = 3 * 512 * 1024**2
ADDRESS_BYTES = 8 * 1024**3
"""Includes the files that are mapped: the recording and the decoded samples."""
FILE_BYTES = 3 * 1024**3
CPU_SECONDS = 600
_LOOK_SECONDS = 0.5


def _limit() -> None:
    bounds = [
        (resource.RLIMIT_DATA, MEMORY_BYTES),
        (resource.RLIMIT_AS, ADDRESS_BYTES),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_CORE, 0),
    ]
    for kind, most in bounds:
        with suppress(ValueError, OSError):  # not every system has all of them
            resource.setrlimit(kind, (most, most))


def _end_with(parent: int) -> None:
    """End with the parent. A worker that is killed cannot end this process, and another worker starts a new one."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)


def main() -> None:
    parent, samples, path, content_type, name, agent_channel = sys.argv[1:]
    threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    _limit()
    av.logging.set_level(None)
    answer: dict[str, object]
    try:
        choice = read(Path(path), content_type, name, agent_channel=int(agent_channel))
        with os.fdopen(int(samples), "wb", closefd=False) as file:
            for block in choice.blocks():
                file.write(block.astype("<i2").tobytes())
        answer = {"roles": choice.roles, "notes": choice.notes, "level": choice.level, "length": choice.length}
    except UnreadableAudio as error:
        answer = {"reason": str(error), "notes": [error.note] if error.note else []}
    except FileNotFoundError:
        answer = {"reason": "The recording cannot be decoded: its file is gone"}
    except (NoRoom, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        answer = {
            "reason": f"The recording cannot be decoded now: {why}. Check that temporary files have room",
            "retryable": True,
        }
    except MemoryError:
        answer = {"reason": "The recording takes too much memory to decode. Check what the recorder writes"}
    json.dump(answer, sys.stdout)


main()
