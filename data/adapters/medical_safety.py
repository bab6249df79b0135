"""Medical safety: titles of Reddit questions, medical ones and others (gaming, advice, AskReddit).

Upstream: GavinAbercrombie/medical-safety. Licence: GPL-3.0. No official split: hash of the text.

Mapped: harmless user turns. Medical ones are screened for crisis, lewd and violent words; the others, which nobody judged, as prompts and as comments.

Left out: the risk of an answer (`risk_expert`: it is about what an assistant would say); labels that the wording leaves in doubt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ._comments import TALK, clean, worded
from ._texts import ADDRESSED_INSULTS, CRISIS, HARM_REQUESTS, HURTFUL_REQUESTS, LEAVE, LEWD_PUBLISHED, THREATS, VIOLENCE, Screen, read_texts, user
from .base import Counts, SplitDialogue, dialogue, lookup, merge_repeats, require, split_by

NAME = "medical_safety"
FILE = "queries.jsonl.gz"
EXPECTED = Counts(train=2474, validation=433)

SCREENS: Mapping[str, tuple[Screen, ...]] = {
    "medical": (ADDRESSED_INSULTS, LEWD_PUBLISHED, THREATS, CRISIS, VIOLENCE, LEAVE),
    "other": (*TALK, HARM_REQUESTS, HURTFUL_REQUESTS),
}


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(worded(_rows(require(folder, FILE))))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_texts(path, {"kind": str}):
        screens = lookup(SCREENS, row["kind"], where=f"{path}: row {number}", field="kind")
        yield split_by(row["text"]), dialogue(NAME, FILE, number, user(clean(row["text"]), screens))
