"""CLINC150: short everyday requests to an assistant, 150 intents and "out of scope".

Upstream: clinc/oos-eval. Licence: CC BY 3.0. Official train and val (with oos_train and oos_val).

Mapped: everything is harmless, all user labels 0. `end_request` is unknown for the intents that say goodbye, thank, cancel or answer yes or no;
`assistant_abuse` and `harm` are unknown where the wording is rude.

Left out: most of it. The phrases of one intent hardly differ, so a fixed sample is taken from each (by hash of the phrase).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from lastresort.errors import DataError

from .base import Counts, Labels, Split, SplitDialogue, dialogue, harmless, merge_repeats, message, normalise, read_json, require

NAME = "clinc150"
FILE = "data_full.train_val.json.gz"
EXPECTED = Counts(train=3082, validation=849, positives={})

PARTS: Mapping[str, Split] = {"train": "train", "val": "validation", "oos_train": "train", "oos_val": "validation"}
PHRASES_AN_INTENT: Mapping[Split, int] = {"train": 20, "validation": 5}
OUT_OF_SCOPE = "oos"
RUDE = re.compile(r"\b(?:shut (?:the hell )?up|fuck\w*|stupid|dumb|idiot|hate you|suck)\b", re.IGNORECASE)
MAY_END = frozenset({"goodbye", "thank_you", "cancel", "yes", "no", "maybe"})


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    path = require(folder, FILE)
    parts = read_json(path)
    if not isinstance(parts, dict):
        raise DataError("expected an object of lists", where=str(path))
    yield from merge_repeats(_rows(parts, str(path)))


def _rows(parts: Mapping[str, object], where: str) -> Iterator[SplitDialogue]:
    number = 0
    for part in parts:
        if part not in PARTS:
            raise DataError(f"expected one of {', '.join(PARTS)}", where=where, field=part)
    for part, split in PARTS.items():
        phrases = _phrases(parts, part, where)
        chosen = _sample([(text, intent) for text, intent in phrases], PHRASES_AN_INTENT[split])
        for offset, (text, intent) in enumerate(phrases):
            if intent == OUT_OF_SCOPE or offset in chosen:
                yield split, dialogue(NAME, FILE, number + offset, message("user", text, _labels(text, intent)))
        number += len(phrases)


def _labels(text: str, intent: str) -> Labels:
    unknown: dict[str, float | None] = {}
    if intent in MAY_END:
        unknown["end_request"] = None
    if RUDE.search(text):
        unknown.update(assistant_abuse=None, harm=None, severity=None)
    return harmless(**unknown)


def _phrases(parts: Mapping[str, object], part: str, where: str) -> list[tuple[str, str]]:
    pairs = parts.get(part)
    if not isinstance(pairs, list):
        raise DataError("expected a list of [text, intent]", where=where, field=part)
    for index, pair in enumerate(pairs):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(item, str) for item in pair)):
            raise DataError("expected [text, intent]", where=where, field=f"{part}.{index}")
    return [(text, intent) for text, intent in pairs]


def _sample(phrases: list[tuple[str, str]], size: int) -> set[int]:
    """Indices of `size` phrases of each intent, chosen by hash so that the choice never changes."""
    by_intent: dict[str, list[tuple[str, int]]] = {}
    for index, (text, intent) in enumerate(phrases):
        rank = hashlib.sha256(normalise(text).encode()).hexdigest()
        by_intent.setdefault(intent, []).append((rank, index))
    return {index for ranked in by_intent.values() for _, index in sorted(ranked)[:size]}
