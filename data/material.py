"""Material for composed dialogues: turns and short stretches of labelled dialogues, sorted into pools by their labels.

A pool never knows which source a turn comes from; a source that is added later joins the pools that its labels fit.
Pools are bounded: each keeps at most so many turns of a source, the same ones for the same seed
whatever their order in the file.
"""

from __future__ import annotations

import hashlib
import heapq
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Generic, Literal, TypeVar

from lastresort.data import read_dialogues
from lastresort.errors import ConfigError
from lastresort.types import Dialogue, Message

from .grammars import TRIGGERS, VETOES

T = TypeVar("T")

Use = Literal["any", "opening", "none"]
"""Which turns may serve as material: any, only the opening (the first user turn, alone or with its answer), or none."""

HARMFUL = 0.5
"""At or above it a turn counts as harmful, and an assistant turn as a redirection."""
HARMLESS = 0.1
"""At or below it a turn counts as harmless; between the two nothing is assumed."""
CLEAR = 0.6
"""At or above it a label is clear enough to choose a turn for it."""
BANDS = {"mild": 0.5, "clear": 0.84, "grave": 1.01}
"""Upper bounds of `severity`."""
FITS_ANYTHING_WORDS = 30
"""A refusal of at most so many words seldom names what it refuses, and so fits any harm."""
HELD_SPLITS = ("validation", "endbench")
"""Splits that are never trained on."""
TELLING_WORDS = 4
"""Shorter texts occur again and again and say nothing about a split."""
EVEN_UP_TO = 50
"""Pieces of a source up to which each counts the same in a pool."""
_SENTENCE_END = re.compile(r"[.!?…][\"')\]]*(?=\s)")


@dataclass(frozen=True)
class Source:
    """How one prepared source is used.

    Attributes:
        cap: at most so many of its dialogues pass through as they are; null = all.
        weight: relative chance of its turns as material; 0 = never.
        use: which of its turns may serve as material.
        required: whether a missing folder is an error.
        as_is: dialogues pass through unchanged, neither shortened nor varied.
        folder: where its splits lie, if not among the prepared sources (our own corpus comes ready).
        template: its texts are much alike (made from templates or by one model); see `ComposeConfig.template_share`.
    """

    cap: int | None = None
    weight: float = 1.0
    use: Use = "any"
    required: bool = True
    as_is: bool = False
    folder: str | None = None
    template: bool = False

    def __post_init__(self) -> None:
        if self.cap is not None and self.cap < 0:
            raise ValueError("cap is below 0")
        if not self.weight >= 0.0:
            raise ValueError("weight is below 0")


@dataclass(frozen=True)
class Longest:
    """Length limits in words; a longer turn is cut at the end of a sentence, between half the limit and the limit."""

    assistant_words: int = 120
    user_words: int = 200

    def __post_init__(self) -> None:
        if min(self.assistant_words, self.user_words) < 10:
            raise ValueError("a limit is below 10 words")


@dataclass(frozen=True)
class Piece:
    """Something to build with.

    Attributes:
        origin: id of the dialogue it comes from.
        messages: one turn, a user turn with its answer, or a longer stretch.
    """

    origin: str
    messages: tuple[Message, ...]


class Pool:
    """Pieces to draw from.

    A source's chance grows with its weight and with how many pieces it has here: evenly up to `EVEN_UP_TO`,
    with the square root beyond, so that a large source does not drown the others and a tiny one is not worn out.
    """

    def __init__(self, pieces: Mapping[str, list[Piece]], weights: Mapping[str, float]) -> None:
        named = {name: group for name, group in pieces.items() if group}
        self._groups = list(named.values())
        chances = (weights[name] * len(group) / max(len(group), EVEN_UP_TO) ** 0.5 for name, group in named.items())
        self._cumulative = list(accumulate(chances))

    def __len__(self) -> int:
        return sum(len(group) for group in self._groups)

    def draw(self, rng: random.Random) -> Piece:
        """One piece."""
        return rng.choice(rng.choices(self._groups, cum_weights=self._cumulative)[0])


def harm_of(labels: Mapping[str, float]) -> float | None:
    """Harm of a user turn, None if the labels do not tell."""
    if "harm" in labels:
        return labels["harm"]
    known = [labels[name] for name in TRIGGERS if name in labels]
    return max(known) if len(known) == len(TRIGGERS) or max(known, default=0.0) >= HARMFUL else None


def categories_of(labels: Mapping[str, float]) -> frozenset[str]:
    """Trigger categories of a harmful turn; `harm` if it is harmful in a way that the labels do not name."""
    return frozenset(name for name in TRIGGERS if labels.get(name, 0.0) >= HARMFUL) or frozenset({"harm"})


