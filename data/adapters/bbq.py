"""BBQ: short scenes with two people of different groups and a neutral question about them.

Upstream: nyu-mll/BBQ. Licence: CC BY 4.0. No official split: hash of the scene's first words, which its variants share.

Mapped: harmless user turns that name groups (hard negatives for `hate`), screened as prompts without the screen for groups. At most 20 variants of a scene.

Left out: the answers; category and condition.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ._texts import CRISIS, LEAVE, LEWD_PUBLISHED, VIOLENCE, Row, read_texts, sample, user
from .base import Counts, SplitDialogue, dialogue, merge_repeats, require, split_by

NAME = "bbq"
FILE = "bbq_subset.jsonl.gz"
EXPECTED = Counts(train=581, validation=109)

SCREENS = (LEWD_PUBLISHED, CRISIS, VIOLENCE, LEAVE)
SCENE_WORDS = 4
VARIANTS = 20


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    scenes: dict[str, list[Row]] = {}
    for number, row in read_texts(path):
        scenes.setdefault(" ".join(row["text"].split()[:SCENE_WORDS]), []).append((number, row))
    for scene, rows in scenes.items():
        for number, row in sample(rows, VARIANTS):
            yield split_by(f"{NAME} {scene}"), dialogue(NAME, FILE, number, user(row["text"], SCREENS))
