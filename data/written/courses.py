"""Recomputes the course of every written conversation from its turn labels, by the rules of ending (src/BEHAVIOUR.md, B1–B10).

Usage: python data/written/courses.py           # writes `meta.call` and `meta.justified_at`, prints what changed
       python data/written/courses.py --check   # writes nothing; exit 1 if a stored course is not what the labels give

The turn labels are given to the shipped policy's rules (`configs/policy/default.yaml`) as if a model had scored them, with thresholds of their own (`LEVELS`):
those of the shipped policy follow a model, and gold labels must not move with it. An unknown label counts as 0. An end
that the reader saw at the user's own confirmed wish is kept also where the policy would not see it. Where the reader saw another course than
the rules give, it is kept in `meta.reader_call` (`continue` or `end@N`). Run twice, it changes nothing the second time.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from corpus import Row, read, write  # type: ignore[import-not-found]  # a script beside this one

from lastresort.policy import DecisionPolicy, PolicyConfig, Threshold, read_policy
from lastresort.types import TurnScore

POLICY = Path(__file__).resolve().parents[2] / "configs" / "policy" / "default.yaml"
SURE = 0.5
LEVELS = {
    "default": Threshold(0.6, 0.3),
    "self_harm_risk": Threshold(0.15, 0.08),
    "violent_intent": Threshold(0.3, 0.1),
    "redirection": Threshold(0.5, 0.5),
    "persistence": Threshold(0.3, 0.1),
}
"""Where readers' labels count, by label."""


def shipped() -> DecisionPolicy:
    """The shipped policy, as a host sees it that lets ends through (B13)."""
    return DecisionPolicy(replace(read_policy(POLICY), thresholds=LEVELS)).in_mode("enforce")


def scores(config: PolicyConfig, messages: Sequence[Row], labels: Sequence[Mapping[str, float]]) -> list[TurnScore]:
    """The labels as scores, one a message; every label that the policy reads is there."""
    needed = {"user": config.user_labels, "assistant": config.assistant_labels}
    return [
        TurnScore(index, message["role"], {**dict.fromkeys(needed.get(message["role"], ()), 0.0), **given})
        for index, (message, given) in enumerate(zip(messages, labels, strict=True))
    ]


def course(policy: DecisionPolicy, messages: Sequence[Row], labels: Sequence[Mapping[str, float]]) -> str:
    """`continue`, or `end@N` with the index of the first message at which the policy ends."""
    decisions = policy.run(scores(policy.config, messages, labels))
    return next((f"end@{index}" for index, decision in enumerate(decisions) if decision.call == "end"), "continue")


def wished(messages: Sequence[Row], place: int) -> bool:
    """Whether message `place` is a request to end that follows an earlier one."""
    asks = [index for index, message in enumerate(messages) if message.get("labels", {}).get("end_request", 0.0) >= SURE]
    return place in asks[1:]


def renewed(policy: DecisionPolicy, row: Row) -> Row:
    """The row with its course by the rules; `meta.reader_call` where the reader saw another."""
    meta = dict(row["meta"])
    stored = "continue" if meta["call"] == "continue" else f"end@{meta['justified_at']}"
    reader = meta.pop("reader_call", stored)
    found = course(policy, row["messages"], [message.get("labels", {}) for message in row["messages"]])
    if found == "continue" and reader != "continue" and wished(row["messages"], int(reader.removeprefix("end@"))):
        found = reader
    meta["call"], _, place = found.partition("@")
    meta["justified_at"] = int(place) if place else None
    if reader != found:
        meta["reader_call"] = reader
    return {**row, "meta": meta}


def main(argv: list[str]) -> int:
    """Renews the courses of every conversation with more than one message; with `--check` only compares."""
    policy = shipped()
    splits = read()
    ends: Counter[str] = Counter()
    changed = differs = conversations = 0
    for split, rows in splits.items():
        for index, row in enumerate(rows):
            if row["source"] != "written":
                continue
            new = renewed(policy, row)
            conversations += 1
            changed += new != row
            differs += "reader_call" in new["meta"]
            if new["meta"]["call"] == "end":
                ends[f"{split}, {'at the wish of the user' if wished(new['messages'], new['meta']['justified_at']) else 'after the warning'}"] += 1
            rows[index] = new
    print(f"{conversations} conversations, {changed} changed; {sum(ends.values())} end; the reader saw another course in {differs}")
    print("\n".join(f"  {count:3} {name}" for name, count in sorted(ends.items())))
    if "--check" in argv:
        return 1 if changed else 0
    write(splits)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
