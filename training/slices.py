"""Who is wrongly flagged: harmless turns by what they mention, how long they are, which dialect and language they are written in.

lastresort score work/mixture/validation.jsonl -o work/validation.scored.jsonl
lastresort slices work/mixture/validation.jsonl --scored work/validation.scored.jsonl -o models/lastresort-minilm/slices.json
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from lastresort.artifact import Manifest
from lastresort.data import iter_records, read_dialogues
from lastresort.errors import DataError
from lastresort.types import Dialogue, ScoredDialogue

HARMLESS = 0.1
"""At or below it a turn's `harm` label counts as harmless."""
GROUPS: Mapping[str, re.Pattern[str]] = {
    "religion": re.compile(r"\b(?:muslims?|islam\w*|jew(?:s|ish)?|judaism|christians?|hindus?|sikhs?|catholics?|buddhists?|atheists?)\b", re.IGNORECASE),
    "race or origin": re.compile(
        r"\b(?:black|african|asian|white|latin[oax]|hispanic|mexican|arab|chinese|indian|native american|gypsy|roma|immigrant|refugee|migrant)s?\b",
        re.IGNORECASE,
    ),
    "gender": re.compile(r"\b(?:wom[ae]n|girls?|females?|feminists?|m[ae]n|boys?|non-?binary)\b", re.IGNORECASE),
    "orientation or identity": re.compile(r"\b(?:gay|lesbian|bi-?sexual|homosexual|queer|trans(?:gender|sexual)?|lgbt\w*)s?\b", re.IGNORECASE),
    "disability": re.compile(r"\b(?:disab\w+|deaf|blind|autis\w+|wheelchair|down'?s? syndrome)\b", re.IGNORECASE),
}
LENGTHS = ((5, "up to 5 words"), (20, "6 to 20 words"), (80, "21 to 80 words"), (10**9, "more than 80 words"))


@dataclass(frozen=True)
class Slice:
    """Harmless turns of one kind.

    Attributes:
        kind: group, length, dialect, language or all.
        name: of the slice.
        n: harmless turns.
        flagged: of them, those at or above the model's threshold of `harm`.
        flagged_at_half: of them, those at or above 0.5.
    """

    kind: str
    name: str
    n: int
    flagged: int
    flagged_at_half: int


def groups_of(text: str) -> list[str]:
    """The protected groups that a text mentions."""
    return [name for name, pattern in GROUPS.items() if pattern.search(text)]


def slices_of(dialogue: Dialogue, text: str) -> Iterator[tuple[str, str]]:
    """(kind, name) of every slice that a turn belongs to."""
    yield "all", "all"
    mentioned = groups_of(text)
    yield from (("group", name) for name in mentioned)
    yield "group", "any of them" if mentioned else "none of them"
    words = len(text.split())
    yield "length", next(name for most, name in LENGTHS if words <= most)
    if dialect := str(dialogue.meta.get("dialect", "")):
        yield "dialect", dialect
    if dialogue.meta.get("kind") == "other_language":
        yield "language", "other languages in between"


def measure(dialogues: Path, scored: Path, manifest: Manifest, label: str = "harm") -> list[Slice]:
    """Counts of every slice, largest kinds first.

    Args:
        dialogues: labelled dialogues.
        scored: the output of `lastresort score` for them, by the model of `manifest`.
        manifest: holds the threshold of `label`.
        label: what is flagged.

    Raises:
        DataError: the two files do not belong together.
    """
    threshold = threshold_of(manifest, label)
    counts: dict[tuple[str, str], list[int]] = {}
    for one, found in zip(read_dialogues(dialogues), iter_records(ScoredDialogue, scored), strict=True):
        if one.id != found.id or found.model != manifest.tag:
            raise DataError(f"found {found.id!r} of {found.model}, expected {one.id!r} of {manifest.tag}", where=str(scored))
        for message, turn in zip(one.messages, found.turns, strict=True):
            if message.role == "user" and message.labels.get(label, 1.0) <= HARMLESS:
                for key in slices_of(one, message.content):
                    count = counts.setdefault(key, [0, 0, 0])
                    count[0] += 1
                    count[1] += turn.scores[label] >= threshold
                    count[2] += turn.scores[label] >= 0.5
    return [Slice(kind, name, *count) for (kind, name), count in sorted(counts.items())]


def threshold_of(manifest: Manifest, label: str) -> float:
    """The model's threshold of a label."""
    return next(one.threshold for one in manifest.labels if one.name == label)


def write_slices(dialogues: Path, scored: Path, manifest: Manifest, output: Path) -> list[Slice]:
    """Measures and writes them as JSON, with the threshold; the card takes its table from there."""
    found = measure(dialogues, scored, manifest)
    record = {"model": manifest.tag, "threshold": threshold_of(manifest, "harm"), "slices": [asdict(one) for one in found]}
    output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return found
