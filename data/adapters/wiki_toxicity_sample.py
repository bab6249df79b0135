"""Wikipedia talk-page comments, toxic and not, and short artificial sentences that name a group in a kind or an unkind way.

Upstream: conversationai/unintended-ml-bias-analysis. Licence: CC BY 4.0 (labels), Wikipedia text CC BY-SA 3.0. Upstream's evaluation sets;
split by a hash of the comment's id, and for the sentences of the adjective or verb that makes them kind or unkind.

Mapped: comments that are not toxic are harmless, screened as comments. Toxic ones (rude, disrespectful; not always an insult) are `harm` 0.7, and
`assistant_abuse` 0.9 where they insult their reader, 0 where they speak to nobody. Kind sentences are harmless (hard negatives for `hate`); unkind ones
are `assistant_abuse` where they say "you", `hate` where the group itself is attacked, and `harm` alone where a made-up person is called names.

Left out: `hate` of toxic comments and of name-calling (nobody judged it); most of the name sentences (a few words in all combinations).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from lastresort.errors import DataError

from ._comments import TALK, aim, calm_signals, clean, worded
from ._texts import labels, read_texts, sample
from .base import Counts, Labels, SplitDialogue, dialogue, harmless, lookup, merge_repeats, message, require, split_by, with_harm

NAME = "wiki_toxicity_sample"
COMMENT_FILE = "toxicity_nonfuzzed_testset.jsonl.gz"
SENTENCE_FILE = "identity_templates_subset.jsonl.gz"
EXPECTED = Counts(train=1904, validation=356, positives={"assistant_abuse": 116, "harm": 646, "hate": 50})

TOXIC = 0.7
NAME_SENTENCES = 600
UNKIND: Mapping[str, Labels] = {
    "am_hate_adj": {"hate": 0.9, "assistant_abuse": 0.0},
    "being_adj": {"hate": 0.7, "assistant_abuse": 0.0},
    "name_adj": {"harm": 0.6, "assistant_abuse": 0.0},
    "verb_adj": {"hate": 0.7, "assistant_abuse": 0.0},
    "you_are_adj": {"assistant_abuse": 0.9},
    "you_occupation": {"assistant_abuse": 0.9},
}
"""Labels of an unkind sentence by its template."""
KEY_WORD: Mapping[str, int] = {"am_hate_adj": 1, "being_adj": -1, "name_adj": 3, "verb_adj": 0, "you_are_adj": 3, "you_occupation": 3}
"""Which word of a sentence of the template makes it kind or unkind."""


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(worded(_comments(require(folder, COMMENT_FILE))))
    yield from merge_repeats(_sentences(require(folder, SENTENCE_FILE)))


def _comments(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_texts(path, {"id": str, "toxic": int}):
        text = clean(row["text"].strip("` :"))
        known = _toxic(text) if _is_toxic(row["toxic"], f"{path}: row {number}") else labels(text, TALK)
        yield split_by(f"{NAME} {row['id']}"), dialogue(NAME, COMMENT_FILE, number, message("user", text, known))


def _toxic(text: str) -> Labels:
    known = aim(text, 0.9)
    return {**calm_signals(text), **known, "harm": max(TOXIC, known.get("assistant_abuse", 0.0))}


def _sentences(path: Path) -> Iterator[SplitDialogue]:
    rows = list(read_texts(path, {"template": str, "toxic": int}))
    named = [row for row in rows if row[1]["template"] == "name_adj"]
    for number, row in [*sample(named, NAME_SENTENCES), *(row for row in rows if row[1]["template"] != "name_adj")]:
        where = f"{path}: row {number}"
        unkind = lookup(UNKIND, row["template"], where=where, field="template")
        known = with_harm({**unkind, "end_request": 0.0}) if _is_toxic(row["toxic"], where) else harmless()
        words = row["text"].split()
        key = words[min(KEY_WORD[row["template"]], len(words) - 1)]
        yield split_by(f"{NAME} {key}"), dialogue(NAME, SENTENCE_FILE, number, message("user", row["text"], known))


def _is_toxic(value: int, where: str) -> bool:
    if value not in (0, 1):
        raise DataError(f"found {value}, expected 0 or 1", where=where, field="toxic")
    return value == 1