def is_harmless(message: Message) -> bool:
    """Whether a user turn is known to be harmless, shows no risk and does not ask to end."""
    harm = harm_of(message.labels)
    others = max(message.labels.get(name, 0.0) for name in (*VETOES, "end_request"))
    return message.role == "user" and harm is not None and harm <= HARMLESS and others <= HARMLESS


def _is_refusal(message: Message) -> bool:
    labels = message.labels
    redirects = labels.get("redirection", 0.0) >= CLEAR
    return message.role == "assistant" and redirects and labels.get("compliance", 0.0) < HARMFUL


def _is_plain(message: Message) -> bool:
    labels = message.labels
    most = max(labels.get("redirection", 1.0), labels.get("compliance", 1.0))
    return message.role == "assistant" and most <= HARMLESS


def _complies(message: Message) -> bool:
    labels = message.labels
    complies = labels.get("compliance", 0.0) >= CLEAR
    return message.role == "assistant" and complies and labels.get("redirection", 0.0) < HARMFUL


def band_of(labels: Mapping[str, float]) -> str | None:
    """The severity band of a turn, None if unknown."""
    severity = labels.get("severity")
    return None if severity is None else next(name for name, bound in BANDS.items() if severity < bound)


def _user_pools(message: Message) -> Iterator[str]:
    labels = message.labels
    if is_harmless(message):
        yield "harmless"
    for veto in VETOES:
        if labels.get(veto, 0.0) >= CLEAR:
            yield veto
    if max(labels.get(name, 0.0) for name in VETOES) >= HARMFUL:
        return
    for trigger in TRIGGERS:
        if labels.get(trigger, 0.0) >= CLEAR:
            yield f"harm:{trigger}"
        if labels.get(trigger, 0.0) >= HARMFUL and (band := band_of(labels)):
            yield f"harm:{trigger}:{band}"


def _assistant_pools(message: Message) -> Iterator[str]:
    if message.labels.get("distress", 0.0) >= HARMFUL:
        return
    if _is_refusal(message):
        yield "refusal"
        if len(message.content.split()) <= FITS_ANYTHING_WORDS:
            yield "refusal:short"
    if _is_plain(message):
        yield "plain"
    if _complies(message):
        yield "compliance"


def _exchange_pools(user: Message, assistant: Message) -> Iterator[str]:
    """Pools of a user turn with the answer that it really got."""
    for pool in _user_pools(user):
        for answer in _assistant_pools(assistant):
            if pool.count(":") <= 1 and ":" not in answer:
                yield f"{pool}+{answer}"


def _pieces(dialogue: Dialogue, use: Use) -> Iterator[tuple[str, tuple[Message, ...]]]:
    """All pieces of a dialogue, each with the pool it belongs to."""
    messages = [message for message in dialogue.messages if message.content.strip()]
    for index, message in enumerate(messages):
        first = all(earlier.role == "system" for earlier in messages[:index])
        after = messages[index + 1] if index + 1 < len(messages) else None
        if message.role == "user" and (first or use == "any"):
            # a harmless turn from the middle of a talk hangs in the air elsewhere; a harmful one mostly does not
            yield from ((pool, (message,)) for pool in _user_pools(message) if first or pool != "harmless")
            if after is not None and after.role == "assistant" and first:
                yield from ((pool, (message, after)) for pool in _exchange_pools(message, after))
        if message.role == "assistant" and use == "any":
            yield from ((pool, (message,)) for pool in _assistant_pools(message))
    if use == "any" and len(messages) >= 4 and all(is_harmless(m) if m.role == "user" else _is_plain(m) for m in messages):
        yield "chat", tuple(messages)


