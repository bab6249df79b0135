"""The written corpus: its files agree with the commands that make them, and the commands do what they say. Made-up texts are mild."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lastresort.data import read_dialogues

ROOT = Path(__file__).parents[2]
WRITTEN = ROOT / "data" / "written"
Row = dict[str, Any]


@pytest.fixture(scope="module")
def scripts() -> Iterator[SimpleNamespace]:
    """The scripts of data/written, imported as they import each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(WRITTEN))
        loaded: dict[str, ModuleType] = {name: importlib.import_module(name) for name in ("corpus", "courses", "agreement", "families", "relabel")}
        for name in ("append", "coverage"):  # `coverage` is also the name of a package
            spec = importlib.util.spec_from_file_location(f"written_{name}", WRITTEN / f"{name}.py")
            assert spec is not None
            assert spec.loader is not None
            loaded[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loaded[name])
        yield SimpleNamespace(**loaded)


@pytest.fixture(scope="module")
def splits(scripts: SimpleNamespace) -> dict[str, list[Row]]:
    return scripts.corpus.read()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def rows(splits: dict[str, list[Row]]) -> list[Row]:
    return [row for split in splits.values() for row in split]


# -- the files -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "validation", "endbench"])
def test_files_keep_the_contract(split: str) -> None:
    assert sum(1 for _ in read_dialogues(WRITTEN / f"{split}.jsonl")) > 500


def test_ids_occur_once_and_pairs_stay_together(splits: dict[str, list[Row]]) -> None:
    assert max(Counter(row["id"] for split in splits.values() for row in split).values()) == 1
    sides: dict[str, list[tuple[str, str]]] = {}
    for split, found in splits.items():
        for row in found:
            if "pair" in row["meta"]:
                sides.setdefault(row["meta"]["pair"], []).append((row["id"], split))
    for pair, found_sides in sides.items():
        assert [name for name, _ in found_sides] == [f"{pair}a", f"{pair}b"]
        assert len({split for _, split in found_sides}) == 1


def test_splits_are_about_70_15_15(splits: dict[str, list[Row]]) -> None:
    total = sum(map(len, splits.values()))
    assert len(splits["train"]) / total == pytest.approx(0.70, abs=0.03)
    assert len(splits["endbench"]) / total == pytest.approx(0.15, abs=0.03)


def test_every_conversation_was_planned_and_every_plan_written(scripts: SimpleNamespace, rows: list[Row]) -> None:
    plan = {row.pop("id"): row for row in scripts.corpus.read_lines(WRITTEN / "plan.jsonl")}
    written = {row["id"]: row["meta"] for row in rows if row["source"] == "written"}
    assert plan.keys() == written.keys()
    for name, cell in plan.items():
        assert cell.items() <= written[name].items()


def test_labels_of_one_turn_fit_each_other(rows: list[Row]) -> None:
    triggers = ("sexual_minors", "mass_harm", "assistant_abuse", "sexual_harassment", "hate", "other_harm")
    for row in rows:
        for message in row["messages"]:
            if message["role"] == "user":
                labels = message["labels"]
                assert labels["harm"] == max(labels.get(name, 0.0) for name in triggers), row["id"]
                assert (labels["severity"] > 0) == (labels["harm"] > 0), row["id"]


# -- courses -------------------------------------------------------------------------------------------------------------------------------


def talk(*turns: str) -> list[Row]:
    """`u` harmless, `h` harmful, `p` harmful and persistent, `g` grave and persistent, `r` at risk, `e` asks to end; `.` plain answer, `x` redirection."""
    kinds: dict[str, tuple[str, dict[str, float]]] = {
        "u": ("user", {}),
        "h": ("user", {"assistant_abuse": 1.0, "harm": 1.0}),
        "p": ("user", {"assistant_abuse": 1.0, "harm": 1.0, "persistence": 1.0}),
        "g": ("user", {"mass_harm": 1.0, "harm": 1.0, "persistence": 1.0}),
        "r": ("user", {"self_harm_risk": 1.0}),
        "e": ("user", {"end_request": 1.0}),
        ".": ("assistant", {"redirection": 0.0}),
        "x": ("assistant", {"redirection": 1.0}),
    }
    return [{"role": kinds[turn][0], "content": turn, "labels": kinds[turn][1]} for turn in "".join(turns)]


