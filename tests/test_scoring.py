"""A turn becomes scores: nothing but the model, the role, the text and the memory matters, and a failure is never a score."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lastresort.artifact import INPUTS, MODEL, OUTPUTS, TOKENIZER, ModelFolder, file_sha256, load_folder, read_manifest, write_manifest
from lastresort.conversation import Monitor
from lastresort.encoding import TOKEN_TYPE
from lastresort.errors import ArtifactError, ScoringError
from lastresort.scoring import Memory, TurnScorer
from lastresort.types import Dialogue, LabelSpec, Role, TurnScore

LONG = "Pass me the salt, you useless heap of bolts! " * 4445  # 200,025 characters
TURNS: list[tuple[Role, str]] = [
    ("user", "You are a stupid, useless bot."),
    ("assistant", "I won't continue in that tone. What do you need?"),
    ("user", ""),
    ("user", "\ud800 lone, \u200binvisible, ｆｕｌｌ width, 日本語, 🙂"),
    ("assistant", "[SEP] [CLS] [MASK]"),
    ("user", "How many cups are 250 g of flour? " * 40),
]
"""Different roles and lengths; the last is longer than one window."""


class FakeSession:
    """Stands in for the ONNX session; answers with what `answer` makes of the real answer."""

    def __init__(self, real: Any, answer: Callable[[Any, Any, int], Any]) -> None:
        self.real, self.answer, self.calls = real, answer, 0

    def run(self, names: Any, feed: Any) -> Any:
        self.calls += 1
        return self.answer(*(value.copy() for value in self.real.run(names, feed)), self.calls)


@pytest.fixture(scope="module")
def scorer(monitor: Monitor) -> TurnScorer:
    return monitor.scorer


@pytest.fixture
def own_scorer(tiny_path: Path) -> TurnScorer:
    """One that a test may break."""
    return TurnScorer.load(tiny_path)


@pytest.fixture
def folder(tiny_path: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may break."""
    return Path(shutil.copytree(tiny_path, tmp_path / "model"))


def rehash(folder: Path, **changes: Any) -> None:
    """Makes the manifest fit whatever now lies in the folder, as somebody who means harm (or repairs by hand) would."""
    manifest = replace(read_manifest(folder), files={name: file_sha256(folder / name) for name in (MODEL, TOKENIZER)}, **changes)
    write_manifest(folder, manifest)


def some_memory(scorer: TurnScorer, seed: int = 0) -> Memory:
    return np.random.default_rng(seed).uniform(-1, 1, scorer.manifest.memory_size).astype(np.float32)


def bits(result: tuple[TurnScore, Memory]) -> tuple[Any, ...]:
    """A result in a form in which equal means equal to the last bit."""
    score, memory = result
    return score.index, score.role, tuple((name, value.hex()) for name, value in score.scores.items()), score.windows, memory.tobytes()


def by_hand(scorer: TurnScorer, role: Role, text: str, memory: Memory) -> tuple[list[np.ndarray[Any, Any]], Memory]:
    """Probabilities of each window and the last memory, straight from the session."""
    probabilities, carried = [], memory.reshape(1, -1)
    for ids in scorer.encoder.windows(text):
        tokens = np.array([ids], dtype=np.int64)
        feed = dict(zip(INPUTS, (tokens, np.ones_like(tokens), np.full_like(tokens, TOKEN_TYPE[role]), carried), strict=True))
        values, carried = scorer._session.run(OUTPUTS, feed)
        probabilities.append(values[0])
    return probabilities, carried[0]


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_scores_are_given_for_the_labels_of_the_role_in_the_manifest_order(scorer: TurnScorer, role: Role) -> None:
    score, _ = scorer.score(role, "You are a stupid bot.", scorer.initial_memory(), index=3)
    assert list(score.scores) == [label.name for label in scorer.manifest.labels if label.speaker == role]
    assert all(type(value) is float and 0.0 <= value <= 1.0 for value in score.scores.values())
    assert (score.index, score.role, score.windows) == (3, role, 1)


@pytest.mark.parametrize("role", ["system", "tool"])
@pytest.mark.parametrize("text", ["You are a stupid bot.", "", LONG], ids=["short", "empty", "long"])
def test_system_and_tool_turns_are_carried(scorer: TurnScorer, role: Role, text: str) -> None:
    memory = some_memory(scorer)
    score, after = scorer.score(role, text, memory, index=5)
    assert score == TurnScore(5, role, {}, windows=0)
    assert after.tobytes() == memory.tobytes()


