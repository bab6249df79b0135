"""One training run: transformers' Trainer on accelerate, from a config to a run folder that `export` reads.

Run folder: model.safetensors, tokenizer.json, config.yaml (resolved), run.json (data digest, versions, metrics), training.json (those of every run that
this one started from, and its own, with the commands), checkpoint-*/ while it runs.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import re
import shutil
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch.optim import AdamW
from transformers import EarlyStoppingCallback, EvalPrediction, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from lastresort.artifact import MANIFEST
from lastresort.config import parse_settings, read_settings
from lastresort.encoding import TOKEN_TYPE, TurnEncoder
from lastresort.errors import ConfigError, DataError
from lastresort.metrics import average_precision

from .calibrate import calibrate
from .config import TrainConfig
from .data import UNKNOWN, DialogueCollator, data_digest, label_counts, load_split
from .model import Teacher, TurnModel, build_model, quantise_encoder, resolve_base
from .record import CONFIG as CONFIG
from .record import RUN as RUN
from .record import TRAINING, command_line, read_runs, runs_of, write_runs

WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"
PORTABLE = "weights.safetensors"
"""The weights in fp16, in a model folder: what a warm start begins from."""
LAYER = re.compile(r"(encoder\.encoder\.layer\.)(\d+)(\..+)")
"""Name of an encoder layer's weight."""
PER_LABEL = ("known_weight", "positive_weight", "margin_weight", "calibration_scale", "calibration_bias")
"""Buffers that belong to a run's own labels and data."""


class TurnTrainer(Trainer):
    """Trainer with layer-wise learning rates."""

    def __init__(self, *args: Any, settings: TrainConfig, **kwargs: Any) -> None:
        self.settings = settings
        super().__init__(*args, **kwargs)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW over one group a layer; frozen parameters are left out."""
        if self.optimizer is None:
            turn_model: Any = self.model
            self.optimizer = AdamW(parameter_groups(turn_model, self.settings), weight_decay=self.settings.optimiser.weight_decay)
        return self.optimizer


class HeadFirst(TrainerCallback):
    """LP-FT (Kumar et al. 2022): the encoder stays as pretrained for the first steps, so that the random heads do not distort it."""

    def __init__(self, model: TurnModel, share: float) -> None:
        self.model, self.share = model, share

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Freezes or frees the encoder."""
        self.model.encoder_frozen = state.global_step < self.share * state.max_steps


