"""Hatemoji: short posts with emoji, hateful ones and near-identical ones that are not, written to fool a classifier.

Upstream: HannahKirk/Hatemoji. Licence: CC BY 4.0. Official train and validation; test and HatemojiCheck held out.

Mapped: `hate` by the gold label, `severity` by type; threats are `other_harm` too. Not hateful: harmless, screened as comments of which it
is known that they attack no group; emoji of weapons put `violence` and threats in doubt. Hateful posts abuse the assistant only where they
insult their reader.

Left out: the pairing of posts, the target; repeats with the same emoji.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from lastresort.errors import DataError

from ._comments import TALK_OF_GROUPS, aim, calm_signals, clean
from ._texts import Screen, labels
from .base import CLEAR, GRAVE, MILD, Counts, Labels, Split, SplitDialogue, dialogue, lookup, message, read_csv, require, with_harm

NAME = "hatemoji_build"
FILES: tuple[tuple[Split, str], ...] = (("train", "train.csv.gz"), ("validation", "validation.csv.gz"))
EXPECTED = Counts(train=4391, validation=558, positives={"assistant_abuse": 24, "harm": 2485, "hate": 2485, "other_harm": 163, "severity": 2002})

NOT_HATEFUL = "none"
TYPES: Mapping[str, Labels] = {
    "threateninglanguage": {"hate": 1.0, "other_harm": 0.7, "severity": GRAVE},
    "dehumanizinglanguage": {"hate": 1.0, "severity": CLEAR},
    "derogation": {"hate": 0.9, "severity": CLEAR},
    "animosity": {"hate": 0.7, "severity": MILD},
    NOT_HATEFUL: {},
}
IN_PASSING = re.compile(r"\b(?:can|must|should|just|to|simply|would|id|i'd) (?:all |just |simply )*(?:fuck off|shut (?:the \w+ )?up|go to hell)", re.IGNORECASE)
"""Rude words about others than the reader."""
WEAPONS = Screen(re.compile("[🔪💣🔫🗡⚔🪓🩸🧨👊🤛🤜💥☠💀⚰🏹🪦🔥]"), ("violence", "violent_intent", "other_harm", "harm", "severity", "persistence"))
RUDE_SIGNS = Screen(
    re.compile("[🖕🤬🍆🍑💦👅🔞🚮🗑🐀💩🐷🐖🤡🤮🤢]"), ("assistant_abuse", "sexual_content", "sexual_harassment", "harm", "severity", "persistence")
)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    # texts that differ in an emoji alone are contrast pairs: `merge_repeats`, which compares words, would make one of them
    chosen: dict[str, SplitDialogue] = {}
    for split, file in FILES:
        for item in _rows(split, require(folder, file)):
            key = " ".join(item[1].messages[0].content.casefold().split())
            chosen[key] = (split, chosen[key][1]) if key in chosen else item
    yield from chosen.values()


def _rows(split: Split, path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_csv(path, ("entry_id", "text", "type", "label_gold")):
        where = f"{path}: row {number}"
        hateful = lookup(TYPES, row["type"], where=where, field="type")
        if row["label_gold"] != ("1" if hateful else "0"):
            raise DataError(f"found {row['label_gold']!r}, expected the label of type {row['type']}", where=where, field="label_gold")
        text = clean(row["text"])
        if text:
            yield split, dialogue(NAME, path.name, row["entry_id"], message("user", text, _labels(text, hateful)))


def _labels(text: str, hateful: Labels) -> Labels:
    if not hateful:
        return labels(text, (*TALK_OF_GROUPS, WEAPONS, RUDE_SIGNS))
    return with_harm({**hateful, **({} if IN_PASSING.search(text) else aim(text, 0.8)), **calm_signals(text)})
