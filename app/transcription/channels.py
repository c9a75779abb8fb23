"""Decides who speaks on which channel. It uses the signals, because headers and the number of channels do not say it.

Two channels are agent and customer, in the order that the provider says. If both hold the same signal, nobody can say
who speaks. Of more channels, those with speech of their own count. What one person's channel holds of the other is
removed. Samples are processed in blocks, so that hours of audio fit. Pure numpy.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from app.transcription import crosstalk
from app.transcription.base import SAMPLE_RATE, Role
from app.transcription.crosstalk import FRAME, CopyShare, Mask, Signal

Stored = npt.NDArray[np.int16]
"""Samples x channels, at `SAMPLE_RATE`."""

_ROLES: tuple[Role, ...] = ("agent", "customer", "unknown")
_HALF = SAMPLE_RATE // crosstalk.RATE
_STORED_FRAME = FRAME * _HALF
_BLOCK = 300 * SAMPLE_RATE
_SILENCE_DB = -55.0
"""A channel whose loudest 10 ms are below this, in dB of full scale, is silent."""
_ONE_SIGNAL_DB = 14.0
"""If the same signal is on two channels, and their levels differ by more than this, one channel is an echo."""
_QUIET_DB = -26.0
"""A channel below this, in dB of full scale, is amplified, because the VAD misses the first words of a quiet line."""
_LEVELED_DB = -12.0
_MOST_GAIN_DB = 36.0
_NOT_MUTED: tuple[tuple[tuple[int, int], ...], float] = (), 0.0
_SAMPLED_BLOCKS = 4
_REST_FRAMES = 25
_WORTH_A_NOTE_SECONDS = 0.5


@dataclass(frozen=True, eq=False)
class Line:
    """One channel of a recording."""

    stored: Stored
    column: int
    number: int
    """The number of the channel, from 1."""

    def __len__(self) -> int:
        return len(self.stored)

    def signal(self, first: int, last: int) -> Signal:
        """These samples, at the rate at which signals are compared."""
        part = self.stored[first:last, self.column].astype(np.float32) / 32768
        part = part[: len(part) // _HALF * _HALF]
        signal: Signal = part.reshape(-1, _HALF).mean(axis=1, dtype=np.float32)
        return signal

    @cached_property
    def level(self) -> float:
        """The level of the loudest 10 ms, in dB of full scale. A constant is silence."""
        return self.level_without(())

    def level_without(self, muted: tuple[tuple[int, int], ...]) -> float:
        """The level without these ranges of samples."""
        loudest = 0.0
        for first, last in _blocks(len(self)):
            signal = self.signal(first, last)
            levels = crosstalk.energies(signal - signal.mean())
            for begin, end in muted:
                if end > first:
                    levels[max(0, begin - first) // _STORED_FRAME : (end - first) // _STORED_FRAME + 1] = 0
            loudest = max(loudest, float(levels.max(initial=0)))
        return 10 * float(np.log10(loudest + 1e-12))

    @cached_property
    def rest(self) -> npt.NDArray[np.int16]:
        """The quietest quarter of a second, forwards and backwards: the sound of the line when nobody speaks."""
        quietest, found = np.inf, np.zeros(1, np.int16)
        for first, last in _blocks(len(self)):
            levels = crosstalk.energies(self.signal(first, last))
            means = np.lib.stride_tricks.sliding_window_view(levels, min(len(levels), _REST_FRAMES)).mean(axis=1)
            if len(means) and means.min() < quietest:
                quietest = float(means.min())
                start = first + int(means.argmin()) * _STORED_FRAME
                stretch = self.stored[start : start + _REST_FRAMES * _STORED_FRAME, self.column]
                found = np.concatenate([stretch, stretch[::-1]])
        return found

    @property
    def is_silent(self) -> bool:
        return self.level < _SILENCE_DB

    def active(self, first: int, last: int) -> Mask:
        """The frames of these samples that are within 20 dB of the loudest ones of the channel."""
        return crosstalk.energies(self.signal(first, last)) > 10 ** ((self.level - 20) / 10)


@dataclass(frozen=True, eq=False)
class Voice:
    """A line in its role. The samples in `muted` belong to the other person.

    Muted samples become the line's own noise, because after digital silence or artificial noise the VAD misses the
    first words. It also misses the first words of a quiet line, which is therefore amplified.
    """

    role: Role
    line: Line
    muted: tuple[tuple[int, int], ...] = ()
    muted_seconds: float = 0.0
    """How many of the muted seconds are audible."""

    @cached_property
    def gain(self) -> float:
        """What the samples are multiplied by. It depends on what is not muted, so that an echo is not amplified."""
        level = self.line.level_without(self.muted)
        if level < _SILENCE_DB or level >= _QUIET_DB:
            return 1.0
        return float(10 ** (min(_LEVELED_DB - level, _MOST_GAIN_DB) / 20))

    def samples(self, first: int, last: int) -> npt.NDArray[np.int16]:
        part = self.line.stored[first:last, self.line.column].copy()
        for begin, end in self.muted:
            if begin < last and end > first:
                hole = part[max(0, begin - first) : max(0, end - first)]
                hole[:] = np.resize(self.line.rest, len(hole))
        if self.gain == 1.0:
            return part
        return (part * np.float32(self.gain)).round().clip(-32768, 32767).astype(np.int16)


@dataclass(frozen=True, slots=True)
class Choice:
    """The voices to transcribe, and the notes for the call's history."""

    voices: tuple[Voice, ...]
    notes: tuple[str, ...] = ()

    @property
    def roles(self) -> tuple[Role, ...]:
        """In the order of the output channels."""
        return tuple(role for role in _ROLES if any(voice.role == role for voice in self.voices))

    @property
    def length(self) -> int:
        """The number of samples."""
        return max((len(voice.line) for voice in self.voices), default=0)

    @property
    def level(self) -> float:
        """The level of the loudest 10 ms of all voices, in dB of full scale."""
        return max((voice.line.level for voice in self.voices), default=-120.0)

    def blocks(self) -> Iterator[Stored]:
        """The recording from its start, one column per role. Voices of one role are added."""
        for first, last in _blocks(self.length, merge=False):
            block = np.zeros((last - first, len(self.roles)), np.int32)
            for voice in self.voices:
                part = voice.samples(first, last)
                block[: len(part), self.roles.index(voice.role)] += part
            yield block.clip(-32768, 32767).astype(np.int16)