@pytest.mark.parametrize("role", ["user", "assistant"])
@pytest.mark.parametrize("text", ["", "   ", "\n\t", "\u200b\ufeff"], ids=["empty", "spaces", "breaks", "invisible"])
def test_empty_text_is_read_as_one_window(scorer: TurnScorer, role: Role, text: str) -> None:
    """A silent turn is a turn: it moves the memory and is scored, and all ways to say nothing are the same."""
    memory = some_memory(scorer)
    score, after = scorer.score(role, text, memory)
    assert score.windows == 1
    assert bits((score, after)) == bits(scorer.score(role, "", memory))
    (probabilities,), expected = by_hand(scorer, role, "", memory)
    assert after.tobytes() == expected.tobytes()
    assert list(score.scores.values()) == [float(p) for p, label in zip(probabilities, scorer.manifest.labels, strict=True) if label.speaker == role]


def test_a_text_of_200_000_characters_is_read_whole(scorer: TurnScorer) -> None:
    """Every window is read, the memory flows through them all, and the highest score of each label is kept."""
    assert len(LONG) >= 200_000
    memory = some_memory(scorer)
    score, after = scorer.score("user", LONG, memory)
    windows, expected = by_hand(scorer, "user", LONG, memory)
    assert score.windows == len(windows) > 500
    assert after.tobytes() == expected.tobytes()
    best = np.max(windows, axis=0)
    assert [value.hex() for value in score.scores.values()] == [float(best[column]).hex() for column in range(len(score.scores))]


def test_what_is_hidden_at_the_end_or_in_the_middle_of_a_long_turn_is_seen(scorer: TurnScorer, sample: dict[str, Dialogue]) -> None:
    insult = next(m.content for m in sample["persistent-abuse"].messages if m.labels.get("assistant_abuse", 0) == 1)
    padding = "Can you convert 250 g of flour to cups? " * 60
    start = scorer.initial_memory()
    clean = scorer.score("user", padding, start)[0].scores["assistant_abuse"]
    for text in (padding + insult, padding + insult + padding, insult + padding):
        score, _ = scorer.score("user", text, start)
        assert score.windows > 1
        assert score.scores["assistant_abuse"] > clean


def test_the_memory_matters_and_moves(scorer: TurnScorer) -> None:
    start, other = scorer.initial_memory(), some_memory(scorer)
    assert (start.dtype, start.shape, start.any()) == (np.float32, (scorer.manifest.memory_size,), np.False_)
    one, two = scorer.score("user", "No.", start), scorer.score("user", "No.", other)
    assert one[0].scores != two[0].scores
    assert one[1].tobytes() != start.tobytes()
    assert one[1].shape == start.shape
    assert one[1].dtype == np.float32


@pytest.mark.parametrize(("role", "text"), TURNS)
def test_the_memory_that_goes_in_is_not_changed(scorer: TurnScorer, role: Role, text: str) -> None:
    memory = some_memory(scorer)
    memory.flags.writeable = False
    before = memory.tobytes()
    _, after = scorer.score(role, text, memory)
    assert memory.tobytes() == before
    assert not np.shares_memory(memory, after)


def test_a_turn_gets_the_same_bits_whatever_else_is_scored(scorer: TurnScorer, tiny_path: Path) -> None:
    """Alone, in any order, in a fresh session, and among other work on threads."""
    memories = [scorer.initial_memory(), some_memory(scorer, 1), some_memory(scorer, 2)]
    work = [(role, text, memory) for role, text in TURNS for memory in memories]
    expected = [bits(TurnScorer.load(tiny_path).score(*item)) for item in work[:2]] + [bits(scorer.score(*item)) for item in work[2:]]
    for seed in range(3):
        order = random.Random(seed).sample(range(len(work)), len(work))
        assert {place: bits(scorer.score(*work[place])) for place in order} == dict(enumerate(expected))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda item: bits(scorer.score(*item)), work * 10)) == expected * 10


