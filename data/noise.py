"""Disguised and careless spelling of user turns: the words change, the labels stay."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, fields

_LONG_WORD = re.compile(r"[A-Za-z]{4,}")
_LEETS = (str.maketrans("aeiostAEIOST", "431057431057"), str.maketrans("aeilosAEILOS", "@3!10$@3!10$"), str.maketrans("aeioAEIO", "4310" * 2))
_HOMOGLYPHS = str.maketrans("aceopxyiABCEHKMOPTX", "асеорхуіАВСЕНКМОРТХ")
_ZERO_WIDTH = "\u200b\u200c\u200d\u2060"
_KEYBOARD_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


@dataclass(frozen=True)
class Variation:
    """How often a user turn is varied in each way, 0…1; several ways may meet in one turn."""

    typos: float = 0.0
    casing: float = 0.0
    leet: float = 0.0
    spaced: float = 0.0
    homoglyphs: float = 0.0
    zero_width: float = 0.0
    masked: float = 0.0
    stretched: float = 0.0

    def __post_init__(self) -> None:
        for item in fields(self):
            if not 0.0 <= getattr(self, item.name) <= 1.0:
                raise ValueError(f"{item.name} is outside 0…1")


def _neighbour(letter: str, rng: random.Random) -> str:
    row = next((row for row in _KEYBOARD_ROWS if letter in row), letter)
    place = row.index(letter)
    return rng.choice(row[max(0, place - 1) : place] + row[place + 1 : place + 2] or letter)


def _slip(word: str, rng: random.Random) -> str:
    """One slip of the fingers in a word: two letters swapped, one lost, doubled, or hit beside the key."""
    place = rng.randrange(len(word) - 1)
    head, letter, tail = word[:place], word[place], word[place + 1 :]
    kind = rng.choice(("swap", "drop", "double", "neighbour"))
    if kind == "swap":
        return head + tail[0] + letter + tail[1:]
    if kind == "drop":
        return head + tail
    return head + (letter * 2 if kind == "double" else _neighbour(letter, rng)) + tail


def _in_some_words(text: str, rng: random.Random, change: Callable[[str], str], share: float) -> str:
    """Applies `change` to a share of the longer words, at least one."""
    words = list(_LONG_WORD.finditer(text))
    if not words:
        return text
    chosen = {word.start() for word in words if rng.random() < share} or {rng.choice(words).start()}
    return _LONG_WORD.sub(lambda word: change(word[0]) if word.start() in chosen else word[0], text)


def _typos(text: str, rng: random.Random) -> str:
    return _in_some_words(text, rng, lambda word: _slip(word, rng), 0.12)


def _casing(text: str, rng: random.Random) -> str:
    kind = rng.choice(("lower", "lower", "bare", "upper", "alternate"))
    if kind == "bare":
        return re.sub(r"[.,!?']", "", text).lower()
    if kind == "alternate":
        return "".join(letter.upper() if place % 2 else letter.lower() for place, letter in enumerate(text))
    return text.lower() if kind == "lower" else text.upper()


def _leet(text: str, rng: random.Random) -> str:
    table = rng.choice(_LEETS)
    return _in_some_words(text, rng, lambda word: word.translate(table), 0.4)


def _spaced(text: str, rng: random.Random) -> str:
    separator = rng.choice((" ", ".", "-", "*", "_", "/"))
    return _in_some_words(text, rng, separator.join, 0.15)


def _homoglyphs(text: str, rng: random.Random) -> str:
    return _in_some_words(text, rng, lambda word: word.translate(_HOMOGLYPHS), 0.4)


def _zero_width(text: str, rng: random.Random) -> str:
    def split(word: str) -> str:
        half = len(word) // 2
        return word[:half] + rng.choice(_ZERO_WIDTH) + word[half:]

    return _in_some_words(text, rng, split, 0.4)


def _masked(text: str, rng: random.Random) -> str:
    """Some letters inside a word hidden, as in f**l."""

    def hide(word: str) -> str:
        first = rng.randrange(1, len(word) - 1)
        last = rng.randint(first + 1, min(first + 2, len(word) - 1))
        return word[:first] + rng.choice("***#_") * (last - first) + word[last:]

    return _in_some_words(text, rng, hide, 0.15)


def _stretched(text: str, rng: random.Random) -> str:
    """A vowel held, as in sooo."""

    def hold(word: str) -> str:
        vowels = [place for place, letter in enumerate(word) if letter in "aeiouAEIOU"]
        place = rng.choice(vowels or [len(word) - 1])
        return word[:place] + word[place] * rng.randint(3, 5) + word[place + 1 :]

    return _in_some_words(text, rng, hold, 0.1)


_WAYS: dict[str, Callable[[str, random.Random], str]] = {
    "typos": _typos,
    "casing": _casing,
    "leet": _leet,
    "spaced": _spaced,
    "homoglyphs": _homoglyphs,
    "zero_width": _zero_width,
    "masked": _masked,
    "stretched": _stretched,
}


def vary(text: str, rates: Variation, rng: random.Random) -> str:
    """The text, varied in each way with its rate."""
    for name, way in _WAYS.items():
        if rng.random() < getattr(rates, name):
            text = way(text, rng)
    return text