@pytest.mark.parametrize(
    ("turns", "course"),
    [
        ("hxpxpxpxp", "end@8"),  # three redirections, the warning, then harm that persists
        ("hxpxpxp", "continue"),  # the warning is none of the three
        ("hxpxpxpxh", "continue"),  # harm after it that does not persist
        ("gxgxgxg", "end@6"),  # two redirections for the gravest
        ("hxpxpxpxpr", "end@8"),
        ("rxpxpxpxpxp", "continue"),  # at risk
        ("h.p.p.p.p.p.", "continue"),  # never redirected
        ("e.e", "end@2"),  # at the user's wish, confirmed
        ("e.u", "continue"),
    ],
)
def test_course_follows_the_rules(scripts: SimpleNamespace, turns: str, course: str) -> None:
    messages = talk(turns)
    assert scripts.courses.course(scripts.courses.shipped(), messages, [message["labels"] for message in messages]) == course


def conversation(turns: str, call: str = "continue", place: int | None = None, **meta: Any) -> Row:
    return {"id": "x", "messages": talk(turns), "source": "written", "meta": {"call": call, "justified_at": place, "hard_negative": None, **meta}}


def test_readers_view_is_kept_where_it_differs_and_only_there(scripts: SimpleNamespace) -> None:
    policy = scripts.courses.shipped()
    new = scripts.courses.renewed(policy, conversation("hxpxpxp", "end", 6))
    assert new["meta"] == {"call": "continue", "justified_at": None, "hard_negative": None, "reader_call": "end@6"}
    assert scripts.courses.renewed(policy, new) == new
    assert "reader_call" not in scripts.courses.renewed(policy, conversation("hxpxpxpxp", "end", 8))["meta"]
    agreed_later = scripts.courses.renewed(policy, conversation("hxpxpxpxp", "continue", None, reader_call="end@8"))
    assert agreed_later["meta"] == {"call": "end", "justified_at": 8, "hard_negative": None}


def test_confirmed_wish_that_the_reader_saw_is_kept(scripts: SimpleNamespace) -> None:
    row = conversation("e..u.e", "end", 5)  # too far apart for the policy
    row["messages"][5]["labels"]["end_request"] = 0.5  # and below its threshold
    assert scripts.courses.renewed(scripts.courses.shipped(), row)["meta"]["justified_at"] == 5
    without = conversation("u..u.e", "end", 5)
    assert scripts.courses.renewed(scripts.courses.shipped(), without)["meta"]["call"] == "continue"


def test_stored_courses_are_what_the_command_gives(scripts: SimpleNamespace, rows: list[Row]) -> None:
    policy = scripts.courses.shipped()
    written = [row for row in rows if row["source"] == "written"]
    assert [row["id"] for row in written if scripts.courses.renewed(policy, row) != row] == []
    assert all(row["meta"]["call"] == "continue" for row in rows if row["source"] == "written_pairs")
    assert sum(row["meta"]["call"] == "end" for row in written) >= 150


def test_nobody_at_risk_is_left(rows: list[Row]) -> None:
    for row in rows:
        if row["meta"]["call"] == "end":
            before = row["messages"][: row["meta"]["justified_at"] + 1]
            assert max(max(message.get("labels", {}).get(name, 0.0) for name in ("self_harm_risk", "violent_intent")) for message in before) < 0.3, row["id"]


# -- labels read again ---------------------------------------------------------------------------------------------------------------------


def test_reviewed_labels_are_in_the_files(scripts: SimpleNamespace) -> None:
    reviewed = scripts.relabel.parse((WRITTEN / "relabelled.tsv").read_text(encoding="utf-8").splitlines(), "relabelled.tsv")
    assert len(reviewed) > 1500
    assert scripts.relabel.apply(scripts.corpus.read(), reviewed) == 0


