"""Targets and what was found: which turns count, each measure against a count by hand, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lastresort.artifact import Manifest, read_manifest
from lastresort.config import parse_settings, read_settings
from lastresort.data import dumps, scored_to_json, write_dialogues
from lastresort.errors import ConfigError, DataError
from lastresort.metrics import average_precision, macro_f1, recall_at_fpr
from lastresort.types import Dialogue, Message, ScoredDialogue, ScoredTurn
from lastresort_training.targets import Found, Target, TargetsConfig, measure_targets, read_targets, write_targets

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def manifest(tiny_path: Path) -> Manifest:
    found = read_manifest(tiny_path)
    return replace(found, labels=tuple(replace(label, threshold=0.5) for label in found.labels))


class Files:
    """Dialogues of one turn each, with scores that are given."""

    def __init__(self, folder: Path, tag: str) -> None:
        self.folder, self.tag = folder, tag
        self.dialogues: list[Dialogue] = []
        self.scored: list[ScoredDialogue] = []

    def add(self, labels: dict[str, float], scores: dict[str, float], text: str = "words", source: str = "a", **meta: object) -> None:
        name, role = str(len(self.dialogues)), "assistant" if "redirection" in labels else "user"
        self.dialogues.append(Dialogue(name, (Message(role, text, labels),), source, meta))  # type: ignore[arg-type]
        self.scored.append(ScoredDialogue(name, self.tag, "continue", None, (ScoredTurn(0, role, scores, 1),)))  # type: ignore[arg-type]

    def measure(self, manifest: Manifest, *targets: Target, before: dict[str, float | None] | None = None) -> list[Found]:
        write_dialogues(self.dialogues, self.folder / "data.jsonl")
        (self.folder / "scored.jsonl").write_text("".join(dumps(scored_to_json(one)) + "\n" for one in self.scored), encoding="utf-8")
        files = {"validation": {"data": str(self.folder / "data.jsonl"), "scored": str(self.folder / "scored.jsonl")}}
        empty = parse_settings(TargetsConfig, {"files": files, "targets": []}, where="test")
        return measure_targets(replace(empty, targets=targets), manifest, before)


@pytest.fixture
def files(tmp_path: Path, manifest: Manifest) -> Files:
    return Files(tmp_path, manifest.tag)


def harm(files: Files, values: Sequence[float], scores: Sequence[float], source: str = "a") -> None:
    for value, score in zip(values, scores, strict=True):
        files.add({"harm": value}, {"harm": score}, source=source)


def target(measure: str, **changes: object) -> Target:
    return Target(**{"name": measure, "measure": measure, "labels": ("harm",), "at_least": 0.5, **changes})  # type: ignore[arg-type]


def test_the_measures_are_those_of_the_runtime(files: Files, manifest: Manifest) -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random(200) < 0.3).astype(float)
    scores = np.clip(labels * 0.3 + rng.random(200) * 0.7, 0, 1).round(4)
    harm(files, labels, scores)
    ap, f1, recall = files.measure(manifest, target("average_precision"), target("macro_f1", at_least=0.99), target("recall_at_fpr", fpr=0.1))
    assert (ap.value, f1.value) == (average_precision(labels, scores), macro_f1(labels, (scores >= 0.5).astype(float)))
    assert recall.value == recall_at_fpr(labels, scores, 0.1) != recall_at_fpr(labels, scores, 0.01)
    assert (ap.met, f1.met, ap.n, ap.positives, ap.wanted) == (True, False, 200, int(labels.sum()), "≥ 0.5")


def test_only_turns_of_the_sources_the_meta_and_the_labels_asked_for_count(files: Files, manifest: Manifest) -> None:
    files.add({"harm": 0.0}, {"harm": 0.9}, source="a", kind="x")
    files.add({"harm": 0.0}, {"harm": 0.1}, source="a", kind="y")
    files.add({"harm": 0.0}, {"harm": 0.1}, source="b", kind="x")
    files.add({"harm": 1.0}, {"harm": 0.9}, source="a", kind="x")
    files.add({}, {"harm": 0.9}, source="a", kind="x")  # not known
    every, some, kinds = files.measure(
        manifest,
        target("false_positives", name="every", at_least=None, at_most=0.5),
        target("false_positives", name="some", at_least=None, at_most=0.5, sources=("a",), meta={"kind": "x"}),
        target("false_positives", name="kinds", at_least=None, at_most=0.5, sources=("a",), meta={"kind": ["x", "y"]}),
    )
    assert [(one.value, one.detail, one.met) for one in (every, some, kinds)] == [(1 / 3, "1 of 3", True), (1.0, "1 of 1", False), (0.5, "1 of 2", True)]
    assert (some.wanted, some.n, some.positives) == ("≤ 50%", 2, 1)


def test_where_asks_for_other_labels_of_the_same_turn(files: Files, manifest: Manifest) -> None:
    files.add({"redirection": 1.0, "distress": 0.0}, {"redirection": 0.9, "distress": 0.9})
    files.add({"redirection": 1.0, "distress": 0.0}, {"redirection": 0.9, "distress": 0.1})
    files.add({"redirection": 0.0, "distress": 0.0}, {"redirection": 0.9, "distress": 0.9})  # no refusal
    files.add({"redirection": 1.0, "distress": 0.3}, {"redirection": 0.9, "distress": 0.9})  # not plain
    (found,) = files.measure(manifest, target("f1", labels=("redirection",), where={"redirection": (0.5, 1.0), "distress": (0.0, 0.1)}))
    assert (found.n, found.positives, found.value) == (2, 2, 1.0)


def test_several_labels_count_as_one(files: Files, manifest: Manifest) -> None:
    files.add({"harm": 0.0, "assistant_abuse": 1.0}, {"harm": 0.1, "assistant_abuse": 0.6})
    files.add({"harm": 0.0, "assistant_abuse": 0.0}, {"harm": 0.7, "assistant_abuse": 0.2})
    files.add({"harm": 0.0, "assistant_abuse": 0.0}, {"harm": 0.3, "assistant_abuse": 0.2})
    files.add({"harm": 0.0}, {"harm": 0.3, "assistant_abuse": 0.2})  # one of them is unknown
    (found,) = files.measure(manifest, target("f1", labels=("harm", "assistant_abuse")))
    assert (found.n, found.positives, found.value) == (3, 1, pytest.approx(2 / 3))


def test_the_worst_harmless_source_is_named(files: Files, manifest: Manifest) -> None:
    harm(files, [0.0] * 40, [0.9] * 4 + [0.1] * 36, "bad")
    harm(files, [0.0] * 50, [0.9] * 2 + [0.1] * 48, "better")
    harm(files, [0.0] * 30, [0.1] * 30, "good")
    harm(files, [0.0] * 39 + [1.0], [0.9] * 40, "harmful")
    harm(files, [0.0] * 29, [0.9] * 29, "small")
    (found,) = files.measure(manifest, target("worst_source", at_least=None, at_most=0.05))
    assert (found.value, found.met, found.n) == (0.1, False, 120)
    assert found.detail == "bad, 4 of 40; 1 of 3 sources above"


def test_the_gap_between_turns_that_mention_a_group_and_others(files: Files, manifest: Manifest) -> None:
    for score, text, value in [(0.9, "my muslim friend", 0.0), (0.1, "my gay friend", 0.0), (0.9, "x", 0.0), *[(0.1, "x", 0.0)] * 9, (0.9, "muslims", 0.3)]:
        files.add({"harm": value}, {"harm": score}, text)
    (found,) = files.measure(manifest, target("group_gap", at_least=None, at_most=0.03), before={"group_gap": 0.5})
    assert found.value == pytest.approx(0.4)
    assert found.detail == "50.0% of 2 against 10.0% of 10"
    assert found.before == 0.5


def test_nothing_to_measure_is_not_met(files: Files, manifest: Manifest) -> None:
    files.add({"harm": 1.0}, {"harm": 0.9})
    found = files.measure(
        manifest,
        target("average_precision", sources=("none",)),
        target("recall_at_fpr"),
        target("worst_source", at_least=None, at_most=1.0),
        target("group_gap", at_least=None, at_most=1.0),
        target("false_positives", at_least=None, at_most=1.0),
    )
    assert [(one.value, one.met) for one in found] == [(None, False)] * 5


def test_what_does_not_belong_together_is_refused(files: Files, manifest: Manifest) -> None:
    files.add({"harm": 1.0}, {"harm": 0.9})
    with pytest.raises(ConfigError, match="found labels boredom"):
        files.measure(manifest, target("f1", labels=("boredom",)))
    with pytest.raises(ConfigError, match="found a name twice"):
        files.measure(manifest, target("f1"), target("f1"))
    with pytest.raises(DataError, match=r"found scores of .*, expected those of other@"):
        files.measure(replace(manifest, name="other"), target("f1"))
    for wrong in ({"at_most": 0.5}, {"at_least": None}, {"labels": ()}):
        with pytest.raises(ValueError, match="expected labels and either"):
            target("f1", **wrong)


def test_it_can_be_read_back(files: Files, manifest: Manifest, tmp_path: Path) -> None:
    files.add({"harm": 1.0}, {"harm": 0.9})
    found = files.measure(manifest, target("f1"))
    write_targets(found, manifest, tmp_path / "targets.json")
    assert read_targets(tmp_path / "targets.json") == (manifest.tag, found)
    (tmp_path / "targets.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="expected the output of `lastresort targets`"):
        read_targets(tmp_path / "targets.json")


def test_the_edgy_kinds_of_the_release_targets_are_those_of_the_plan() -> None:
    config = read_settings(TargetsConfig, ROOT / "configs" / "targets" / "release.yaml")
    (edgy,) = [one for one in config.targets if "kind" in one.meta]
    plan = [json.loads(line) for line in (ROOT / "data" / "written" / "plan.jsonl").read_text(encoding="utf-8").splitlines()]
    assert set(edgy.meta["kind"]) == {row["kind"] for row in plan if row["harmless"]} - {"ordinary_help", "small_talk"}
