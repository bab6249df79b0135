"""Finding labels that are probably wrong, with embeddings that are given. All texts are invented and mild."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lastresort.data import write_dialogues
from lastresort.errors import DataError
from lastresort.types import Dialogue, Message
from lastresort_data.clean import key_of
from lastresort_data.label_noise import Labelled, Matrix, by_source, cached, find, gather, probabilities, to_json

WRONG = {"rude post 7 of the day", "kind post 31 of the day"}


def apart(texts: Sequence[str]) -> Matrix:
    """Rude and kind posts lie apart, each a little elsewhere."""
    rng = np.random.default_rng(3)
    places = np.array([[1.0, 0.0] if text.startswith("rude") else [0.0, 1.0] for text in texts])
    return (places + rng.normal(0, 0.1, places.shape)).astype(np.float16)


def posts() -> list[Labelled]:
    found = []
    for number in range(60):
        for kind in ("rude", "kind"):
            text = f"{kind} post {number} of the day"
            harmful = (kind == "rude") != (text in WRONG)
            found.append(Labelled(("edos", "davidson")[number % 2], "train", str(number), text, float(harmful)))
    return found


def test_swapped_labels_are_found_first() -> None:
    suspects = find(posts(), apart)
    assert {suspect.turn.text for suspect in suspects[:2]} == WRONG
    assert all(suspect.confidence < 0.5 for suspect in suspects[:2])
    for suspect in suspects[:2]:
        expected = suspect.probability if suspect.turn.value == 1.0 else 1 - suspect.probability
        assert suspect.confidence == pytest.approx(expected)


def test_the_same_turns_give_the_same_suspects() -> None:
    assert find(posts(), apart) == find(posts(), apart)


def test_one_class_alone_is_an_error() -> None:
    calm = [turn for turn in posts() if turn.value == 0.0]
    with pytest.raises(DataError, match="found 60 negative and 0 positive turns"):
        find(calm, apart)


def test_a_dialogue_is_never_in_two_folds() -> None:
    # each group lies alone in a dimension of its own: only a model that has seen the group could tell its labels
    groups = [str(number // 4) for number in range(80)]
    features = np.eye(20)[[number // 4 for number in range(80)]]
    labels = np.array([number // 4 % 2 for number in range(80)])
    correct = np.argmax(probabilities(features, labels, groups), axis=1) == labels
    assert correct.mean() < 0.8
    assert (np.argmax(probabilities(features, labels, list(map(str, range(80)))), axis=1) == labels).mean() > 0.9


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    (tmp_path / "edos").mkdir()
    messages = [
        Message("user", "a rude post", {"harm": 0.9}),
        Message("user", "votes are split", {"harm": 0.5}),
        Message("user", "nobody knows", {"hate": 1.0}),
        Message("user", " ", {"harm": 1.0}),
        Message("assistant", "a firm no", {"redirection": 1.0, "harm": 1.0}),
    ]
    write_dialogues([Dialogue("a", tuple(messages), "edos")], tmp_path / "edos" / "train.jsonl")
    calm = [Dialogue(f"v{number}", (Message("user", f"calm post {number}", {"harm": 0.1}),), "edos") for number in range(9)]
    write_dialogues(calm, tmp_path / "edos" / "validation.jsonl")
    return tmp_path


def test_only_decided_labels_of_the_right_role_are_looked_at(prepared: Path) -> None:
    harm = gather(prepared, ["edos"], "harm")
    assert {(turn.split, turn.text) for turn in harm if turn.split == "train"} == {("train", "a rude post")}
    assert len(harm) == 10
    assert [turn.text for turn in gather(prepared, ["edos"], "redirection")] == ["a firm no"]


def test_a_large_source_is_drawn_from(prepared: Path) -> None:
    drawn = gather(prepared, ["edos"], "harm", most=4)
    assert len(drawn) == 4
    assert drawn == gather(prepared, ["edos"], "harm", most=4)


def test_embeddings_are_computed_once(tmp_path: Path) -> None:
    asked: list[Sequence[str]] = []

    def counting(texts: Sequence[str]) -> Matrix:
        asked.append(texts)
        return apart(texts)

    remembered = cached(counting, tmp_path / "new")
    first = remembered(["rude", "kind"])
    assert np.array_equal(first, remembered(["rude", "kind"]))
    assert len(asked) == 1
    remembered(["kind", "rude"])
    assert len(asked) == 2


def test_shares_by_source_count_both_classes() -> None:
    turns = posts()
    suspects = [suspect for suspect in find(turns, apart) if suspect.turn.text in WRONG]
    assert by_source(turns, suspects) == [("davidson", 60, 1, 1), ("edos", 60, 0, 0)]  # both have an odd number


def test_a_line_holds_the_key_that_decisions_use() -> None:
    suspect = find(posts(), apart)[0]
    assert to_json("harm", suspect)["key"] == key_of(suspect.turn.source, suspect.turn.text)
