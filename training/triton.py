"""A model folder becomes a Triton (KServe) model repository: REPOSITORY/NAME/config.pbtxt and REPOSITORY/NAME/1/model.onnx."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from lastresort.artifact import INPUTS, MANIFEST, MODEL, OUTPUTS, TOKENIZER, Manifest, load_folder
from lastresort.scoring import TurnScorer

CONFIG = "config.pbtxt"
VERSION = "1"
"""Folder of the graph; Triton numbers the versions of a model."""

_HEAD = """\
# {tag}, written by `lastresort export --target triton`. {manifest} and {tokenizer} beside this file are the client's part:
# it normalises and cuts the text as lastresort.encoding does, sends one window at a time with the memory of the one before (zeros at the start),
# takes the highest probability of each label over a turn's windows, and keeps new_memory for the next turn. An older memory is a branch.
#
# No batching by the server: requests of different lengths would have to be padded, and a turn's scores are to depend on nothing but the turn and its memory.
# No sequence batching either: the client holds the memory, so that it can branch and so that any server can answer the next turn.
name: {name}
backend: "onnxruntime"
max_batch_size: 0
"""


def config_text(manifest: Manifest) -> str:
    """`config.pbtxt` for a model, in protobuf's text format; batch and length are free."""
    shapes = {**dict.fromkeys(INPUTS, ("TYPE_INT64", -1)), "memory": ("TYPE_FP32", manifest.memory_size)}
    shapes |= {"probabilities": ("TYPE_FP32", len(manifest.labels)), "new_memory": ("TYPE_FP32", manifest.memory_size)}
    lines = [_HEAD.format(tag=manifest.tag, manifest=MANIFEST, tokenizer=TOKENIZER, name=json.dumps(manifest.name))]
    for kind, names in (("input", INPUTS), ("output", OUTPUTS)):
        for name in names:
            lines.append(f'{kind} {{ name: "{name}" data_type: {shapes[name][0]} dims: [ -1, {shapes[name][1]} ] }}\n')
    lines.append("instance_group { kind: KIND_CPU count: 1 }\n")
    for key, value in (("intra_op_thread_count", "1"), ("inter_op_thread_count", "1"), ("lastresort_model", manifest.tag)):
        lines.append(f'parameters {{ key: "{key}" value {{ string_value: {json.dumps(value)} }} }}\n')
    return "".join(lines)


def write_repository(folder: Path, repository: Path) -> Path:
    """Writes a model into a model repository, beside the other models there.

    Args:
        folder: a model folder; verified first.
        repository: made if it is missing; an earlier export of a model of this name is replaced.

    Returns:
        The model's folder in the repository.

    Raises:
        ArtifactError: the model folder is incomplete or altered, or the graph does not fit its manifest.
    """
    loaded = load_folder(folder)
    TurnScorer(loaded)  # the graph's inputs, outputs and sizes are those of the manifest
    target = repository / loaded.manifest.name
    (target / VERSION).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(loaded.model_path, target / VERSION / MODEL)
    for name in (MANIFEST, TOKENIZER):
        shutil.copyfile(loaded.path / name, target / name)
    (target / CONFIG).write_text(config_text(loaded.manifest), encoding="utf-8", newline="\n")
    return target
