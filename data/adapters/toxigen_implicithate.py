"""ToxiGen and Implicit Hate, subsets: sentences on groups by a language model and tweets of extremists, hateful without rude words, and neutral.

Upstream: microsoft/SafeNLP. Licence: MIT. No official split: hash of the text.

Mapped: ToxiGen: `hate` from the mean toxicity score (1…5 to 0…1), neutral ones capped at 0.3; `severity` from the score; the calm neutral
ones are harmless, screened as comments of which it is known that they attack no group. Implicit Hate: hate 0.75 (much of it needs context),
neutral 0, or 0.1 where a group is named; no score.

Left out: all but a sample of each class by hash; who is the target; triggers other than `hate` of Implicit Hate.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ._chats import json_rows
from ._comments import TALK_OF_GROUPS, aim, calm_signals, clean
from ._texts import GROUPS, Row, labels, sample
from .base import CLEAR, MILD, Counts, Labels, SplitDialogue, dialogue, lookup, merge_repeats, message, require, split_by, with_harm

NAME = "toxigen_implicithate"
WRITTEN_FILE = "toxiGen.json.gz"
TWEET_FILE = "implicitHate.json.gz"
EXPECTED = Counts(train=2375, validation=394, positives={"assistant_abuse": 15, "harm": 1385, "hate": 1380, "severity": 557})

ROWS_OF_A_CLASS = 700
HATE, NEUTRAL = "hate", "neutral"
CLASSES = {HATE: HATE, NEUTRAL: NEUTRAL}
LOWEST, SPAN = 1.0, 4.0
CALM = 2.0
"""Scores below this are harmless."""
CLEARLY_TOXIC = 4.0
AT_MOST_NEUTRAL = 0.3
TWEET_HATE, TWEET_NEAR_A_GROUP = 0.75, 0.1


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    written, tweets = require(folder, WRITTEN_FILE), require(folder, TWEET_FILE)
    yield from merge_repeats([*_rows(written, _written_labels), *_rows(tweets, _tweet_labels)])


def _rows(path: Path, label: Callable[[str, str, float], Labels]) -> Iterator[SplitDialogue]:
    classes: dict[str, list[Row]] = {name: [] for name in CLASSES}
    fields: dict[str, type | tuple[type, ...]] = {"id": int, "text": str, "label": str, "toxicity_score": (int, float)}
    for number, row in json_rows(path, fields):
        lookup(CLASSES, row["label"], where=f"{path}: row {number}", field="label")
        text = clean(str(row["text"]).replace("\\n", "\n"))
        if re.search(r"\w", text):
            classes[row["label"]].append((number, {**row, "text": text}))
    for rows in classes.values():
        for _, row in sample(rows, ROWS_OF_A_CLASS):
            yield split_by(row["text"]), dialogue(NAME, path.name, row["id"], _turn(row, label))


def _turn(row: dict[str, Any], label: Callable[[str, str, float], Labels]) -> Any:
    return message("user", row["text"], label(row["text"], row["label"], float(row["toxicity_score"])))


def _written_labels(text: str, name: str, score: float) -> Labels:
    if name == NEUTRAL and score < CALM:
        return labels(text, TALK_OF_GROUPS)
    hate = (score - LOWEST) / SPAN
    if name == NEUTRAL:
        return {"hate": min(hate, AT_MOST_NEUTRAL), **calm_signals(text)}
    return with_harm({"hate": hate, "severity": CLEAR if score >= CLEARLY_TOXIC else MILD, **aim(text, 0.7), **calm_signals(text)})


def _tweet_labels(text: str, name: str, _: float) -> Labels:
    if name == HATE:
        return with_harm({"hate": TWEET_HATE, **aim(text, 0.7), **calm_signals(text)})
    return {"hate": TWEET_NEAR_A_GROUP if GROUPS.words.search(text) else 0.0, **aim(text, 0.5), **calm_signals(text)}
