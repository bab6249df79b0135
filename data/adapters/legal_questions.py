"""Legal questions: long posts that ask for legal advice, on crime, domestic violence, divorce, housing and twelve other topics.

Upstream: HazyResearch/legalbench (learned_hands tasks). Licence: CC BY-NC-SA 4.0. Only train examples are here: hash of the text.

Mapped: harmless user turns: asking for advice is no harm, whatever happened. `violence` is unknown where it is told of, `self_harm_risk` where there are
crisis words, and everything that a threat of the author's own would be.

Left out: the topic; text beyond 400 words.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ._comments import clean
from ._texts import ADDRESSED_INSULTS, CRISIS, LEWD_PUBLISHED, THREATS, VEILED_CRISIS, VIOLENCE, read_texts, user
from .base import Counts, SplitDialogue, dialogue, merge_repeats, require, split_by

NAME = "legal_questions"
FILE = "learned_hands_train.jsonl.gz"
EXPECTED = Counts(train=77, validation=9)

SCREENS = (ADDRESSED_INSULTS, LEWD_PUBLISHED, THREATS, CRISIS, VEILED_CRISIS, VIOLENCE)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_texts(path):
        yield split_by(row["text"]), dialogue(NAME, FILE, number, user(clean(row["text"]), SCREENS))
