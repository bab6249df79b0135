"""Sets single labels to the values that a later, slower reading gave them.

Usage: python data/written/relabel.py             # sets every label of relabelled.tsv, prints how many changed
       python data/written/relabel.py NOTES…      # adds notes to relabelled.tsv first (same columns), then sets

`relabelled.tsv` holds one reviewed label a line: id, index of the message, label, value (`?` takes the label away: unknown). A later line for
the same label replaces an earlier one. Where `harm` hangs on the label it follows. Run twice, it changes nothing the second time.

Most of it comes from one reading of the 5,738 user turns that could be sexual or violent (by a generous list of words, by kind of conversation and by
their other labels), for `sexual_content` and `violence`, from GUIDE.md; where such a turn has 0 and had it before, it is not named here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from corpus import HERE, Row, read, write  # type: ignore[import-not-found]  # a script beside this one
from drafts import LABELS, TRIGGERS, harm_of  # type: ignore[import-not-found]  # a script beside this one

FILE = HERE / "relabelled.tsv"
Key = tuple[str, int, str]
"""Id, index of the message, label."""


def parse(lines: Iterable[str], name: str) -> dict[Key, float | None]:
    """The reviewed labels; None takes a label away. Raises `ValueError` with file and line."""
    found: dict[Key, float | None] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split("\t")
        if len(fields) != 4 or not fields[1].isdigit():
            raise ValueError(f"{name}:{number}: found {len(fields)} fields, expected id, index, label and value between tabs")
        value = None if fields[3].strip() == "?" else float(fields[3])
        if value is not None and not 0.0 <= value <= 1.0:
            raise ValueError(f"{name}:{number}: value: found {value}, expected 0…1 or ?")
        found[fields[0], int(fields[1]), fields[2]] = value
    return found


def apply(splits: dict[str, list[Row]], reviewed: dict[Key, float | None]) -> int:
    """Sets the labels in place and returns how many changed. Raises `ValueError` when a line fits no turn."""
    rows = {row["id"]: row for split in splits.values() for row in split}
    changed = 0
    for (name, index, label), value in reviewed.items():
        if name not in rows or index >= len(rows[name]["messages"]):
            raise ValueError(f"{FILE.name}: {name} {index}: found no such message")
        message = rows[name]["messages"][index]
        if label not in LABELS[message["role"]]:
            raise ValueError(f"{FILE.name}: {name} {index}: found {label}, expected a label of a {message['role']} turn")
        labels = message["labels"]
        changed += labels.get(label) != value
        if value is None:
            labels.pop(label, None)
        else:
            labels[label] = value
        if label in TRIGGERS:
            harm = harm_of(labels)
            labels.pop("harm", None)
            if harm is not None:
                labels["harm"] = harm
    return changed


def main(argv: list[str]) -> int:
    """Adds notes, if any, and sets the labels."""
    lines = FILE.read_text(encoding="utf-8").splitlines() if FILE.exists() else []
    reviewed = parse(lines, FILE.name)
    for name in argv:
        reviewed.update(parse(Path(name).read_text(encoding="utf-8").splitlines(), name))
    splits = read()
    changed = apply(splits, reviewed)
    write(splits)
    rows = (f"{name}\t{index}\t{label}\t{'?' if value is None else f'{value:g}'}\n" for (name, index, label), value in sorted(reviewed.items()))
    FILE.write_text("".join(rows), encoding="utf-8")
    print(f"{len(reviewed)} reviewed labels, {changed} changed")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
