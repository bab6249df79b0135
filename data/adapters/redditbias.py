"""RedditBias: Reddit comments that name a group and a stereotype about it, biased or not (quoting, asking, countering).

Upstream: umanlp/RedditBias. Licence: MIT. No official split: hash of the text.

Mapped: biased comments on Black people, Jews, Muslims and LGBTQ people are `hate` 0.65 ("biased" is wider than hate and takes in irony). Unbiased ones are
hard negatives: `hate` and `harm` 0.1, since some are labelled in error, screened for insults, threats and ill wishes. A sample of each group.

Left out: biased comments on women (everyday phrases on mothers and wives, no hate), most comments, vetoes of biased ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ._comments import GROUP_SLUR, TALK_OF_GROUPS, aim, calm_signals, clean, worded
from ._texts import Row, labels, read_texts, sample
from .base import Counts, Labels, SplitDialogue, dialogue, lookup, merge_repeats, message, require, split_by, with_harm

NAME = "redditbias"
FILE = "annotated.jsonl.gz"
EXPECTED = Counts(train=2540, validation=459, positives={"assistant_abuse": 12, "harm": 1399, "hate": 1399})

BIASED, UNBIASED, ABUSIVE = 0.65, 0.1, 0.8
ROWS: Mapping[str, tuple[int, int]] = {
    "gender_female": (300, 0),
    "orientation_lgbtq": (300, 350),
    "race_black": (350, 350),
    "religion1_jews": (350, 350),
    "religion2_muslims": (300, 350),
}
"""How many unbiased and biased comments on a group are kept."""


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(worded(_rows(require(folder, FILE))))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    parts: dict[tuple[str, int], list[Row]] = {(group, biased): [] for group in ROWS for biased in (0, 1)}
    for number, row in read_texts(path, {"group": str, "biased": int}):
        where = f"{path}: row {number}"
        lookup(ROWS, row["group"], where=where, field="group")
        lookup({"0": None, "1": None}, str(row["biased"]), where=where, field="biased")
        parts[row["group"], row["biased"]].append((number, row))
    for (group, biased), rows in parts.items():
        for number, row in sample(rows, ROWS[group][biased]):
            text = clean(row["text"])
            yield split_by(row["text"]), dialogue(NAME, FILE, number, message("user", text, _biased(text) if biased else _unbiased(text)))


def _biased(text: str) -> Labels:
    return with_harm({**calm_signals(text), **aim(text, ABUSIVE), "hate": BIASED})


def _unbiased(text: str) -> Labels:
    if GROUP_SLUR.search(text):
        return calm_signals(text)
    return labels(text, TALK_OF_GROUPS, hate=UNBIASED, harm=UNBIASED, severity=None)
