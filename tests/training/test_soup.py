"""Averaging finished runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny_export_settings

from lastresort.conversation import load
from lastresort.errors import ConfigError
from lastresort_training.config import TrainConfig
from lastresort_training.export import export
from lastresort_training.record import RUN, read_runs
from lastresort_training.soup import soup
from lastresort_training.train import WEIGHTS, load_run, train


@pytest.fixture(scope="module")
def other(settings: TrainConfig, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that goes on from the finished one, with another seed."""
    output = tmp_path_factory.mktemp("runs") / "other"
    model = replace(settings.model, start=str(finished))
    return train(replace(settings, model=model, run=replace(settings.run, output=str(output), seed=8)))


def test_a_soup_is_the_mean_of_its_parts_and_can_be_exported(finished: Path, other: Path, tmp_path: Path) -> None:
    found = soup([finished, other], tmp_path / "soup")
    one, two, mixed = (load_file(folder / WEIGHTS) for folder in (finished, other, tmp_path / "soup"))
    for name in mixed:
        if not name.startswith("calibration"):
            torch.testing.assert_close(mixed[name], (one[name] + two[name]) / 2)
    record = json.loads((tmp_path / "soup" / RUN).read_text(encoding="utf-8"))
    assert record["soup"] == {finished.name: 0.5, "other": 0.5}
    assert record["validation_ap"] == found
    assert read_runs(tmp_path / "soup")[-1]["command"].startswith("lastresort soup ")
    stored = np.load(tmp_path / "soup" / "validation.npz")
    assert stored["logits"].shape == np.load(finished / "validation.npz")["logits"].shape
    export(tmp_path / "soup", tmp_path / "model", tiny_export_settings())
    assert load(tmp_path / "model").scorer.manifest.labels


def test_shares_weigh(finished: Path, other: Path, tmp_path: Path) -> None:
    soup([finished, other], tmp_path / "soup", [3, 1])
    one, two, mixed = (load_file(folder / WEIGHTS) for folder in (finished, other, tmp_path / "soup"))
    torch.testing.assert_close(mixed["heads.weight"], 0.75 * one["heads.weight"] + 0.25 * two["heads.weight"])


def test_a_model_folder_with_its_weights_is_a_part_too(base: Path, finished: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(base.parent)  # a model folder names its base without this machine's folders
    export(other, tmp_path / "model", tiny_export_settings())
    model, settings, record = load_run(tmp_path / "model")
    exact = load_file(other / WEIGHTS)
    torch.testing.assert_close(model.state_dict()["heads.weight"], exact["heads.weight"].half().float())
    assert settings.labels == load_run(other)[1].labels
    assert record["thresholds"] == pytest.approx(json.loads((other / RUN).read_text(encoding="utf-8"))["thresholds"])
    soup([finished, tmp_path / "model"], tmp_path / "soup")
    mixed = load_file(tmp_path / "soup" / WEIGHTS)
    torch.testing.assert_close(mixed["heads.weight"], (model.state_dict()["heads.weight"] + load_file(finished / WEIGHTS)["heads.weight"]) / 2)


def test_parts_that_do_not_belong_together_are_refused(settings: TrainConfig, finished: Path, other: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found 1 run, expected at least two"):
        soup([finished], tmp_path / "soup")
    for shares in ([1.0], [1.0, 0.0]):
        with pytest.raises(ConfigError, match="expected one above 0 for each"):
            soup([finished, other], tmp_path / "soup", shares)
    small = train(replace(settings, model=replace(settings.model, layers=(0,)), run=replace(settings.run, output=str(tmp_path / "small"))))
    with pytest.raises(ConfigError, match="weights of different names or shapes"):
        soup([finished, small], tmp_path / "soup")
    assert not (tmp_path / "soup").exists()
