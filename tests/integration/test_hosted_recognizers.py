"""The recognizers over HTTP under the contract of all recognizers, and what each does besides.

No account of a hosted service was tried. The services are fakes (`tests/fake_speech_services.py`), which the clients
that Deepgram and Sarvam publish can talk to.
"""

import asyncio
import json
import tracemalloc

import httpx
import numpy as np
import pytest
from deepgram import AsyncDeepgramClient
from deepgram.environment import DeepgramClientEnvironment
from deepgram.types import ListenV1Response
from sarvamai import AsyncSarvamAI
from sarvamai.environment import SarvamAIEnvironment

from app import providers
from app.options import SettingsError
from app.settings import Settings
from app.transcription.base import SAMPLE_RATE, Audio, Recognizer, SpeechRequest, TranscriptionError
from app.transcription.deepgram import DeepgramRecognizer
from app.transcription.openai_speech import OpenAIRecognizer
from app.transcription.pieces import cut_into_pieces
from app.transcription.sarvam import SarvamRecognizer
from app.transcription.speech_http import wav_blocks, wav_bytes
from tests.fake_speech_services import KEY, FakeDeepgram, FakeOpenAI, FakeSarvam, FakeSpeechService, serve
from tests.recognizer_contract import HINDI, HostedRecognizerContract, check_times, silence

HINGLISH = SpeechRequest(("hi", "en"))


class TestOpenAI(HostedRecognizerContract):
    prefix = "RINGBACK_SPEECH_"

    def make(self, url: str, key: str) -> Recognizer:
        return OpenAIRecognizer(url, model="some-model", api_key=key)

    def make_service(self) -> FakeSpeechService:
        return FakeOpenAI()


