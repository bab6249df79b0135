"""A user's own two labels on the user's own files, from the weights of a model folder to scores: the chain of training/README.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tiny import ROOT, SAMPLE, tiny_export_settings

from lastresort.data import write_dialogues
from lastresort.types import Dialogue, Message
from lastresort_training.export import export
from lastresort_training.record import TRAINING
from lastresort_training.train import PORTABLE, RUN, WEIGHTS

RUDE = ["you useless machine", "shut up, stupid bot", "what an idiot you are", "worthless junk"]
KIND = ["please help me with the garden", "how long do I boil an egg", "thank you for the list", "good morning to you"]


def own_dialogues(start: int, number: int) -> list[Dialogue]:
    """Small dialogues with the labels `rude` and `redirection`."""
    found = []
    for place in range(start, start + number):
        rude = place % 2
        first = Message("user", f"{(RUDE if rude else KIND)[place % 4]}, number {place}", {"rude": float(rude)})
        answer = Message("assistant", "I will not be spoken to like this." if rude else "Of course, here you are.", {"redirection": float(rude)})
        found.append(Dialogue(f"own-{place}", (first, answer), "own"))
    return found


@pytest.fixture
def start(finished: Path, tmp_path: Path) -> Path:
    """A model folder that carries its weights."""
    export(finished, tmp_path / "start", tiny_export_settings())
    return tmp_path / "start"


def test_the_weights_travel_in_half_precision(start: Path, finished: Path) -> None:
    stored, trained = load_file(start / PORTABLE), load_file(finished / WEIGHTS)
    assert set(stored) == set(trained)
    assert all((trained[name].float() - value.float()).abs().max() <= 1e-3 * max(1.0, float(trained[name].abs().max())) for name, value in stored.items())


def test_own_labels_from_a_model_folder_to_scores(start: Path, base: Path, tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "my").mkdir()
    write_dialogues(own_dialogues(0, 48), tmp_path / "my" / "train.jsonl")
    write_dialogues(own_dialogues(100, 24), tmp_path / "my" / "validation.jsonl")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HOME": str(tmp_path / "home")}

    def lastresort(*arguments: str) -> None:
        done = subprocess.run([sys.executable, "-m", "lastresort", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    tiny = [f"model.base={base}", f"model.start={start}", "model.memory_size=16", "run.max_steps=60", "run.eval_steps=30"]
    fast = ["optimiser.head_lr=0.02", "optimiser.encoder_lr=0.001", "optimiser.epochs=10"]
    lastresort("train", "configs/train/own.yaml", *tiny, *fast)
    record = json.loads((tmp_path / "runs" / "own" / RUN).read_text(encoding="utf-8"))
    assert (record["start"], record["new_heads"]) == ("start", ["rude"])  # redirection begins from the head of that name
    before, own = json.loads((tmp_path / "runs" / "own" / TRAINING).read_text(encoding="utf-8"))["runs"]
    assert (before["name"], before["command"]) == ("smoke", None)
    assert own["command"].startswith(f"lastresort train configs/train/own.yaml model.base={base.name} model.start=start model.memory_size=16 ")
    lastresort("export", "runs/own", "-o", "models/own", "--config", "configs/export/own.yaml", f"golden={SAMPLE}", "precision=fp32")
    lastresort("evaluate", "my/validation.jsonl", "--model", "models/own", "-o", "metrics.json")
    rows = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))["rows"]
    found = {row["label"]: row["average_precision"] for row in rows if row["source"] == "own"}
    assert found["rude"] > 0.9
    assert found["redirection"] > 0.9
    lastresort("score", "my/validation.jsonl", "--model", "models/own", "-o", "scored.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 24
    assert set(lines[0]["turns"][0]["scores"]) == {"rude"}
