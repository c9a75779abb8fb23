"""Measures how wrong a transcript is."""

import re


def normalized(text: str) -> list[str]:
    """Words without case and punctuation, with numbers written one way."""
    text = text.lower().replace("%", " percent")
    spelled = {"eight": "8", "five": "5", "four": "4", "thirty": "30"}
    text = re.sub(r"(\d)[.:](\d)", r"\1 point \2", text)
    return [spelled.get(word, word) for word in re.findall(r"[a-z0-9']+", text) if word != "point"]


def word_errors(expected: list[str], recognized: list[str]) -> float:
    """Word error rate: the fewest substitutions, deletions and insertions, per expected word."""
    row = list(range(len(recognized) + 1))
    for i, word in enumerate(expected, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(recognized, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1] / len(expected)
