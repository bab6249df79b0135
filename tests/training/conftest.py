"""One tiny base encoder and one finished run of the smoke recipe on it, shared by every test here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

pytest.importorskip("torch", reason="training tests need the extra: train")

from tiny import make_base, tiny_settings

from lastresort_training.config import TrainConfig
from lastresort_training.train import train

TOKENIZER = Path(__file__).resolve().parents[1] / "tiny_model" / "tokenizer.json"


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pretrained-looking encoder. Not to be changed."""
    folder = make_base(tmp_path_factory.mktemp("base") / "encoder")
    shutil.copyfile(TOKENIZER, folder / TOKENIZER.name)  # building a vocabulary gives another order of ids each time
    return folder


@pytest.fixture(scope="session")
def settings(base: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """The smoke recipe on the tiny encoder: eight steps, two checkpoints."""
    return tiny_settings(base, tmp_path_factory.mktemp("runs") / "smoke")


@pytest.fixture(scope="session")
def finished(settings: TrainConfig) -> Path:
    """The run folder of that recipe. Not to be changed."""
    return train(settings)
