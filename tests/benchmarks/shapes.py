"""Other models' shapes as ONNX graphs: real architectures from transformers configs, dynamic int8, random weights. Kept in `out/bench`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.optimizer import optimize_model
from transformers import AutoModelForSequenceClassification, BertConfig, DebertaV2Config, RobertaConfig

SHAPES: dict[str, tuple[Any, int]] = {
    "granite-guardian-hap-38m": (
        RobertaConfig(
            num_hidden_layers=4,
            hidden_size=576,
            num_attention_heads=12,
            intermediate_size=768,
            vocab_size=50265,
            max_position_embeddings=514,
            type_vocab_size=1,
            pad_token_id=1,
        ),
        2,
    ),
    "Prompt Guard 2 22M": (
        DebertaV2Config(
            num_hidden_layers=12,
            hidden_size=384,
            num_attention_heads=6,
            intermediate_size=1536,
            vocab_size=128100,
            relative_attention=True,
            position_buckets=256,
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            pos_att_type=["p2c", "c2p"],
            position_biased_input=False,
        ),
        2,
    ),
    "Detoxify": (BertConfig(), 6),
}
"""Name to config and number of labels. Sizes as the models are known to have them; no hub is within reach here, so they were not checked against its files."""


class _Logits(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def graph_of(name: str, cache: Path) -> Path:
    """The graph of one of `SHAPES`; made if it is not in the cache."""
    path = cache / f"{name.replace(' ', '-').lower()}-{torch.__version__.partition('+')[0]}-{onnxruntime.__version__}.onnx"
    if path.exists():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    config, labels = SHAPES[name]
    config.num_labels = labels
    torch.manual_seed(0)
    model = _Logits(AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")).eval()
    tokens = torch.randint(10, 1000, (1, 24))
    length = torch.export.Dim("length", min=2, max=512)
    shapes = ({1: length}, {1: length})
    names = ["input_ids", "attention_mask"]
    with tempfile.TemporaryDirectory(dir=cache) as folder, torch.no_grad():
        raw, fused, small = (Path(folder) / f"{step}.onnx" for step in ("raw", "fused", "small"))
        program = torch.onnx.export(model, (tokens, torch.ones_like(tokens)), input_names=names, output_names=["logits"], dynamic_shapes=shapes, dynamo=True)
        assert program is not None
        program.save(str(raw), external_data=False)
        if config.model_type == "deberta-v2":  # ONNX Runtime knows no fusion for its attention
            fused = raw
        else:
            options = FusionOptions("bert")
            options.enable_embed_layer_norm = False
            optimised = optimize_model(str(raw), "bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size, optimization_options=options)
            optimised.save_model_to_file(str(fused), use_external_data_format=False)
        quantize_dynamic(str(fused), str(small), weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
        small.rename(path)
    return path
