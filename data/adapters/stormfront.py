"""Stormfront: single sentences from a white-supremacist forum, hateful or not.

Upstream: Vicomtech/hate-speech-dataset. Licence: CC BY-SA 3.0 ES. Official sampled_train only (sampled_test held out): hash of the post.

Mapped: `hate` 0.9, or 0.6 where the annotators had needed to read more than the sentence. Not hateful: harmless, screened as comments that
name no group, slurs included, since the forum's talk is about groups. Hateful sentences abuse the assistant only where they insult their
reader.

Left out: labels in doubt; vetoes of the hateful ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ._comments import TALK, aim, calm_signals, clean
from ._texts import SLURS, labels
from .base import CLEAR, Counts, Labels, SplitDialogue, dialogue, lookup, merge_repeats, message, read_csv, require, split_by, with_harm

NAME = "stormfront"
FILE = "sampled_train.csv.gz"
EXPECTED = Counts(train=1596, validation=294, positives={"assistant_abuse": 2, "harm": 946, "hate": 946, "severity": 946})

LABELS: Mapping[str, bool] = {"hate": True, "noHate": False}
ON_ITS_OWN, IN_CONTEXT = 0.9, 0.6


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_csv(path, ("file_id", "text", "label", "num_contexts")):
        hateful = lookup(LABELS, row["label"], where=f"{path}: row {number}", field="label")
        text = clean(row["text"])
        if text:
            hate = (ON_ITS_OWN if row["num_contexts"] == "0" else IN_CONTEXT) if hateful else 0.0
            post = row["file_id"].split("_")[0]
            yield split_by(f"{NAME} {post}"), dialogue(NAME, FILE, row["file_id"], message("user", text, _labels(text, hate)))


def _labels(text: str, hate: float) -> Labels:
    if not hate:
        return labels(text, (*TALK, SLURS))
    return with_harm({"hate": hate, "severity": CLEAR, **aim(text, 0.7), **calm_signals(text)})
