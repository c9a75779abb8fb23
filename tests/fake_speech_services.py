"""Fakes of hosted speech services. They hear how loud a voice is, and say "loud" or "quiet" where it speaks.

They follow the published references, and check each request against them (`fake_speech_services.json`). No account of
Deepgram or Sarvam was tried. So these are not proven: how well the services recognize, how they split phrases, their
real limits of rate and size, and what they answer when the reference says nothing.
"""

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
import numpy.typing as npt
import soundfile
from aiohttp import web

_SCHEMAS = json.loads((Path(__file__).parent / "fake_speech_services.json").read_text())
KEY = "the-right-key"
LOUD, QUIET = 20_000, 6_000
"""Peaks of the two voices."""


@dataclass
class FakeSpeechService:
    """A service at `url`. The next of `answers`, (status, JSON or text, headers), go before what it hears."""

    url: str = ""
    answers: list[tuple[int, Any, dict[str, str]]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    language: dict[str, str] = field(default_factory=lambda: {"loud": "hi", "quiet": "hi"})
    """The language that is detected of each voice."""
    suffix: str = ""
    """Ends every word that is recognized."""

    async def handle(self, request: web.Request) -> web.Response:
        recognized = await self._read(request)
        if self.answers:
            status, answer, headers = self.answers.pop(0)
            if isinstance(answer, str):
                return web.Response(status=status, text=answer, headers=headers)
            return web.json_response(answer, status=status, headers=headers)
        return recognized

    async def _read(self, request: web.Request) -> web.Response:
        raise NotImplementedError

    def _recognize(self, samples: npt.NDArray[np.int16]) -> list[tuple[str, float, float]]:
        """(word, start, end): one word in every second in which somebody speaks."""
        said = "loud" if np.abs(samples).max(initial=0) > (LOUD + QUIET) // 2 else "quiet"
        seconds = range(0, len(samples), 16_000)
        is_speech = [bool(np.abs(samples[start : start + 16_000]).max() > 1000) for start in seconds]
        return [
            (said + self.suffix, float(i), min(i + 0.9, len(samples) / 16_000))
            for i, yes in enumerate(is_speech)
            if yes
        ]


class FakeDeepgram(FakeSpeechService):
    async def _read(self, request: web.Request) -> web.Response:
        query = {name: request.query.getall(name) for name in request.query}
        headers = {name.lower(): value for name, value in request.headers.items()}
        body = await request.read()
        self.asked.append({**query, "path": request.path, "size": len(body)})
        jsonschema_rs.validate(_SCHEMAS["deepgram"]["query"], query)
        jsonschema_rs.validate(_SCHEMAS["deepgram"]["headers"], headers)
        model, language = query["model"][0], query.get("language", [None])[0]
        if headers["authorization"] != f"Token {KEY}":
            fault = {"err_code": "INVALID_AUTH", "err_msg": "Invalid credentials.", "request_id": "1"}
            return web.json_response(fault, status=401)
        if ("keyterm" in query and not model.startswith("nova-3")) or (
            "keywords" in query and model.startswith("nova-3")
        ):
            fault = {
                "err_code": "Bad Request",
                "err_msg": "Bad Request: not supported by this model",
                "request_id": "1",
            }
            return web.json_response(fault, status=400)
        samples, rate = soundfile.read(io.BytesIO(body), dtype="int16", always_2d=True)
        assert rate == 16_000
        is_split = query.get("multichannel") == ["true"]
        assert is_split or samples.shape[1] == 1, "channels would be mixed"
        channels = []
        for index in range(samples.shape[1]):
            recognized = self._recognize(samples[:, index])
            words = [
                {"word": word, "punctuated_word": word.capitalize(), "start": start, "end": end, "confidence": 0.9}
                for word, start, end in recognized
            ]
            transcript = " ".join(word for word, _, _ in recognized)
            channel: dict[str, Any] = {"alternatives": [{"transcript": transcript, "confidence": 0.9, "words": words}]}
            if query.get("detect_language") == ["true"] and language is None:
                channel["detected_language"] = self.language["loud" if "loud" in transcript else "quiet"]
            channels.append(channel)
        metadata = {
            "request_id": "1",
            "sha256": "0",
            "created": "2026-11-01T00:00:00Z",
            "duration": len(samples) / rate,
            "channels": len(channels),
            "models": ["1"],
            "model_info": {},
        }
        answer = {"metadata": metadata, "results": {"channels": channels}}
        if not self.suffix:
            jsonschema_rs.validate(_SCHEMAS["deepgram"]["answer"], answer)
        return web.json_response(answer)


class FakeSarvam(FakeSpeechService):
    async def _read(self, request: web.Request) -> web.Response:
        posted = await request.post()
        form = {name: value for name, value in posted.items() if isinstance(value, str)}
        file = posted["file"]
        assert isinstance(file, web.FileField)
        self.asked.append({**form, "path": request.path})
        jsonschema_rs.validate(_SCHEMAS["sarvam"]["form"], form | {"file": ""})
        if "keyterms" in form:
            jsonschema_rs.validate(_SCHEMAS["sarvam"]["keyterms"], json.loads(form["keyterms"]))
            assert form["model"] == "saaras:v4"
        if request.headers.get("api-subscription-key") != KEY:
            return self.fault(403, "invalid_api_key_error", "Invalid API key")
        samples, rate = soundfile.read(io.BytesIO(file.file.read()), dtype="int16")
        assert samples.ndim == 1, "several channels are merged"
        if len(samples) > 30 * rate:
            return self.fault(400, "invalid_request_error", "Audio duration exceeds the maximum limit of 30 seconds.")
        recognized = self._recognize(samples)
        self.asked[-1]["seconds"] = len(samples) / rate
        language = form.get("language_code", "unknown")
        if language == "unknown":
            language = f"{self.language['loud' if recognized and 'loud' in recognized[0][0] else 'quiet']}-IN"
        answer: dict[str, Any] = {
            "request_id": "1",
            "transcript": " ".join(word for word, _, _ in recognized),
            "language_code": language,
        }
        if form.get("with_timestamps") == "true" and recognized:
            answer["timestamps"] = {
                "words": [word for word, _, _ in recognized],
                "start_time_seconds": [start for _, start, _ in recognized],
                "end_time_seconds": [end for _, _, end in recognized],
            }
        if not self.suffix:
            jsonschema_rs.validate(_SCHEMAS["sarvam"]["answer"], answer)
        return web.json_response(answer)

    @staticmethod
    def fault(status: int, code: str, message: str) -> web.Response:
        return web.json_response({"error": {"message": message, "code": code, "request_id": "1"}}, status=status)


class FakeOpenAI(FakeSpeechService):
    """An OpenAI-compatible endpoint, after OpenAI's reference of `verbose_json`."""

    async def _read(self, request: web.Request) -> web.Response:
        form = await request.post()
        file = form["file"]
        assert isinstance(file, web.FileField)
        self.asked.append({name: value for name, value in form.items() if isinstance(value, str)})
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return web.json_response({"error": {"message": "Incorrect API key", "code": "invalid_api_key"}}, status=401)
        samples, _ = soundfile.read(io.BytesIO(file.file.read()), dtype="int16")
        words = [{"word": word, "start": start, "end": end} for word, start, end in self._recognize(samples)]
        return web.json_response({"text": "", "language": "hindi", "words": words})


@asynccontextmanager
async def serve(service: FakeSpeechService) -> AsyncIterator[None]:
    app = web.Application(client_max_size=2**30)
    app.router.add_post("/{path:.*}", service.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    service.url = site.name
    try:
        yield
    finally:
        await runner.cleanup()
