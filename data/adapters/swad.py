"""SWAD: tweets with swear words, each word judged abusive or not in its tweet.

Upstream: dadangewp/SWAD-Repository. Licence: GPL-3.0. No official split: hash of the text.

Mapped: a tweet in which no swear word is abusive is a hard negative: `assistant_abuse` 0, and harmless on the whole unless the screens see something
else (an insult to its reader, a group, violence, an ill wish). A tweet with an abusive one is `assistant_abuse` 0.8 where it insults its reader, 0 where
it speaks to nobody, otherwise unknown (upstream's "abusive" takes in anger at things).

Left out: `harm` of abusive tweets that insult nobody present; their vetoes. Handles at the start of a tweet are cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ._comments import AT_READER, TALK, aim, calm_signals, clean, worded
from ._texts import CRISIS, GROUPS, LEAVE, LEWD, THREATS, VIOLENCE, labels, read_texts
from .base import Counts, Labels, SplitDialogue, dialogue, merge_repeats, message, require, split_by, with_harm

NAME = "swad"
FILE = "swad_v2.jsonl.gz"
EXPECTED = Counts(train=1971, validation=346, positives={"assistant_abuse": 89, "harm": 89})

ABUSIVE = 0.8
SCREENS = (GROUPS, THREATS, LEWD, CRISIS, VIOLENCE, LEAVE, TALK[-1])


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    rows = list(read_texts(require(folder, FILE), {"id": str, "abusive_swear": int}))
    # a tweet with two swear words is there twice
    abusive = {row["text"] for _, row in rows if row["abusive_swear"]}
    yield from merge_repeats(worded(_item(number, row["text"], row["text"] in abusive) for number, row in rows))


def _item(number: int, tweet: str, abusive: bool) -> SplitDialogue:
    text = clean(tweet)
    return split_by(tweet), dialogue(NAME, FILE, number, message("user", text, _abusive(text) if abusive else _swearing(text)))


def _abusive(text: str) -> Labels:
    return with_harm({**calm_signals(text), **aim(text, ABUSIVE)})


def _swearing(text: str) -> Labels:
    if AT_READER.search(text):
        return calm_signals(text)
    return {**labels(text, SCREENS), "assistant_abuse": 0.0}
