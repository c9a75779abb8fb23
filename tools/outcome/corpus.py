"""The corpus of the outcome classifier: short dialogues made from templates, with a seed.

A file of `corpus/` holds one outcome. Its lines are templates: turns divided by `|`, agent first, `-` for any opening
sentence, `^` where the customer's side speaks first. `[a/b]` is a choice and `{name}` a slot of `slots.json`. `##`
begins an idea: templates that say the same in other words.
"""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.transcription.base import Role, SpokenTurn

FOLDER = Path(__file__).parent / "corpus"
SLOTS: dict[str, list[str]] = json.loads((Path(__file__).parent / "slots.json").read_text())
_PAIRS: dict[str, list[list[str]]] = json.loads((Path(__file__).parent / "slots.json").read_text())

_CHOICE = re.compile(r"\[([^\[\]]+)\]")
_SLOT = re.compile(r"\{(\w+)\}")
_DEVANAGARI = re.compile(r"[\u0900-\u097f]")
_HINDI = re.compile(
    r"\b(?:hai|hain|nahi|nahin|hoon|kar|karo|karna|kya|mujhe|mera|aap|haan|se|ko|ka|ki|bhi|baad|tha|liya)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class DialogueTemplate:
    """A line of the corpus. `name` is "outcome/idea/line"."""

    name: str
    outcome: str
    text: str

    @property
    def language(self) -> str:
        """`en`, `hi` for romanised Hindi, `dev` for Devanagari."""
        if _DEVANAGARI.search(self.text):
            return "dev"
        return "hi" if len(_HINDI.findall(self.text)) >= 2 else "en"


@dataclass(frozen=True, slots=True)
class Dialogue:
    template: DialogueTemplate
    turns: tuple[SpokenTurn, ...]


def templates() -> Iterator[DialogueTemplate]:
    """Every template, in the order of the files."""
    for path in sorted(FOLDER.glob("*.txt")):
        idea = ""
        for number, line in enumerate(path.read_text().splitlines()):
            if line.startswith("##"):
                idea = line.removeprefix("##").strip()
            elif line.strip():
                yield DialogueTemplate(f"{path.stem}/{idea}/{number}", path.stem, line.strip())


def dialogues(*, copies: int, seed: int) -> list[Dialogue]:
    """Every template `copies` times, each with other words around it. The same seed gives the same dialogues."""
    return [
        Dialogue(template, _made(template, random.Random(f"{seed} {template.name} {copy}")))
        for template in templates()
        for copy in range(copies)
    ]


def _made(template: DialogueTemplate, chance: random.Random) -> tuple[SpokenTurn, ...]:
    language = template.language
    parts = [part.strip() for part in template.text.split("|")]
    said: list[tuple[Role, str]] = []
    first: Role = "agent"
    if parts[0].startswith("^"):
        parts[0], first = parts[0].removeprefix("^").strip(), "customer"
    elif len(parts) > 1:
        if chance.random() < 0.3:
            agent, customer = chance.choice(_PAIRS[f"before_{language}"])
            said += [("agent", agent), ("customer", customer)]
        if parts[0] == "-":
            # An agent may open in English where the customer answers in Hindi.
            opened_in = "en" if chance.random() < 0.3 else language
            parts[0] = chance.choice(SLOTS[f"openers_{opened_in}"])
    others: Role = "customer" if first == "agent" else "agent"
    said += [(first if place % 2 == 0 else others, part) for place, part in enumerate(parts)]
    said = [(role, _filled(text, language, chance)) for role, text in said]
    if len(parts) > 1 and said[-1][0] == "customer" and chance.random() < 0.5:
        said.append(("agent", chance.choice(SLOTS[f"closers_{language}"])))
        if chance.random() < 0.35:
            said.append(("customer", chance.choice(SLOTS[f"bye_{language}"])))
    unknown = chance.random() < 0.1
    plain = chance.random() < 0.2
    turns = []
    for place, (role, text) in enumerate(said):
        spoken = _disturbed(text, role, language, chance)
        if plain:
            spoken = re.sub(r"[.,?!।]", "", spoken).lower()
        turns.append(SpokenTurn("unknown" if unknown else role, spoken, place * 4.0, place * 4.0 + 3))
    return tuple(turns)


def _filled(text: str, language: str, chance: random.Random) -> str:
    while _CHOICE.search(text):
        text = _CHOICE.sub(lambda choice: chance.choice(choice.group(1).split("/")), text)
    while _SLOT.search(text):
        text = _SLOT.sub(
            lambda slot: chance.choice(SLOTS.get(f"{slot.group(1)}_{language}", SLOTS[slot.group(1)])), text
        )
    return text[:1].upper() + text[1:]


def _disturbed(text: str, role: Role, language: str, chance: random.Random) -> str:
    """With a filler word, and now and then as a recognizer mishears: a word missing, twice, or with other letters."""
    if role == "customer" and chance.random() < 0.25:
        text = f"{chance.choice(SLOTS[f'fillers_{language}'])}, {text[:1].lower()}{text[1:]}"
    words = text.split()
    if len(words) > 4 and chance.random() < 0.25:
        place = chance.randrange(len(words))
        kind = chance.random()
        if kind < 0.3:
            words.insert(place, words[place])
        elif kind < 0.6 and len(words[place]) <= 3 and words[place].lower() not in ("not", "no", "na", "mat", "don't"):
            del words[place]
        elif len(words[place]) > 4:
            letter = chance.randrange(1, len(words[place]) - 1)
            words[place] = words[place][:letter] + words[place][letter + 1 :]
    return " ".join(words)
