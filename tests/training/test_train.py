"""The smoke recipe on a tiny encoder: what a run leaves behind, that it repeats, resumes, and refuses early."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import ROOT, SAMPLE, make_base, tiny_settings

import lastresort_training.train as module
from lastresort.config import read_settings
from lastresort.data import read_dialogues
from lastresort.encoding import TOKEN_TYPE, TurnEncoder
from lastresort.errors import ConfigError, DataError
from lastresort.types import LabelSpec
from lastresort_training.config import TrainConfig
from lastresort_training.data import UNKNOWN, DialogueCollator, data_digest, encode_dialogues
from lastresort_training.model import Teacher, TurnModel, build_model
from lastresort_training.record import TRAINING
from lastresort_training.train import CONFIG, PER_LABEL, RUN, TOKENIZER, WEIGHTS, TurnTrainer, load_run, parameter_groups, train, warm_start, warn_of_emulation


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / WEIGHTS)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def changed(settings: TrainConfig, output: Path, **changes: Any) -> TrainConfig:
    """The recipe with another output and `section__key=value`."""
    settings = replace(settings, run=replace(settings.run, output=str(output)))
    for name, value in changes.items():
        section, _, key = name.partition("__")
        settings = replace(settings, **{section: replace(getattr(settings, section), **{key: value})})
    return settings


def steps_of(run: Path) -> list[int]:
    """The steps whose loss was logged, in order."""
    record = json.loads((run / RUN).read_text(encoding="utf-8"))
    return [entry["step"] for entry in record["history"] if "loss" in entry]


def test_a_run_leaves_what_export_and_a_reader_need(finished: Path, settings: TrainConfig) -> None:
    assert {path.name for path in finished.iterdir()} == {
        WEIGHTS, TOKENIZER, CONFIG, RUN, TRAINING, "validation.npz", "cache", "checkpoint-4", "checkpoint-8",
    }  # fmt: skip
    record = json.loads((finished / RUN).read_text(encoding="utf-8"))
    assert set(record) == {
        "base", "start", "teacher", "new_heads", "processes", "train_digest", "validation_digest", "label_counts", "thresholds", "validation_ap", "versions",
        "history",
    }  # fmt: skip
    assert record["base"] == Path(settings.model.base).name
    assert (record["start"], record["processes"]) == (None, 1)
    assert record["train_digest"] == record["validation_digest"] == data_digest([str(SAMPLE)])
    names = [label.name for label in settings.labels]
    assert list(record["label_counts"]) == list(record["thresholds"]) == names
    assert set(record["validation_ap"]) == set(names)
    assert all(0 < value <= 1 for value in record["thresholds"].values())
    assert steps_of(finished) == list(range(1, 9))
    assert "/" not in json.dumps(record)


def test_the_resolved_config_can_be_read_back(finished: Path, settings: TrainConfig) -> None:
    assert read_settings(TrainConfig, finished / CONFIG) == settings


def test_the_validation_logits_are_those_of_the_saved_weights(finished: Path, settings: TrainConfig) -> None:
    from lastresort.encoding import TurnEncoder
    from lastresort_training.data import DialogueCollator, load_split

    model, config, _ = load_run(finished)
    assert config == settings
    encoder = TurnEncoder.from_file(finished / TOKENIZER, config.encoding)
    batch = DialogueCollator(len(config.labels))(list(load_split(config.data.validation, encoder, config, finished / "cache")))
    with torch.no_grad():
        logits = model(batch["buckets"], batch["window_turn"], batch["window_role"], batch["labels"]).logits
    known = (batch["labels"] != UNKNOWN).any(-1)
    stored = np.load(finished / "validation.npz")
    np.testing.assert_array_equal(stored["targets"], batch["labels"][known].numpy())
    np.testing.assert_allclose(stored["logits"], logits[known].numpy(), atol=1e-5)


def test_training_moves_everything_that_may_move(finished: Path, base: Path) -> None:
    before = {f"encoder.{name}": value for name, value in load_file(base / "model.safetensors").items()}
    after = weights(finished)
    assert set(before) <= set(after)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == set(before)


def test_the_same_seed_gives_the_same_weights_and_another_one_others(finished: Path, settings: TrainConfig, tmp_path: Path) -> None:
    again = train(changed(settings, tmp_path / "again"))
    assert same(weights(again), weights(finished))
    other = train(changed(settings, tmp_path / "other", run__seed=8))
    assert not same(weights(other), weights(finished))


def test_a_broken_run_resumes_and_ends_where_an_unbroken_one_does(finished: Path, settings: TrainConfig, tmp_path: Path) -> None:
    output = tmp_path / "resumed"
    shutil.copytree(finished / "checkpoint-4", output / "checkpoint-4")
    resumed = train(changed(settings, output))
    assert steps_of(resumed)[-4:] == [5, 6, 7, 8]
    assert same(weights(resumed), weights(finished))


def test_a_run_that_breaks_off_keeps_its_checkpoint(finished: Path, settings: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the machine goes away in the sixth step; the second call does the rest."""
    output = tmp_path / "broken"
    real = TurnTrainer.training_step

    def breaks(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        return real(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(TurnTrainer, "training_step", breaks)
        with pytest.raises(KeyboardInterrupt):
            train(changed(settings, output))
    assert (output / "checkpoint-4").is_dir()
    assert not (output / WEIGHTS).exists()
    with pytest.raises(ConfigError, match=r"found no model\.safetensors, expected a finished training run"):
        load_run(output)
    assert same(weights(train(changed(settings, output))), weights(finished))


def test_a_finished_run_trains_no_further(settings: TrainConfig, finished: Path, tmp_path: Path) -> None:
    output = Path(shutil.copytree(finished, tmp_path / "copy"))
    assert same(weights(train(changed(settings, output))), weights(finished))


def test_the_best_checkpoint_is_kept(finished: Path) -> None:
    record = json.loads((finished / RUN).read_text(encoding="utf-8"))
    values = {entry["step"]: entry["eval_macro_ap"] for entry in record["history"] if "eval_macro_ap" in entry}
    best = max(values, key=lambda step: values[step])
    kept = load_file(finished / f"checkpoint-{best}" / "model.safetensors")
    final = weights(finished)
    trained = {name for name in kept if not name.startswith("calibration")}
    assert all(torch.equal(kept[name], final[name]) for name in trained)


def test_training_stops_early_without_improvement(settings: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "label_average_precision", lambda *_: {"harm": 0.5})
    run = train(changed(settings, tmp_path / "run", run__eval_steps=1, run__patience=2))
    assert steps_of(run) == [1, 2, 3]


def test_a_run_says_how_far_it_is(settings: TrainConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = replace(settings.run, output=str(tmp_path / "run"), log_steps=1)
    train(replace(settings, run=run))
    lines = [line for line in capfd.readouterr().err.splitlines() if " s a step, " in line]
    total = int(lines[0].split()[3].rstrip(","))
    assert [line.split(",")[0] for line in lines] == [f"step {step} of {total}" for step in range(1, total + 1)]
    assert lines[-1].endswith("0:00:00 left")


def test_bf16_that_a_cpu_would_emulate_is_warned_of(monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "amx_bf16": True}, raising=False)
    warn_of_emulation("bf16")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "amx_bf16": False}, raising=False)
    warn_of_emulation("fp32")
    assert not recwarn
    with pytest.warns(UserWarning, match=r"run\.precision: found bf16 on a CPU without bf16 arithmetic"):
        warn_of_emulation("bf16")