class TestDeepgram(HostedRecognizerContract):
    prefix = "RINGBACK_DEEPGRAM_"

    def make(self, url: str, key: str) -> Recognizer:
        return DeepgramRecognizer(url, api_key=key)

    def make_service(self) -> FakeSpeechService:
        return FakeDeepgram()

    async def test_both_channels_are_one_request(
        self, recognizer: Recognizer, service: FakeSpeechService, both: Audio
    ) -> None:
        await recognizer.recognize(both, HINDI)
        (asked,) = service.asked
        assert asked == {
            "path": "/v1/listen",
            "model": ["nova-3"],
            "smart_format": ["true"],
            "multichannel": ["true"],
            "language": ["hi"],
            "size": 44 + 4 * len(both.channels[0]),
        }

    async def test_a_silent_side_is_not_paid_for(
        self, recognizer: Recognizer, service: FakeSpeechService, both: Audio
    ) -> None:
        await recognizer.recognize(Audio((silence(14), both.channels[1])), HINDI)
        assert service.asked[0]["multichannel"] == ["false"]
        assert service.asked[0]["size"] == 44 + 2 * len(both.channels[1])

    @pytest.mark.parametrize(
        ("languages", "sent"), [(("hi", "en"), "multi"), (("en",), "en"), (("ta",), "ta"), (("ta", "en"), "ta")]
    )
    async def test_languages(
        self, recognizer: Recognizer, service: FakeSpeechService, both: Audio, languages: tuple[str, ...], sent: str
    ) -> None:
        recognition = await recognizer.recognize(both, SpeechRequest(languages))
        assert service.asked[0]["language"] == [sent]
        assert recognition.language == languages[0]

    async def test_a_side_that_is_taken_for_another_language_is_asked_again(
        self, recognizer: Recognizer, service: FakeSpeechService, both: Audio
    ) -> None:
        service.language = {"loud": "en-IN", "quiet": "nl"}
        audio = Audio((both.channels[0], both.channels[1][: 8 * SAMPLE_RATE]))
        recognition = await recognizer.recognize(audio, SpeechRequest())
        assert recognition.language == "en"
        first, second = service.asked
        assert (first["detect_language"], first["multichannel"]) == (["true"], ["true"])
        assert (second["language"], second["multichannel"]) == (["en"], ["false"])
        check_times(recognition, audio)

    async def test_vocabulary(self, service: FakeSpeechService, both: Audio) -> None:
        terms = ("Sharma Sweets", "राजभोग")
        for model, name, sent in (
            ("nova-3", "keyterm", list(terms)),
            ("nova-2", "keywords", ["Sharma", "Sweets", "राजभोग"]),
        ):
            recognizer = DeepgramRecognizer(service.url, api_key=KEY, model=model)
            recognition = await recognizer.recognize(both, SpeechRequest(("hi",), terms))
            await recognizer.aclose()
            assert service.asked[-1][name] == sent
            assert recognition.notes == ()

    async def test_a_vocabulary_over_the_limit(
        self, recognizer: Recognizer, service: FakeSpeechService, both: Audio
    ) -> None:
        terms = tuple(f"product number {i}" for i in range(300))
        recognition = await recognizer.recognize(both, SpeechRequest(("hi",), terms))
        sent = service.asked[0]["keyterm"]
        assert 30 < len(sent) < 300
        assert recognition.notes == (f"Deepgram got the first {len(sent)} of 300 terms of the vocabulary",)

    @pytest.mark.parametrize(
        ("status", "code", "says", "retryable"),
        [
            (400, "Bad Request", "RINGBACK_DEEPGRAM_MODEL", False),
            (402, "ASR_PAYMENT_REQUIRED", "top it up", False),
            (403, "INSUFFICIENT_PERMISSIONS", "RINGBACK_DEEPGRAM_API_KEY", False),
            (413, "PAYLOAD_TOO_LARGE", "too large", False),
        ],
    )
    async def test_refusals(
        self,
        recognizer: Recognizer,
        service: FakeSpeechService,
        both: Audio,
        status: int,
        code: str,
        says: str,
        retryable: bool,
    ) -> None:
        service.answers = [(status, {"err_code": code, "err_msg": "The reason.", "request_id": "1"}, {})]
        failed = await self.failure(recognizer, both)
        assert failed.retryable is retryable
        assert says in failed.reason
        assert f"Deepgram answered {status}: The reason." in failed.reason

    async def test_a_busy_service_is_asked_again(
        self, recognizer: Recognizer, service: FakeSpeechService, both: Audio
    ) -> None:
        busy = {"err_code": "TOO_MANY_REQUESTS", "err_msg": "Too many requests.", "request_id": "1"}
        service.answers = [(429, busy, {"Retry-After": "0"})] * 2
        recognition = await recognizer.recognize(both, HINDI)
        assert all(recognition.channels)
        service.answers = [(429, busy, {"Retry-After": "600"})]
        assert (await self.failure(recognizer, both)).retryable, "the task's own retry waits"
        assert service.answers == []

    async def test_another_number_of_channels(
        self, recognizer: Recognizer, service: FakeSpeechService, both: Audio
    ) -> None:
        channel = {"alternatives": [{"transcript": "Both mixed", "words": []}]}
        service.answers = [(200, {"metadata": {}, "results": {"channels": [channel]}}, {})]
        assert "no transcription" in (await self.failure(recognizer, both)).reason

    async def test_text_without_words(self, recognizer: Recognizer, service: FakeSpeechService, both: Audio) -> None:
        channel = {"alternatives": [{"transcript": "नमस्ते"}]}
        service.answers = [(200, {"results": {"channels": [channel, channel]}}, {})]
        recognition = await recognizer.recognize(both, HINDI)
        assert [words[0].text for words in recognition.channels] == [" नमस्ते", " नमस्ते"]
        check_times(recognition, both)

    async def test_times_that_are_none(self, recognizer: Recognizer, service: FakeSpeechService, both: Audio) -> None:
        words = [{"word": "b", "start": 900, "end": 901}, {"word": "a", "start": -3, "end": -9}]
        channel = {"alternatives": [{"transcript": "a b", "words": words}]}
        service.answers = [(200, {"results": {"channels": [channel, channel]}}, {})]
        check_times(await recognizer.recognize(both, HINDI), both)
        service.answers = [(200, json.dumps({"results": {"channels": [channel, channel]}}).replace("900", "NaN"), {})]
        assert not (await self.failure(recognizer, both)).retryable

    async def test_an_hour_is_never_in_memory_twice(
        self, recognizer: Recognizer, service: FakeSpeechService, both: Audio, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The upload of 230 MB takes a few. Without the VAD, which has a test of its own."""
        hour = tuple(np.tile(channel, 263)[: 3600 * SAMPLE_RATE] for channel in both.channels)
        channel = {"alternatives": [{"transcript": "a"}]}
        size = 0

        async def send(_: object, body: object, *__: object) -> tuple[int, None, bytes]:
            nonlocal size
            async for block in body:  # type: ignore[attr-defined]
                size += len(block)
            return 200, None, json.dumps({"results": {"channels": [channel, channel]}}).encode()

        monkeypatch.setattr("app.transcription.speech_http.SpeechService._send", send)
        monkeypatch.setattr("app.transcription.deepgram.detect_speech", lambda _: [(0, 1)])
        tracemalloc.start()
        try:
            await recognizer.recognize(Audio(hour), HINDI)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert size == 44 + 4 * 3600 * SAMPLE_RATE
        assert peak < 10e6

    async def test_a_recording_over_the_limit_is_not_sent(
        self, recognizer: Recognizer, both: Audio, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("app.transcription.deepgram._LARGEST_FILE", 10**5)
        assert "at most 2" in (await self.failure(recognizer, both)).reason

    @pytest.mark.filterwarnings("ignore:websockets:DeprecationWarning")  # of the official client
    async def test_the_fake_and_the_adapter_agree_with_the_official_client(
        self, recognizer: Recognizer, service: FakeSpeechService, both: Audio
    ) -> None:
        """It sends the same, and reads what the fake answers."""
        address = service.url
        environment = DeepgramClientEnvironment(base=address, production=address, agent=address, agent_rest=address)
        file = b"".join([block async for block in wav_blocks(both.channels)])
        terms = ("Sharma Sweets", "राजभोग")
        async with httpx.AsyncClient() as client:
            official = AsyncDeepgramClient(api_key=KEY, environment=environment, httpx_client=client)
            answer = await official.listen.v1.media.transcribe_file(
                request=file,
                model="nova-3",
                smart_format=True,
                multichannel=True,
                language="multi",
                keyterm=list(terms),
            )
        recognition = await recognizer.recognize(both, SpeechRequest(("hi", "en"), terms))
        theirs, ours = service.asked
        assert theirs == ours
        assert isinstance(answer, ListenV1Response)
        read = [channel.alternatives[0].words for channel in answer.results.channels if channel.alternatives]
        assert [[(word.start, word.end) for word in words or ()] for words in read] == [
            [(word.start, word.end) for word in words] for words in recognition.channels
        ]


class TestSarvam(HostedRecognizerContract):
    prefix = "RINGBACK_SARVAM_"

    def make(self, url: str, key: str) -> Recognizer:
        return SarvamRecognizer(url, api_key=key)

    def make_service(self) -> FakeSpeechService:
        return FakeSarvam()

    async def test_mixed_speech_keeps_both_scripts(
        self, recognizer: Recognizer, service: FakeSpeechService, both: Audio
    ) -> None:
        recognition = await recognizer.recognize(both, HINGLISH)
        assert {(asked["mode"], asked["language_code"]) for asked in service.asked} == {("codemix", "hi-IN")}
        assert recognition.language == "hi"

    async def test_the_longest_piece_tells_the_language(
        self, recognizer: Recognizer, service: FakeSpeechService, both: Audio
    ) -> None:
        service.language = {"loud": "od", "quiet": "ta"}
        recognition = await recognizer.recognize(both, SpeechRequest())
        first, *others = (asked["language_code"] for asked in service.asked)
        assert first == "unknown"
        assert set(others) in ({"od-IN"}, {"ta-IN"})
        assert recognition.language == {"od-IN": "or", "ta-IN": "ta"}[others[0]]

    async def test_a_language_that_the_service_does_not_know(
        self, recognizer: Recognizer, service: FakeSpeechService, both: Audio
    ) -> None:
        with pytest.raises(TranscriptionError, match="RINGBACK_RECOGNIZER") as failed:
            await recognizer.recognize(both, SpeechRequest(("fr",)))
        assert not failed.value.retryable
        assert service.asked == []

    async def test_odia_has_a_code_of_its_own(
        self, recognizer: Recognizer, service: FakeSpeechService, both: Audio
    ) -> None:
        await recognizer.recognize(both, SpeechRequest(("or",)))
        assert service.asked[0]["language_code"] == "od-IN"

    async def test_vocabulary(self, service: FakeSpeechService, both: Audio) -> None:
        terms = ("Sharma Sweets", "राजभोग", "x" * 65, *(f"term {i}" for i in range(60)))
        for model, sent in (("saaras:v4", [*terms[:2], *terms[3:51]]), ("saaras:v3", None), ("saarika:v2.5", None)):
            recognizer = SarvamRecognizer(service.url, api_key=KEY, model=model)
            await recognizer.recognize(both, SpeechRequest(("hi",), terms))
            await recognizer.aclose()
            asked = service.asked[-1]
            assert (json.loads(asked["keyterms"]) if sent else asked.get("keyterms")) == sent
            assert ("mode" in asked) is model.startswith("saaras")

    async def test_no_more_requests_at_once_than_allowed(self, service: FakeSpeechService, both: Audio) -> None:
        recognizer = SarvamRecognizer(service.url, api_key=KEY, requests=2, concurrency=3)
        handle, now, most = service.handle, 0, 0

        async def slow(request: object) -> object:
            nonlocal now, most
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.02)
            now -= 1
            return await handle(request)  # type: ignore[arg-type]

        fake = FakeSarvam()
        fake.handle = slow  # type: ignore[method-assign, assignment]
        async with serve(fake):
            recognizer = SarvamRecognizer(fake.url, api_key=KEY, requests=2, concurrency=3)
            await asyncio.gather(*(recognizer.recognize(both, HINDI) for _ in range(3)))
            await recognizer.aclose()
        assert most == 2

    async def test_spent_credit_and_a_busy_service_are_not_the_same(
        self, recognizer: Recognizer, service: FakeSpeechService, both: Audio
    ) -> None:
        spent = {"error": {"message": "No credits.", "code": "insufficient_quota_error"}}
        service.answers = [(429, spent, {"Retry-After": "0"})]
        failed = await self.failure(recognizer, both)
        assert not failed.retryable
        assert "top it up" in failed.reason
        busy = {"error": {"message": "Slow down.", "code": "rate_limit_exceeded_error"}}
        service.answers = [(429, busy, {"Retry-After": "0"}), (503, busy, {"Retry-After": "0"})]
        check_times(await recognizer.recognize(both, HINDI), both)
        service.answers = [(429, busy, {"Retry-After": "0"})] * 99
        assert (await self.failure(recognizer, both)).retryable

    async def test_the_fake_and_the_adapter_agree_with_the_official_client(
        self, recognizer: Recognizer, service: FakeSpeechService, both: Audio
    ) -> None:
        """It sends the same, and reads what the fake answers."""
        address = service.url
        environment = SarvamAIEnvironment(base=address, creative=address, production=address)
        audio = Audio((both.channels[0],), ("unknown",))
        terms = ("Sharma Sweets", "राजभोग")
        await recognizer.recognize(audio, SpeechRequest(("hi", "en"), terms))
        (piece, *_) = cut_into_pieces(audio.channels, longest_seconds=29)
        file = await wav_bytes(audio.channels[0][piece.first : piece.last])
        async with httpx.AsyncClient() as client:
            official = AsyncSarvamAI(api_subscription_key=KEY, environment=environment, httpx_client=client)
            answer = await official.speech_to_text.transcribe(
                file=("piece.wav", file, "audio/wav"),
                model="saaras:v4",
                mode="codemix",
                language_code="hi-IN",
                with_timestamps=True,
                keyterms=list(terms),
            )
        *ours, theirs = service.asked
        readable = [asked | {"keyterms": json.loads(asked["keyterms"])} for asked in (*ours, theirs)]
        assert readable[-1] in readable[:-1]
        assert answer.language_code == "hi-IN"
        assert answer.timestamps is not None
        assert answer.timestamps.words

    async def test_a_piece_without_times_of_its_own(
        self, recognizer: Recognizer, service: FakeSpeechService, both: Audio
    ) -> None:
        plain = {"request_id": "1", "transcript": "हाँ okay", "language_code": "hi-IN", "timestamps": None}
        service.answers = [(200, plain, {})] * 99
        recognition = await recognizer.recognize(both, HINGLISH)
        check_times(recognition, both)
        assert {word.text for words in recognition.channels for word in words} == {" हाँ okay"}

    async def test_times_of_another_number(
        self, recognizer: Recognizer, service: FakeSpeechService, both: Audio
    ) -> None:
        times = {"words": ["a", "b"], "start_time_seconds": [0], "end_time_seconds": [1, 2]}
        answer = {"request_id": "1", "transcript": "a b", "language_code": "hi-IN", "timestamps": times}
        service.answers = [(200, answer, {})]
        assert "no transcription" in (await self.failure(recognizer, both)).reason


# Settings


@pytest.mark.parametrize("name", ["deepgram", "sarvam"])
async def test_a_key_is_all_that_is_needed(name: str, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    chosen = settings.model_copy(update={"recognizer": name})
    with pytest.raises(SettingsError, match=f"RINGBACK_{name.upper()}_API_KEY"):
        providers.recognizer(chosen)
    monkeypatch.setenv(f"RINGBACK_{name.upper()}_API_KEY", "a-key")
    recognizer = providers.recognizer(chosen)
    assert recognizer.name.startswith(name)
    await recognizer.aclose()
