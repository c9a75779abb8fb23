"""What the recognizers over HTTP share: WAV bodies, requests with clear errors, and words with valid times."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

import aiohttp
import numpy as np

from app.transcription.base import SAMPLE_RATE, Samples, TranscriptionError, Word

_BLOCK = 10 * SAMPLE_RATE
_LONGEST_ANSWER = 64 * 2**20
_LONGEST_PAUSE = 30.0
"""A service that asks to wait longer, in seconds, gets the recording again later, by the task's own retry."""


class SpeechService:
    """One hosted service: its session, and its errors in words for a person.

    `name` is the service's, `prefix` that of its environment variables (`RINGBACK_DEEPGRAM_`). `describe` reads code
    and message from the JSON of an error. `spent` are the codes of an account without money. The key is in `headers`,
    and in no error. `timeout`: seconds of one attempt.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        prefix: str,
        headers: Mapping[str, str],
        describe: Callable[[Any], tuple[str, str]],
        spent: frozenset[str] = frozenset(),
        timeout: float = 600.0,
        attempts: int = 5,
    ) -> None:
        self._name = name
        self._url = url
        self._prefix = prefix
        self._headers = dict(headers)
        self._describe = describe
        self._spent = spent
        self._attempts = attempts
        self._timeout = aiohttp.ClientTimeout(total=timeout, connect=10)
        self._session: aiohttp.ClientSession | None = None

    async def post(
        self,
        make_body: Callable[[], Any],
        *,
        params: list[tuple[str, str]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The answer's JSON. `make_body` makes the body anew for each attempt.

        A service that is busy (429, 503) is asked again, after the time that it names. Raises `TranscriptionError`.
        """
        for attempt in range(1, self._attempts + 1):
            try:
                status, retry_after, content = await self._send(make_body(), params, headers)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise TranscriptionError(
                    f"{self._name} cannot be reached ({type(error).__name__}). Check {self._prefix}URL and the network",
                    retryable=True,
                ) from error
            if status == 200:
                return self._parse(content)
            code, message = self._fault(content)
            pause = _pause(retry_after, attempt)
            is_busy = status in (429, 503) and code not in self._spent
            if not is_busy or attempt == self._attempts or pause > _LONGEST_PAUSE:
                raise self._error(status, code, message)
            await asyncio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    def bad_answer(self) -> TranscriptionError:
        """The error of an answer that is no transcription."""
        return TranscriptionError(f"{self._name}'s answer is no transcription. Check {self._prefix}URL")

    async def _send(
        self, body: Any, params: list[tuple[str, str]] | None, headers: Mapping[str, str] | None
    ) -> tuple[int, str | None, bytes]:
        if self._session is None:  # a session needs a running loop, and there is none yet in __init__
            self._session = aiohttp.ClientSession(timeout=self._timeout, headers=self._headers)
        # A redirect would take the key to another host.
        async with self._session.post(
            self._url, data=body, params=params, headers=headers, allow_redirects=False
        ) as response:
            content = bytearray()
            async for chunk in response.content.iter_chunked(64 * 1024):
                content += chunk
                if len(content) > _LONGEST_ANSWER:
                    raise self.bad_answer()
            return response.status, response.headers.get("Retry-After"), bytes(content)

    def _parse(self, content: bytes) -> Any:
        try:
            return _clean(json.loads(content))
        except (ValueError, RecursionError) as error:
            raise self.bad_answer() from error

    def _fault(self, content: bytes) -> tuple[str, str]:
        try:
            code, message = self._describe(_clean(json.loads(content)))
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            code, message = "", _clean(content[:200].decode(errors="replace"))
        return code, message[:200].strip()

    def _error(self, status: int, code: str, message: str) -> TranscriptionError:
        said = f"{self._name} answered {status}" + (f": {message.rstrip('.')}" if message else "")
        if code in self._spent or status == 402:
            return TranscriptionError(
                f"{said}. The account has no credit left: top it up, then run the transcript again"
            )
        if status in (401, 403):
            return TranscriptionError(f"{said}. Check {self._prefix}API_KEY")
        if status == 413:
            return TranscriptionError(f"{said}. The recording is too large for it: use another recognizer")
        if status in (408, 429) or status >= 500:
            return TranscriptionError(f"{said}. It is busy or down: it will be asked again", retryable=True)
        return TranscriptionError(f"{said}. Check {self._prefix}MODEL, {self._prefix}URL and the language of the call")


def _pause(retry_after: str | None, attempt: int) -> float:
    """Seconds. `Retry-After` may also be a date, which these services do not send."""
    if retry_after is not None and retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    return float(2 ** (attempt - 1))


def _clean(value: Any) -> Any:
    """JSON without NUL and lone surrogates in its texts, which no UTF-8 database takes."""
    if isinstance(value, str):
        return value.replace("\x00", "").encode(errors="ignore").decode()
    if isinstance(value, list):
        return [_clean(each) for each in value]
    return {key: _clean(each) for key, each in value.items()} if isinstance(value, dict) else value


def valid_words(
    pieces: Iterable[tuple[str, float, float]], duration: float, *, offset: float = 0.0
) -> tuple[Word, ...]:
    """Words of (text, start, end), in time order, with times inside the recording of `duration` seconds. `offset`: when
    their audio began in the recording. Empty texts are left out."""
    words = []
    for text, start, end in sorted(pieces, key=lambda piece: piece[1]):
        if said := text.strip():
            begun = min(max(offset + start, 0.0), duration)
            words.append(Word(f" {said}", begun, min(max(offset + end, begun), duration)))
    return tuple(words)


def wav_size(channels: tuple[Samples, ...]) -> int:
    """Bytes of the WAV file that `wav_blocks` gives."""
    return 44 + 2 * len(channels) * max(len(channel) for channel in channels)


async def wav_blocks(channels: tuple[Samples, ...]) -> AsyncIterator[bytes]:
    """These channels as one 16-bit WAV file, in blocks. So the file is never in memory. A shorter channel is filled
    with silence."""
    count, size = len(channels), wav_size(channels)
    yield struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", size - 8, b"WAVE", b"fmt ", 16),
        *(1, count, SAMPLE_RATE, SAMPLE_RATE * 2 * count, 2 * count, 16),
        *(b"data", size - 44),
    )
    longest = max(len(channel) for channel in channels)
    for start in range(0, longest, _BLOCK):
        block = np.zeros((min(_BLOCK, longest - start), count), "<i2")
        for index, channel in enumerate(channels):
            part = channel[start : start + _BLOCK]
            block[: len(part), index] = part
        yield block.tobytes()


async def wav_bytes(channel: Samples) -> bytes:
    """One channel, or a piece of it, as a WAV file."""
    return b"".join([block async for block in wav_blocks((channel,))])
