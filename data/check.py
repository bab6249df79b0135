"""Proves on the real data that nothing held out is trained on, and that no text is in two splits.

    lastresort data check --prepared work/cleaned --mixture work/mixture --raw DIR

Texts are those of labelled turns of four or more words, compared as words. What a turn without labels says is context: nothing is learned or measured on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lastresort.data import read_dialogues

from . import adapters
from .adapters.base import SPLITS
from .clean import OWN_HELD, listed_texts, texts_of
from .prepare import is_listed, read_overlaps


@dataclass(frozen=True)
class Check:
    """One question, how much was looked at, and what was found.

    Attributes:
        question: what may not be.
        looked_at: texts or dialogues.
        found: source to how many break it.
    """

    question: str
    looked_at: int
    found: Counter[str]


def check(prepared: Path, mixture: Path, heldout: Path, raw: Path, own_held: Sequence[Path] = OWN_HELD) -> list[Check]:
    """Asks every question of the real data.

    Args:
        prepared: folder made by `prepare` or `clean`.
        mixture: folder made by `compose`.
        heldout: list of held-out overlaps.
        raw: folder with the raw sources.
        own_held: conversations of ours that are never trained on: validation, benchmark, samples.

    Raises:
        DataError: a missing or broken file.
    """
    train = {text for dialogue in read_dialogues(mixture / "train.jsonl") for text in texts_of(dialogue)}
    results = [_count("a text of the mixture's validation is in its train", mixture / "validation.jsonl", train.__contains__)]
    for path in own_held:
        held = {text for dialogue in read_dialogues(path) for text in texts_of(dialogue)}
        results.append(_count(f"a text of {path.parent.name}/{path.name} is in the mixture's train", mixture / "train.jsonl", held.__contains__))
    listed, listed_rows = listed_texts(heldout, raw), read_overlaps(heldout)
    names = [name for name in adapters.names() if (prepared / name).is_dir()]
    rows, equal, looked_at = Counter[str](), Counter[str](), 0
    for dialogue in (dialogue for name in names for split in SPLITS for dialogue in read_dialogues(prepared / name / f"{split}.jsonl")):
        looked_at += 1
        rows[dialogue.source] += is_listed(dialogue, listed_rows)
        equal[dialogue.source] += any(text in listed for text in texts_of(dialogue))
    results.append(Check("a prepared dialogue is of a row listed `exact` or `near`", looked_at, rows))
    results.append(Check(f"a prepared text equals one of the {len(listed)} texts of listed rows", looked_at, equal))
    results += [_count(f"a text of the mixture's {split} equals one of them", mixture / f"{split}.jsonl", listed.__contains__) for split in SPLITS]
    return results


def _count(question: str, path: Path, broken: Callable[[str], bool]) -> Check:
    looked_at, found = 0, Counter[str]()
    for dialogue in read_dialogues(path):
        for text in texts_of(dialogue):
            looked_at += 1
            found[dialogue.source] += broken(text)
    return Check(question, looked_at, found)


def passed(results: Sequence[Check]) -> bool:
    """Whether nothing was found."""
    return not any(result.found.total() for result in results)


def markdown(results: Sequence[Check]) -> str:
    """The answers as a table for the data card."""
    lines = ["| may not be | looked at | found |", "| --- | --- | --- |"]
    for result in results:
        worst = ", ".join(f"{source} {n}" for source, n in result.found.most_common(8) if n)
        lines.append(f"| {result.question} | {result.looked_at} | {result.found.total()}{f' ({worst})' if worst else ''} |")
    return "\n".join(lines)
