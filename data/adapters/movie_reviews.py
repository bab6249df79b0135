"""Movie reviews: whole ones, also of violent and sexual films, and single sentences, also scathing ones.

Upstream: nltk/nltk_data (Pang and Lee). Licence: CC BY 4.0. No official split: hash of the review or sentence.

Mapped: harmless user turns, screened as published texts: scorn for a film insults nobody here; `violence` and `sexual_content` are unknown where there
are such words.

Left out: sentences beyond `MOST_SENTENCES` (by hash); labels that the wording leaves in doubt (see `_texts`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ._texts import PUBLISHED, read_texts, sample, user
from .base import Counts, SplitDialogue, dialogue, merge_repeats, require, split_by

NAME = "movie_reviews"
REVIEWS = "movie_reviews_subset.jsonl.gz"
SENTENCES = "sentence_polarity_subset.jsonl.gz"
EXPECTED = Counts(train=2278, validation=436, positives={})

MOST_SENTENCES = 2000


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats([*_reviews(require(folder, REVIEWS)), *_sentences(require(folder, SENTENCES))])


def _reviews(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_texts(path, {"id": str}):
        yield split_by(f"{NAME} {row['id']}"), dialogue(NAME, REVIEWS, number, user(row["text"], PUBLISHED))


def _sentences(path: Path) -> Iterator[SplitDialogue]:
    for number, row in sample(read_texts(path), MOST_SENTENCES):
        yield split_by(row["text"]), dialogue(NAME, SENTENCES, number, user(row["text"], PUBLISHED))