def test_many_threads_that_start_at_once_agree(scorer: TurnScorer) -> None:
    barrier = threading.Barrier(6)
    memory = scorer.initial_memory()

    def start(_: int) -> tuple[Any, ...]:
        barrier.wait(60)
        return bits(scorer.score("user", TURNS[-1][1], memory))

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(start, range(6)))) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["own label", "other speaker's label", "memory"])
def test_numbers_that_are_not_finite_raise(own_scorer: TurnScorer, monkeypatch: pytest.MonkeyPatch, value: float, where: str) -> None:
    def answer(probabilities: Any, memory: Any, _: int) -> Any:
        if where == "memory":
            memory[0, -1] = value
        else:
            probabilities[0, 0 if where == "own label" else -1] = value
        return probabilities, memory

    monkeypatch.setattr(own_scorer, "_session", FakeSession(own_scorer._session, answer))
    with pytest.raises(ScoringError, match="turn 4: found numbers that are not finite"):
        own_scorer.score("user", "secret words", own_scorer.initial_memory(), index=4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [1, 2, 3])
def test_a_bad_number_in_any_window_of_a_long_turn_raises(own_scorer: TurnScorer, monkeypatch: pytest.MonkeyPatch, place: int, value: float) -> None:
    """Also minus infinity, which the maximum over windows would hide."""

    def answer(probabilities: Any, memory: Any, call: int) -> Any:
        return (np.full_like(probabilities, value), memory) if call == place else (probabilities, memory)

    text = "flour " * 150
    assert len(own_scorer.encoder.windows(text)) >= 3
    monkeypatch.setattr(own_scorer, "_session", FakeSession(own_scorer._session, answer))
    with pytest.raises(ScoringError, match="not finite"):
        own_scorer.score("user", text, own_scorer.initial_memory())


def test_a_run_that_fails_raises_and_says_nothing_of_the_text(own_scorer: TurnScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(own_scorer, "_session", FakeSession(own_scorer._session, answer))
    with pytest.raises(ScoringError, match="out of memory") as caught:
        own_scorer.score("user", "secret words", own_scorer.initial_memory())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("shape", [(0,), (15,), (17,), (1, 16), (16, 1), ()])
def test_a_memory_of_another_shape_is_refused(scorer: TurnScorer, shape: tuple[int, ...]) -> None:
    assert scorer.manifest.memory_size == 16
    with pytest.raises(ScoringError, match=r"found memory of shape .*, expected \(16,\)"):
        scorer.score("user", "hello", np.zeros(shape, dtype=np.float32))


def test_a_memory_that_is_not_finite_is_refused(scorer: TurnScorer) -> None:
    with pytest.raises(ScoringError, match="not finite"):
        scorer.score("user", "hello", np.full(16, np.nan, dtype=np.float32))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_graph_is_refused_by_its_hash(folder: Path, share: float) -> None:
    raw = (folder / MODEL).read_bytes()
    (folder / MODEL).write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(ArtifactError, match="truncated or altered"):
        TurnScorer.load(folder)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_graph_with_a_fitting_hash_is_refused_too(folder: Path, share: float) -> None:
    raw = (folder / MODEL).read_bytes()
    (folder / MODEL).write_bytes(raw[: int(share * len(raw))])
    rehash(folder)
    with pytest.raises(ArtifactError, match=r"model\.onnx: cannot be loaded as ONNX"):
        TurnScorer.load(folder)


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"version": "1.0"', b"\xff\xfe"], ids=["empty", "no model", "cut", "no UTF-8"])
def test_a_damaged_tokenizer_is_refused(folder: Path, raw: bytes) -> None:
    (folder / TOKENIZER).write_bytes(raw)
    rehash(folder)
    with pytest.raises(ArtifactError, match=r"tokenizer\.json"):
        TurnScorer.load(folder)


def test_a_manifest_that_does_not_fit_the_graph_is_refused(folder: Path, tiny_path: Path) -> None:
    manifest = read_manifest(tiny_path)
    rehash(folder, memory_size=8)
    with pytest.raises(ArtifactError, match=r"memory: found size 16, expected 8"):
        TurnScorer.load(folder)
    rehash(folder, memory_size=16, labels=(*manifest.labels, LabelSpec("extra", "user", "signal")))
    with pytest.raises(ArtifactError, match=r"probabilities: found size 6, expected 7"):
        TurnScorer.load(folder)


def test_a_graph_with_other_inputs_is_refused(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = load_folder(tiny_path)
    monkeypatch.setattr("lastresort.scoring.INPUTS", ("input_ids", "attention_mask", "token_type_ids", "state"))
    with pytest.raises(ArtifactError, match=r"found inputs .*expected"):
        TurnScorer(ModelFolder(folder.path, folder.manifest))
