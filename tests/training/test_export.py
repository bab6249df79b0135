"""From a run to a model folder: torch and ONNX agree or nothing is written, hashes verify, and no trace of the machine is left in it."""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tiny import ROOT, SAMPLE, tiny_export_settings

import lastresort_training.export as module
from lastresort.artifact import MANIFEST, MODEL, TOKENIZER, file_sha256, load_folder, read_manifest
from lastresort.conversation import Monitor, load
from lastresort.data import read_dialogues
from lastresort.encoding import TOKEN_TYPE
from lastresort.errors import ArtifactError, ConfigError
from lastresort.scoring import TurnScorer
from lastresort.types import Dialogue, Message
from lastresort_training.export import PRECISIONS, ExportSettings, export, finish, largest_difference, quantise, torch_dialogue
from lastresort_training.model import ServingGraph
from lastresort_training.record import CURVES, TRAINING
from lastresort_training.train import PORTABLE, load_run


@pytest.fixture(scope="module")
def exported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model folder in each precision."""
    folders = {precision: tmp_path_factory.mktemp("models") / precision for precision in PRECISIONS}
    export(finished, folders["fp32"], tiny_export_settings())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "to_onnx", lambda graph, memory_size, target: shutil.copyfile(folders["fp32"] / MODEL, target))
        for precision in PRECISIONS[1:]:
            export(finished, folders[precision], tiny_export_settings(precision=precision))
    return folders


@pytest.fixture(scope="module")
def graph(finished: Path) -> ServingGraph:
    return ServingGraph(load_run(finished)[0]).eval()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


ODD = [
    Dialogue("long", (Message("user", "flour and salt " * 300), Message("assistant", "I would rather not. " * 100), Message("user", "ok"))),
    Dialogue("empty", (Message("user", ""), Message("system", "x"), Message("assistant", ""), Message("user", "\u200b"))),
    Dialogue("odd", (Message("user", "日本語 🙂 [SEP] \ud800"), Message("tool", "{}"), Message("user", "a" * 5000))),
    Dialogue("many", tuple(Message("user" if n % 2 == 0 else "assistant", f"turn {n} " * (n % 7)) for n in range(120))),
]
"""What the golden dialogues do not hold: long and empty turns, other scripts, a long conversation."""


@pytest.mark.parametrize("dialogues", [list(read_dialogues(SAMPLE)), ODD], ids=["golden", "odd"])
def test_torch_and_onnx_agree(graph: ServingGraph, exported: dict[str, Path], dialogues: list[Dialogue]) -> None:
    probability, memory, turns = largest_difference(graph, TurnScorer.load(exported["fp32"]), dialogues)
    assert turns == sum(message.role in TOKEN_TYPE for dialogue in dialogues for message in dialogue.messages)
    assert probability < 1e-4
    assert memory < 1e-4


@pytest.mark.parametrize("precision", ["int8", "int8-rows", "int8-weights"])
def test_the_quantised_graphs_load_and_stay_near(graph: ServingGraph, exported: dict[str, Path], precision: str) -> None:
    scorer = TurnScorer.load(exported[precision])
    probability, _, _ = largest_difference(graph, scorer, [*read_dialogues(SAMPLE), *ODD])
    assert 0 < probability < 0.1
    assert (exported[precision] / MODEL).read_bytes() != (exported["fp32"] / MODEL).read_bytes()


def test_int8_weights_are_smaller_and_nearly_exact_row_by_row(exported: dict[str, Path]) -> None:
    assert (exported["int8-weights"] / MODEL).stat().st_size < (exported["fp32"] / MODEL).stat().st_size - 800 * 32 * 2
    full = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(str(exported["fp32"] / MODEL)).graph.initializer}
    packed = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(str(exported["int8-weights"] / MODEL)).graph.initializer}
    names = [name.removesuffix("_int8") for name in packed if name.endswith("_int8")]
    assert names
    for name in names:
        assert packed[name + "_int8"].dtype == np.int8
        scale = packed[name + "_scale"]
        assert np.abs(packed[name + "_int8"] * scale - full[name]).max() <= scale.max() / 2 + 1e-6


def test_a_difference_is_measured_where_it_is(graph: ServingGraph, exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The check itself is checked: a shift of one probability or of one memory number, in one late turn, is found and its size known."""
    scorer = TurnScorer.load(exported["fp32"])
    real, calls = scorer.score, 0

    def shifted(which: str) -> Callable[..., Any]:
        def score(role: Any, text: str, memory: Any, index: int = 0) -> Any:
            nonlocal calls
            calls += 1
            turn, after = real(role, text, memory, index)
            if calls == 150 and which == "probability":
                name = list(turn.scores)[-1]
                turn = replace(turn, scores={**turn.scores, name: turn.scores[name] + 0.01})
            if calls == 150 and which == "memory":
                after = after.copy()
                after[3] += 0.01
            return turn, after

        return score

    for which, place in (("probability", 0), ("memory", 1)):
        calls = 0
        monkeypatch.setattr(scorer, "score", shifted(which))
        assert largest_difference(graph, scorer, read_dialogues(SAMPLE))[place] == pytest.approx(0.01, rel=0.05)


