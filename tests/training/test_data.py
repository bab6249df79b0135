"""Labelled dialogues to tensors: the same windows as at serving, unknown labels masked, long dialogues in pieces, a cache that knows its data."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny import SAMPLE

from lastresort.data import read_dialogues, write_dialogues
from lastresort.encoding import EncodingSpec, TurnEncoder
from lastresort.errors import DataError
from lastresort.types import Dialogue, Message
from lastresort_data.noise import Variation
from lastresort_training.config import DataSettings, TrainConfig
from lastresort_training.data import (
    BUCKET_STRETCH,
    BUCKET_WINDOWS,
    FEATURES,
    UNKNOWN,
    DialogueCollator,
    data_digest,
    encode_dialogue,
    label_counts,
    load_split,
    read_again,
)

LABELS = [("harm", "user"), ("persistence", "user"), ("redirection", "assistant")]
NONE = UNKNOWN
LIMITS = DataSettings(train=(), validation=(), context_labels=("persistence",))
LONG = "flour and salt " * 40


@pytest.fixture(scope="module")
def encoder(tiny_path: Path) -> TurnEncoder:
    return TurnEncoder.from_file(tiny_path / "tokenizer.json", EncodingSpec(32, 4))


def encode(dialogue: Dialogue, encoder: TurnEncoder, limits: DataSettings = LIMITS) -> list[dict[str, Any]]:
    rows = list(encode_dialogue(dialogue, encoder, LABELS, limits))
    assert all(set(row) == set(FEATURES) for row in rows)
    return rows


def talk(*messages: tuple[Any, str, dict[str, float]]) -> Dialogue:
    return Dialogue("d", tuple(Message(*message) for message in messages), "here")


# --- how often


def test_shares_say_how_often_a_source_is_read_and_readings_after_the_first_are_respelled() -> None:
    many = [replace(talk(("user", "please remember the garlic bread", {"harm": 1.0}), ("assistant", "I will remember it", {})), id=str(n)) for n in range(400)]
    noisy = replace(LIMITS, shares={"here": 2.5}, variation=Variation(typos=1.0))
    read = list(read_again(many, noisy, ()))
    assert read == list(read_again(many, noisy, ()))
    assert 950 < len(read) < 1050
    assert [one.id for one in read if one in many] == [one.id for one in many]  # the first reading is the dialogue itself
    again = [one for one in read if one not in many]
    assert all(one.messages[0].labels == {"harm": 1.0} and one.messages[1] == many[0].messages[1] for one in again)
    assert 150 < sum(1 for _ in read_again(many, replace(LIMITS, shares={"here": 0.5}), ())) < 250
    assert list(read_again(many, replace(LIMITS, shares={"here": 0}), ())) == []
    assert list(read_again(many, replace(LIMITS, shares={"elsewhere": 3}), ())) == many
    with pytest.raises(ValueError, match=r"data\.shares: \['here'\]"):
        replace(LIMITS, shares={"here": -1})


def test_harmless_dialogues_that_name_a_group_are_read_oftener() -> None:
    def count(text: str, labels: dict[str, float], limits: DataSettings) -> int:
        return len(list(read_again([talk(("user", "hello", {}), ("user", text, labels))], limits, ("harm", "self_harm_risk"))))

    often = replace(LIMITS, harmless_mentions=3)
    assert count("the Muslim women of our choir sing", {"harm": 0.0}, often) == 3
    assert count("the Muslim women of our choir sing", {"harm": 0.0}, LIMITS) == 1
    assert count("the old women of our choir sing", {"harm": 0.0}, replace(often, shares={"here": 0})) == 0
    assert count("all women are stupid", {"harm": 1.0}, often) == 1
    assert count("all women are here", {}, often) == 1  # nobody knows whether it is harmless
    assert count("all women are here", {"assistant_abuse": 0.0}, often) == 1
    assert count("the women are gone, I want to die", {"harm": 0.0, "self_harm_risk": 1.0}, often) == 1
    assert count("our choir sings", {"harm": 0.0}, often) == 1
    first = talk(("user", "you idiot", {"harm": 1.0}), ("user", "the women sing", {"harm": 0.0}))
    assert len(list(read_again([first], often, ("harm",)))) == 1  # harmful elsewhere
    with pytest.raises(ValueError, match=r"data\.harmless_mentions: found -1"):
        replace(LIMITS, harmless_mentions=-1)


def test_only_the_training_split_is_read_again(encoder: TurnEncoder, recipe: TrainConfig, tmp_path: Path) -> None:
    write_dialogues([talk(("user", "hello", {"harm": 0.0}))], tmp_path / "d.jsonl")
    thrice = replace(recipe, data=replace(recipe.data, shares={"here": 3}))
    sizes = [len(load_split([str(tmp_path / "d.jsonl")], encoder, thrice, tmp_path / "cache", training=training)) for training in (True, False)]
    assert sizes == [3, 1]


# --- one dialogue


def test_a_dialogue_becomes_one_row_with_the_windows_of_serving(encoder: TurnEncoder) -> None:
    (row,) = encode(
        talk(("user", "You stupid bot", {"harm": 1.0}), ("assistant", LONG, {"redirection": 0.5}), ("user", "", {})),
        encoder,
        replace(LIMITS, max_windows_per_turn=99),
    )
    windows = encoder.windows(LONG)
    assert len(windows) > 2
    assert row["ids"] == [*encoder.windows("You stupid bot"), *windows, *encoder.windows("")]
    assert row["turn"] == [0, *[1] * len(windows), 2]
    assert row["roles"] == [0, 1, 0]
    assert (row["id"], row["source"]) == ("d", "here")


def test_an_absent_label_is_unknown_not_negative(encoder: TurnEncoder) -> None:
    (row,) = encode(talk(("user", "a", {"harm": 0.0}), ("assistant", "b", {}), ("user", "c", {"persistence": 1.0})), encoder)
    assert row["labels"] == [[0.0, NONE, NONE], [NONE, NONE, NONE], [NONE, 1.0, NONE]]


def test_labels_of_the_other_speaker_and_strange_labels_are_left_out(encoder: TurnEncoder) -> None:
    (row,) = encode(talk(("user", "a", {"redirection": 1.0, "boredom": 1.0}), ("assistant", "b", {"harm": 1.0, "redirection": 0.25})), encoder)
    assert row["labels"] == [[NONE, NONE, NONE], [NONE, NONE, 0.25]]


def test_system_and_tool_turns_are_passed_over(encoder: TurnEncoder) -> None:
    plain = talk(("user", "a", {"harm": 1.0}), ("assistant", "b", {}))
    mixed = talk(("system", "be kind", {"harm": 1.0}), ("user", "a", {"harm": 1.0}), ("tool", "{}", {}), ("assistant", "b", {}), ("tool", "", {}))
    assert encode(mixed, encoder) == encode(plain, encoder)
    assert encode(talk(("system", "be kind", {})), encoder) == []
    assert encode(talk(), encoder) == []


def test_a_long_turn_is_read_only_so_far(encoder: TurnEncoder) -> None:
    (row,) = encode(talk(("user", LONG, {}), ("user", "b", {})), encoder, replace(LIMITS, max_windows_per_turn=2))
    assert row["ids"] == [*encoder.windows(LONG)[:2], *encoder.windows("b")]
    assert row["turn"] == [0, 0, 1]


def test_a_long_dialogue_is_cut_and_context_labels_are_masked_after_the_cut(encoder: TurnEncoder) -> None:
    """A piece begins without memory: what depends on earlier turns cannot be learnt there."""
    messages = [("user", f"text {n}", {"harm": n / 10, "persistence": n / 10}) for n in range(7)]
    pieces = encode(talk(*messages), encoder, replace(LIMITS, max_windows_per_dialogue=3))
    assert [len(piece["roles"]) for piece in pieces] == [3, 3, 1]
    assert [piece["turn"] for piece in pieces] == [[0, 1, 2], [0, 1, 2], [0]]
    assert [labels for piece in pieces for labels in piece["labels"]] == [[n / 10, n / 10 if n < 3 else NONE, NONE] for n in range(7)]
    assert [ids for piece in pieces for ids in piece["ids"]] == [ids for _, text, _ in messages for ids in encoder.windows(text)]
    free = encode(talk(*messages), encoder, replace(LIMITS, max_windows_per_dialogue=3, context_labels=()))
    assert [labels[1] for piece in free for labels in piece["labels"]] == [n / 10 for n in range(7)]


def test_a_turn_is_never_torn_apart(encoder: TurnEncoder) -> None:
    limits = replace(LIMITS, max_windows_per_turn=3, max_windows_per_dialogue=4)
    pieces = encode(talk(("user", LONG, {}), ("user", LONG, {}), ("user", "c", {}), ("user", LONG, {})), encoder, limits)
    assert [piece["turn"] for piece in pieces] == [[0, 0, 0], [0, 0, 0, 1], [0, 0, 0]]
    alone = encode(talk(("user", LONG, {}), ("user", "b", {})), encoder, replace(limits, max_windows_per_dialogue=1))
    assert [piece["turn"] for piece in alone] == [[0, 0, 0], [0]]


# --- a batch


def rows_of(encoder: TurnEncoder, count: int = 31) -> list[dict[str, Any]]:
    return [row for dialogue in list(read_dialogues(SAMPLE))[:count] for row in encode(dialogue, encoder)]


def test_a_batch_has_the_promised_shapes(encoder: TurnEncoder) -> None:
    rows = rows_of(encoder, 5)
    batch = DialogueCollator(len(LABELS))(rows)
    windows, turns = max(len(row["ids"]) for row in rows), max(len(row["roles"]) for row in rows)
    assert batch["window_turn"].shape == batch["window_role"].shape == (len(rows), windows)
    assert batch["labels"].shape == (len(rows), turns, len(LABELS))
    assert (batch["labels"].dtype, batch["window_turn"].dtype) == (torch.float32, torch.int64)
    for place, row in enumerate(rows):
        count = len(row["ids"])
        assert batch["window_turn"][place].tolist() == [*row["turn"], *[-1] * (windows - count)]
        assert batch["window_role"][place].tolist() == [*[row["roles"][turn] for turn in row["turn"]], *[0] * (windows - count)]
        torch.testing.assert_close(batch["labels"][place, : len(row["labels"])], torch.tensor(row["labels"]))
        assert (batch["labels"][place, len(row["labels"]) :] == UNKNOWN).all()


def test_every_window_is_in_exactly_one_bucket_at_its_place(encoder: TurnEncoder) -> None:
    rows = rows_of(encoder)
    batch = DialogueCollator(len(LABELS), pad_id=9)(rows)
    windows = batch["window_turn"].shape[1]
    found = {}
    for bucket in batch["buckets"]:
        shape = bucket["input_ids"].shape
        assert shape == bucket["attention_mask"].shape == bucket["token_type_ids"].shape
        assert len(bucket["position"]) == shape[0] <= BUCKET_WINDOWS
        lengths = bucket["attention_mask"].sum(1)
        assert lengths.max() == shape[1]
        assert lengths.max() <= BUCKET_STRETCH * lengths.min()
        for ids, mask, types, position in zip(*(bucket[name] for name in ("input_ids", "attention_mask", "token_type_ids", "position")), strict=True):
            length = int(mask.sum())
            assert mask.tolist() == [1] * length + [0] * (shape[1] - length)
            assert set(ids[length:].tolist()) <= {9}
            assert len(set(types[:length].tolist())) == 1
            found[int(position)] = (ids[:length].tolist(), int(types[0]))
    expected = {
        p * windows + n: (ids, row["roles"][turn]) for p, row in enumerate(rows) for n, (ids, turn) in enumerate(zip(row["ids"], row["turn"], strict=True))
    }
    assert found == expected


# --- a split on disk


@pytest.fixture
def recipe(settings: TrainConfig) -> TrainConfig:
    return settings


def split(path: Path, encoder: TurnEncoder, config: TrainConfig, cache: Path) -> Dataset:
    return load_split([str(path)], encoder, config, cache)


def folders(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()} - {"build"}


def test_a_split_holds_every_dialogue_as_it_was_encoded(encoder: TurnEncoder, recipe: TrainConfig, tmp_path: Path) -> None:
    found = split(SAMPLE, encoder, recipe, tmp_path / "cache")
    labels = [(label.name, label.speaker) for label in recipe.labels]
    expected = [row for dialogue in read_dialogues(SAMPLE) for row in encode_dialogue(dialogue, encoder, labels, recipe.data)]
    assert len(found) == len(expected)
    for row, wanted in zip(found, expected, strict=True):
        assert {name: row[name] for name in ("ids", "turn", "roles", "id", "source")} == {
            name: wanted[name] for name in ("ids", "turn", "roles", "id", "source")
        }
        np.testing.assert_allclose(row["labels"], wanted["labels"], atol=1e-6)
        assert row["length"] == sum(map(len, wanted["ids"]))


def test_the_cache_is_reused(encoder: TurnEncoder, recipe: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = split(SAMPLE, encoder, recipe, tmp_path / "cache")
    assert len(folders(tmp_path / "cache")) == 1
    monkeypatch.setattr("lastresort_training.data.encode_dialogue", lambda *_: pytest.fail("encoded again"))
    again = split(Path(shutil.copyfile(SAMPLE, tmp_path / "copy.jsonl")), encoder, recipe, tmp_path / "cache")
    assert list(again) == list(first)
    assert len(folders(tmp_path / "cache")) == 1


def test_other_data_labels_limits_or_tokens_give_another_cache(encoder: TurnEncoder, recipe: TrainConfig, tiny_path: Path, tmp_path: Path) -> None:
    cache, path = tmp_path / "cache", tmp_path / "data.jsonl"
    dialogues = list(read_dialogues(SAMPLE))
    write_dialogues(dialogues, path)
    assert len(split(path, encoder, recipe, cache)) == len(dialogues)
    write_dialogues(dialogues[:5], path)
    assert len(split(path, encoder, recipe, cache)) == 5
    write_dialogues(dialogues, path)
    assert len(split(path, encoder, recipe, cache)) == len(dialogues)
    assert len(folders(cache)) == 2
    assert {len(labels[0]) for labels in split(path, encoder, replace(recipe, labels=recipe.labels[2:]), cache)["labels"]} == {4}
    assert len(split(path, encoder, replace(recipe, data=replace(recipe.data, max_windows_per_dialogue=2)), cache)) > len(dialogues)
    other = TurnEncoder.from_file(tiny_path / "tokenizer.json", EncodingSpec(16, 2))
    assert max(len(ids) for row in split(path, other, recipe, cache) for ids in row["ids"]) == 16
    text = (tiny_path / "tokenizer.json").read_text(encoding="utf-8").replace('"lowercase": true', '"lowercase": false')
    (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
    cased = TurnEncoder.from_file(tmp_path / "tokenizer.json", encoder.spec)
    assert split(path, cased, recipe, cache)["ids"] != split(path, encoder, recipe, cache)["ids"]
    assert len(folders(cache)) == 6
    assert not [name for name in folders(cache) if name.endswith(".partial")]


def test_a_split_without_a_dialogue_or_with_a_bad_line_is_an_error(encoder: TurnEncoder, recipe: TrainConfig, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    with pytest.raises(DataError, match=r"data\.jsonl: found no such file"):
        split(path, encoder, recipe, tmp_path / "cache")
    for raw in (b"", b"\n", b'{"id": "a", "messages": []}\n', b'{"id": "a", "messages": [{"role": "system", "content": "x"}]}\n'):
        path.write_bytes(raw)
        with pytest.raises(DataError, match="found no dialogue, expected at least one"):
            split(path, encoder, recipe, tmp_path / "cache")
    for before in (b"", SAMPLE.read_bytes()):
        path.write_bytes(before + b'{"id": "a", "messages": [{"role": "user", "content": "secret", "labels": {"harm": 2}}]}\n')
        line = len(before.splitlines()) + 1
        with pytest.raises(DataError, match=rf"data\.jsonl:{line}: messages\.0\.labels\.harm: found 2\.0, expected") as caught:
            split(path, encoder, recipe, tmp_path / "cache")
        assert "secret" not in str(caught.value)
    assert folders(tmp_path / "cache") == set()


def test_the_digest_is_of_the_bytes_and_their_order(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    digests = {data_digest([str(path) for path in paths]) for paths in ((one,), (two,), (one, two), (two, one))}
    assert len(digests) == 4
    two.write_bytes(b"1")
    assert data_digest([str(two)]) == data_digest([str(one)])


def test_counts_know_soft_labels_and_pass_over_unknown_ones(encoder: TurnEncoder) -> None:
    rows = encode(talk(("user", "a", {"harm": 0.25}), ("assistant", "b", {}), ("user", "c", {"harm": 1.0, "persistence": 0.0})), encoder)
    known, positive = label_counts(Dataset.from_list(rows, features=FEATURES), len(LABELS))
    assert known.tolist() == [2, 1, 0]
    assert positive.tolist() == [1.25, 0, 0]