class Pace(TrainerCallback):
    """Says on standard error, at every line of the log, how far a run is and when it will end at the pace so far: a run of days is seen in its first minute."""

    def __init__(self) -> None:
        self.started, self.first = 0.0, 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Starts the clock; a resumed run counts from where it goes on."""
        self.started, self.first = time.monotonic(), state.global_step

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """One line."""
        done = state.global_step - self.first
        if state.is_world_process_zero and done > 0 and "loss" in (logs or {}):
            pace = (time.monotonic() - self.started) / done
            left = timedelta(seconds=round(pace * (state.max_steps - state.global_step)))
            print(f"step {state.global_step} of {state.max_steps}, {pace:.2f} s a step, {left} left", file=sys.stderr, flush=True)


def warn_of_emulation(precision: str) -> None:
    """Warns when bf16 is asked for on a CPU that does not compute in it: PyTorch then emulates it, more than ten times as slow as fp32."""
    has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    known = [name for name in ("avx512_bf16", "amx_bf16", "bf16") if name in has]
    if precision == "bf16" and not torch.cuda.is_available() and known and not any(has[name] for name in known):
        warnings.warn("run.precision: found bf16 on a CPU without bf16 arithmetic, which emulates it far slower than fp32; expected fp32", stacklevel=2)


def parameter_groups(model: TurnModel, settings: TrainConfig) -> list[dict[str, Any]]:
    """Optimiser groups: heads at `head_lr`, encoder layers at `encoder_lr`, falling by `layer_decay` from the top down."""
    optimiser = settings.optimiser
    groups = [{"params": model.head_parameters(), "lr": optimiser.head_lr}]
    layers = list(model.encoder.encoder.layer)
    for depth, layer in enumerate(layers):
        rate = optimiser.encoder_lr * optimiser.layer_decay ** (len(layers) - 1 - depth)
        groups.append({"params": [p for p in layer.parameters() if p.requires_grad], "lr": rate})
    rest = [p for p in model.encoder.embeddings.parameters() if p.requires_grad]
    groups.append({"params": rest, "lr": optimiser.encoder_lr * optimiser.layer_decay ** len(layers)})
    return [group for group in groups if group["params"]]


def freeze(model: TurnModel, settings: TrainConfig) -> None:
    """Freezes embeddings and lower layers as configured. Raises `ConfigError` for more layers than there are."""
    layers = list(model.encoder.encoder.layer)
    if settings.model.freeze_layers > len(layers):
        raise ConfigError(f"model.freeze_layers: found {settings.model.freeze_layers}, expected at most {len(layers)}")
    frozen = list(layers[: settings.model.freeze_layers])
    if settings.model.freeze_embeddings or frozen:
        frozen.append(model.encoder.embeddings)
    for module in frozen:
        module.requires_grad_(False)


def set_class_balance(model: TurnModel, dataset: Dataset, settings: TrainConfig) -> dict[str, dict[str, float]]:
    """Weights of labels and positives from the training split; returns the counts.

    Positives weigh sqrt(negatives / positives), up to `positive_weight_limit`; a label's turns weigh more the fewer know it, up to 4 times.

    Raises:
        DataError: a label that no training turn knows, or that has no positive.
    """
    known, positive = label_counts(dataset, len(settings.labels))
    for label, total, hits in zip(settings.labels, known, positive, strict=True):
        if total == 0 or hits == 0:
            raise DataError(f"label {label.name}: found {total:.0f} turns that know it, {hits:.0f} positive; expected some of both, or a label set without it")
    balance = np.sqrt((known - positive).clip(min=0) / positive).clip(1.0, settings.optimiser.positive_weight_limit)
    rarity = np.sqrt(known.mean() / known).clip(0.5, 4.0)
    extra = np.array([settings.optimiser.label_weights.get(label.name, 1.0) for label in settings.labels])
    model.positive_weight.copy_(torch.from_numpy(balance))
    model.known_weight.copy_(torch.from_numpy(rarity * extra))
    model.margin = settings.optimiser.margin
    model.margin_weight.copy_(torch.tensor([settings.optimiser.margin_weight * (label.role == "trigger") for label in settings.labels]))
    return {label.name: {"known": float(k), "positive": float(p)} for label, k, p in zip(settings.labels, known, positive, strict=True)}


def flatten(predictions: Any, labels: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(D, turns, L) logits and labels to (turns, L), padding removed."""
    logits, targets = np.asarray(predictions, dtype=np.float32), np.asarray(labels, dtype=np.float32)
    turns = min(logits.shape[1], targets.shape[1])
    logits, targets = logits[:, :turns].reshape(-1, logits.shape[-1]), targets[:, :turns].reshape(-1, targets.shape[-1])
    some = (targets != UNKNOWN).any(axis=1)
    return logits[some], targets[some]


def label_average_precision(logits: np.ndarray[Any, Any], targets: np.ndarray[Any, Any], settings: TrainConfig) -> dict[str, float]:
    """Average precision of each label that has both classes in the split."""
    result = {}
    for column, label in enumerate(settings.labels):
        known = targets[:, column] != UNKNOWN
        hard = (targets[known, column] >= 0.5).astype(np.float64)
        if 0 < hard.sum() < len(hard):
            result[label.name] = average_precision(hard, logits[known, column].astype(np.float64))
    return result


def training_arguments(settings: TrainConfig, output: Path, epochs: float, *, find_unused: bool) -> TrainingArguments:
    """Trainer's arguments from ours."""
    optimiser, run = settings.optimiser, settings.run
    return TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=optimiser.batch_dialogues,
        per_device_eval_batch_size=optimiser.batch_dialogues * 2,
        gradient_accumulation_steps=optimiser.accumulate,
        num_train_epochs=epochs,
        max_steps=run.max_steps,
        learning_rate=optimiser.encoder_lr,
        warmup_steps=optimiser.warmup,
        max_grad_norm=optimiser.max_grad_norm,
        lr_scheduler_type="cosine",
        eval_strategy="steps",
        eval_steps=run.eval_steps,
        save_strategy="steps",
        save_steps=run.eval_steps,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="macro_ap",
        greater_is_better=True,
        logging_steps=run.log_steps,
        bf16=run.precision == "bf16",
        seed=run.seed,
        data_seed=run.seed,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=[],
        ddp_find_unused_parameters=find_unused,
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )


