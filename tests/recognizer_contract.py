"""What every recognizer must do. An adapter's test subclasses a suite, and supplies its `recognizer` and `service`.

`RecognizerContract` holds for every engine, `HostedRecognizerContract` for those over HTTP, too.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from app.telephony.simulator import CONVERSATIONS
from app.transcription.audio import load
from app.transcription.base import (
    SAMPLE_RATE,
    Audio,
    Recognition,
    Recognizer,
    Samples,
    SpeechRequest,
    TranscriptionError,
)
from tests.fake_speech_services import KEY, LOUD, QUIET, FakeSpeechService, serve

HINDI = SpeechRequest(("hi",))
_BOTH: list[Audio] = []
"""The fixture `both`, decoded once."""


def at_peak(channel: Samples, peak: int) -> Samples:
    """The channel, as loud as that."""
    return np.asarray(channel * (peak / np.abs(channel).max()), np.int16)


def silence(seconds: float) -> Samples:
    return np.zeros(int(seconds * SAMPLE_RATE), np.int16)


def check_times(recognition: Recognition, audio: Audio) -> None:
    """Times rise and lie inside the recording, and every word is a word."""
    assert len(recognition.channels) == len(audio.channels)
    for words in recognition.channels:
        starts = [word.start for word in words]
        assert starts == sorted(starts)
        assert all(0 <= word.start <= word.end <= audio.duration for word in words)
        assert all(word.text.strip() for word in words)


class RecognizerContract:
    """For every engine that recognizes Hindi."""

    @pytest.fixture
    async def both(self) -> Audio:
        """A conversation of 14 s: a loud agent and a quiet customer."""
        if not _BOTH:
            agent, customer = (await load(CONVERSATIONS / "callback.wav")).channels
            _BOTH.append(Audio((at_peak(agent, LOUD), at_peak(customer, QUIET))))
        return _BOTH[0]

    async def test_silence_has_no_words(self, recognizer: Recognizer) -> None:
        """Also in a language that the engine does not know."""
        for languages in ((), ("hi",), ("xx",)):
            for count in (1, 2):
                recognition = await recognizer.recognize(Audio((silence(5),) * count), SpeechRequest(languages))
                assert recognition == Recognition(((),) * count, None)

    async def test_words_are_those_of_their_channel(self, recognizer: Recognizer, both: Audio) -> None:
        speech = both.channels[0]
        for audio, spoken in (
            (Audio((speech, silence(both.duration))), 0),
            (Audio((silence(both.duration), speech)), 1),
        ):
            recognition = await recognizer.recognize(audio, HINDI)
            check_times(recognition, audio)
            assert recognition.channels[spoken]
            assert not recognition.channels[1 - spoken]
            assert recognition.language == "hi"

    async def test_times_count_from_the_start_of_the_recording(self, recognizer: Recognizer, both: Audio) -> None:
        late = np.concatenate([silence(40), both.channels[0]])
        audio = Audio((late,), ("unknown",))
        recognition = await recognizer.recognize(audio, HINDI)
        check_times(recognition, audio)
        (words,) = recognition.channels
        assert words[0].start >= 39

    async def test_channels_of_other_lengths(self, recognizer: Recognizer, both: Audio) -> None:
        audio = Audio((both.channels[0], both.channels[1][: 8 * SAMPLE_RATE]))
        check_times(await recognizer.recognize(audio, HINDI), audio)

    async def test_the_name_tells_the_model(self, recognizer: Recognizer) -> None:
        assert " " in recognizer.name


class HostedRecognizerContract(RecognizerContract):
    """For engines over HTTP."""

    prefix: str
    """Of the adapter's environment variables."""

    def make(self, url: str, key: str) -> Recognizer:
        """The adapter."""
        raise NotImplementedError

    def make_service(self) -> FakeSpeechService:
        """The fake that it talks to."""
        raise NotImplementedError

    @pytest.fixture
    async def service(self) -> AsyncIterator[FakeSpeechService]:
        service = self.make_service()
        async with serve(service):
            yield service

    @pytest.fixture
    async def recognizer(self, service: FakeSpeechService) -> AsyncIterator[Recognizer]:
        recognizer = self.make(service.url, KEY)
        yield recognizer
        await recognizer.aclose()

    async def failure(self, recognizer: Recognizer, audio: Audio) -> TranscriptionError:
        with pytest.raises(TranscriptionError) as failed:
            await recognizer.recognize(audio, HINDI)
        return failed.value

    async def test_silence_is_not_sent(self, recognizer: Recognizer, service: FakeSpeechService) -> None:
        await recognizer.recognize(Audio((silence(5),) * 2), SpeechRequest())
        assert service.asked == []

    async def test_each_voice_is_on_its_channel(self, recognizer: Recognizer, both: Audio) -> None:
        recognition = await recognizer.recognize(both, HINDI)
        check_times(recognition, both)
        agent, customer = ({word.text.strip().lower() for word in words} for words in recognition.channels)
        assert (agent, customer) == ({"loud"}, {"quiet"})
        swapped = Audio(both.channels[::-1])
        agent, customer = (
            {word.text.strip().lower() for word in words}
            for words in (await recognizer.recognize(swapped, HINDI)).channels
        )
        assert (agent, customer) == ({"quiet"}, {"loud"})

    async def test_the_language_is_detected_once(self, recognizer: Recognizer, both: Audio) -> None:
        assert (await recognizer.recognize(both, SpeechRequest())).language == "hi"

    async def test_a_wrong_key(self, service: FakeSpeechService, both: Audio) -> None:
        recognizer = self.make(service.url, "a-wrong-key")
        failed = await self.failure(recognizer, both)
        await recognizer.aclose()
        assert not failed.retryable
        assert f"{self.prefix}API_KEY" in failed.reason
        assert "a-wrong-key" not in failed.reason
        assert len(service.asked) == 1

    @pytest.mark.parametrize("status", [500, 502, 504])
    async def test_a_service_that_is_down(
        self, recognizer: Recognizer, service: FakeSpeechService, both: Audio, status: int
    ) -> None:
        service.answers = [(status, "<html>down</html>", {})] * 99
        failed = await self.failure(recognizer, both)
        assert failed.retryable
        assert str(status) in failed.reason

    async def test_a_service_that_cannot_be_reached(self, both: Audio) -> None:
        recognizer = self.make("http://127.0.0.1:1", "a-key")
        failed = await self.failure(recognizer, both)
        await recognizer.aclose()
        assert failed.retryable
        assert f"{self.prefix}URL" in failed.reason

    @pytest.mark.parametrize("answer", ["<html>", "", "null", "[]", "{", "[" * 100_000, '{"results": 7}', "7"])
    async def test_an_answer_that_is_no_transcription(
        self, recognizer: Recognizer, service: FakeSpeechService, both: Audio, answer: str
    ) -> None:
        service.answers = [(200, answer, {})]
        failed = await self.failure(recognizer, both)
        assert not failed.retryable
        assert "no transcription" in failed.reason

    async def test_a_redirect_is_not_followed(
        self, recognizer: Recognizer, service: FakeSpeechService, both: Audio
    ) -> None:
        service.answers = [(302, "", {"Location": f"{service.url}/elsewhere"})]
        assert not (await self.failure(recognizer, both)).retryable
        assert len(service.asked) == 1

    @pytest.mark.parametrize("suffix", ["\x00", "\ud800", "\udfff\x00!"])
    async def test_text_that_no_database_takes(
        self, recognizer: Recognizer, service: FakeSpeechService, both: Audio, suffix: str
    ) -> None:
        service.suffix = suffix
        recognition = await recognizer.recognize(both, HINDI)
        text = "".join(word.text for words in recognition.channels for word in words)
        assert "loud" in text.lower()
        assert "\x00" not in text
        text.encode()

    async def test_many_recordings_at_once(self, recognizer: Recognizer, both: Audio) -> None:
        asked: list[Any] = [recognizer.recognize(both, HINDI) for _ in range(4)]
        assert len(set(await asyncio.gather(*asked))) == 1
