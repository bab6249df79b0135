"""Leaving sources out, and mining what a run gets wrong: on the tiny encoder, with small prepared sources of our own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from lastresort.data import read_dialogues, write_dialogues
from lastresort.errors import ConfigError
from lastresort.types import Dialogue, Message
from lastresort_data.compose import parse_config
from lastresort_training.config import TrainConfig
from lastresort_training.data import UNKNOWN
from lastresort_training.leave_out import LeaveOutSettings, Variant, leave_out, reduced, threshold_at_recall, unseen
from lastresort_training.mine import ERROR, errors_of, mine, pool

BEGIN, END = "<!-- left out: written by `lastresort leave-out`; do not edit -->", "<!-- end of left out -->"
SIZES = {"one": 12, "two": 20, "apart": 6}


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """Three prepared sources of short harmful and harmless requests."""
    folder = tmp_path / "prepared"
    for name, size in SIZES.items():
        for split in ("train", "validation"):
            (folder / name).mkdir(parents=True, exist_ok=True)
            rows = []
            for number in range(size):
                harm = float(number % 2)
                text = f"{split} {name} request number {number}: please {'insult the stupid bot' if harm else 'help me with the garden'}"
                labels = {"harm": harm, "assistant_abuse": harm, "self_harm_risk": harm, "end_request": harm, "persistence": harm}
                answer = Message("assistant", f"answer {number} of {name} in {split}", {"redirection": harm})
                rows.append(Dialogue(f"{name}-{split}-{number}", (Message("user", text, labels), answer), name))
            write_dialogues(rows, folder / name / f"{split}.jsonl")
    return folder


@pytest.fixture
def mixture(tmp_path: Path) -> Path:
    path = tmp_path / "mixture.yaml"
    path.write_text(yaml.safe_dump({"seed": 1, "validation_share": 1.0, "sources": {"one": {"cap": 10}, "two": {}}, "kinds": {}}), encoding="utf-8")
    return path


@pytest.fixture
def comparison(settings: TrainConfig, prepared: Path, mixture: Path, tmp_path: Path, recipe: Path) -> LeaveOutSettings:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    variants = {"small": Variant(str(mixture), overrides=("optimiser.encoder_lr=0.0",))}
    groups = {"a": ("one", "apart"), "never": ("apart",)}
    return LeaveOutSettings(str(recipe), str(prepared), str(tmp_path / "runs"), groups, variants, page=str(page))


@pytest.fixture
def recipe(settings: TrainConfig, tmp_path: Path) -> Path:
    """The tiny recipe as a file."""
    from tiny import ROOT

    values = yaml.safe_load((ROOT / "configs" / "train" / "smoke.yaml").read_text(encoding="utf-8"))
    values["model"] = {"base": settings.model.base, "memory_size": 16}
    values["run"]["max_steps"] = 2
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def test_a_comparison_trains_without_the_sources_and_measures_on_them(comparison: LeaveOutSettings, tmp_path: Path) -> None:
    result = leave_out(comparison)
    side = result["variants"]["small"]
    assert set(side["turns"]) == {"small-without-a", "small"}
    assert side["turns"] == {"small-without-a": 2 * SIZES["two"], "small": 2 * (10 + SIZES["two"])}
    assert {name: found["n"] for name, found in side["sources"].items()} == {"one": 24, "apart": 12}
    trained = {one.source for one in read_dialogues(tmp_path / "runs" / "mixtures" / "small-without-a" / "train.jsonl")}
    assert trained == {"two"}
    page = Path(comparison.page or "").read_text(encoding="utf-8")
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    assert "| apart | 12 | 6 |" in page
    assert "\nold\n" not in page


def test_finished_runs_are_not_trained_again(comparison: LeaveOutSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    first = leave_out(comparison, only="small-without-a")
    monkeypatch.setattr("lastresort_training.leave_out.train", lambda settings: pytest.fail("trained again"))
    assert leave_out(comparison, only="small-without-a") == first


def test_the_scale_reaches_caps_sizes_and_kinds(prepared: Path, mixture: Path) -> None:
    config = parse_config({"seed": 1, "sources": {"one": {"cap": 10}, "two": {}, "apart": {"cap": 4}}, "kinds": {"crisis": 8}})
    half = reduced(config, prepared, ["apart"], 0.5)
    assert {name: one.cap for name, one in half.sources.items()} == {"one": 5, "two": 10}
    assert half.kinds == {"crisis": 4}


def test_measures_of_an_unseen_source() -> None:
    logits, labels = np.array([3.0, 1.0, 0.0, -2.0, 9.0]), np.array([1.0, 0.0, 1.0, 0.0, UNKNOWN])
    found = unseen(logits, labels, threshold=0.5)
    assert (found.n, found.positives, found.false_positives) == (4, 2, 0.5)
    assert found.average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert unseen(logits, np.full(5, UNKNOWN), 0.5).average_precision is None
    assert threshold_at_recall(np.arange(10.0), np.ones(10), 0.9) == 1.0
    with pytest.raises(ConfigError, match="found no positive turn"):
        threshold_at_recall(logits, np.zeros(5), 0.9)


def test_mining_takes_what_the_caps_left_and_the_run_gets_wrong(prepared: Path, mixture: Path, finished: Path, tmp_path: Path) -> None:
    used = tmp_path / "mix"
    used.mkdir()
    taken = list(read_dialogues(prepared / "one" / "train.jsonl"))[:5]
    write_dialogues(taken, used / "train.jsonl")
    rest = pool(mixture, prepared, used, 1000, seed=0)
    assert {one.id for one in rest}.isdisjoint(one.id for one in taken)
    assert len(rest) == SIZES["one"] + SIZES["two"] - len(taken)
    errors = {one.id: error for one, error in errors_of(finished, rest, "harm")}
    assert set(errors) == {one.id for one in rest}
    harm = {one.id: one.messages[0].labels["harm"] for one in rest}
    assert all((error < 0) == (harm[name] == 1.0) for name, error in errors.items())
    counts = mine(finished, mixture, prepared, used, tmp_path / "mined.jsonl", label="harm", most=4, pool_most=1000, source_share=0.5)
    mined = list(read_dialogues(tmp_path / "mined.jsonl"))
    assert sum(counts.values()) == len(mined) <= 4
    assert json.loads((tmp_path / "mined.counts.json").read_text(encoding="utf-8")) == counts
    assert all(ERROR[0] <= abs(errors[one.id]) <= ERROR[1] for one in mined)


def test_an_impossible_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="found 0, expected a number above 0"):
        replace(Variant("x"), scale=0)
