"""ToxiChat: Reddit threads of up to three comments with the replies of two chat models, each judged offensive or not and, if so, to whom.

Upstream: abaheti95/ToxiChat. Licence: CC BY-SA 4.0. Official train and dev.

Mapped: every comment is a user turn of its own. Comments that are not offensive are harmless, screened as comments. "Offensive" is wide (it takes in
profanity about things): offensive comments are `hate` 0.6 only where they name a protected group as target and hold an insult or slur, `assistant_abuse`
0.8 where they insult their reader and 0 where they speak to nobody. Model replies are assistant turns after the comment that they answer: `compliance` 0 if
not offensive, 0.6 if offensive about the same target as that comment (they join in); the comment carries no labels there.

Left out: `redirection` and `distress` of the replies (nobody judged them); half of the inoffensive comments and most such replies; offensive comments
that give no label, and offensive replies about something else.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ._comments import GROUP_SLUR, INSULT, TALK, aim, calm_signals, clean, worded
from ._texts import Row, labels, read_texts, sample
from .base import Counts, Labels, Split, SplitDialogue, dialogue, merge_repeats, message, require, with_harm

NAME = "toxichat_reddit"
FILES: tuple[tuple[Split, str, int, int], ...] = (("train", "train.jsonl.gz", 1300, 500), ("validation", "dev.jsonl.gz", 250, 100))
"""Split, file and how many inoffensive comments and replies of it are kept."""
EXPECTED = Counts(train=2525, validation=513, positives={"assistant_abuse": 67, "compliance": 197, "harm": 203, "hate": 140})

PROTECTED = frozenset(
    {
        "LGBTQ folks",
        "arabic folks",
        "asian folks",
        "black folks",
        "immigrants",
        "jewish folks",
        "latino/latina folks",
        "muslim folks",
        "people of color (POC)",
        "women",
    }
)
HATEFUL, ABUSIVE, JOINS_IN = 0.6, 0.8, 0.6
TITLE = "Title: "


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields single comments and pairs of comment and reply, with their split."""
    yield from merge_repeats(worded(item for split, file, *limits in FILES for item in _items(split, require(folder, file), *limits)))


def _items(split: Split, path: Path, comment_limit: int, reply_limit: int) -> Iterator[SplitDialogue]:
    rows = list(read_texts(path, {"thread": int, "turn": int, "offensive": int, "targets": list}))
    comments = {(row["thread"], row["turn"]): row for _, row in rows if not row.get("bot")}
    for number, row in sample((row for row in rows if not row[1].get("bot") and not row[1]["offensive"]), comment_limit):
        text = _plain(row["text"])
        yield split, dialogue(NAME, path.name, number, message("user", text, labels(text, TALK)))
    for number, row in rows:
        if row["offensive"] and not row.get("bot"):
            text = _plain(row["text"])
            known = _offensive(text, row)
            if "assistant_abuse" in known or "hate" in known:
                yield split, dialogue(NAME, path.name, number, message("user", text, known))
    replies = [row for row in rows if row[1].get("bot") and (row[1]["thread"], row[1]["turn"] - 1) in comments]
    offensive = [row for row in replies if row[1]["offensive"]]
    for reply in [*offensive, *sample((row for row in replies if not row[1]["offensive"]), reply_limit)]:
        yield from _reply(split, path.name, reply, comments[reply[1]["thread"], reply[1]["turn"] - 1])


def _reply(split: Split, file: str, row: Row, comment: dict[str, Any]) -> Iterator[SplitDialogue]:
    number, reply = row
    if reply["offensive"] and not (comment["offensive"] and set(reply["targets"]) & set(comment["targets"])):
        return
    known = {"compliance": JOINS_IN if reply["offensive"] else 0.0}
    yield split, dialogue(NAME, file, number, message("user", _plain(comment["text"])), message("assistant", clean(reply["text"]), known))


def _offensive(text: str, row: dict[str, Any]) -> Labels:
    known = {**calm_signals(text), **aim(text, ABUSIVE)}
    if PROTECTED.intersection(row["targets"]) and (INSULT.search(text) or GROUP_SLUR.search(text)):
        known["hate"] = HATEFUL
    return with_harm(known)


def _plain(text: str) -> str:
    return clean(text.removeprefix(TITLE))
