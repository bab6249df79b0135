"""ETHICS, commonsense: what people did, in one sentence or in a long post that asks whether they were wrong.

Upstream: hendrycks/ethics, in the copy of AI-secure/DecodingTrust. Licence: MIT (copy: CC BY-SA 4.0). Parts of upstream's test files: hash of the text, for the
short ones of their first words, which contrasting sentences share.

Mapped: harmless user turns without a request. "Wrong" is a moral judgement and no label here, but of short sentences with a wrong deed (some are cruel)
only what cannot be meant is known: they neither speak to the assistant nor ask to end. Long posts are screened as published texts, since what
others said and did is part of the story, and for veiled signs of a crisis.

Left out: `harm` and `violence` of wrong deeds; text beyond 400 words.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ._comments import TALK, clean
from ._texts import CRISIS, GROUPS, LEWD, PUBLISHED, VEILED_CRISIS, labels, read_texts
from .base import Counts, Labels, SplitDialogue, dialogue, merge_repeats, message, require, split_by

NAME = "ethics_commonsense"
FILE = "commonsense_subset.jsonl.gz"
EXPECTED = Counts(train=2478, validation=441)

TITLE_END = " | "
SHARED_WORDS = 4
WRONG_DEED: dict[str, float | None] = dict.fromkeys(("other_harm", "mass_harm", "violent_intent", "violence", "harm", "severity", "persistence"))
LONG_SCREENS = (*PUBLISHED, VEILED_CRISIS)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_texts(path, {"wrong": int, "short": int}):
        text = clean(row["text"].replace(TITLE_END, "\n\n", 1))
        group = " ".join(row["text"].split()[:SHARED_WORDS]) if row["short"] else row["text"]
        yield split_by(group), dialogue(NAME, FILE, number, message("user", text, _labels(text, row)))


def _labels(text: str, row: dict[str, Any]) -> Labels:
    if not row["short"]:
        return labels(text, LONG_SCREENS)
    return labels(text, (CRISIS, VEILED_CRISIS, GROUPS, LEWD), **WRONG_DEED) if row["wrong"] else labels(text, TALK)
