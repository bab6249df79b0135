"""`lastresort export --target triton`: the config is read by Triton's own protobuf and compared with the graph; the graph runs as the config says."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from google.protobuf import text_format
from typer.testing import CliRunner

from lastresort.artifact import MANIFEST, MODEL, TOKENIZER, load_folder, read_manifest, shipped_model
from lastresort.encoding import TurnEncoder
from lastresort.errors import ArtifactError
from lastresort.scoring import TurnScorer
from lastresort_training.triton import write_repository

DTYPES = {"TYPE_INT64": np.int64, "TYPE_FP32": np.float32}


@pytest.fixture(scope="module")
def model_config_pb2() -> ModuleType:
    """Triton's messages, as its client package carries them; loaded by file, since the package around them wants gRPC."""
    package = importlib.util.find_spec("tritonclient")
    assert package is not None
    assert package.submodule_search_locations
    path = Path(package.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse(model_config_pb2: ModuleType, folder: Path) -> Any:
    return text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), model_config_pb2.ModelConfig())


def tensors(values: Any) -> dict[str, tuple[str, list[int]]]:
    """Name to Triton's type and dims, as the graph declares them; -1 where a size is free."""
    kinds = {onnx.TensorProto.INT64: "TYPE_INT64", onnx.TensorProto.FLOAT: "TYPE_FP32"}
    return {
        value.name: (kinds[value.type.tensor_type.elem_type], [d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim])
        for value in values
    }


@pytest.mark.parametrize("shipped", [False, True])
def test_the_config_says_what_the_graph_says(shipped: bool, tiny_path: Path, tmp_path: Path, model_config_pb2: ModuleType) -> None:
    folder = shipped_model() if shipped else tiny_path
    target = write_repository(folder, tmp_path / "repository")
    config, graph = parse(model_config_pb2, target), onnx.load(str(target / "1" / MODEL)).graph
    data_type = model_config_pb2.DataType
    for declared, real in ((config.input, graph.input), (config.output, graph.output)):
        assert {value.name: (data_type.Name(value.data_type), list(value.dims)) for value in declared} == tensors(real)
    assert target == tmp_path / "repository" / config.name
    assert config.backend == "onnxruntime"
    assert config.max_batch_size == 0  # so that dims hold the batch too
    assert not config.HasField("dynamic_batching")
    assert not config.HasField("sequence_batching")
    assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_CPU
    assert config.parameters["lastresort_model"].string_value == read_manifest(folder).tag


def test_a_client_that_knows_only_the_repository_gets_the_scores(tiny_path: Path, tmp_path: Path, model_config_pb2: ModuleType) -> None:
    target = write_repository(tiny_path, tmp_path)
    config, manifest = parse(model_config_pb2, target), read_manifest(target)
    session = ort.InferenceSession(str(target / "1" / MODEL), providers=["CPUExecutionProvider"])
    encoder = TurnEncoder.from_file(target / TOKENIZER, manifest.encoding)
    kinds = {value.name: DTYPES[model_config_pb2.DataType.Name(value.data_type)] for value in config.input}
    scorer = TurnScorer(load_folder(tiny_path))
    memory, expected_memory = np.zeros((1, manifest.memory_size), dtype=kinds["memory"]), scorer.initial_memory()
    for text in ("Shut up, idiot.", "flour and salt " * 100):
        best = np.zeros(len(manifest.labels), dtype=np.float32)
        for ids in encoder.windows(text):
            feed = {"input_ids": [ids], "attention_mask": [[1] * len(ids)], "token_type_ids": [[0] * len(ids)], "memory": memory}
            probabilities, memory = session.run([value.name for value in config.output], {name: np.asarray(feed[name], kind) for name, kind in kinds.items()})
            best = np.maximum(best, probabilities[0])
        score, expected_memory = scorer.score("user", text, expected_memory)
        found = {label.name: float(value) for label, value in zip(manifest.labels, best, strict=True) if label.speaker == "user"}
        assert found == pytest.approx(dict(score.scores), abs=1e-6)
        assert memory[0] == pytest.approx(expected_memory, abs=1e-6)


def test_the_verb_writes_it_beside_other_models_and_replaces_its_own(tiny_path: Path, tmp_path: Path) -> None:
    import typer

    from lastresort_training.cli import export

    app = typer.Typer()
    app.command()(export)
    (tmp_path / "other").mkdir()
    for _ in range(2):
        done = CliRunner().invoke(app, [str(tiny_path), "-o", str(tmp_path), "--target", "triton"])
        assert done.exit_code == 0, done.output
        assert read_manifest(tiny_path).tag in done.output
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        "other",
        "tiny",
        "tiny/1",
        "tiny/1/model.onnx",
        "tiny/config.pbtxt",
        "tiny/manifest.json",
        "tiny/tokenizer.json",
    ]


def test_a_run_folder_is_exported_with_every_check_first(tiny_path: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    from lastresort_training import export as module
    from lastresort_training.cli import export

    given: list[object] = []

    def checked(run: Path, output: Path, settings: module.ExportSettings) -> None:
        given.extend((run, settings.version))
        shutil.copytree(tiny_path, output, dirs_exist_ok=True)

    monkeypatch.setattr(module, "export", checked)
    app = typer.Typer()
    app.command()(export)
    command = [
        str(tmp_path / "run"),
        "version=9.9.9",
        "-o",
        str(tmp_path / "models"),
        "--target",
        "triton",
        "--config",
        str(root / "configs/export/default.yaml"),
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert given == [tmp_path / "run", "9.9.9"]
    assert (tmp_path / "models" / "tiny" / "1" / MODEL).read_bytes() == (tiny_path / MODEL).read_bytes()


def test_an_altered_model_is_not_passed_on(tiny_path: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_path, tmp_path / "model")
    (tmp_path / "model" / TOKENIZER).write_text("{}")
    with pytest.raises(ArtifactError, match=r"tokenizer\.json: found sha256"):
        write_repository(tmp_path / "model", tmp_path / "repository")
    assert not (tmp_path / "repository").exists()
    assert (tmp_path / "model" / MANIFEST).exists()