def test_relabelling_sets_takes_away_and_lets_harm_follow(scripts: SimpleNamespace) -> None:
    turn = {"role": "user", "content": "hm", "labels": {"hate": 1.0, "other_harm": 0.4, "harm": 1.0, "violence": 0.3}}
    splits = {"train": [{"id": "x", "messages": [turn]}]}
    reviewed = scripts.relabel.parse(["# read by hand", "x\t0\thate\t0", "x\t0\tviolence\t?", "x\t0\tother_harm\t0.4"], "notes")
    assert scripts.relabel.apply(splits, reviewed) == 2
    assert turn["labels"] == {"hate": 0.0, "other_harm": 0.4, "harm": 0.4}
    assert scripts.relabel.apply(splits, reviewed) == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("x\t0\thate", "notes:1: found 3 fields"),
        ("x\t0\thate\t2", "notes:1: value: found 2.0"),
        ("y\t0\thate\t1", "y 0: found no such message"),
        ("x\t1\thate\t1", "x 1: found no such message"),
        ("x\t0\tredirection\t1", "x 0: found redirection"),
    ],
)
def test_broken_notes_are_named(scripts: SimpleNamespace, line: str, said: str) -> None:
    splits = {"train": [{"id": "x", "messages": [{"role": "user", "content": "hm", "labels": {}}]}]}
    with pytest.raises(ValueError, match=re.escape(said)):
        scripts.relabel.apply(splits, scripts.relabel.parse([line], "notes"))


def test_the_two_signals_are_there_and_go_with_what_they_must(rows: list[Row]) -> None:
    turns = [message["labels"] for row in rows for message in row["messages"] if message["role"] == "user"]
    assert sum(labels.get("sexual_content", 0.0) >= 0.5 for labels in turns) > 300
    assert sum(labels.get("violence", 0.0) >= 0.5 for labels in turns) > 400
    advances = [labels for labels in turns if labels.get("sexual_harassment", 0.0) >= 0.8]
    assert sum(labels.get("sexual_content", 0.0) >= 0.3 for labels in advances) / len(advances) > 0.95
    requests = [labels for labels in turns if labels.get("sexual_minors", 0.0) >= 0.8]
    assert sum(labels.get("sexual_content", 0.0) >= 0.5 for labels in requests) / len(requests) > 0.9


# -- copies and phrases --------------------------------------------------------------------------------------------------------------------


def test_no_turn_is_a_near_copy_of_one_elsewhere(scripts: SimpleNamespace, splits: dict[str, list[Row]]) -> None:
    assert scripts.families.near_copies(scripts.families.units(splits)) == []


def test_no_phrase_is_in_more_than_one_in_a_hundred(scripts: SimpleNamespace, splits: dict[str, list[Row]]) -> None:
    assert [one for one in scripts.families.families(scripts.families.units(splits)) if one.share > scripts.families.LIMIT] == []


def test_a_near_copy_is_found_but_not_inside_a_pair(scripts: SimpleNamespace) -> None:
    text = "the old clock in the hall stopped at ten past four on the day we moved into the house by the river"
    near = text.replace("river", "canal")
    conversations = {"a": [{"role": "user", "content": text}], "b": [{"role": "user", "content": near.upper()}], "c": [{"role": "user", "content": "a clock"}]}
    assert [(one, other) for one, other, _ in scripts.families.near_copies(conversations)] == [("b", "a")]
    pair = [{"id": f"p{side}", "meta": {"pair": "p"}, "messages": [{"role": "user", "content": one}]} for side, one in zip("ab", (text, near), strict=True)]
    assert scripts.families.near_copies(scripts.families.units({"train": pair})) == []


def test_phrases_count_once_a_conversation_and_stop_words_alone_never(scripts: SimpleNamespace) -> None:
    twice = [{"role": "user", "content": "Kindly water the tall plants. Kindly water the tall plants. It is not what I'm to be."}] * 2
    conversations = {
        "a": twice,
        "b": [{"role": "user", "content": "please kindly water the tall cactus; it is not what I’m to be"}],
        "c": [{"role": "user", "content": "no"}],
    }
    found = {(one.place, one.phrase): one.share for one in scripts.families.families(conversations)}
    assert found["4 words", "kindly water the tall"] == pytest.approx(2 / 3)
    assert not any(phrase.startswith("it is not") for _, phrase in found)
    assert ("opening, 2 words", "kindly water") not in found  # opens only one of them


# -- pages ---------------------------------------------------------------------------------------------------------------------------------


