"""Measures how wrong a transcript is."""

import re

_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_NUMBERS = {word: number for number, word in enumerate(_UNITS)}
_TENS = {
    f"{word}ty": 10 * tens
    for tens, word in enumerate(["twen", "thir", "for", "fif", "six", "seven", "eigh", "nine"], 2)
}
_WRITTEN = {"mister": "mr", "per cent": "percent", "inquir": "enquir"}


def normalized(text: str) -> list[str]:
    """Words without case and punctuation, with numbers and a few other words written one way."""
    text = text.lower().replace("%", " percent").replace("’", "'")
    for other, usual in _WRITTEN.items():
        text = text.replace(other, usual)
    text = re.sub(r"(\d)[.:](\d)", r"\1 point \2", text)
    words: list[str] = []
    tens = 0
    for word in re.findall(r"[a-z0-9']+", text):
        if word == "point":
            continue
        if tens and 0 < _NUMBERS.get(word, 0) < 10:
            words[-1] = str(tens + _NUMBERS[word])
        else:
            words.append(str(_NUMBERS.get(word, _TENS.get(word, word))))
        tens = _TENS.get(word, 0)
    return words


def count_errors(expected: list[str], recognized: list[str]) -> int:
    """The fewest substitutions, deletions and insertions."""
    row = list(range(len(recognized) + 1))
    for i, word in enumerate(expected, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(recognized, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]


def word_errors(expected: list[str], recognized: list[str]) -> float:
    """Word error rate: errors per expected word."""
    return count_errors(expected, recognized) / len(expected)
