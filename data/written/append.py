"""Adds new drafts to the corpus: builds them, records their plan, and puts every conversation into its split for good.

Usage: python data/written/append.py check DRAFTS PLAN [DRAFTS PLAN …]    # what is wrong, and what would be added
       python data/written/append.py add DRAFTS PLAN [DRAFTS PLAN …]      # adds it to plan.jsonl, train, validation and endbench

DRAFTS is a file in the format of drafts.py, PLAN its plan: one JSON object a line with the fields of plan.jsonl. Contrast pairs need no plan. The split
follows from the id (of the pair) alone: 70% train, 15% validation, 15% endbench. Afterwards run courses.py, families.py and coverage.py.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from pathlib import Path

from corpus import HERE, SPLITS, Row, read, read_lines, write, write_lines  # type: ignore[import-not-found]  # scripts beside this one
from drafts import check, dialogues, parse  # type: ignore[import-not-found]

BELOW = (0.70, 0.85, 1.0)
"""Upper ends of the splits, in the order of `SPLITS`."""
FIELDS = ("id", "kind", "harmless", "topic", "turns", "length", "register", "age", "background", "dialect", "mood", "assistant", "style")


def split_of(name: str) -> str:
    """The split of a conversation or contrast pair, from its id."""
    place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    return str(next(split for split, below in zip(SPLITS, BELOW, strict=True) if place < below))


def plan_of(path: Path, errors: list[str]) -> dict[str, Row]:
    """Plan rows by id; missing or unknown fields are appended to `errors`."""
    found: dict[str, Row] = {}
    for number, row in enumerate(read_lines(path), start=1):
        if set(row) != set(FIELDS):
            errors.append(f"{path.name}:{number}: found the fields {sorted(row)}, expected {sorted(FIELDS)}")
        if row.get("id") in found:
            errors.append(f"{path.name}:{number}: id: found {row['id']} a second time, expected each once")
        found[str(row.get("id"))] = {name: row[name] for name in FIELDS if name in row}
    return found


def build(pairs: list[tuple[Path, Path]], known: set[str], errors: list[str]) -> tuple[list[Row], list[Row]]:
    """(new dialogues, new plan rows) of drafts and their plans; what is wrong is appended to `errors`."""
    rows: list[Row] = []
    planned: list[Row] = []
    for drafted, plan_file in pairs:
        plan = plan_of(plan_file, errors)
        cells = {name: {key: value for key, value in row.items() if key != "id"} for name, row in plan.items()}
        written = set()
        for draft in parse(drafted, errors):
            check(draft, errors)
            if draft.id in written or {draft.id, f"{draft.id}a"} & known:
                errors.append(f"{draft.where}: {draft.id}: found a second time, expected a new id")
            if "axis" not in draft.fields and draft.id not in plan:
                errors.append(f"{draft.where}: {draft.id}: found no row in {plan_file.name}, expected one")
            written.add(draft.id)
            rows += dialogues(draft, cells)
        errors += [f"{plan_file.name}: {name}: found no draft, expected one" for name in sorted(set(plan) - written)]
        planned += plan.values()
        known |= {row["id"] for row in rows}
    return rows, planned


def main(argv: list[str]) -> int:
    """`check` or `add`; exit 1 and nothing written when anything is wrong."""
    verb, *names = argv
    files = [Path(name) for name in names]
    errors: list[str] = []
    splits = read()
    rows, planned = build(list(zip(files[::2], files[1::2], strict=True)), {row["id"] for split in splits.values() for row in split}, errors)
    counts = Counter(split_of(row["meta"].get("pair", row["id"])) for row in rows)
    print(f"{len(rows)} dialogues, {sum(len(row['messages']) for row in rows)} turns: {', '.join(f'{split} {counts[split]}' for split in SPLITS)}")
    for error in errors:
        print(error, file=sys.stderr)
    if errors:
        return 1
    if verb == "add":
        for row in rows:
            splits[split_of(row["meta"].get("pair", row["id"]))].append(row)
        write(splits)
        write_lines(HERE / "plan.jsonl", read_lines(HERE / "plan.jsonl") + planned)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
