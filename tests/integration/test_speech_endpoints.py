"""The HTTP adapters, against a small server that answers as such endpoints do. It is hand-written, because no real one
can run here. Its answers follow OpenAI's reference."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from app.telephony.simulator import CONVERSATIONS
from app.transcription.audio import load
from app.transcription.base import Audio, SpeechRequest, SpokenTurn, TranscriptionError
from app.transcription.openai_speech import OpenAIRecognizer
from app.transcription.openai_summary import ChatSummarizer
from app.transcription.outcome_set import OutcomeSet, OwnField, OwnOutcome
from app.transcription.turns import make_turns

TURNS = (SpokenTurn("agent", "Hello", 0, 1), SpokenTurn("customer", "Please call me tomorrow", 1, 3))


@dataclass
class Endpoint:
    """Gives the next of `answers` each time: (status, JSON or text)."""

    url: str = ""
    answers: list[tuple[int, Any]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        asked: dict[str, Any] = {"path": request.path, "authorization": request.headers.get("Authorization")}
        if request.content_type == "application/json":
            asked |= await request.json()
        else:
            form = await request.post()
            asked |= {
                name: value.file.read() if isinstance(value, web.FileField) else value for name, value in form.items()
            }
        self.asked.append(asked)
        status, answer = self.answers.pop(0)
        if isinstance(answer, str):
            return web.Response(status=status, text=answer)
        return web.json_response(answer, status=status)


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    endpoint = Endpoint()
    app = web.Application(client_max_size=2**24)
    app.router.add_post("/v1/{path:.*}", endpoint.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    endpoint.url = site.name
    yield endpoint
    await runner.cleanup()


@pytest.fixture
async def recognizer(endpoint: Endpoint) -> AsyncIterator[OpenAIRecognizer]:
    opened = OpenAIRecognizer(endpoint.url, model="some-model", api_key="a-key")
    yield opened
    await opened.aclose()


def words(*said: str) -> dict[str, Any]:
    timed = [{"word": word, "start": i * 0.5, "end": i * 0.5 + 0.4} for i, word in enumerate(said)]
    return {"text": " ".join(said), "language": "hindi", "words": timed}


async def test_each_channel_is_asked_for_alone(endpoint: Endpoint, recognizer: OpenAIRecognizer) -> None:
    endpoint.answers = [(200, words("Hello", "there")), (200, words("Hi"))]
    recognition = await recognizer.recognize(await load(CONVERSATIONS / "callback.wav"), SpeechRequest())
    assert {(turn.role, turn.content) for turn in make_turns(recognition, ("agent", "customer"))} == {
        ("agent", "Hello there"),
        ("customer", "Hi"),
    }
    first, second = endpoint.asked
    assert first["path"] == "/v1/audio/transcriptions"
    assert first["authorization"] == "Bearer a-key"
    assert (first["model"], first["response_format"]) == ("some-model", "verbose_json")
    assert first["file"][:4] == b"RIFF"
    assert "language" not in first
    assert second["language"] == "hi", "detected once, by the first side that speaks"
    assert recognition.language == "hi"


async def test_the_language_and_the_vocabulary_are_passed_on(endpoint: Endpoint, recognizer: OpenAIRecognizer) -> None:
    endpoint.answers = [(200, words("Haan")), (200, words("Nahi"))]
    wanted = SpeechRequest(("hi", "en"), ("Sunrise Solar", "Priya"))
    await recognizer.recognize(await load(CONVERSATIONS / "callback.wav"), wanted)
    assert [asked["language"] for asked in endpoint.asked] == ["hi", "hi"]
    assert {asked["prompt"] for asked in endpoint.asked} == {"Sunrise Solar, Priya"}


async def test_segments_and_plain_text_do_where_there_are_no_words(
    endpoint: Endpoint, recognizer: OpenAIRecognizer
) -> None:
    segments = {"text": "A b", "segments": [{"start": 1, "end": 2, "text": "A b"}]}
    endpoint.answers = [(200, segments), (200, {"text": "Only text"})]
    recognition = await recognizer.recognize(await load(CONVERSATIONS / "callback.wav"), SpeechRequest(("en",)))
    assert {turn.content for turn in make_turns(recognition, ("agent", "customer"))} == {"A b", "Only text"}


async def test_silence_is_not_sent(endpoint: Endpoint, recognizer: OpenAIRecognizer) -> None:
    recognition = await recognizer.recognize(Audio((np.zeros(80_000, np.int16),) * 2), SpeechRequest())
    assert recognition.channels == ((), ())
    assert endpoint.asked == []


@pytest.mark.parametrize(
    ("answer", "retryable"),
    [
        ((500, "oops"), True),
        ((503, "busy"), True),
        ((429, "slow down"), True),
        ((401, "bad key"), False),
        ((404, "no such model"), False),
        ((200, "<html>"), False),
        ((200, {"words": 7}), False),
    ],
)
async def test_what_goes_wrong(
    endpoint: Endpoint, recognizer: OpenAIRecognizer, answer: tuple[int, Any], retryable: bool
) -> None:
    endpoint.answers = [answer]
    with pytest.raises(TranscriptionError) as failed:
        await recognizer.recognize(await load(CONVERSATIONS / "callback.wav"), SpeechRequest(("en",)))
    assert failed.value.retryable is retryable
    assert "speech endpoint" in failed.value.reason
    assert "a-key" not in failed.value.reason


async def test_an_endpoint_that_is_not_there() -> None:
    recognizer = OpenAIRecognizer("http://127.0.0.1:1", model="x")
    with pytest.raises(TranscriptionError, match="RINGBACK_SPEECH_URL") as failed:
        await recognizer.recognize(await load(CONVERSATIONS / "callback.wav"), SpeechRequest(("en",)))
    assert failed.value.retryable
    await recognizer.aclose()


# Summaries


def chat(content: Any) -> tuple[int, Any]:
    return 200, {"choices": [{"message": {"content": content}}]}


@pytest.fixture
async def summarizer(endpoint: Endpoint) -> AsyncIterator[ChatSummarizer]:
    opened = ChatSummarizer(f"{endpoint.url}/v1", model="some-model", api_key="a-key")
    yield opened
    await opened.aclose()


async def test_a_chat_endpoint_summarizes(endpoint: Endpoint, summarizer: ChatSummarizer) -> None:
    endpoint.answers = [chat('{"summary": "They spoke.", "outcome": "Interested"}')]
    digest = await summarizer.digest(TURNS, language="en", duration=3)
    assert (digest.summary, digest.outcome) == ("They spoke.", "Interested")
    (asked,) = endpoint.asked
    assert asked["path"] == "/v1/chat/completions"
    assert asked["response_format"]["type"] == "json_schema"
    assert "Please call me tomorrow" in asked["messages"][1]["content"]


async def test_one_bad_answer_is_asked_again(endpoint: Endpoint, summarizer: ChatSummarizer) -> None:
    endpoint.answers = [
        chat('{"summary": "x", "outcome": "Delighted"}'),
        chat('{"summary": "They spoke.", "outcome": "Connected"}'),
    ]
    assert (await summarizer.digest(TURNS, language="en", duration=3)).outcome == "Connected"


@pytest.mark.parametrize(
    "answer", [(500, "oops"), (200, "<html>"), (200, {}), (200, []), chat(None), chat("{"), chat('{"summary": ""}')]
)
async def test_the_rules_take_over(endpoint: Endpoint, summarizer: ChatSummarizer, answer: tuple[int, Any]) -> None:
    endpoint.answers = [answer, answer]
    digest = await summarizer.digest(TURNS, language="en", duration=3)
    assert digest.outcome == "Callback requested"
    assert len(endpoint.asked) == 2


async def test_an_endpoint_that_is_not_there_and_silence(endpoint: Endpoint, summarizer: ChatSummarizer) -> None:
    away = ChatSummarizer("http://127.0.0.1:1", model="x")
    assert (await away.digest(TURNS, language="en", duration=3)).outcome == "Callback requested"
    await away.aclose()
    assert (await summarizer.digest((), language=None, duration=3)).outcome == "No conversation"
    assert endpoint.asked == []
    await asyncio.sleep(0)


async def test_a_chat_endpoint_is_asked_for_own_outcomes_and_fields(
    endpoint: Endpoint, summarizer: ChatSummarizer
) -> None:
    wanted = OutcomeSet(
        outcomes=(OwnOutcome("Will pay", "Promised to pay", ("I pay on Friday",)), OwnOutcome("Other", default=True)),
        fields=(OwnField("callback time", "When to call"), OwnField("amount promised")),
    )
    endpoint.answers = [
        chat('{"summary": "They spoke.", "outcome": "Interested", "field_0": null, "field_1": null}'),
        chat('{"summary": "They spoke.", "outcome": "Will pay", "field_0": "tomorrow", "field_1": null}'),
    ]
    digest = await summarizer.digest(TURNS, language="en", duration=3, wanted=wanted)
    assert digest.outcome == "Will pay"
    assert digest.fields == {"callback time": "tomorrow", "amount promised": None}
    schema = endpoint.asked[0]["response_format"]["json_schema"]["schema"]
    assert set(schema["required"]) == {"summary", "outcome", "field_0", "field_1"}
    assert schema["properties"]["outcome"]["enum"] == ["Will pay", "Other", "Voicemail", "No conversation"]