def choose(tracks: list[list[Stored]], agent_channel: int = 1) -> Choice:
    """Decide who speaks where. Each track is a list of arrays by number of channels, mostly just one array.
    `agent_channel`: which of two people is the agent, 1 or 2, in the order of their channels.

    Parts of a file with different numbers of channels are examined separately.
    """
    number = 0
    groups: list[list[Line]] = []
    for track in tracks:
        first, *others = track
        main = [Line(first, column, number + column + 1) for column in range(first.shape[1])]
        number += first.shape[1]
        if groups and len(tracks) > 1:
            groups[0] += main
        else:
            groups.insert(0, main)
        groups += [[Line(bank, column, column + 1) for column in range(bank.shape[1])] for bank in others]
    choices = [_choose_of(group, agent_channel) for group in groups]
    return Choice(
        tuple(voice for choice in choices for voice in choice.voices),
        tuple(note for choice in choices for note in choice.notes),
    )


def _choose_of(lines: list[Line], agent_channel: int) -> Choice:
    if len(lines) == 1:
        return Choice((Voice("unknown", lines[0]),))
    roles = _ROLES if agent_channel == 1 else ("customer", "agent", "unknown")
    if len(lines) == 2:
        return _pair(*_agent_first(lines, agent_channel))
    sounding = [line for line in lines if not line.is_silent]
    single = _without_mixes(_without_doubles(sounding))
    if not single:
        return _pair(*_agent_first(lines, agent_channel))
    if len(single) == 1:
        index = lines.index(single[0])
        role: Role = "unknown" if len(sounding) > 1 else roles[min(index, 2)]
        others = () if role == "unknown" else (Voice(roles[1 - index], lines[1 - index]),)
        note = f"Of {len(lines)} channels only channel {single[0].number} carries speech of its own"
        return Choice((Voice(role, single[0]), *others), (note,))
    if len(single) == 2:
        agent, customer = _agent_first(single, agent_channel)
        chosen = _pair(agent, customer)
        note = f"Of {len(lines)} channels {agent.number} and {customer.number} carry speech: agent and customer"
        return replace(chosen, notes=(note, *chosen.notes))
    numbers = ", ".join(str(line.number) for line in single[:-1])
    note = (
        f"Of {len(lines)} channels {numbers} and {single[-1].number} carry speech. Nobody can say which are agent and "
        "customer, so their turns have no roles"
    )
    return Choice(tuple(Voice("unknown", line) for line in single), (note,))


def _agent_first(lines: list[Line], agent_channel: int) -> tuple[Line, Line]:
    """The first two lines: the agent's and the customer's."""
    return (lines[0], lines[1]) if agent_channel == 1 else (lines[1], lines[0])


def _without_doubles(lines: list[Line]) -> list[Line]:
    """Of several lines with the same signal, the loudest."""
    kept: list[Line] = []
    for line in lines:
        same = next((at for at, other in enumerate(kept) if _are_one(other, line)), None)
        if same is None:
            kept.append(line)
        elif line.level > kept[same].level:
            kept[same] = line
    return kept


