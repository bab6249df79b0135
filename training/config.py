"""Settings of a training run; `configs/train/*.yaml`. One recipe is one file, without inheritance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lastresort.encoding import EncodingSpec
from lastresort.types import LabelSpec
from lastresort_data.noise import Variation


@dataclass(frozen=True)
class DataSettings:
    """What to train on.

    Attributes:
        train: JSONL files of labelled dialogues.
        validation: the same, disjoint by dialogue and template.
        max_windows_per_turn: windows of a long turn that are read in training; at serving all are read.
        max_windows_per_dialogue: a longer dialogue is cut into pieces; `context_labels` are masked in all but the first.
        context_labels: labels that depend on earlier turns.
        shares: source to how often each of its training dialogues is read in an epoch: 0.5 reads a fixed half of them, 2.5 all twice and half of them once
            more; 1 if not named. Equalises groups of very different size without another mixture.
        harmless_mentions: factor on the share of dialogues in which a user turn names a protected group (training/slices.py), `hate` or `harm` is known of it,
            and no trigger or veto holds. Sources of hate have few of them beside the many hateful mentions, and a model learns the name for the hatred
            (Dixon et al. 2018, "Measuring and mitigating unintended bias in text classification").
        variation: how user turns are respelled in every reading of a dialogue but its first (data/noise.py).
        context_turns: for comparison alone: so many earlier turns are read as text before each turn, in one window, and there is no memory. Such a
            run cannot be exported.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    max_windows_per_turn: int = 3
    max_windows_per_dialogue: int = 40
    context_labels: tuple[str, ...] = ()
    shares: Mapping[str, float] = field(default_factory=dict)
    harmless_mentions: float = 1.0
    variation: Variation = field(default_factory=Variation)
    context_turns: int = 0

    def __post_init__(self) -> None:
        if bad := sorted(source for source, share in self.shares.items() if not 0 <= share <= 100):
            raise ValueError(f"data.shares: {bad}: expected a number in 0…100")
        if not 0 <= self.harmless_mentions <= 100:
            raise ValueError(f"data.harmless_mentions: found {self.harmless_mentions}, expected a number in 0…100")


@dataclass(frozen=True)
class ModelSettings:
    """The network.

    Attributes:
        base: local folder, hub id, or `package:NAME/FOLDER` for weights that lie inside an installed Python package.
        start: a finished run, or a model folder with `weights.safetensors` and `training.json`, whose weights to start from (warm start); the head of a label
            that it does not know is new. null starts from the pretrained encoder and new heads.
        teacher: a finished run, or a model folder with its weights, with the same labels, from whose scores to learn as well (distillation, see
            `optimiser.teacher_weight`); null for none.
        memory_size: length of the carried memory.
        dropout: on the heads' input.
        freeze_embeddings: keep the token embeddings as pretrained.
        freeze_layers: keep that many lower encoder layers as pretrained.
        layers: places, from 0 up, of the encoder layers that are kept, for a smaller and faster model; all if empty.
        int8_aware: round the encoder's weights and activations while training as export's precision `int8` will, so that little is lost by it.
    """

    base: str
    start: str | None = None
    teacher: str | None = None
    memory_size: int = 128
    dropout: float = 0.1
    freeze_embeddings: bool = True
    freeze_layers: int = 0
    layers: tuple[int, ...] = ()
    int8_aware: bool = False

    def __post_init__(self) -> None:
        if list(self.layers) != sorted({place for place in self.layers if place >= 0}):
            raise ValueError(f"model.layers: found {list(self.layers)}, expected places from 0 up in rising order, each once")


@dataclass(frozen=True)
class OptimiserSettings:
    """How to train.

    Attributes:
        epochs: passes over the data.
        head_epochs: share of the steps, at the start, in which only memory and heads learn (LP-FT), 0…1.
        batch_dialogues: dialogues a device and step.
        accumulate: steps whose gradients are summed.
        encoder_lr: learning rate of the top encoder layer.
        layer_decay: factor from each encoder layer to the one below it.
        head_lr: learning rate of memory and heads.
        weight_decay: AdamW.
        warmup: share of the steps, 0…1.
        max_grad_norm: gradient clipping.
        positive_weight_limit: upper limit of the square-root class balance of a label's positives.
        label_weights: factor on a label's loss; 1 if not named.
        margin: logit below which harmless turns should lie on trigger labels, as -margin; see `margin_weight`.
        margin_weight: factor on a squared hinge that pushes surely harmless turns (a trigger label of at most 0.05) below -margin: a threshold can then be
            low without firing on text that merely looks alarming (the energy term of Liu et al. 2020, for one-sided binary heads); 0 = none.
        teacher_weight: share of the loss that compares with the teacher's scores, on every label, the others weigh 1 - share; 0…1; used with
            `model.teacher` alone.
        interpolation: WiSE-FT: how far to go from the pretrained to the trained encoder after training, 0…1.
        refit_epochs: passes for memory and heads alone after interpolating.
    """

    epochs: float = 2.0
    head_epochs: float = 0.1
    batch_dialogues: int = 16
    accumulate: int = 1
    encoder_lr: float = 3e-5
    layer_decay: float = 0.85
    head_lr: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.06
    max_grad_norm: float = 1.0
    positive_weight_limit: float = 4.0
    label_weights: Mapping[str, float] = field(default_factory=dict)
    margin: float = 4.0
    margin_weight: float = 0.0
    teacher_weight: float = 0.5
    interpolation: float = 1.0
    refit_epochs: float = 0.0


@dataclass(frozen=True)
class RunSettings:
    """The frame of a run.

    Attributes:
        output: folder for checkpoints, logs and the resolved config.
        seed: of everything random.
        eval_steps: steps between two evaluations and checkpoints.
        patience: evaluations without improvement before stopping early.
        log_steps: steps between two log lines.
        precision: fp32 or bf16.
        threads: torch threads; 0 leaves torch's own choice.
        max_steps: stop after that many steps; -1 for no such limit.
    """

    output: str
    seed: int = 7
    eval_steps: int = 200
    patience: int = 4
    log_steps: int = 25
    precision: str = "fp32"
    threads: int = 0
    max_steps: int = -1


@dataclass(frozen=True)
class TrainConfig:
    """One training run, whole.

    Attributes:
        labels: the label set, in the order of the model's output.
        data: what to train on.
        model: the network.
        optimiser: how to train.
        run: the frame.
        encoding: token budget and overlap.
    """

    labels: tuple[LabelSpec, ...]
    data: DataSettings
    model: ModelSettings
    run: RunSettings
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    encoding: EncodingSpec = field(default_factory=EncodingSpec)

    def __post_init__(self) -> None:
        names = [label.name for label in self.labels]
        if not names or len(set(names)) != len(names):
            raise ValueError("labels: expected at least one label and no name twice")
        if self.run.precision not in ("fp32", "bf16"):
            raise ValueError(f"run.precision: found {self.run.precision!r}, expected fp32 or bf16")
        if unknown := {*self.data.context_labels, *self.optimiser.label_weights} - set(names):
            raise ValueError(f"data.context_labels, optimiser.label_weights: found {sorted(unknown)}, expected only names of labels")
        for name in ("head_epochs", "warmup", "interpolation", "teacher_weight"):
            if not 0.0 <= getattr(self.optimiser, name) <= 1.0:
                raise ValueError(f"optimiser.{name}: found {getattr(self.optimiser, name)}, expected 0…1")
