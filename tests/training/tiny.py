"""Makes the tiny encoder that training tests use, and `tests/tiny_model`, on which the core suite runs.

python tests/training/tiny.py        # writes tests/tiny_model anew; review the change before committing it
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertModel, set_seed

from lastresort.config import parse_settings, read_yaml
from lastresort.data import read_dialogues
from lastresort_training.config import TrainConfig
from lastresort_training.export import ExportSettings, export
from lastresort_training.train import train

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "data" / "sample" / "dialogues.jsonl"


def make_base(folder: Path) -> Path:
    """A pretrained-looking encoder of two layers, 32 wide, with a vocabulary of the sample dialogues; weights are random but seeded."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = BertWordPieceTokenizer(lowercase=True)
    tokenizer.train_from_iterator((m.content for d in read_dialogues(SAMPLE) for m in d.messages), vocab_size=800, min_frequency=1, show_progress=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    set_seed(1)
    config = BertConfig(
        vocab_size=800, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=128, type_vocab_size=2
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def tiny_settings(base: Path, output: Path, **changes: Any) -> TrainConfig:
    """The smoke recipe on the tiny encoder; `changes` are `section__key=value`."""
    values = read_yaml(ROOT / "configs" / "train" / "smoke.yaml")
    values["data"] = {"train": [str(SAMPLE)], "validation": [str(SAMPLE)]}
    values["model"] = {"base": str(base), "memory_size": 16, "freeze_embeddings": False}
    values["run"].update(output=str(output))
    for name, value in changes.items():
        section, _, key = name.partition("__")
        values.setdefault(section, {})[key] = value
    return parse_settings(TrainConfig, values, where="tiny")


def tiny_export_settings(**changes: Any) -> ExportSettings:
    """The smoke export with paths that do not depend on the working folder."""
    values = read_yaml(ROOT / "configs" / "export" / "smoke.yaml")
    values.update(name="tiny", policy=str(ROOT / "configs" / "policy" / "smoke.yaml"), golden=str(SAMPLE))
    values.update(changes)
    return parse_settings(ExportSettings, values, where="tiny")


def main() -> None:
    """Writes `tests/tiny_model`."""
    target = ROOT / "tests" / "tiny_model"
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        settings = tiny_settings(
            make_base(work / "base"),
            work / "run",
            run__max_steps=240,
            run__eval_steps=240,
            optimiser__encoder_lr=2e-3,
            optimiser__layer_decay=1.0,
            optimiser__head_lr=1e-2,
            optimiser__head_epochs=0.0,
        )
        shutil.rmtree(target, ignore_errors=True)
        export(train(settings), target, tiny_export_settings())


if __name__ == "__main__":
    main()