def test_torch_reads_long_turns_in_the_windows_of_serving(graph: ServingGraph, exported: dict[str, Path]) -> None:
    scorer = TurnScorer.load(exported["fp32"])
    result = torch_dialogue(graph, scorer.encoder, ODD[0], 16)
    assert len(result) == 3
    assert scorer.score("user", ODD[0].messages[0].content, scorer.initial_memory())[0].windows > 3


# --- the folder


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_folder_verifies_and_says_what_it_is(exported: dict[str, Path], precision: str, finished: Path) -> None:
    folder = exported[precision]
    assert set(contents(folder)) == {MODEL, TOKENIZER, PORTABLE, TRAINING, MANIFEST}
    manifest = load_folder(folder).manifest
    assert dict(manifest.files) == {name: file_sha256(folder / name) for name in (MODEL, TOKENIZER, PORTABLE, TRAINING)}
    assert (folder / TRAINING).read_bytes() == (finished / TRAINING).read_bytes()
    record = json.loads((finished / "run.json").read_text(encoding="utf-8"))
    config = load_run(finished)[1]
    floor = {label.name: 0.5 if label.role == "trigger" else 0.0 for label in config.labels}  # no turn is flagged as harmful at less than even odds
    assert {label.name: label.threshold for label in manifest.labels} == {name: max(value, floor[name]) for name, value in record["thresholds"].items()}
    assert [replace(label, threshold=0.5) for label in manifest.labels] == list(config.labels)
    assert (manifest.memory_size, manifest.encoding, manifest.name, manifest.version) == (16, config.encoding, "tiny", "0")
    provenance = manifest.provenance
    assert provenance["precision"] == precision
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", provenance["created"])
    assert provenance["training"]["train_digest"] == record["train_digest"]
    assert set(provenance["agreement_with_torch"]) == {"fp32", precision}
    assert provenance["agreement_with_torch"]["fp32"]["probability"] < 1e-4
    assert (folder / TOKENIZER).read_bytes() == (finished / TOKENIZER).read_bytes()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_trace_of_this_machine_is_in_it(exported: dict[str, Path], precision: str, base: Path, finished: Path) -> None:
    traces = {
        str(ROOT),
        str(base),
        str(finished),
        str(base.parent),
        str(Path.home()),
        sys.prefix,
        os.path.realpath(sys.prefix),
        "site-packages",
        '.py"',
        "/tmp/",
    }
    host = socket.gethostname()
    if len(host) > 5:
        traces.add(host)
    if len(getpass.getuser()) > 5:
        traces.add(getpass.getuser())
    for name in (MODEL, MANIFEST, TRAINING):
        raw = (exported[precision] / name).read_bytes()
        assert [trace for trace in traces if trace != "/" and trace.encode() in raw] == []
        if name != MODEL:
            assert re.findall(rb'"[^"]*(?:^|")(?:/|[A-Z]:\\)[^"]*"', raw) == []


