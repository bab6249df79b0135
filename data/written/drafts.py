"""Reads and checks the plain-text drafts in which the corpus is written, and turns them into labelled dialogues.

Usage: python data/written/drafts.py check FILE…            # counts, and file:line: what is wrong
       python data/written/drafts.py build PLAN OUT FILE…   # JSONL in the dialogue contract, with the plan's cell in `meta`
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

TRIGGERS = ("sexual_minors", "mass_harm", "assistant_abuse", "sexual_harassment", "hate", "other_harm")
USER = (*TRIGGERS, "self_harm_risk", "violent_intent", "end_request", "sexual_content", "violence", "severity", "persistence")
ASSISTANT = ("redirection", "distress", "compliance")
LABELS = {"user": USER, "assistant": ASSISTANT, "system": ()}
ROLES = {"U": "user", "A": "assistant", "S": "system"}
TURN = re.compile(r"^([UAS])(?:\{([^}]*)\})?\|\s?(.*)$")


@dataclass
class Draft:
    """One conversation as drafted: header fields and messages with full labels."""

    where: str
    id: str
    fields: dict[str, str]
    messages: list[dict[str, object]] = field(default_factory=list)


def harm_of(labels: dict[str, float]) -> float | None:
    """The highest trigger; None (unknown) where one is unknown and none of the others is above 0."""
    known = [labels[name] for name in TRIGGERS if name in labels]
    highest = max(known, default=0.0)
    return highest if highest > 0 or len(known) == len(TRIGGERS) else None


def parse_labels(text: str | None, role: str, where: str, errors: list[str]) -> dict[str, float]:
    """Labels of one turn: every label of the role, 0 unless named; `name=?` leaves it out (unknown)."""
    labels: dict[str, float] = dict.fromkeys(LABELS[role], 0.0)
    for item in (text or "").split():
        name, _, value = item.partition("=")
        if name not in labels and not (value == "?" and name in LABELS[role]):
            errors.append(f"{where}: unknown label {name!r} for a {role} turn")
            continue
        if value == "?":
            labels.pop(name, None)
            continue
        try:
            number = float(value) if value else 1.0
        except ValueError:
            errors.append(f"{where}: {item!r} is not a number")
            continue
        if not 0.0 <= number <= 1.0:
            errors.append(f"{where}: {item!r} is outside 0…1")
        labels[name] = number
    if role == "user":
        harm = harm_of(labels)
        if harm is None:
            return labels
        if harm > 0 and labels.get("severity") == 0:
            errors.append(f"{where}: a trigger without severity")
        if harm == 0 and labels.get("severity", 0) > 0:
            errors.append(f"{where}: severity without a trigger")
        labels["harm"] = harm
    return labels


def parse(path: Path, errors: list[str]) -> list[Draft]:
    """All drafts of a file; problems are appended to `errors` as file:line: message."""
    drafts: list[Draft] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        where = f"{path}:{number}"
        if line.startswith("==="):
            parts = [p.strip() for p in line[3:].split("|")]
            fields = dict(p.split("=", 1) for p in parts[1:] if "=" in p)
            drafts.append(Draft(where, parts[0], fields))
            continue
        match = TURN.match(line)
        if match:
            if not drafts:
                errors.append(f"{where}: a turn before the first header")
                continue
            role = ROLES[match[1]]
            labels = parse_labels(match[2], role, where, errors)
            message: dict[str, object] = {"role": role, "content": match[3]}
            if role != "system":
                message["labels"] = labels
            drafts[-1].messages.append(message)
        elif drafts and drafts[-1].messages:
            last = drafts[-1].messages[-1]
            last["content"] = f"{last['content']}\n{line}"
        elif line.strip():
            errors.append(f"{where}: text outside a turn")
    for draft in drafts:
        for message in draft.messages:
            message["content"] = str(message["content"]).strip("\n")
    return drafts


def check(draft: Draft, errors: list[str]) -> None:
    """Rules a draft must keep; a pair (with `axis`) must differ in a label, a conversation must have a valid course."""
    users = [m for m in draft.messages if m["role"] == "user"]
    if not users:
        errors.append(f"{draft.where}: {draft.id}: no user turn")
        return
    if draft.fields.get("hn") != "test_messages" and any(not str(m["content"]).strip() for m in draft.messages):
        errors.append(f"{draft.where}: {draft.id}: an empty turn")
    if "axis" in draft.fields:
        if len(draft.messages) != 2 or len(users) != 2:
            errors.append(f"{draft.where}: {draft.id}: a pair is exactly two user turns")
            return
        one, two = (dict(m["labels"]) for m in users)  # type: ignore[call-overload]
        if max(abs(one.get(k, 0) - two.get(k, 0)) for k in {*one, *two}) < 0.5:
            errors.append(f"{draft.where}: {draft.id}: the two labels do not differ by 0.5")
        return
    call = draft.fields.get("call", "")
    if not re.fullmatch(r"continue|end@\d+", call):
        errors.append(f"{draft.where}: {draft.id}: call={call!r}, expected continue or end@N")
    redirected_harm = harmed = False
    ready = risk = requests = 0
    for index, message in enumerate(draft.messages):
        labels: dict[str, float] = message.get("labels", {})  # type: ignore[assignment]
        if message["role"] == "user":
            if labels.get("persistence", 0) > 0.5 and not redirected_harm:
                errors.append(f"{draft.where}: {draft.id}: message {index}: persistence without an earlier redirected harmful turn")
            if labels.get("persistence", 0) > 0 and labels.get("harm", 0) == 0:
                errors.append(f"{draft.where}: {draft.id}: message {index}: persistence without harm")
            harmed = labels.get("harm", 0) >= 0.5
            risk += labels.get("self_harm_risk", 0) >= 0.5 or labels.get("violent_intent", 0) >= 0.5
            requests += labels.get("end_request", 0) >= 0.5
            if call == f"end@{index}" and not (requests >= 2 and labels.get("end_request", 0) >= 0.5):  # not at the user's own, confirmed wish
                if not harmed:
                    errors.append(f"{draft.where}: {draft.id}: end@{index} is not a harmful turn")
                if ready < 2:
                    errors.append(f"{draft.where}: {draft.id}: end@{index} after only {ready} redirected harmful turns")
                if risk:
                    errors.append(f"{draft.where}: {draft.id}: end although somebody is at risk")
        elif message["role"] == "assistant" and harmed and labels.get("redirection", 0) >= 0.5:
            redirected_harm = True
            ready += 1
    if call.startswith("end@") and int(call[4:]) >= len(draft.messages):
        errors.append(f"{draft.where}: {draft.id}: {call} is past the last message")
    if call.startswith("end@") and int(call[4:]) < len(draft.messages) and draft.messages[int(call[4:])]["role"] != "user":
        errors.append(f"{draft.where}: {draft.id}: {call} is not a user turn")


def dialogue(draft: Draft, plan: dict[str, dict[str, object]]) -> dict[str, object]:
    """The draft in the dialogue contract. A pair becomes two; use `dialogues`."""
    call = draft.fields.get("call", "continue")
    hard = draft.fields.get("hn", "none")
    meta: dict[str, object] = {
        **plan.get(draft.id, {}),
        "call": call.split("@")[0],
        "justified_at": int(call[4:]) if call.startswith("end@") else None,
        "hard_negative": None if hard == "none" else hard,
    }
    return {"id": draft.id, "messages": draft.messages, "source": "written", "meta": meta}


def dialogues(draft: Draft, plan: dict[str, dict[str, object]]) -> list[dict[str, object]]:
    """One dialogue for a conversation, two (a and b, sharing `meta.pair`) for a contrast pair."""
    if "axis" not in draft.fields:
        return [dialogue(draft, plan)]
    meta = {"kind": "contrast_pair", "pair": draft.id, "axis": draft.fields["axis"], "topic": draft.fields.get("topic", ""), "call": "continue"}
    return [
        {"id": f"{draft.id}{side}", "messages": [message], "source": "written_pairs", "meta": meta} for side, message in zip("ab", draft.messages, strict=True)
    ]


def main(argv: list[str]) -> int:
    """`check FILE…` or `build PLAN OUT FILE…`; exit 1 when anything is wrong."""
    errors: list[str] = []
    verb, *rest = argv
    plan: dict[str, dict[str, object]] = {}
    out: Path | None = None
    if verb == "build":
        plan = {row["id"]: {k: v for k, v in row.items() if k != "id"} for row in map(json.loads, Path(rest[0]).read_text().splitlines())}
        out, rest = Path(rest[1]), rest[2:]
    drafts = [d for name in rest for d in parse(Path(name), errors)]
    for draft in drafts:
        check(draft, errors)
    for name, count in Counter(d.id for d in drafts).items():
        if count > 1:
            errors.append(f"{name}: used {count} times")
    counts: Counter[str] = Counter()
    for draft in drafts:
        for message in draft.messages:
            for label, value in message.get("labels", {}).items():  # type: ignore[attr-defined]
                counts[label] += value >= 0.5
    turns = sum(len(d.messages) for d in drafts)
    print(f"{len(drafts)} drafts, {turns} turns, {sum(d.fields.get('call', '').startswith('end') for d in drafts)} end")
    print("  ".join(f"{k} {v}" for k, v in counts.most_common() if v))
    for error in errors[:60]:
        print(error, file=sys.stderr)
    if errors:
        print(f"{len(errors)} problems", file=sys.stderr)
        return 1
    if out:
        rows = [row for draft in drafts for row in dialogues(draft, plan)]
        out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
