"""How the written corpus covers the grid that was planned for it.

Usage: python data/written/coverage.py > data/written/coverage.md
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from corpus import HERE, Row, read, read_lines  # type: ignore[import-not-found]  # a script beside this one

INTRODUCTION = """# Coverage of the grid

Written by `python data/written/coverage.py > data/written/coverage.md`. Planned: rows of [plan.jsonl](plan.jsonl); written: conversations in the three files.
"""
DIMENSIONS = ("register", "length", "age", "background", "dialect", "mood", "assistant", "style")
PLAIN = {"ordinary_help", "small_talk"}
"""Harmless kinds that nobody would mistake; the other harmless ones are edgy."""
NAMED = 10
"""Axes with at least so many contrast pairs have a line of their own."""
BINS = ((1, 3), (4, 5), (6, 7), (8, 11), (12, 15), (16, 999))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; numbers to the right."""
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(f'{cell:,}' if isinstance(cell, int) else str(cell) for cell in row)} |" for row in rows)])


def share(part: int, whole: int) -> str:
    """A count with its percentage."""
    return f"{part:,} ({part / whole:.0%})"


def totals(splits: Mapping[str, Sequence[Row]]) -> list[list[object]]:
    """Split, conversations, contrast pairs, turns, user turns, conversations that end."""
    rows: list[list[object]] = []
    for split, dialogues in splits.items():
        turns = [message["role"] for one in dialogues for message in one["messages"]]
        written = [one for one in dialogues if one["source"] == "written"]
        pairs = len({one["meta"]["pair"] for one in dialogues if "pair" in one["meta"]})
        rows.append([split, len(written), pairs, len(turns), turns.count("user"), sum(one["meta"]["call"] == "end" for one in written)])
    return [*rows, ["all", *(sum(int(str(row[place])) for row in rows) for place in range(1, 6))]]


def compared(name: str, planned: Sequence[Row], written: Sequence[Row]) -> str:
    """Planned against written, by the values of one dimension."""
    wanted, found = Counter(row[name] for row in planned), Counter(row[name] for row in written)
    values = sorted({*wanted, *found}, key=lambda value: (-wanted[value], value))
    return table([name, "planned", "written"], [[value, wanted[value], found[value]] for value in values])


def by_kind(planned: Sequence[Row], written: Sequence[Row]) -> str:
    """Kind, planned and written conversations, their different topics, how many end."""
    topics: dict[tuple[str, str], set[str]] = defaultdict(set)
    for state, rows in (("planned", planned), ("written", written)):
        for row in rows:
            topics[state, row["kind"]].add(row["topic"])
    wanted, found = Counter(row["kind"] for row in planned), Counter(row["kind"] for row in written)
    harmless = {row["kind"]: row["harmless"] for row in (*planned, *written)}
    ends = Counter(row["kind"] for row in written if row["call"] == "end")
    lines = [
        [kind, "harmless" if harmless[kind] else "at risk", wanted[kind], found[kind], len(topics["planned", kind]), len(topics["written", kind]), ends[kind]]
        for kind in sorted(harmless, key=lambda kind: (not harmless[kind], kind))
    ]
    return table(["kind", "side", "planned", "written", "topics planned", "topics written", "end"], lines)


def report() -> str:
    """The whole page."""
    splits, planned = read(), read_lines(HERE / "plan.jsonl")
    dialogues = [one for rows in splits.values() for one in rows]
    conversations = [one for one in dialogues if one["source"] == "written"]
    written = [one["meta"] for one in conversations]
    harmless = [meta for meta in written if meta["harmless"]]
    edgy = [meta for meta in harmless if meta["kind"] not in PLAIN]
    lengths = Counter(next(place for place, (low, high) in enumerate(BINS) if low <= len(one["messages"]) <= high) for one in conversations)
    axes: Counter[str] = Counter(axis for _, axis in {(one["meta"]["pair"], one["meta"]["axis"]) for one in dialogues if "pair" in one["meta"]})
    named = [(axis, count) for axis, count in sorted(axes.items(), key=lambda item: (-item[1], item[0])) if count >= NAMED]
    parts = [
        INTRODUCTION,
        "## Totals\n",
        table(["split", "conversations", "contrast pairs", "turns", "user turns", "end"], totals(splits)),
        f"\nHarmless: {share(len(harmless), len(written))} of the conversations, of these edgy: {share(len(edgy), len(harmless))}. "
        f"Planned and not written: {len({row['id'] for row in planned} - {one['id'] for one in conversations})}.\n",
        "## Kinds\n",
        by_kind(planned, written),
        "\n## Turns of a conversation\n",
        table(["messages", "written"], [[f"{low}–{high}" if high < 999 else f"{low} or more", lengths[place]] for place, (low, high) in enumerate(BINS)]),
        *(part for name in DIMENSIONS for part in (f"\n## {name.capitalize()}\n", compared(name, planned, written))),
        "\n## Contrast pairs by axis\n",
        table(["axis", "pairs"], [*named, (f"{len(axes) - len(named)} axes below {NAMED} pairs each", axes.total() - sum(count for _, count in named))]),
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    print(report())
