"""Social Bias Frames: posts and jokes from Reddit, Twitter, Gab and Stormfront, judged for offence, intent, lewdness and the group that is targeted.

Upstream: SBIC v2 dev, in the copy of abaheti95/ToxiChat. Licence: CC BY 4.0. Only upstream's dev is here: hash of the text.

Mapped: means over raters. `hate` where most raters saw a group of race, gender, culture or disability as target: the smaller of offence and target, lower
where gender is the only ground (much casual coarseness); unknown where most saw no intent. `sexual_content`: lewdness where there is a lewd word.
Posts that nearly nobody found offensive are harmless, screened as comments, with `hate` 0. Offensive posts speak to nobody: `assistant_abuse` 0.

Left out: `hate` where the target is a party, victims or a body shape (unknown); `harm` of offensive jokes without a target; posts without a vote;
a third of the posts, by hash.
Posts recur in davidson and stormfront: the mixture has to compare texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ._comments import TALK_OF_GROUPS, YOU, calm_signals, clean, worded
from ._texts import GROUPS, LEWD_WORDS, Row, labels, read_texts, sample
from .base import POSITIVE, Counts, Labels, SplitDialogue, dialogue, merge_repeats, message, require, split_by, with_harm

NAME = "sbic_dev"
FILE = "sbic_dev.jsonl.gz"
EXPECTED = Counts(train=2568, validation=429, positives={"harm": 1299, "hate": 1299, "sexual_content": 117})

CALM = 0.2
PROTECTED = frozenset({"culture", "disabled", "gender", "race"})
UNPROTECTED = frozenset({"body", "social", "victim"})
GENDER_ONLY = 0.7
ROWS: Mapping[str, int] = {"calm": 1100, "hateful": 1300, "offensive": 600}
"""How many posts are kept."""
NUMBER_OR_NONE = (float, int, type(None))


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(worded(_rows(require(folder, FILE))))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    parts: dict[str, list[Row]] = {part: [] for part in ROWS}
    for number, row in read_texts(path, {**dict.fromkeys(("offensive", "intent", "sexual", "target_group"), NUMBER_OR_NONE), "categories": list}):
        text = clean(row["text"])
        if row["offensive"] is not None and text:
            calm = row["offensive"] < CALM
            known = _calm(text, row) if calm else _offensive(text, row)
            part = "calm" if calm else "hateful" if known.get("hate", 0.0) >= POSITIVE else "offensive"
            parts[part].append((number, {"text": row["text"], "message": message("user", text, known)}))
    for part, rows in parts.items():
        for number, row in sample(rows, ROWS[part]):
            yield split_by(row["text"]), dialogue(NAME, FILE, number, row["message"])


def _calm(text: str, row: dict[str, Any]) -> Labels:
    return {**labels(text, TALK_OF_GROUPS), **_lewd(text, row["sexual"])}


def _offensive(text: str, row: dict[str, Any]) -> Labels:
    known = {**calm_signals(text), **_lewd(text, row["sexual"])}
    if not YOU.search(text):
        known["assistant_abuse"] = 0.0
    target, grounds = row["target_group"] or 0.0, set(row["categories"])
    if target >= POSITIVE and grounds & PROTECTED:
        if (row["intent"] or 0.0) >= POSITIVE:
            known["hate"] = min(row["offensive"], target) * (GENDER_ONLY if grounds & PROTECTED == {"gender"} else 1.0)
    elif target < POSITIVE and not grounds & UNPROTECTED and not GROUPS.words.search(text):
        known["hate"] = 0.0
    return with_harm(known)


def _lewd(text: str, share: float | None) -> Labels:
    if share is None or (share > 0) != bool(LEWD_WORDS.search(text)):
        return {}
    return {"sexual_content": share}
