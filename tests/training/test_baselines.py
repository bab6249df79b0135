"""The two baselines, on the sample: scores in the shape of `score`, that `evaluate --baseline` puts beside a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny import SAMPLE
from typer.testing import CliRunner

from lastresort.artifact import load_folder
from lastresort.cli import app
from lastresort.data import iter_records, read_dialogues, write_dialogues
from lastresort.encoding import TurnEncoder
from lastresort.types import ScoredDialogue
from lastresort_training.baselines import FROZEN, TFIDF, embed, fit_and_score, run_baselines


@pytest.fixture(scope="module")
def stored(base: Path, tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("baselines") / "new" / "scored.jsonl"
    run_baselines([SAMPLE], [SAMPLE], output, tiny_path, str(base))
    return output


def test_both_score_every_turn_of_every_dialogue(stored: Path, tiny_path: Path) -> None:
    labels = load_folder(tiny_path).manifest.labels
    dialogues = list(read_dialogues(SAMPLE))
    records = list(iter_records(ScoredDialogue, stored))
    assert [(r.model, r.id) for r in records] == [(name, d.id) for name in (TFIDF, FROZEN) for d in dialogues]
    for record, dialogue in zip(records, dialogues * 2, strict=True):
        assert [(turn.index, turn.role) for turn in record.turns] == [(i, message.role) for i, message in enumerate(dialogue.messages)]
        assert (record.call, record.ended_at) == ("continue", None)
        for turn in record.turns:
            assert turn.decision is None
            assert list(turn.scores) == [label.name for label in labels if label.speaker == turn.role]
            assert all(0.0 <= value <= 1.0 for value in turn.scores.values())


def test_evaluate_puts_them_beside_the_model(stored: Path, tiny_path: Path, tmp_path: Path) -> None:
    output = tmp_path / "metrics.json"
    done = CliRunner().invoke(
        app, ["evaluate", str(SAMPLE), "--model", str(tiny_path), "--baseline", str(stored), "-o", str(output), "--any", "assistant_abuse,harm"]
    )
    assert done.exit_code == 0, done.output
    assert TFIDF in done.output
    record = json.loads(output.read_text(encoding="utf-8"))
    rows = {(row["scorer"], row["label"]): row for row in record["rows"] if row["source"] == "all"}
    assert {scorer for scorer, _ in rows} == {record["model"], TFIDF, FROZEN}
    for label in {label for _, label in rows}:
        assert len({(rows[scorer, label]["n"], rows[scorer, label]["positives"]) for scorer in (record["model"], TFIDF, FROZEN)}) == 1
    # fitted and measured on the same dialogues, a baseline of words cannot but do well
    assert rows[TFIDF, "assistant_abuse"]["average_precision"] > 0.9


def test_they_repeat(stored: Path, base: Path, tiny_path: Path, tmp_path: Path) -> None:
    run_baselines([SAMPLE], [SAMPLE], tmp_path / "again.jsonl", tiny_path, str(base))
    assert (tmp_path / "again.jsonl").read_bytes() == stored.read_bytes()


def test_validation_labels_are_not_looked_at(stored: Path, base: Path, tiny_path: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    bare = [replace(d, messages=tuple(replace(m, labels={}) for m in d.messages)) for d in read_dialogues(SAMPLE)]
    write_dialogues(bare, tmp_path / "bare.jsonl")
    run_baselines([SAMPLE], [tmp_path / "bare.jsonl"], tmp_path / "scored.jsonl", tiny_path, str(base))
    assert (tmp_path / "scored.jsonl").read_bytes() == stored.read_bytes()


def test_a_label_with_one_class_in_training_is_left_out() -> None:
    features = np.eye(4)
    assert fit_and_score(features, features, np.array([1.0, 1.0, np.nan, 0.7])) is None
    assert fit_and_score(features, features, np.array([0.0, 0.4, np.nan, 0.0])) is None
    assert fit_and_score(features, features, np.full(4, np.nan)) is None
    found = fit_and_score(features, features, np.array([1.0, 0.0, np.nan, 0.0]))
    assert found is not None
    assert found.argmax() == 0
    assert found.shape == (4,)


def test_embeddings_have_unit_length_and_do_not_depend_on_their_neighbours(base: Path, tiny_path: Path) -> None:
    folder = load_folder(tiny_path)
    encoder = TurnEncoder.from_file(folder.tokenizer_path, folder.manifest.encoding)
    texts = ["flour", "", "how many cups are 250 g of flour", "salt " * 300, *["x " * n for n in range(1, 90)]]
    found = embed(texts, encoder, str(base))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    for place in (0, 1, 2, 3, 50):
        np.testing.assert_allclose(embed([texts[place]], encoder, str(base))[0], found[place], atol=1e-5)