def test_coverage_page_is_current(scripts: SimpleNamespace) -> None:
    assert (WRITTEN / "coverage.md").read_text(encoding="utf-8") == scripts.coverage.report() + "\n"


def test_agreement_page_is_current(scripts: SimpleNamespace) -> None:
    assert (WRITTEN / "agreement.md").read_text(encoding="utf-8") == scripts.agreement.INTRODUCTION + scripts.agreement.report() + "\n"


def test_size_and_shares_are_those_that_were_promised(rows: list[Row]) -> None:
    written = [row for row in rows if row["source"] == "written"]
    assert len(written) >= 2000
    assert sum(len(row["messages"]) for row in rows) >= 12_000
    assert len({row["meta"]["pair"] for row in rows if "pair" in row["meta"]}) >= 1500
    assert 0.6 < sum(row["meta"]["harmless"] for row in written) / len(written) < 0.72


def test_the_data_card_says_how_large_the_corpus_is(rows: list[Row]) -> None:
    card = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    found = re.search(r"([\d,]+) conversations written one by one .*? and ([\d,]+) contrast\s+pairs \(([\d,]+) turns\)", card, re.DOTALL)
    assert found is not None, "data/README.md: found no 'N conversations written one by one … and N contrast pairs (N turns)'"
    conversations = sum(row["source"] == "written" for row in rows)
    counts = (conversations, (len(rows) - conversations) // 2, sum(len(row["messages"]) for row in rows))
    assert tuple(int(number.replace(",", "")) for number in found.groups()) == counts


# -- new drafts ----------------------------------------------------------------------------------------------------------------------------

DRAFT = "=== n9-1 | call=continue | hn=none\nU| what feeds a fern?\nA| Rain water, and shade.\n"
CELL = {
    **dict.fromkeys(("kind", "topic", "length", "register", "age", "background", "dialect", "mood", "assistant", "style"), "any"),
    "id": "n9-1",
    "harmless": True,
    "turns": 2,
}


def built(scripts: SimpleNamespace, folder: Path, draft: str, cells: list[Row], known: set[str]) -> tuple[list[Row], list[Row], list[str]]:
    (folder / "d.txt").write_text(draft, encoding="utf-8")
    (folder / "p.jsonl").write_text("".join(json.dumps(cell) + "\n" for cell in cells), encoding="utf-8")
    errors: list[str] = []
    rows, planned = scripts.append.build([(folder / "d.txt", folder / "p.jsonl")], known, errors)
    return rows, planned, errors


def test_a_new_draft_carries_its_plan(scripts: SimpleNamespace, tmp_path: Path) -> None:
    rows, planned, errors = built(scripts, tmp_path, DRAFT, [CELL], set())
    assert errors == []
    assert planned == [CELL]
    assert rows[0]["meta"] == {**{name: value for name, value in CELL.items() if name != "id"}, "call": "continue", "justified_at": None, "hard_negative": None}


@pytest.mark.parametrize(
    ("draft", "cells", "known", "said"),
    [
        (DRAFT, [CELL], {"n9-1"}, "n9-1: found a second time"),
        (DRAFT * 2, [CELL], set(), "n9-1: found a second time"),
        (DRAFT, [], set(), "n9-1: found no row in p.jsonl"),
        (DRAFT, [CELL, {**CELL, "id": "n9-2"}], set(), "n9-2: found no draft"),
        (DRAFT, [{"id": "n9-1"}], set(), "p.jsonl:1: found the fields ['id']"),
    ],
)
def test_what_is_wrong_with_new_drafts_is_named(scripts: SimpleNamespace, tmp_path: Path, draft: str, cells: list[Row], known: set[str], said: str) -> None:
    assert said in "\n".join(built(scripts, tmp_path, draft, cells, known)[2])


def test_the_split_follows_from_the_id(scripts: SimpleNamespace) -> None:
    found = Counter(scripts.append.split_of(f"n1-{number:04d}") for number in range(4000))
    assert found["train"] / 4000 == pytest.approx(0.70, abs=0.02)
    assert found["validation"] / 4000 == pytest.approx(0.15, abs=0.02)
    assert [scripts.append.split_of(name) for name in ("n1-0001", "n2-0001", "n3-001")] == ["train", "endbench", "train"]
