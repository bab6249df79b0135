"""Davidson: tweets with rude words, judged by at least three people each as hate, as offensive, or as neither.

Upstream: t-davidson/hate-speech-and-offensive-language. Licence: MIT. No official split: hash of the text.

Mapped: `hate` is the share of votes; tweets that nobody called hate and that are neither hateful nor offensive are harmless, screened as
comments. Offensive ones are mostly profanity among friends: hard negatives for `hate`; `assistant_abuse` is 0 where they speak to nobody,
otherwise unknown. The votes are known to be biased against African-American English, so few rows of a class are taken.

Left out: all but a sample of each class by hash; `harm` of the offensive ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from lastresort.errors import DataError

from ._comments import TALK, YOU, aim, calm_signals, clean
from ._texts import Row, labels, sample
from .base import POSITIVE, Counts, Labels, SplitDialogue, dialogue, lookup, merge_repeats, message, read_csv, require, split_by, with_harm

NAME = "davidson"
FILE = "labeled_data.csv.gz"
EXPECTED = Counts(train=2432, validation=427, positives={"assistant_abuse": 104, "harm": 977, "hate": 976})

HATE, OFFENSIVE, NEITHER = "0", "1", "2"
ROWS_OF_A_CLASS: Mapping[str, int] = {HATE: 1000, OFFENSIVE: 900, NEITHER: 1000}
VOTES = ("count", "hate_speech")
RETWEET = re.compile(r"(?<!\w)[!\"“”.: ]*RT @\w+:? ?")


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_dialogues(require(folder, FILE)))


def _dialogues(path: Path) -> Iterator[SplitDialogue]:
    classes: dict[str, list[Row]] = {name: [] for name in ROWS_OF_A_CLASS}
    for number, row in read_csv(path, ("row", "class", "tweet", *VOTES)):
        where = f"{path}: row {number}"
        lookup(ROWS_OF_A_CLASS, row["class"], where=where, field="class")
        text = clean(RETWEET.sub("", row["tweet"]))
        if re.search(r"\w", text):
            classes[row["class"]].append((number, {**row, "text": text, "votes": [_number(row[name], where, name) for name in VOTES]}))
    for name, rows in classes.items():
        for _, chosen in sample(rows, ROWS_OF_A_CLASS[name]):
            turn = message("user", chosen["text"], _labels(chosen["text"], name, chosen["votes"]))
            yield split_by(chosen["text"]), dialogue(NAME, FILE, chosen["row"], turn)


def _number(cell: str, where: str, field: str) -> int:
    if not cell.isdigit():
        raise DataError(f"found {cell!r}, expected a number", where=where, field=field)
    return int(cell)


def _labels(text: str, name: str, votes: list[int]) -> Labels:
    voters, hate_votes = votes
    hate = hate_votes / max(voters, 1)
    if name == NEITHER and not hate_votes:
        return {**labels(text, TALK), "hate": 0.0}
    known: Labels = {"hate": hate, **calm_signals(text)}
    if hate >= POSITIVE:
        known.update(aim(text, 0.7))
    elif not YOU.search(text):
        known["assistant_abuse"] = 0.0
    return with_harm(known)