def train(settings: TrainConfig, command: Sequence[str] = ()) -> Path:
    """Runs a training to its end, resuming from the newest checkpoint if there is one.

    Args:
        settings: as read from `configs/train/*.yaml`.
        command: what stood after `lastresort train`, for the record.

    Returns:
        The run folder.

    Raises:
        ConfigError: base weights or settings that do not fit.
        DataError: a missing or bad file, or a label that the data do not know.
    """
    warn_of_emulation(settings.run.precision)
    set_seed(settings.run.seed)
    if settings.run.threads:
        torch.set_num_threads(settings.run.threads)
    output = Path(settings.run.output)
    output.mkdir(parents=True, exist_ok=True)
    model = build_model(settings.model.base, len(settings.labels), settings.model.memory_size, settings.model.dropout, settings.model.layers)
    pretrained = {name: value.detach().clone() for name, value in model.encoder.state_dict().items()}
    new_heads = [label.name for label in settings.labels] if settings.model.start is None else warm_start(model, settings, Path(settings.model.start))
    freeze(model, settings)
    if settings.model.int8_aware:
        quantise_encoder(model)
    arguments = training_arguments(settings, output, settings.optimiser.epochs, find_unused=False)
    with arguments.main_process_first(local=False, desc="encoding the dialogues"):  # the other processes read the cache
        encoder = TurnEncoder.from_file(_tokenizer_file(resolve_base(settings.model.base), output), settings.encoding)
        train_set = load_split(settings.data.train, encoder, settings, output / "cache", training=True)
        validation = load_split(settings.data.validation, encoder, settings, output / "cache")
        (output / CONFIG).write_text(yaml.safe_dump(plain(asdict(settings)), sort_keys=False, allow_unicode=True), encoding="utf-8")
    counts = set_class_balance(model, train_set, settings)
    if settings.model.teacher is not None:
        model.teacher = load_teacher(settings)

    trainer = _fit(model, settings, train_set, validation, output, settings.optimiser.epochs, settings.optimiser.head_epochs)
    history = list(trainer.state.log_history)
    if settings.optimiser.interpolation < 1.0:
        interpolate(model, pretrained, settings.optimiser.interpolation)
    if settings.optimiser.refit_epochs > 0:
        trainer = _fit(model, settings, train_set, validation, output / "refit", settings.optimiser.refit_epochs, 1.0)
        history += trainer.state.log_history
    prediction = trainer.predict(validation)
    if trainer.is_world_process_zero():
        logits, targets = flatten(prediction.predictions, prediction.label_ids)
        np.savez_compressed(output / "validation.npz", logits=logits, targets=targets)
        thresholds = calibrate(model, logits, targets, UNKNOWN)
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, output / WEIGHTS)
        record = {
            "start": None if settings.model.start is None else Path(settings.model.start).name,
            "teacher": None if settings.model.teacher is None else Path(settings.model.teacher).name,
            "new_heads": new_heads,
            "base": Path(settings.model.base).name if Path(settings.model.base).is_dir() else settings.model.base,
            "processes": arguments.world_size,
            "train_digest": data_digest(settings.data.train),
            "validation_digest": data_digest(settings.data.validation),
            "label_counts": counts,
            "thresholds": {label.name: value for label, value in zip(settings.labels, thresholds, strict=True)},
            "validation_ap": label_average_precision(logits, targets, settings),
            "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers", "datasets", "accelerate", "tokenizers")},
            "history": history,
        }
        (output / RUN).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        write_runs(runs_of(output, command_line(command, arguments.world_size) if command else None), output)
    return output


def _fit(model: TurnModel, settings: TrainConfig, train_set: Dataset, validation: Dataset, output: Path, epochs: float, head_share: float) -> TurnTrainer:
    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        values = label_average_precision(*flatten(prediction.predictions, prediction.label_ids), settings)
        return {"macro_ap": math.fsum(values.values()) / max(1, len(values)), **{f"ap_{name}": value for name, value in values.items()}}

    trainer = TurnTrainer(
        model=model,
        settings=settings,
        args=training_arguments(settings, output, epochs, find_unused=head_share > 0),
        train_dataset=train_set,
        eval_dataset=validation,
        data_collator=DialogueCollator(len(settings.labels)),
        compute_metrics=metrics,
        callbacks=[HeadFirst(model, head_share), Pace(), EarlyStoppingCallback(settings.run.patience)],
    )
    newest = get_last_checkpoint(str(output)) if output.is_dir() else None  # type: ignore[no-untyped-call]
    trainer.train(resume_from_checkpoint=newest)
    model.encoder_frozen = False
    return trainer


def interpolate(model: TurnModel, pretrained: dict[str, torch.Tensor], share: float) -> None:
    """WiSE-FT (Wortsman et al. 2022): encoder weights = (1 - share) * pretrained + share * trained."""
    current = model.encoder.state_dict()
    mixed = {name: value if not value.is_floating_point() else torch.lerp(pretrained[name].to(value), value, share) for name, value in current.items()}
    model.encoder.load_state_dict(mixed)


