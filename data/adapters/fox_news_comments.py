"""Fox News comments: replies to ten articles, hateful or not.

Upstream: sjtuprog/fox-news-comments. Licence: MIT. No official split: hash of the article's title.

Mapped: hateful comments are `hate` 0.7 where they name a group, hold a slur or an insult, otherwise unknown (many make sense with the article only).
Others have `hate` 0 and are harmless where the screens for comments find nothing else. `assistant_abuse` is 0 where nobody is spoken to.

Left out: the title; vetoes of hateful comments.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ._comments import GROUP_SLUR, INSULT, PROTECTED_GROUP, TALK_OF_GROUPS, aim, calm_signals, clean, worded
from ._texts import labels, read_texts
from .base import Counts, Labels, SplitDialogue, dialogue, lookup, merge_repeats, message, require, split_by, with_harm

NAME = "fox_news_comments"
FILE = "comments.jsonl.gz"
EXPECTED = Counts(train=1317, validation=173, positives={"harm": 178, "hate": 178})

HATEFUL, ABUSIVE = 0.7, 0.8


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(worded(_rows(require(folder, FILE))))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_texts(path, {"hate": int, "title": str}):
        text = clean(row["text"])
        hateful = lookup({"0": False, "1": True}, str(row["hate"]), where=f"{path}: row {number}", field="hate")
        known = _hateful(text) if hateful else labels(text, TALK_OF_GROUPS)
        yield split_by(f"{NAME} {row['title']}"), dialogue(NAME, FILE, number, message("user", text, known))


def _hateful(text: str) -> Labels:
    known = {**calm_signals(text), **aim(text, ABUSIVE)}
    if any(pattern.search(text) for pattern in (PROTECTED_GROUP, GROUP_SLUR, INSULT)):
        known["hate"] = HATEFUL
    return with_harm(known)
