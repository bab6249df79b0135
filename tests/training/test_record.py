"""What a training leaves: one entry a run of a chain, nothing of this machine in it, and a picture that is always the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from lastresort.errors import ConfigError
from lastresort_training.config import TrainConfig
from lastresort_training.record import CONFIG, CURVES, MOST_POINTS, RUN, TRAINING, command_line, draw_curves, portable, read_runs, runs_of, write_runs


def make_run(folder: Path, start: str | None = None, **record: Any) -> Path:
    folder.mkdir(parents=True)
    settings = {"model": {"base": "package:x/y", "start": start}, "data": {"train": ["work/train.jsonl"]}}
    (folder / CONFIG).write_text(yaml.safe_dump(settings), encoding="utf-8")
    history = [{"loss": 0.123456789, "step": 5}, {"eval_loss": 0.5, "eval_macro_ap": 0.7, "eval_ap_harm": 0.8, "step": 10}]
    (folder / RUN).write_text(json.dumps({"train_digest": "ab", "history": history, **record}), encoding="utf-8")
    return folder


def test_paths_of_this_machine_become_relative_or_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = {
        "inside": str(tmp_path / "runs" / "one"),
        "outside": ["/home/some body/model", "C:\\Users\\somebody\\model", "D:/x/model"],
        "override": f"model.start={tmp_path}/runs/one",
        "several": "data.train=[/home/a/x.jsonl, /home/b/y.jsonl]",
        "kept": ["runs/one", "package:gt/model", "how grave: 1/3 mild", "https://example.org/a/b", 3, None, "key=value"],
    }
    assert portable(given) == {
        "inside": "runs/one",
        "outside": ["model", "model", "model"],
        "override": "model.start=runs/one",
        "several": "data.train=[x.jsonl, y.jsonl]",
        "kept": given["kept"],
    }


def test_the_command_is_the_documented_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert command_line([str(tmp_path / "a.yaml"), "run.seed=3"], 1) == "lastresort train a.yaml run.seed=3"
    assert command_line(["a b.yaml"], 2) == "accelerate launch --multi_gpu --num_processes 2 -m lastresort train 'a b.yaml'"


def test_a_chain_of_runs_gives_one_entry_a_run(tmp_path: Path) -> None:
    first = make_run(tmp_path / "first")
    make_run(tmp_path / "second", str(first))
    third = make_run(tmp_path / "third", "runs/elsewhere/second")  # named as where it was trained; found beside
    runs = runs_of(third, "lastresort train third.yaml")
    assert [(run["name"], run["command"]) for run in runs] == [("first", None), ("second", None), ("third", "lastresort train third.yaml")]
    assert runs[1]["settings"]["model"] == {"base": "package:x/y", "start": "first"}
    assert runs[2]["history"][0] == {"loss": 0.123457, "step": 5}
    assert runs[2]["train_digest"] == "ab"
    assert str(tmp_path) not in json.dumps(runs)


def test_what_a_run_wrote_at_its_end_is_taken_as_it_is(tmp_path: Path) -> None:
    first = make_run(tmp_path / "first")
    write_runs(runs_of(first, "lastresort train first.yaml"), first)
    second = make_run(tmp_path / "second", str(first))
    write_runs(runs_of(second, "lastresort train second.yaml"), second)
    shutil.rmtree(first)
    assert [run["command"] for run in read_runs(second)] == ["lastresort train first.yaml", "lastresort train second.yaml"]
    (second / TRAINING).unlink()
    assert [(run["name"], run["history"] != []) for run in read_runs(second)] == [("first", False), ("second", True)]  # the first is gone
    (second / TRAINING).write_text('{"runs": []}', encoding="utf-8")
    with pytest.raises(ConfigError, match="found no runs"):
        read_runs(second)
    with pytest.raises(ConfigError, match=r"found no run\.json"):
        runs_of(tmp_path)


def test_a_finished_run_says_how_it_was_made(finished: Path, settings: TrainConfig) -> None:
    (run,) = read_runs(finished)
    assert (finished / TRAINING).is_file()
    assert run["settings"]["run"]["seed"] == settings.run.seed
    assert {"train_digest", "versions", "label_counts", "history"} <= set(run)
    assert run["settings"]["model"]["base"] == Path(settings.model.base).name
    assert not [trace for trace in ("/tmp", "/home", "/root", str(finished.parent)) if trace in (finished / TRAINING).read_text(encoding="utf-8")]


def test_the_same_runs_give_the_same_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="curves need matplotlib, which comes with the extra: train")
    long = [{"loss": 1 / step, "step": step} for step in range(1, 4 * MOST_POINTS)]
    runs = [{"name": "first", "history": [*long, {"eval_macro_ap": 0.5, "step": 1200}, {"loss": 0.1, "step": 1}]}, {"name": "second", "history": long}]
    for name in ("a.svg", "b.svg"):
        assert draw_curves(runs, tmp_path / name)
    picture = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert picture == (tmp_path / "b.svg").read_text(encoding="utf-8")
    assert "first" in picture
    assert "second" in picture
    assert "date" not in picture
    assert len(picture) < 60_000
    assert not draw_curves([{"name": "gone", "history": []}], tmp_path / CURVES)
    assert not (tmp_path / CURVES).exists()


def test_steps_go_on_where_they_start_again(tmp_path: Path) -> None:
    from lastresort_training.record import _laid_out

    runs = [
        {"name": "a", "history": [{"step": 10, "loss": 1}, {"step": 20, "loss": 1}, {"step": 5, "loss": 1}]},
        {"name": "gone", "history": []},
        {"name": "b", "history": [{"step": 10, "loss": 1}]},
    ]
    assert [step for step, _ in _laid_out(runs)] == [0, 10, 20, 25, 25, 35]