def shorten(text: str, limit_words: int, rng: random.Random) -> str:
    """The text; if it is too long, cut to a length drawn between half the limit and the limit.

    The cut is at the end of a sentence, if one ends in the last two thirds.
    """
    words = list(re.finditer(r"\S+", text))
    if len(words) <= limit_words:
        return text
    most = rng.randint(limit_words // 2, limit_words)
    head = text[: words[most - 1].end()]
    ends = [match.end() for match in _SENTENCE_END.finditer(head + " ") if match.end() >= len(head) // 3]
    return head[: ends[-1]] if ends else head


def fit(message: Message, longest: Longest, rng: random.Random) -> Message | None:
    """The message within the limits.

    None for a user turn that is too long and not known to be harmless: what is harmful in it might be cut off.
    """
    if message.role == "assistant":
        return replace(message, content=shorten(message.content, longest.assistant_words, rng))
    if message.role != "user" or len(message.content.split()) <= longest.user_words:
        return message
    return replace(message, content=shorten(message.content, longest.user_words, rng)) if is_harmless(message) else None


def rank(*parts: object) -> int:
    """A number in 0…2**64-1 that stands for these parts: the same everywhere, spread evenly."""
    key = "\x00".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big")


class Lowest(Generic[T]):
    """Keeps the items with the lowest ranks, each rank once: a seeded choice whose memory is bounded."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[int] = []
        self._items: dict[int, T] = {}

    def offer(self, number: int, item: T) -> None:
        """Takes the item if its rank is new and low enough."""
        if number in self._items or self._most == 0:
            return
        if len(self._heap) == self._most:
            if number >= -self._heap[0]:
                return
            del self._items[-heapq.heapreplace(self._heap, -number)]
        else:
            heapq.heappush(self._heap, -number)
        self._items[number] = item

    def items(self) -> list[T]:
        """The items in the order of their ranks."""
        return [self._items[number] for number in sorted(self._items)]


def split_file(sources: Mapping[str, Source], prepared_dir: Path, name: str, split: str) -> Path:
    """Where a split of a source lies."""
    folder = sources[name].folder
    return (prepared_dir / name if folder is None else Path(folder)) / f"{split}.jsonl"


def _texts(dialogue: Dialogue) -> Iterator[int]:
    """A number for each labelled turn's text, case and spacing aside; none for texts too short to be told apart ("yes, please")."""
    for message in dialogue.messages:
        words = message.content.lower().split()
        if message.labels and len(words) >= TELLING_WORDS:
            yield rank("text", *words)


def held_texts(sources: Mapping[str, Source], prepared_dir: Path) -> frozenset[int]:
    """The texts of every labelled turn that is held back (validation, and the public benchmark of the written corpus)."""
    files = (split_file(sources, prepared_dir, name, split) for name in sorted(sources) for split in HELD_SPLITS)
    return frozenset(text for file in files if file.is_file() for dialogue in read_dialogues(file) for text in _texts(dialogue))


def read_split(sources: Mapping[str, Source], prepared_dir: Path, name: str, split: str, held: frozenset[int] = frozenset()) -> Iterator[Dialogue]:
    """The dialogues of a split, without those that share a text of `held`."""
    for dialogue in read_dialogues(split_file(sources, prepared_dir, name, split)):
        if held.isdisjoint(_texts(dialogue)):
            yield dialogue


def present(sources: Mapping[str, Source], prepared_dir: Path, split: str, *, where: str) -> list[str]:
    """The names of the configured sources that are there, sorted.

    Raises:
        ConfigError: a required source is missing.
    """
    names = []
    for name in sorted(sources):
        if split_file(sources, prepared_dir, name, split).is_file():
            names.append(name)
        elif sources[name].required:
            raise ConfigError(f"{where}: sources.{name}: found no {name}/{split}.jsonl among the prepared sources, expected one (or required: false)")
    return names


def gather(
    sources: Mapping[str, Source], prepared_dir: Path, split: str, *, seed: int, most: int, longest: Longest, where: str, held: frozenset[int] = frozenset()
) -> dict[str, Pool]:
    """Reads one split of all sources once and sorts it into pools.

    Args:
        sources: name to settings.
        prepared_dir: folder with one folder a source.
        split: `train` or `validation`; no other file is opened.
        seed: decides which pieces a full pool keeps.
        most: pieces of one source that a pool keeps.
        longest: length limits.
        where: the config's name in errors.
        held: texts that may not occur; see `held_texts`.
    """
    kept: dict[str, dict[str, Lowest[Piece]]] = {}
    there = present(sources, prepared_dir, split, where=where)
    used = [name for name in there if sources[name].weight > 0 and sources[name].use != "none"]
    for name in used:
        for dialogue in read_split(sources, prepared_dir, name, split, held):
            for pool, messages in _pieces(dialogue, sources[name].use):
                text = " ".join(word for message in messages for word in message.content.lower().split())
                number = rank(seed, pool, text)
                fitted = _fit_all(messages, longest, random.Random(number))
                if fitted:
                    lowest = kept.setdefault(pool, {}).setdefault(name, Lowest(most))
                    lowest.offer(number, Piece(dialogue.id, fitted))
    weights = {name: sources[name].weight for name in used}
    return {pool: Pool({name: lowest.items() for name, lowest in sorted(by_source.items())}, weights) for pool, by_source in sorted(kept.items())}


def _fit_all(messages: Iterable[Message], longest: Longest, rng: random.Random) -> tuple[Message, ...]:
    """All messages within the limits, or none."""
    fitted = [fit(message, longest, rng) for message in messages]
    return () if None in fitted else tuple(message for message in fitted if message is not None)