def _are_one(one: Line, other: Line) -> bool:
    return _share(one, other, _SAMPLED_BLOCKS).is_all and _share(other, one, _SAMPLED_BLOCKS).is_all


def _without_mixes(lines: list[Line]) -> list[Line]:
    """The lines that are not a mix of others. Every person in a mix has a line of their own."""
    kept = list(lines)
    for line in lines:
        others = [other for other in kept if other is not line and _share(other, line, _SAMPLED_BLOCKS).is_all]
        if len(others) >= 2 and _says_nothing_else(line, others):
            kept.remove(line)
    return kept


def _says_nothing_else(line: Line, others: list[Line]) -> bool:
    alone = spoken = 0
    for first, last in _blocks(min(len(line), *(len(other) for other in others))):
        active = line.active(first, last)
        others_active = np.any([other.active(first, last) for other in others], axis=0)
        padded = np.pad(others_active, 30)
        near = np.lib.stride_tricks.sliding_window_view(padded, 61).any(axis=1)
        spoken += int(np.count_nonzero(active))
        alone += int(np.count_nonzero(active & ~near))
    return alone <= 0.1 * spoken


def _pair(agent: Line, customer: Line) -> Choice:
    """Two people, or one recording of both."""
    if agent.is_silent or customer.is_silent:
        return Choice((Voice("agent", agent), Voice("customer", customer)))
    in_customer, in_agent = _share(agent, customer), _share(customer, agent)
    if in_customer.is_all and in_agent.is_all and abs(agent.level - customer.level) <= _ONE_SIGNAL_DB:
        louder = max(agent, customer, key=lambda line: line.level)
        note = (
            f"Channels {agent.number} and {customer.number} hold the same signal: one recording of both people, "
            "in which nobody can say who speaks"
        )
        return Choice((Voice("unknown", louder),), (note,))
    only_in_customer = in_customer.is_all and not in_agent.is_all
    only_in_agent = in_agent.is_all and not in_customer.is_all
    # A mix explains a person's own line, and an echo is much quieter. So what is as loud as the mix is left alone.
    is_mix = (only_in_agent or only_in_customer) and abs(agent.level - customer.level) <= _ONE_SIGNAL_DB
    of_agent = _NOT_MUTED if is_mix and only_in_customer else _muted(customer, agent, as_loud=only_in_agent)
    of_customer = _NOT_MUTED if is_mix and only_in_agent else _muted(agent, customer, as_loud=only_in_customer)
    voices = Voice("agent", agent, *of_agent), Voice("customer", customer, *of_customer)
    notes = [
        f"{voice.muted_seconds:.1f} s of the {other}'s voice on the {voice.role}'s channel were left out"
        for voice, other in zip(voices, ("customer", "agent"), strict=True)
        if voice.muted_seconds >= _WORTH_A_NOTE_SECONDS
    ]
    return Choice(voices, tuple(notes))


def _share(source: Line, target: Line, blocks: int | None = None) -> CopyShare:
    """How much of the source is on the target, in this many blocks, spread evenly. None: in all blocks."""
    every = _blocks(min(len(source), len(target)))
    chosen = every if blocks is None else every[:: max(1, len(every) // blocks)]
    found = CopyShare()
    for first, last in chosen:
        found += crosstalk.share(source.signal(first, last), target.signal(first, last))
    return found


def _muted(source: Line, target: Line, *, as_loud: bool) -> tuple[tuple[tuple[int, int], ...], float]:
    """The samples of the target that belong to the source, as ranges, and how many of their seconds are audible."""
    muted: list[tuple[int, int]] = []
    audible = 0
    for first, last in _blocks(min(len(source), len(target))):
        said, there = source.signal(first, last), target.signal(first, last)
        mask = crosstalk.copies(said, there)
        if as_loud:
            mask |= crosstalk.copies(said, there, quieter=False)
        audible += int(np.count_nonzero(mask & (crosstalk.energies(there) > 10 ** (_SILENCE_DB / 10))))
        muted += [
            (first + begin * _STORED_FRAME, first + end * _STORED_FRAME) for begin, end in crosstalk.stretches(mask)
        ]
    return tuple(muted), audible * FRAME / crosstalk.RATE


def _blocks(length: int, *, merge: bool = True) -> list[tuple[int, int]]:
    """Ranges of blocks of samples. `merge`: the last block is long enough to compare signals."""
    starts = list(range(0, length, _BLOCK))
    if merge and len(starts) > 1 and length - starts[-1] < _BLOCK / 2:
        starts.pop()
    return list(zip(starts, [*starts[1:], length], strict=True))
