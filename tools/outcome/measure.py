"""Print how good the outcome classifier is on dialogues that it was not trained on, and what it costs.

.venv/bin/python -m tools.outcome.measure
"""

import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from app.transcription import embedding
from app.transcription.base import SpokenTurn
from app.transcription.outcome import classify_outcome

Expected = tuple[str, tuple[SpokenTurn, ...]]
HELD_OUT = Path(__file__).parent / "held_out.txt"
UNSEEN = Path("tests/unit/dialogues.json")


def held_out() -> Iterator[Expected]:
    """Lines of "outcome: agent | customer | agent …"."""
    for line in HELD_OUT.read_text().splitlines():
        outcome, _, said = line.partition(": ")
        texts = enumerate(said.split(" | "))
        yield outcome, tuple(SpokenTurn("customer" if n % 2 else "agent", text, n, n + 1) for n, text in texts)


def unseen() -> Iterator[Expected]:
    """Dialogues by others."""
    for dialogue in json.loads(UNSEEN.read_text()):
        turns = tuple(SpokenTurn(turn["role"], turn["content"], 0, 1) for turn in dialogue["turns"])
        yield dialogue["expected_outcome"], turns


def main() -> None:
    """The command."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for title, dialogues in (("by others", list(unseen())), ("held out", list(held_out()))):
        right = 0
        for expected, turns in dialogues:
            found = classify_outcome(turns)
            right += found.outcome == expected
            if found.outcome != expected:
                print(f"  {expected} -> {found.outcome} ({found.certainty:.2f}): {turns[-1].content}")
        print(f"{title}: {right} of {len(dialogues)}")
    print(f"memory: {(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024} MB more")
    six = tuple(turn for _, turns in list(unseen())[:2] for turn in turns)[:6]
    began = time.process_time()
    for _ in range(20):
        embedding._embed_one.cache_clear()
        classify_outcome(six)
    print(f"processor time: {(time.process_time() - began) / 20 * 1000:.0f} ms a call of {len(six)} turns")


if __name__ == "__main__":
    main()
