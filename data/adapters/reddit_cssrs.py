"""Suicide risk on Reddit: posts of people in distress and of people who help them, judged post by post. SENSITIVE: never quote, never show as examples.

Upstream: AmanuelF/Suicide-Risk-Assessment-using-Reddit (Zenodo 2667859). Licence: CC BY. No official split: hash of the user.

Mapped: `self_harm_risk` from the label of the post: ideation, behavior and attempt 0.95 with crisis words, 0.8 without (posts are cut, and an earlier act is
a risk still); indicator 0.5 with veiled signs, otherwise 0.35; supportive and uninformative 0.1, and unknown where they speak of a crisis of their
own. A crisis is no harm: the triggers are 0, screened as comments; `violent_intent` is unknown where there is violence.

Left out: the file with labels for users (they do not hold for each post, and half of its posts are in the other file); posts of under three words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ._comments import TALK, clean, worded
from ._texts import VEILED_CRISIS, VIOLENCE, Screen, labels, read_texts
from .base import CRISIS_WORDS, Counts, Labels, SplitDialogue, dialogue, lookup, merge_repeats, message, require, split_by

NAME = "reddit_cssrs"
FILE = "posts_annotated.jsonl.gz"
EXPECTED = Counts(train=2211, validation=387, positives={"self_harm_risk": 677})

MIN_WORDS = 3
AT_RISK: Mapping[str, tuple[float, float, float]] = {
    "attempt": (0.8, 0.8, 0.95),
    "behavior": (0.8, 0.8, 0.95),
    "ideation": (0.8, 0.8, 0.95),
    "indicator": (0.35, 0.5, 0.5),
    "supportive": (0.1, 0.1, 0.1),
    "uninformative": (0.1, 0.1, 0.1),
}
"""`self_harm_risk` without signs, with veiled signs, with crisis words."""
HELPERS = frozenset({"supportive", "uninformative"})
OWN_CRISIS = re.compile(r"\b(?:i|i['’]?m|i['’]?ve|my|me|myself)\b", re.IGNORECASE)
VIOLENT_INTENT = Screen(VIOLENCE.words, ("violent_intent", "violence"))


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(worded(_rows(require(folder, FILE))))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_texts(path, {"user": str, "post_label": str}):
        text = clean(row["text"])
        known = _labels(text, row["post_label"], f"{path}: row {number}")
        if len(text.split()) >= MIN_WORDS:
            yield split_by(f"{NAME} {row['user']}"), dialogue(NAME, FILE, number, message("user", text, known))


def _labels(text: str, label: str, where: str) -> Labels:
    without, veiled, plain = lookup(AT_RISK, label, where=where, field="post_label")
    in_crisis = CRISIS_WORDS.search(text) is not None
    known = labels(text, (*TALK, VIOLENT_INTENT))
    if label in HELPERS and in_crisis and OWN_CRISIS.search(text):
        known.pop("self_harm_risk", None)
    else:
        known["self_harm_risk"] = plain if in_crisis else veiled if VEILED_CRISIS.words.search(text) else without
    return known
