"""The numbers of `data/README.md`, from the counts that `prepare` and `compose` wrote.

lastresort data card --prepared DIR --cleaned DIR --checks FILE --mixture DIR
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lastresort.errors import DataError

from .markdown import renew, table

BEGIN, END = "<!-- counts: written by `lastresort data card`; do not edit -->", "<!-- end of counts -->"


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError("found no such file, expected the counts that `lastresort data prepare` and `compose` write", where=str(path))
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def _sources(prepared: Path) -> str:
    def positives(row: dict[str, Any]) -> str:
        return ", ".join(f"{label} {n}" for label, n in sorted(row["positives"].items())) or "none"

    counts = sorted(_read(prepared / "counts.json").items())
    rows = [[name, *(str(row[key]) for key in ("train", "validation", "dropped_overlaps")), positives(row)] for name, row in counts]
    return table(["source", "train", "validation", "held-out overlaps dropped", "positive turns"], rows)


def _mixture(folder: Path) -> list[str]:
    mixed = _read(folder / "counts.json")
    splits = (mixed["train"], mixed["validation"])

    def cells(group: str, name: str, *fields: str) -> list[str]:
        return [str(split[group].get(name, {}).get(field, 0)) for split in splits for field in fields]

    def names(group: str) -> list[str]:
        return sorted({name for split in splits for name in split[group]})

    sources = [[name, *cells("by_source", name, "dialogues", "turns")] for name in names("by_source")]
    sources.append(["**all**", *(str(value) for split in splits for value in (split["dialogues"], split["turns"]["all"]))])
    labels = [[f"`{name}`", *cells("labels", name, "known", "positive")] for name in names("labels")]
    return [
        f"The mixture `{mixed['config']}`:",
        table(["source", "train dialogues", "train turns", "validation dialogues", "validation turns"], sources),
        "Its labels, in turns:",
        table(["label", "train known", "train positive", "validation known", "validation positive"], labels),
    ]


REASONS = {
    "copy": "exact or near copy of a text that another source, or the same, keeps",
    "other_split": "copy of a text that is held back for validation",
    "held_back": "copy of a text of our own that is held back",
    "held_out_row": "text of a row that equals or nearly equals one of a held-out set",
    "no_labels": "no label left",
    "unlabelled_turns": "single turns that lost their labels",
    "reviewed": "dropped after reading (label noise)",
    "relabelled_turns": "turns whose labels were mended after reading (label noise)",
}
"""Words for the reasons that `clean` counts; others stand as they are."""


def _cleaning(cleaned: Path) -> str:
    counts = _read(cleaned / "clean.json")["all"]
    return table(["why dialogues of the prepared sources left", "number"], [[REASONS.get(name, name), str(number)] for name, number in sorted(counts.items())])


def block(prepared: Path, cleaned: Path, checks: Path, mixtures: Sequence[Path]) -> str:
    """Tables in Markdown: prepared sources, cleaning, checks, then each mixture by source and by label."""
    if not checks.is_file():
        raise DataError("found no such file, expected the table that `lastresort data check -o` writes", where=str(checks))
    parts = ["Prepared sources (dialogues; positive turns have a label of at least 0.5):", _sources(prepared)]
    parts += ["Cleaning across sources (`lastresort data clean`):", _cleaning(cleaned)]
    parts += ["Checked on the result (`lastresort data check`):", checks.read_text(encoding="utf-8").strip()]
    for folder in mixtures:
        parts += _mixture(folder)
    return "\n\n".join(parts)


def write_datacard(prepared: Path, cleaned: Path, checks: Path, mixtures: Sequence[Path], readme: Path) -> None:
    """Renews the counts block of `readme`. Raises `DataError` if counts or the block are missing."""
    if not renew(readme, BEGIN, END, f"\n\n{block(prepared, cleaned, checks, mixtures)}\n\n"):
        raise DataError(f"found no counts block, expected {BEGIN} … {END}", where=str(readme))