def test_the_committed_tiny_model_has_no_trace_of_a_machine(tiny_path: Path) -> None:
    raw = (tiny_path / MANIFEST).read_bytes() + (tiny_path / MODEL).read_bytes()
    assert [trace for trace in (b"/tmp", b"/home", b"/work", b"/root", b"site-packages") if trace in raw] == []


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_graph_is_plain_onnx_with_the_promised_inputs(exported: dict[str, Path], precision: str) -> None:
    model = onnx.load(str(exported[precision] / MODEL))
    assert [value.name for value in model.graph.input] == ["input_ids", "attention_mask", "token_type_ids", "memory"]
    assert [value.name for value in model.graph.output] == ["probabilities", "new_memory"]
    assert not [tensor.name for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    assert {prop.key for prop in model.metadata_props} <= {"onnx.infer"}  # the quantiser's mark
    assert not [node.name for node in model.graph.node if node.doc_string or node.metadata_props]


def test_the_exported_model_takes_every_length(exported: dict[str, Path]) -> None:
    scorer = TurnScorer.load(exported["fp32"])
    tokens = {len(scorer.encoder.windows("flour " * n)[0]) for n in range(70)}
    assert tokens == set(range(2, 65))
    for n in range(70):
        score, _ = scorer.score("user", "flour " * n, scorer.initial_memory())
        assert all(0 <= value <= 1 for value in score.scores.values())


def test_the_policy_goes_with_the_model(exported: dict[str, Path]) -> None:
    monitor = load(exported["fp32"])
    assert isinstance(monitor, Monitor)
    assert monitor.policy.config.triggers == ("assistant_abuse", "harm")


@pytest.mark.usefixtures("quick")
def test_a_second_export_takes_the_place_of_the_first(exported: dict[str, Path], finished: Path, tmp_path: Path) -> None:
    """Measures and card of the model that was there before go; hashes of what else lies there are renewed."""
    folder = Path(shutil.copytree(exported["fp32"], tmp_path / "model"))
    (folder / "metrics.json").write_text("{}", encoding="utf-8")
    (folder / "README.md").write_text("card", encoding="utf-8")
    (folder / CURVES).write_text("<svg/>", encoding="utf-8")
    before = finish(folder, read_manifest(folder))
    assert set(before.files) == {MODEL, TOKENIZER, PORTABLE, TRAINING, CURVES, "metrics.json", "README.md"}
    load_folder(folder)
    again = export(finished, folder, tiny_export_settings(version="1"))
    assert set(contents(folder)) == {MODEL, TOKENIZER, PORTABLE, TRAINING, MANIFEST}
    assert load_folder(folder).manifest == again
    assert again.version == "1"


def test_exporting_twice_gives_the_same_graph(exported: dict[str, Path], finished: Path, tmp_path: Path) -> None:
    manifest = export(finished, tmp_path / "model", tiny_export_settings())
    assert manifest.files == read_manifest(exported["fp32"]).files
    assert manifest.tag == read_manifest(exported["fp32"]).tag


# --- refusals


@pytest.fixture
def quick(exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the graph that is there already; making it takes seconds."""
    monkeypatch.setattr(module, "to_onnx", lambda graph, memory_size, target: shutil.copyfile(exported["fp32"] / MODEL, target))


def tamper(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Changes the weights of the heads, the only matrix with as many columns or rows as there are labels."""
    model = onnx.load(str(path))
    changed = 0
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim == 2 and 6 in values.shape:
            tensor.CopyFrom(onnx.numpy_helper.from_array(change(values).astype(np.float32), tensor.name))
            changed += 1
    assert changed == 1
    onnx.save(model, str(path))


def refuses(finished: Path, output: Path, message: str, error: type[Exception] = ArtifactError, **changes: Any) -> None:
    """The export raises, and neither a new folder nor an old one is touched."""
    with pytest.raises(error, match=message):
        export(finished, output, tiny_export_settings(**changes))
    assert not output.exists()
    output.mkdir()
    (output / MODEL).write_bytes(b"the model before")
    (output / "README.md").write_bytes(b"its card")
    before = contents(output)
    with pytest.raises(error, match=message):
        export(finished, output, tiny_export_settings(**changes))
    assert contents(output) == before


def test_a_graph_that_differs_from_torch_is_refused(exported: dict[str, Path], finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(graph: Any, memory_size: int, target: Path) -> None:
        shutil.copyfile(exported["fp32"] / MODEL, target)
        tamper(target, lambda values: values * 1.01)

    monkeypatch.setattr(module, "to_onnx", wrong)
    refuses(finished, tmp_path / "model", r"torch and the fp32 graph differ by .* on probabilities .*, expected less than 0.0001")


@pytest.mark.usefixtures("quick")
def test_a_graph_whose_memory_alone_differs_is_refused(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = TurnScorer.score

    def score(self: TurnScorer, role: Any, text: str, memory: Any, index: int = 0) -> Any:
        turn, after = real(self, role, text, memory, index)
        return turn, after + np.float32(2e-4) * (index == 5)

    monkeypatch.setattr(TurnScorer, "score", score)
    refuses(finished, tmp_path / "model", "differ by .* on memory, expected less than 0.0001", tolerance=1e-4)


@pytest.mark.usefixtures("quick")
def test_a_quantised_graph_that_went_astray_is_refused(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(source: Path, target: Path, precision: str, feeds: Any) -> None:
        quantise(source, target, precision)
        if precision != "fp32":
            tamper(target, lambda values: -20 * values)

    monkeypatch.setattr(module, "quantise", wrong)
    refuses(finished, tmp_path / "model", "torch and the int8-weights graph differ by .*, expected less than 0.15", precision="int8-weights")


@pytest.mark.usefixtures("quick")
def test_a_tolerance_that_nothing_can_keep_refuses_everything(finished: Path, tmp_path: Path) -> None:
    refuses(finished, tmp_path / "model", "torch and the fp32 graph differ", tolerance=0.0)


@pytest.mark.usefixtures("quick")
def test_what_cannot_be_exported_is_refused(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_bytes(b"")
    refuses(finished, tmp_path / "a", "found no dialogue, expected golden dialogues", ConfigError, golden=str(tmp_path / "empty.jsonl"))
    refuses(finished, tmp_path / "b", r"nowhere\.yaml: cannot be read", ConfigError, policy=str(tmp_path / "nowhere.yaml"))
    unfinished = tmp_path / "run"
    unfinished.mkdir()
    refuses(unfinished, tmp_path / "c", r"found no config\.yaml, expected a finished training run", ConfigError)
    refuses(finished, tmp_path / "d", "sexual_minors", ConfigError, policy=str(ROOT / "configs" / "policy" / "default.yaml"))


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="precision: found 'int4', expected one of fp32, int8, int8-rows, int8-weights"):
        ExportSettings("n", "1", "p", "g", precision="int4")


# --- the whole chain, as a user runs it


def test_train_export_evaluate_score_with_the_command_line(base: Path, tmp_path: Path) -> None:
    for name in ("data", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HOME": str(tmp_path / "home")}

    def lastresort(*arguments: object) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "lastresort", *map(str, arguments)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done

    sample = "data/sample/dialogues.jsonl"
    trained = lastresort("train", "configs/train/smoke.yaml", f"model.base={base}", "model.memory_size=16", "model.freeze_embeddings=false")
    assert trained.stdout.splitlines()[-1] == "run: runs/smoke"
    written = lastresort("export", "runs/smoke", "-o", "models/smoke", "--config", "configs/export/smoke.yaml")
    found = re.fullmatch(r"models/smoke: (smoke@[0-9a-f]{8})", written.stdout.splitlines()[-1])
    assert found is not None
    lastresort("evaluate", sample, "--model", "models/smoke", "-o", "metrics.json")
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["model"] == found[1]
    assert {row["label"] for row in metrics["rows"]} == {label.name for label in read_manifest(tmp_path / "models" / "smoke").labels}
    scored = lastresort("score", sample, "--model", "models/smoke", "-o", "out.jsonl")
    assert scored.stderr == ""
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == [dialogue.id for dialogue in read_dialogues(SAMPLE)]
    assert {json.loads(line)["model"] for line in lines} == {found[1]}
    monitor = load(tmp_path / "models" / "smoke")
    first = next(iter(read_dialogues(SAMPLE)))
    assert json.loads(lines[0])["turns"][0]["scores"] == dict(monitor.score(first).turns[0].scores)