def finished(folder: Path, key: str) -> tuple[TrainConfig, dict[str, Any], Path]:
    """(settings, record, weights) of a finished run, or of a model folder that carries its weights (fp16) and its record.

    Args:
        folder: either.
        key: where the folder was named, for errors; may be empty.

    Raises:
        ConfigError: neither, or a part of it is missing.
    """
    where = f"{key}: {folder}" if key else str(folder)
    packed = (folder / MANIFEST).is_file()
    for name in (PORTABLE, TRAINING) if packed else (CONFIG, WEIGHTS, RUN, TOKENIZER):
        if not (folder / name).is_file():
            raise ConfigError(f"{where}: found no {name}, expected a finished training run, or a model folder with {PORTABLE} and {TRAINING}")
    if packed:
        record = read_runs(folder)[-1]
        return parse_settings(TrainConfig, record["settings"], where=f"{folder / TRAINING}: settings"), record, folder / PORTABLE
    return read_settings(TrainConfig, folder / CONFIG), json.loads((folder / RUN).read_text(encoding="utf-8")), folder / WEIGHTS


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """A state dict, in fp32."""
    return {name: value.float() if value.is_floating_point() else value for name, value in load_file(file).items()}


def warm_start(model: TurnModel, settings: TrainConfig, start: Path) -> list[str]:
    """Takes the weights of a finished run or of a model folder that carries them; returns the labels whose heads stay new.

    Encoder, memory and the heads of labels with the same name and speaker are taken. Weights of a model folder are fp16; calibration is fitted anew. With
    `model.layers`, those layers are taken of a deeper encoder.

    Raises:
        ConfigError: as of `finished`, or weights of another shape.
    """
    theirs, _, file = finished(start, "model.start")
    weights = _layers_of(read_weights(file), settings.model.layers)
    place = {(label.name, label.speaker): number for number, label in enumerate(theirs.labels)}
    pairs = [(number, place[label.name, label.speaker]) for number, label in enumerate(settings.labels) if (label.name, label.speaker) in place]
    state = model.state_dict()
    for name in ("heads.weight", "heads.bias"):
        if name in weights and weights[name].shape[1:] == state[name].shape[1:]:
            mixed = state[name].clone()
            mixed[[ours for ours, _ in pairs]] = weights[name][[other for _, other in pairs]]
            weights[name] = mixed
    for name in PER_LABEL:  # of this run's own labels and data
        weights[name] = state[name]
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(f"model.start: {start}: found weights of other shapes: {str(error).splitlines()[-1].strip()}") from None
    taken = {ours for ours, _ in pairs}
    return [label.name for number, label in enumerate(settings.labels) if number not in taken]


def _layers_of(weights: dict[str, torch.Tensor], layers: Sequence[int]) -> dict[str, torch.Tensor]:
    """The weights with these encoder layers alone, renumbered; as they are where there are no more than so many."""
    numbered = {name: LAYER.match(name) for name in weights}
    depth = 1 + max((int(found[2]) for found in numbered.values() if found), default=-1)
    if not layers or depth <= len(layers):
        return weights
    target = {place: number for number, place in enumerate(layers)}
    kept = {}
    for name, found in numbered.items():
        if found is None:
            kept[name] = weights[name]
        elif int(found[2]) in target:
            kept[f"{found[1]}{target[int(found[2])]}{found[3]}"] = weights[name]
    return kept


def load_teacher(settings: TrainConfig) -> Teacher:
    """The model of `model.teacher`. Raises `ConfigError` if there is none, or its labels or its reading of text are others."""
    folder = Path(str(settings.model.teacher))
    model, theirs, _ = load_run(folder, "model.teacher")
    ours = [(label.name, label.speaker) for label in settings.labels]
    if [(label.name, label.speaker) for label in theirs.labels] != ours or theirs.encoding != settings.encoding:
        raise ConfigError(f"model.teacher: {folder}: found other labels or another encoding, expected those of this run")
    return Teacher(model, [TOKEN_TYPE[label.speaker] for label in settings.labels], settings.optimiser.teacher_weight)


def load_run(run: Path, key: str = "") -> tuple[TurnModel, TrainConfig, dict[str, Any]]:
    """The trained model (in eval mode), its config and its record; arguments and errors as of `finished`."""
    settings, record, file = finished(run, key)
    own = settings.model
    model = build_model(own.base, len(settings.labels), own.memory_size, own.dropout, own.layers, attn_implementation="eager")
    model.load_state_dict(read_weights(file))
    model.eval()
    return model, settings, record


def _tokenizer_file(base: str, output: Path) -> Path:
    """Copies or makes `tokenizer.json` in the run folder."""
    target = output / TOKENIZER
    source = Path(base) / TOKENIZER
    if source.is_file():
        shutil.copyfile(source, target)
    else:
        from transformers import AutoTokenizer

        AutoTokenizer.from_pretrained(base).backend_tokenizer.save(str(target))
    return target


def plain(value: Any) -> Any:
    """Tuples as lists and mappings as dicts, for YAML."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
