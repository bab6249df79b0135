"""Agreement of two independent readers on a random part of the written corpus, label by label.

Usage: python data/written/agreement.py second FILE… > data/written/second_reading.jsonl   # from the second reader's notes
       python data/written/agreement.py report > data/written/agreement.md                  # the table

The second reader labels from GUIDE.md without seeing the first labels. Notes: `=== id`, then `index label=value …` for each
turn with a label above 0.
Where a first label was mended afterwards, `first` in second_reading.jsonl keeps what it was when the second reader disagreed.
Cohen's kappa (1960) is taken on labels cut at 0.5, over the turns on which both readers know the label.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from courses import course, shipped  # type: ignore[import-not-found]  # scripts beside this one
from drafts import LABELS, TRIGGERS, parse_labels  # type: ignore[import-not-found]

HERE = Path(__file__).resolve().parent
SPLITS = ("train", "validation", "endbench")
INTRODUCTION = """# Agreement of two readers

Written by `python data/written/agreement.py report > data/written/agreement.md`: a random part of the conversations and contrast pairs, labelled again
from [GUIDE.md](GUIDE.md) without seeing the first labels. Labels cut at 0.5. `call` is what the rules of ending make of either reader's labels.

`sexual_content` and `violence`: the writers left most of them out, of the first part (kappa 0.09 and 0.42 against the second reader) and again of the newer one
(ids n…: none of 11 and none of 25 that the second reader saw). Both rows of the guide were sharpened and the first labels made anew for every turn that
could be either (relabel.py). The two rows of the table compare these with a reading of part of the same turns by the same reader, without the labels
at hand: that shows how far the guide fixes a label, and is not an independent reading. Against the second reader's labels from the older guide the
new ones had kappa 0.81 and 0.51; that reader counted fewer threats and plans as `violence`.

`other_harm` beside `violent_intent`: most of what the second readers marked and the writers did not are statements of intent told to the assistant.
The guide did not say whether these are also `other_harm`; the corpus had taken them for `violent_intent` alone, and the guide says so since this reading.

"""


def corpus() -> dict[str, dict[str, object]]:
    """Every conversation of the corpus by id."""
    return {row["id"]: row for split in SPLITS for row in map(json.loads, (HERE / f"{split}.jsonl").read_text(encoding="utf-8").splitlines())}


def second(paths: list[Path], known: dict[str, dict[str, object]]) -> tuple[list[dict[str, object]], list[str]]:
    """The second reading as records {id, call, labels: one mapping a message}, and what is wrong with the notes."""
    errors: list[str] = []
    records: list[dict[str, object]] = []
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            where = f"{path.name}:{number}"
            if line.startswith("==="):
                name, _, call = line[3:].strip().partition(" ")
                if name not in known:
                    errors.append(f"{where}: {name}: no such conversation")
                    records.append({"id": name, "call": "", "labels": []})
                    continue
                roles = [message["role"] for message in known[name]["messages"]]  # type: ignore[attr-defined]
                labels = [dict.fromkeys((*LABELS[role], "harm") if role == "user" else LABELS[role], 0.0) for role in roles]
                records.append({"id": name, "call": call.removeprefix("call="), "labels": labels})
            elif line.strip():
                index, _, text = line.strip().partition(" ")
                rows = records[-1]["labels"]
                if not index.isdigit() or int(index) >= len(rows):  # type: ignore[arg-type]
                    errors.append(f"{where}: {index}: no such turn")
                    continue
                role = known[str(records[-1]["id"])]["messages"][int(index)]["role"]  # type: ignore[index]
                problems: list[str] = []
                rows[int(index)] = parse_labels(text, role, where, problems)  # type: ignore[index]
                errors += [problem for problem in problems if "severity" not in problem]
    return [record for record in records if record["labels"]], errors


def kappa(pairs: list[tuple[bool, bool]]) -> float | None:
    """Cohen's kappa; None if one reader used one class only."""
    n = len(pairs)
    first, other = sum(a for a, _ in pairs) / n, sum(b for _, b in pairs) / n
    expected = first * other + (1 - first) * (1 - other)
    if expected >= 1:
        return None
    return (sum(a == b for a, b in pairs) / n - expected) / (1 - expected)


def report() -> str:
    """A Markdown table: label, turns, positive by reader, kappa."""
    known = corpus()
    pairs: dict[str, list[tuple[bool, bool]]] = {}
    calls: list[tuple[bool, bool]] = []
    policy = shipped()
    rows = [json.loads(line) for line in (HERE / "second_reading.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        first = known[row["id"]]
        for index, (message, labels) in enumerate(zip(first["messages"], row["labels"], strict=True)):  # type: ignore[call-overload]
            given = message.get("labels", {}) | row.get("first", {}).get(str(index), {})
            for name in {*given} & {*labels}:
                pairs.setdefault(name, []).append((given[name] >= 0.5, labels[name] >= 0.5))
        if len(first["messages"]) > 1:  # type: ignore[arg-type]
            other = course(policy, first["messages"], row["labels"])  # of both readers by the same rules: what their labels lead to
            calls.append((first["meta"]["call"] == "end", other != "continue"))  # type: ignore[index]
    order = ["harm", *TRIGGERS, *(name for name in (*LABELS["user"], *LABELS["assistant"]) if name not in TRIGGERS)]
    lines = ["| label | turns | positive, first reader | positive, second | Cohen's kappa |", "| --- | --- | --- | --- | --- |"]
    for name, found in [*((f"`{name}`", pairs[name]) for name in order if name in pairs), ("call (conversations)", calls)]:
        value = kappa(found)
        lines.append(f"| {name} | {len(found)} | {sum(a for a, _ in found)} | {sum(b for _, b in found)} | {'–' if value is None else f'{value:.2f}'} |")
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """`second FILE…` or `report`; exit 1 when the notes do not fit the corpus."""
    if argv[:1] == ["report"]:
        print(INTRODUCTION + report())
        return 0
    records, errors = second([Path(name) for name in argv[1:]], corpus())
    for record in records:
        print(json.dumps(record))
    for error in errors:
        print(error, file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