def test_a_label_that_nobody_knows_is_an_early_error(settings: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TurnTrainer, "train", lambda *_, **__: pytest.fail("training began"))
    labels = (*settings.labels, LabelSpec("boredom", "user", "signal"))
    with pytest.raises(DataError, match="label boredom: found 0 turns that know it, 0 positive"):
        train(replace(changed(settings, tmp_path / "run"), labels=labels))
    labels = (*settings.labels, LabelSpec("sexual_minors", "user", "trigger"))
    with pytest.raises(DataError, match=r"label sexual_minors: found \d+ turns that know it, 0 positive"):
        train(replace(changed(settings, tmp_path / "other"), labels=labels))


def test_data_that_cannot_be_read_are_an_early_error(settings: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.jsonl: found no such file"):
        train(changed(settings, tmp_path / "a", data__train=(str(tmp_path / "nowhere.jsonl"),)))
    empty, bad = tmp_path / "empty.jsonl", tmp_path / "bad.jsonl"
    empty.write_bytes(b"")
    with pytest.raises(DataError, match="found no dialogue, expected at least one"):
        train(changed(settings, tmp_path / "b", data__validation=(str(empty),)))
    bad.write_text(SAMPLE.read_text(encoding="utf-8") + '{"id": "x", "messages": [{"role": "human", "content": ""}]}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"bad\.jsonl:\d+: messages\.0\.role: found 'human'"):
        train(changed(settings, tmp_path / "c", data__train=(str(bad),)))


def test_a_base_that_is_not_there_is_an_early_error(settings: TrainConfig, tmp_path: Path) -> None:
    for base, message in (("package:no_such_package/model", "no_such_package"), ("package:lastresort/no_such_folder", "no_such_folder")):
        with pytest.raises(ConfigError, match=message):
            train(changed(settings, tmp_path / "run", model__base=base))
    with pytest.raises(ConfigError, match=r"model\.freeze_layers: found 3, expected at most 2"):
        train(changed(settings, tmp_path / "run", model__freeze_layers=3))


def test_interpolation_zero_gives_the_pretrained_encoder_back(settings: TrainConfig, base: Path, finished: Path, tmp_path: Path) -> None:
    before = {f"encoder.{name}": value for name, value in load_file(base / "model.safetensors").items()}
    none = weights(train(changed(settings, tmp_path / "none", optimiser__interpolation=0.0)))
    assert all(torch.equal(none[name], value) for name, value in before.items())
    trained = weights(finished)
    assert torch.equal(none["heads.weight"], trained["heads.weight"])
    half = weights(train(changed(settings, tmp_path / "half", optimiser__interpolation=0.5)))
    for name, value in before.items():
        torch.testing.assert_close(half[name], (value + trained[name]) / 2, atol=1e-6, rtol=0)


def test_a_refit_moves_memory_and_heads_alone(settings: TrainConfig, base: Path, finished: Path, tmp_path: Path) -> None:
    before = {f"encoder.{name}": value for name, value in load_file(base / "model.safetensors").items()}
    run = train(changed(settings, tmp_path / "run", optimiser__interpolation=0.0, optimiser__refit_epochs=1.0))
    refitted = weights(run)
    assert all(torch.equal(refitted[name], value) for name, value in before.items())
    assert not torch.equal(refitted["heads.weight"], weights(finished)["heads.weight"])
    assert steps_of(run) == [*range(1, 9)] * 2


def test_a_warm_start_goes_on_from_a_finished_run(settings: TrainConfig, finished: Path, tmp_path: Path) -> None:
    recipe = changed(settings, tmp_path / "run", model__start=str(finished), optimiser__encoder_lr=0.0, optimiser__head_lr=0.0)
    run = train(recipe)
    assert json.loads((run / RUN).read_text(encoding="utf-8"))["start"] == finished.name
    before, after = weights(finished), weights(run)
    trained = [name for name in before if name not in PER_LABEL]
    assert all(torch.equal(before[name], after[name]) for name in trained)


def test_a_warm_start_that_does_not_fit_is_an_early_error(settings: TrainConfig, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.start: .*found no config\.yaml, expected a finished training run, or a model folder"):
        train(changed(settings, tmp_path / "a", model__start=str(tmp_path / "nowhere")))
    with pytest.raises(ConfigError, match=r"model\.start: .*found no weights\.safetensors"):
        train(changed(settings, tmp_path / "d", model__start=str(ROOT / "tests" / "tiny_model")))
    bare = tmp_path / "bare"
    shutil.copytree(ROOT / "tests" / "tiny_model", bare)
    shutil.copyfile(finished / WEIGHTS, bare / "weights.safetensors")
    (bare / TRAINING).unlink(missing_ok=True)
    with pytest.raises(ConfigError, match=r"model\.start: .*found no training\.json"):
        train(changed(settings, tmp_path / "e", model__start=str(bare)))
    with pytest.raises(ConfigError, match=r"model\.start: .*found weights of other shapes"):
        train(changed(settings, tmp_path / "b", model__start=str(finished), model__memory_size=8))


def test_a_warm_start_with_other_labels_takes_the_heads_it_knows(settings: TrainConfig, finished: Path, tmp_path: Path) -> None:
    first, *rest = settings.labels
    labels = (*reversed(rest), replace(first, name="anger"))
    recipe = replace(changed(settings, tmp_path / "run", model__start=str(finished)), labels=labels)
    model = build_model(recipe.model.base, len(labels), recipe.model.memory_size, 0.0)
    fresh = model.heads.weight.detach().clone()
    assert warm_start(model, recipe, finished) == ["anger"]
    before = weights(finished)
    for place, label in enumerate(reversed(rest)):
        assert torch.equal(model.heads.weight[place], before["heads.weight"][settings.labels.index(label)])
    assert torch.equal(model.heads.weight[-1], fresh[-1])
    assert torch.equal(model.memory.weight_hh_l0, before["memory.weight_hh_l0"])


def test_a_smaller_model_takes_the_layers_it_keeps(settings: TrainConfig, base: Path, finished: Path, tmp_path: Path) -> None:
    still = {"optimiser__encoder_lr": 0.0, "optimiser__head_lr": 0.0}
    run = train(changed(settings, tmp_path / "run", model__layers=(1,), model__start=str(finished), **still))
    before, after = weights(finished), weights(run)
    layer = "encoder.encoder.layer.{}.output.dense.weight"
    assert torch.equal(after[layer.format(0)], before[layer.format(1)])
    assert layer.format(1) not in after
    assert load_run(run)[0].encoder.config.num_hidden_layers == 1
    again = train(changed(settings, tmp_path / "again", model__layers=(1,), model__start=str(run), **still))  # on from the smaller one
    assert torch.equal(weights(again)[layer.format(0)], before[layer.format(1)])
    pretrained = train(changed(settings, tmp_path / "new", model__layers=(1,), **still))
    assert torch.equal(weights(pretrained)[layer.format(0)], load_file(base / "model.safetensors")["encoder.layer.1.output.dense.weight"])
    with pytest.raises(ConfigError, match=r"model\.layers: found \[2\], expected places below 2"):
        train(changed(settings, tmp_path / "deep", model__layers=(0, 2)))
    with pytest.raises(ValueError, match=r"model\.layers: found \[1, 0\], expected places from 0 up in rising order"):
        replace(settings.model, layers=(1, 0))


def test_a_student_learns_what_its_teacher_says(settings: TrainConfig, finished: Path, tmp_path: Path) -> None:
    """From the teacher alone, the data's labels weigh nothing: the student's scores come nearer to the teacher's, and its weights are its own."""
    encoder = TurnEncoder.from_file(finished / TOKENIZER, settings.encoding)
    batch = DialogueCollator(len(settings.labels))(list(encode_dialogues(read_dialogues(SAMPLE), encoder, settings)))
    turns = (batch["buckets"], batch["window_turn"], batch["window_role"])
    model = load_run(finished)[0]
    teacher = Teacher(model, [TOKEN_TYPE[label.speaker] for label in settings.labels], 1.0)
    with torch.no_grad():
        own = teacher.loss(model(*turns).logits * model.calibration_scale + model.calibration_bias, *turns)

    def distance(run: Path) -> float:
        """Kullback-Leibler divergence from the teacher."""
        with torch.no_grad():
            return float(teacher.loss(load_run(run)[0](*turns).logits, *turns) - own)

    fast = {"optimiser__head_lr": 2e-2, "optimiser__encoder_lr": 1e-3, "run__eval_steps": 24, "optimiser__epochs": 6.0, "optimiser__warmup": 0.0}
    taught = train(changed(settings, tmp_path / "taught", model__teacher=str(finished), optimiser__teacher_weight=1.0, **fast))
    barely = train(changed(settings, tmp_path / "barely", model__teacher=str(finished), optimiser__teacher_weight=1.0, run__max_steps=1))
    assert 0 <= distance(taught) < 0.2 * distance(barely)
    assert set(weights(taught)) == set(weights(finished))
    assert json.loads((taught / RUN).read_text(encoding="utf-8"))["teacher"] == finished.name
    with pytest.raises(ConfigError, match=r"model\.teacher: .*found other labels or another encoding"):
        train(replace(changed(settings, tmp_path / "other", model__teacher=str(finished)), labels=settings.labels[::-1]))
    with pytest.raises(ConfigError, match=r"model\.teacher: .*found no config\.yaml, expected a finished training run"):
        train(changed(settings, tmp_path / "none", model__teacher=str(tmp_path / "nowhere")))


def test_a_teacher_counts_only_where_a_label_is_about_the_speaker() -> None:
    class Fixed(TurnModel):
        def forward(self, *batch: Any) -> Any:
            return SimpleNamespace(logits=torch.tensor([[[2.0, 2.0], [2.0, 2.0]]]))

    encoder = torch.nn.Module()
    encoder.config = SimpleNamespace(hidden_size=4)  # type: ignore[assignment]
    teacher = Teacher(Fixed(encoder, 2, 3), [0, 1], 0.5)
    turn, role = torch.tensor([[0, 0, 1, -1]]), torch.tensor([[0, 0, 1, 0]])  # two windows of a user turn, an assistant turn, padding
    about = torch.sigmoid(torch.tensor(2.0))
    logits = torch.tensor([[[0.0, 50.0], [50.0, 0.0], [50.0, 50.0]]])  # only the zeros are about the speaker
    expected = torch.nn.functional.binary_cross_entropy_with_logits(torch.zeros(2), about.expand(2))
    torch.testing.assert_close(teacher.loss(logits, [], turn, role), expected)


def test_the_margin_pushes_surely_harmless_turns_down(settings: TrainConfig, tmp_path: Path) -> None:
    model = build_model(settings.model.base, 2, 16, 0.0)
    logits, labels = torch.tensor([[[-2.0, -2.0]]]), torch.tensor([[[0.0, 1.0]]])
    plain = model.loss(logits, labels)
    model.margin, model.margin_weight[:] = 4.0, 0.5
    assert model.loss(logits, labels) - plain == pytest.approx(0.5 * 2.0**2 / 2)  # the negative alone, over two known labels
    assert model.loss(logits - 3, labels) == pytest.approx(float(_plain_loss(model, logits - 3, labels)))  # already below


def _plain_loss(model: TurnModel, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    kept, model.margin_weight[:] = model.margin_weight.clone(), 0.0
    loss = model.loss(logits, labels)
    model.margin_weight.copy_(kept)
    return loss


def test_the_encoder_rests_while_the_heads_begin(settings: TrainConfig, base: Path, tmp_path: Path) -> None:
    before = {f"encoder.{name}": value for name, value in load_file(base / "model.safetensors").items()}
    run = weights(train(changed(settings, tmp_path / "run", optimiser__head_epochs=1.0)))
    assert all(torch.equal(run[name], value) for name, value in before.items())


def test_frozen_parts_stay_as_pretrained(settings: TrainConfig, base: Path, tmp_path: Path) -> None:
    before = {f"encoder.{name}": value for name, value in load_file(base / "model.safetensors").items()}
    run = weights(train(changed(settings, tmp_path / "run", model__freeze_layers=1, model__freeze_embeddings=True)))
    kept = {name for name in before if torch.equal(run[name], before[name])}
    assert kept == {name for name in before if ".embeddings." in name or ".layer.0." in name}


def test_each_layer_has_its_learning_rate(settings: TrainConfig, base: Path) -> None:
    model = build_model(str(base), len(settings.labels), 16, 0.1)
    recipe = replace(settings, optimiser=replace(settings.optimiser, encoder_lr=1.0, layer_decay=0.5, head_lr=3.0))
    groups = parameter_groups(model, recipe)
    assert [group["lr"] for group in groups] == [3.0, 0.5, 1.0, 0.25]
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())


def test_the_tiny_base_has_the_same_weights_each_time(base: Path, tmp_path: Path) -> None:
    assert same(load_file(make_base(tmp_path / "base") / "model.safetensors"), load_file(base / "model.safetensors"))


def test_two_processes_train_together(base: Path, tmp_path: Path) -> None:
    """`accelerate launch`, on two CPU processes. (`--multi_gpu` is accelerate's word for it; with `--cpu` it starts one process whatever the number.)"""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    overrides = [f"model.base={base}", "model.memory_size=16", f"data.train=[{SAMPLE}]", f"data.validation=[{SAMPLE}]", f"run.output={tmp_path / 'run'}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [*command, "-m", "lastresort", "train", str(ROOT / "configs" / "train" / "smoke.yaml"), *overrides],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"^run: ", done.stdout, re.MULTILINE)
    record = json.loads((tmp_path / "run" / RUN).read_text(encoding="utf-8"))
    assert record["processes"] == 2
    model, _, _ = load_run(tmp_path / "run")
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    known = len(np.load(tmp_path / "run" / "validation.npz")["targets"])
    assert known > 100


def test_the_settings_helper_changes_single_keys(base: Path, tmp_path: Path) -> None:
    assert tiny_settings(base, tmp_path, optimiser__epochs=3.0).optimiser.epochs == 3.0
