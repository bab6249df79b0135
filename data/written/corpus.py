"""Reads and writes the three files of the written corpus; the other scripts here use it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SPLITS = ("train", "validation", "endbench")
Row = dict[str, Any]
"""One line of the dialogue contract: id, messages, source, meta."""


def read_lines(path: Path) -> list[Row]:
    """The JSON values of a file of lines; blank lines are passed over. Raises `ValueError` with file and line."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"{path.name}:{number}: found no JSON, expected one value a line ({error.msg})") from None
    return rows


def write_lines(path: Path, rows: list[Row]) -> None:
    """Writes the rows as JSON lines, in order; the file is replaced as a whole."""
    temporary = path.with_suffix(".part")
    temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    temporary.replace(path)


def read(folder: Path = HERE) -> dict[str, list[Row]]:
    """The rows of every split, in the order of the files."""
    return {split: read_lines(folder / f"{split}.jsonl") for split in SPLITS}


def write(splits: dict[str, list[Row]], folder: Path = HERE) -> None:
    """Writes every split."""
    for split, rows in splits.items():
        write_lines(folder / f"{split}.jsonl", rows)
