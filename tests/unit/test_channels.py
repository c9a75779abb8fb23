"""Who is on which channel, with mixtures of the simulator's conversations. No recognition."""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from app.telephony.simulator import CONVERSATIONS
from app.transcription.base import SAMPLE_RATE
from app.transcription.channels import Choice, choose

Sides = npt.NDArray[np.float64]
"""Samples x channels at 16 kHz."""
GENERATOR = np.random.default_rng(5)


@cache
def conversation(name: str) -> Sides:
    samples, rate = soundfile.read(CONVERSATIONS / f"{name}.wav")
    sides: Sides = np.repeat(samples, SAMPLE_RATE // rate, axis=0)
    return sides


def turns(name: str) -> list[dict[str, Any]]:
    return list(json.loads((CONVERSATIONS / f"{name}.json").read_text())["turns"])


def gain(decibels: float) -> float:
    return float(10 ** (decibels / 20))


def late(samples: Sides, seconds: float) -> Sides:
    """Shifted. Negative: early."""
    rolled: Sides = np.roll(samples, round(seconds * SAMPLE_RATE), axis=0)
    return rolled


def companded(samples: Sides) -> Sides:
    """As a line with µ-law carries it."""
    size: Sides = np.log1p(255 * np.abs(samples).clip(0, 1)) / np.log1p(255)
    coded: Sides = np.sign(samples) * np.expm1(np.round(size * 127) / 127 * np.log1p(255)) / 255
    return coded


def chosen(*tracks: Sides, agent_channel: int = 1) -> Choice:
    return choose([[(track.clip(-1, 1) * 32767).astype(np.int16)] for track in tracks], agent_channel)


def samples_of(choice: Choice) -> dict[str, Sides]:
    """What goes to recognition, by role, at its level in the recording."""
    samples = np.concatenate(list(choice.blocks())) / 32768
    gains = [next(voice.gain for voice in choice.voices if voice.role == role) for role in choice.roles]
    return dict(zip(choice.roles, (samples / gains).T, strict=True))


def energy(samples: Sides, turn: dict[str, Any]) -> float:
    part = samples[round(turn["start"] * SAMPLE_RATE) : round(turn["end"] * SAMPLE_RATE)]
    return float(np.square(part).sum())


SAME: dict[str, Callable[[Sides], tuple[Sides, Sides]]] = {
    "exactly": lambda mono: (mono, mono),
    "at other levels": lambda mono: (companded(mono), companded(gain(-12) * mono)),
    "turned round and shifted": lambda mono: (companded(mono), companded(-0.7 * late(mono, 0.06))),
    "half a second early": lambda mono: (mono, companded(late(mono, -0.5))),
    "with noise of its own on each": lambda mono: (
        mono + GENERATOR.normal(0, gain(-48), len(mono)),
        mono + GENERATOR.normal(0, gain(-48), len(mono)),
    ),
}


@pytest.mark.parametrize("how", SAME)
def test_one_signal_on_two_channels_has_no_roles(how: str) -> None:
    choice = chosen(np.stack(SAME[how](conversation("not_interested").sum(axis=1) / 2), axis=1))
    assert choice.roles == ("unknown",)
    assert "same signal" in choice.notes[0]


TWO_PEOPLE: dict[str, Callable[[Sides], Sides]] = {
    "as they are": lambda sides: sides,
    "who talk at once": lambda sides: np.stack([sides[:, 0], late(sides[:, 1], -4)], axis=1),
    "one of whom is silent": lambda sides: sides * [1, 0],
    "on a noisy line": lambda sides: sides + GENERATOR.normal(0, gain(-45), sides.shape),
    "one of whom is quiet": lambda sides: sides * [1, gain(-15)],
}


@pytest.mark.parametrize("how", TWO_PEOPLE)
@pytest.mark.parametrize("name", ["not_interested", "voicemail"])
def test_two_people_stay_two_and_lose_nothing(name: str, how: str) -> None:
    sides = TWO_PEOPLE[how](conversation(name))
    choice = chosen(sides)
    assert choice.roles == ("agent", "customer")
    assert not choice.notes
    for column, role in enumerate(choice.roles):
        kept = np.square(samples_of(choice)[role]).sum()
        assert kept == pytest.approx(np.square(sides[:, column]).sum(), rel=0.02, abs=1e-6)


@pytest.mark.parametrize("decibels", [-15, -20, -30])
def test_a_quiet_line_is_amplified(decibels: float) -> None:
    choice = chosen(conversation("not_interested") * gain(decibels))
    loudest = np.abs(np.concatenate(list(choice.blocks())) / 32768).max(axis=0)
    assert (loudest > 0.2).all()
    assert (loudest < 1).all()


def test_a_loud_line_and_silence_are_left_alone() -> None:
    sides = conversation("not_interested") * [1, 0]
    noise = np.random.default_rng(2).normal(0, gain(-70), sides.shape)
    assert [voice.gain for voice in chosen(sides + noise).voices] == [1.0, 1.0]


@pytest.mark.parametrize("how", TWO_PEOPLE)
def test_the_agent_may_be_on_the_second_channel(how: str) -> None:
    sides = TWO_PEOPLE[how](conversation("not_interested"))
    choice = chosen(sides[:, ::-1], agent_channel=2)
    assert choice.roles == ("agent", "customer")
    for column, role in enumerate(choice.roles):
        kept = np.square(samples_of(choice)[role]).sum()
        assert kept == pytest.approx(np.square(sides[:, column]).sum(), rel=0.02, abs=1e-6)


def crosstalk(sides: Sides, decibels: float, seconds: float) -> Sides:
    return companded(sides + gain(decibels) * late(sides[:, ::-1], seconds))


ECHOES = {
    **{
        f"{db} dB, {ms} ms": (db, ms) for db, ms in [(-15, 0), (-15, 400), (-20, 60), (-25, 7), (-25, 400), (-20, -100)]
    },
    "a loud one": (-6, 30),
}


@pytest.mark.parametrize("how", ECHOES)
@pytest.mark.parametrize("name", ["not_interested", "do_not_call"])
def test_crosstalk_is_left_out_and_no_turn_is_lost(name: str, how: str) -> None:
    """Short turns count, too, such as "Okay." and "Goodbye.", of which none may be lost."""
    sides = conversation(name)
    decibels, milliseconds = ECHOES[how]
    mixed = crosstalk(sides, decibels, milliseconds / 1000)
    left = samples_of(chosen(mixed))
    assert set(left) == {"agent", "customer"}
    for turn in turns(name):
        own, other = (0, 1) if turn["role"] == "agent" else (1, 0)
        kept = energy(left[turn["role"]], turn)
        assert kept >= 0.9 * energy(sides[:, own], turn), turn
        if energy(sides[:, other], turn) < 1e-3 * energy(sides[:, own], turn):  # nobody else speaks
            copied = energy(left["customer" if own == 0 else "agent"], turn)
            assert copied <= 0.1 * energy(mixed[:, other], turn), turn


def test_a_path_that_changes_is_followed() -> None:
    sides = conversation("interested")
    half = len(sides) // 2
    mixed = np.concatenate([crosstalk(sides, -18, 0.1)[:half], crosstalk(sides, -18, 0.3)[half:]])
    left = samples_of(chosen(mixed))
    for turn in turns("interested"):
        own, other = (0, 1) if turn["role"] == "agent" else (1, 0)
        assert energy(left[turn["role"]], turn) >= 0.9 * energy(sides[:, own], turn)
        copied = energy(left["customer" if own == 0 else "agent"], turn)
        assert copied <= 0.6 * energy(mixed[:, other], turn), turn


def test_the_echo_of_one_person_on_the_channel_of_a_silent_one() -> None:
    agent = conversation("callback")[:, 0]
    choice = chosen(np.stack([agent, companded(gain(-20) * late(agent, 0.2))], axis=1))
    assert choice.roles == ("agent", "customer")
    assert np.square(samples_of(choice)["customer"]).sum() < 0.1 * np.square(gain(-20) * agent).sum()


@pytest.mark.parametrize("name", ["do_not_call", "callback"])
@pytest.mark.parametrize("mixed", ["customer", "agent"])
def test_a_channel_on_which_both_are_counts_for_the_other(name: str, mixed: str) -> None:
    """One person on one channel, the mixed call on the other. Nothing of the person is lost to the mix."""
    sides = conversation(name)
    own, other = (0, 1) if mixed == "customer" else (1, 0)
    both = sides.copy()
    both[:, other] = companded(sides.sum(axis=1))
    found = samples_of(chosen(both))
    alone = next(role for role in found if role != mixed)
    for turn in turns(name):
        kept = energy(found[mixed], turn) / energy(both[:, other], turn)
        assert kept > 0.9 if turn["role"] == mixed else kept < 0.1, turn
        if turn["role"] == alone:
            assert energy(found[alone], turn) > 0.9 * energy(sides[:, own], turn), turn


MORE: dict[str, tuple[Callable[[Sides, Sides], tuple[Sides, ...]], tuple[int, int]]] = {
    "a silent third": (lambda one, two: (one, two, 0 * one), (0, 1)),
    "silent ones between": (lambda one, two: (0 * one, one, 0 * one, two), (1, 3)),
    "both, mixed": (lambda one, two: (one, two, (one + two) / 2), (0, 1)),
    "the mix first": (lambda one, two: ((one + two) / 2, one, two), (1, 2)),
    "each of them twice": (lambda one, two: (one, one, two, 0.9 * two), (0, 2)),
}


@pytest.mark.parametrize("how", MORE)
def test_of_more_channels_the_two_that_carry_speech(how: str) -> None:
    one, two = conversation("callback").T
    make, wanted = MORE[how]
    channels = np.stack(make(one, two), axis=1)
    choice = chosen(channels)
    assert choice.roles == ("agent", "customer")
    for role, column in zip(choice.roles, wanted, strict=True):
        assert np.square(samples_of(choice)[role] - channels[:, column]).mean() < 1e-6
    assert all(str(column + 1) in choice.notes[0] for column in wanted)
    swapped = chosen(channels, agent_channel=2)
    assert np.square(samples_of(swapped)["customer"] - samples_of(choice)["agent"]).mean() < 1e-6
    assert np.square(samples_of(swapped)["agent"] - samples_of(choice)["customer"]).mean() < 1e-6


@pytest.mark.parametrize(("agent_channel", "role"), [(1, "agent"), (2, "customer")])
def test_one_person_alone_on_many_channels(agent_channel: int, role: str) -> None:
    one = conversation("callback")[:, 0]
    choice = chosen(np.stack([one, 0 * one, 0 * one], axis=1), agent_channel=agent_channel)
    assert choice.roles == ("agent", "customer")
    assert np.square(samples_of(choice)[role] - one).mean() < 1e-6


def test_three_people_have_no_roles_and_a_reason() -> None:
    one, two = conversation("callback").T
    three = np.resize(conversation("voicemail")[:, 0], len(one))
    choice = chosen(np.stack([one, two, three], axis=1))
    assert choice.roles == ("unknown",)
    assert "Nobody can say" in choice.notes[0]
    assert np.square(samples_of(choice)["unknown"] - (one + two + three)).mean() < 1e-6


def test_one_signal_on_all_of_many_channels_has_no_roles() -> None:
    mono = conversation("callback").mean(axis=1)
    assert chosen(np.stack([mono, mono, 0.5 * mono], axis=1)).roles == ("unknown",)


def test_tracks_are_people_in_their_order() -> None:
    one, two = conversation("callback").T
    choice = chosen(one[:, None], two[:, None])
    assert choice.roles == ("agent", "customer")
    assert np.square(samples_of(choice)["customer"] - two).mean() < 1e-6
    with_mix = chosen(np.stack([one, two], axis=1), ((one + two) / 2)[:, None])
    assert with_mix.roles == ("agent", "customer")
    each_in_stereo = chosen(np.stack([one, one], axis=1), np.stack([two, two], axis=1))
    assert each_in_stereo.roles == ("agent", "customer")
