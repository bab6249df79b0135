"""Labelled dialogues to batches. Text becomes ids in `lastresort.encoding` only, exactly as at serving."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from datasets.exceptions import DatasetGenerationError

from lastresort.artifact import file_sha256
from lastresort.data import read_dialogues
from lastresort.encoding import TOKEN_TYPE, TurnEncoder
from lastresort.errors import DataError
from lastresort.types import Dialogue
from lastresort_data.noise import vary

from .config import DataSettings, TrainConfig
from .slices import HARMLESS, groups_of

UNKNOWN = -100.0
"""Stands for an absent label in tensors; masked in the loss and in metrics. The same value that Trainer pads with."""

BUCKET_WINDOWS, BUCKET_STRETCH = 64, 1.5
"""Windows are run through the encoder in groups of at most so many, the longest at most so many times the shortest: little is spent on padding."""

FEATURES = Features(
    {
        "ids": List(List(Value("int32"))),  # one list a window
        "turn": List(Value("int32")),  # the turn (0-based among scored turns of this piece) of each window
        "roles": List(Value("int8")),  # token type of each turn
        "labels": List(List(Value("float32"))),  # (turns, labels), UNKNOWN where absent
        "source": Value("string"),
        "id": Value("string"),
    }
)


def data_digest(paths: Sequence[str]) -> str:
    """sha256 over the data files' hashes, for provenance and caching."""
    digest = hashlib.sha256()
    for path in paths:
        if not Path(path).is_file():
            raise DataError("found no such file, expected JSONL of labelled dialogues", where=path)
        digest.update(file_sha256(Path(path)).encode())
    return digest.hexdigest()


def encode_dialogue(dialogue: Dialogue, encoder: TurnEncoder, labels: Sequence[tuple[str, str]], settings: DataSettings) -> Iterator[dict[str, Any]]:
    """One dialogue as one or more pieces of at most `max_windows_per_dialogue` windows.

    Args:
        dialogue: carried roles are passed over, as at serving.
        encoder: text to windows.
        labels: (name, speaker) in output order. A label on a turn of the other speaker is left unknown.
        settings: limits.

    Yields:
        Rows of `FEATURES`.
    """
    if settings.context_turns:
        yield from _with_context(dialogue, encoder, labels, settings.context_turns)
        return
    context = set(settings.context_labels)
    row: dict[str, Any] = {"ids": [], "turn": [], "roles": [], "labels": [], "source": dialogue.source, "id": dialogue.id}
    first = True
    for message in dialogue.messages:
        if message.role not in TOKEN_TYPE:
            continue
        windows = encoder.windows(message.content)[: settings.max_windows_per_turn]
        if row["ids"] and len(row["ids"]) + len(windows) > settings.max_windows_per_dialogue:
            yield row
            first = False
            row = {**row, "ids": [], "turn": [], "roles": [], "labels": []}
        row["ids"] += windows
        row["turn"] += [len(row["roles"])] * len(windows)
        row["roles"].append(TOKEN_TYPE[message.role])
        row["labels"].append(
            [
                float(message.labels[name]) if name in message.labels and speaker == message.role and (first or name not in context) else UNKNOWN
                for name, speaker in labels
            ]
        )
    if row["ids"]:
        yield row


def _with_context(dialogue: Dialogue, encoder: TurnEncoder, labels: Sequence[tuple[str, str]], turns: int) -> Iterator[dict[str, Any]]:
    """Each turn alone, in one window of the token budget: [CLS] earlier turns, the newest last, each with its [SEP], then the turn, cut at the left."""
    past: list[list[int]] = []
    for message in dialogue.messages:
        if message.role not in TOKEN_TYPE:
            continue
        start, *rest = encoder.windows(message.content)[0]
        room = encoder.spec.max_tokens - 1 - len(rest)
        before = [token for earlier in past[-turns:] for token in earlier][-room:] if room > 0 else []
        values = [float(message.labels[name]) if name in message.labels and speaker == message.role else UNKNOWN for name, speaker in labels]
        row = {"ids": [[start, *before, *rest]], "turn": [0], "roles": [TOKEN_TYPE[message.role]], "labels": [values]}
        yield {**row, "source": dialogue.source, "id": dialogue.id}
        past.append(rest)


def encode_dialogues(dialogues: Iterable[Dialogue], encoder: TurnEncoder, config: TrainConfig) -> Iterator[dict[str, Any]]:
    """Rows of `FEATURES` of all dialogues, in their order, with the labels of `config`."""
    labels = [(label.name, label.speaker) for label in config.labels]
    for dialogue in dialogues:
        yield from encode_dialogue(dialogue, encoder, labels, config.data)


def harmless_mention(dialogue: Dialogue, grave: Collection[str]) -> bool:
    """Whether a user turn names a protected group, `hate` or `harm` is known of every turn that does, and nothing grave is above `slices.HARMLESS` anywhere."""
    user = [turn for turn in dialogue.messages if turn.role == "user"]
    if any(turn.labels.get(name, 0.0) > HARMLESS for turn in user for name in grave):
        return False
    naming = [turn for turn in user if groups_of(turn.content)]
    return bool(naming) and all("hate" in turn.labels or "harm" in turn.labels for turn in naming)


def read_again(dialogues: Iterable[Dialogue], settings: DataSettings, grave: Collection[str]) -> Iterator[Dialogue]:
    """Each dialogue as often as its source's share says; readings after the first are respelled. The same every time: chance hangs on the dialogue's id.

    Args:
        dialogues: of a training split.
        settings: `shares`, `harmless_mentions`, `variation`.
        grave: names of triggers and vetoes: a dialogue is harmless where none of them is known to hold.
    """
    for dialogue in dialogues:
        share = settings.shares.get(dialogue.source, 1.0)
        if settings.harmless_mentions != 1 and harmless_mention(dialogue, grave):
            share *= settings.harmless_mentions
        rng = random.Random(f"{dialogue.source}\x00{dialogue.id}")
        for reading in range(int(share) + (rng.random() < share % 1)):
            yield dialogue if reading == 0 else respelled(dialogue, settings, rng)


def respelled(dialogue: Dialogue, settings: DataSettings, rng: random.Random) -> Dialogue:
    """The dialogue with its user turns varied."""
    messages = [replace(turn, content=vary(turn.content, settings.variation, rng)) if turn.role == "user" else turn for turn in dialogue.messages]
    return replace(dialogue, messages=tuple(messages))


def load_split(paths: Sequence[str], encoder: TurnEncoder, config: TrainConfig, cache: Path, *, training: bool = False) -> Dataset:
    """All dialogues of JSONL files, encoded and cached on disk (Arrow, memory-mapped); of a training split as often as `data.shares` and
    `data.harmless_mentions` say.

    Raises:
        DataError: a missing file, a bad line, or no dialogue at all.
    """
    labels = [(label.name, label.speaker) for label in config.labels]
    grave = [label.name for label in config.labels if label.role in ("trigger", "veto")]
    made_of = (data_digest(paths), encoder.digest, labels, grave, asdict(config.data), FEATURES, training)
    key = hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]

    def rows() -> Iterator[dict[str, Any]]:
        for path in paths:
            dialogues = read_dialogues(path)
            yield from encode_dialogues(read_again(dialogues, config.data, grave) if training else dialogues, encoder, config)

    target = cache / key
    if not target.is_dir():
        if next(rows(), None) is None:  # datasets has no words of its own for it
            raise DataError("found no dialogue, expected at least one", where=", ".join(paths))
        try:
            dataset = Dataset.from_generator(rows, features=FEATURES, cache_dir=str(cache / "build"), fingerprint=key)
        except DatasetGenerationError as error:
            raise (error.__cause__ if isinstance(error.__cause__, DataError) else error) from None
        partial = target.with_suffix(".partial")
        dataset.save_to_disk(str(partial))
        partial.rename(target)
    loaded = Dataset.load_from_disk(str(target))
    return loaded.add_column("length", [sum(map(len, ids)) for ids in loaded["ids"]])


def _similar(items: Sequence[tuple[int, list[int], int]]) -> Iterator[list[tuple[int, list[int], int]]]:
    """Windows sorted by length in groups of similar length."""
    group: list[tuple[int, list[int], int]] = []
    for item in items:
        if group and (len(group) >= BUCKET_WINDOWS or len(item[1]) > BUCKET_STRETCH * len(group[0][1])):
            yield group
            group = []
        group.append(item)
    if group:
        yield group


class DialogueCollator:
    """Joins dialogues into one batch: windows in buckets of similar length, labels padded with `UNKNOWN`."""

    def __init__(self, label_count: int, pad_id: int = 0) -> None:
        self.label_count, self.pad_id = label_count, pad_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """A batch.

        Returns:
            buckets: list of dicts of (n, t) tensors input_ids, attention_mask, token_type_ids, and `position` (n,), the flat place of each window.
            window_turn: (dialogues, windows) turn of each window, -1 where padded.
            window_role: (dialogues, windows) token type of each window.
            labels: (dialogues, turns, labels).
        """
        windows_max = max(len(row["ids"]) for row in rows)
        turns_max = max(len(row["roles"]) for row in rows)
        window_turn = np.full((len(rows), windows_max), -1, dtype=np.int64)
        window_role = np.zeros((len(rows), windows_max), dtype=np.int64)
        labels = np.full((len(rows), turns_max, self.label_count), UNKNOWN, dtype=np.float32)
        flat: list[tuple[int, list[int], int]] = []
        for place, row in enumerate(rows):
            labels[place, : len(row["labels"])] = row["labels"]
            for number, (ids, turn) in enumerate(zip(row["ids"], row["turn"], strict=True)):
                window_turn[place, number] = turn
                window_role[place, number] = row["roles"][turn]
                flat.append((place * windows_max + number, ids, row["roles"][turn]))
        flat.sort(key=lambda item: len(item[1]))
        buckets = [self._bucket(group) for group in _similar(flat)]
        return {
            "buckets": buckets,
            "window_turn": torch.from_numpy(window_turn),
            "window_role": torch.from_numpy(window_role),
            "labels": torch.from_numpy(labels),
        }

    def _bucket(self, items: Sequence[tuple[int, list[int], int]]) -> dict[str, torch.Tensor]:
        length = max(len(ids) for _, ids, _ in items)
        input_ids = np.full((len(items), length), self.pad_id, dtype=np.int64)
        mask = np.zeros((len(items), length), dtype=np.int64)
        types = np.zeros((len(items), length), dtype=np.int64)
        for place, (_, ids, role) in enumerate(items):
            input_ids[place, : len(ids)] = ids
            mask[place, : len(ids)] = 1
            types[place, : len(ids)] = role
        return {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy(mask),
            "token_type_ids": torch.from_numpy(types),
            "position": torch.tensor([position for position, _, _ in items]),
        }


def label_counts(dataset: Dataset, label_count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(known, positive) mass of each label over a split; soft labels count as their value."""
    known = np.zeros(label_count)
    positive = np.zeros(label_count)
    for rows in dataset.select_columns(["labels"]).iter(batch_size=1000):
        for labels in rows["labels"]:
            values = np.asarray(labels, dtype=np.float32)
            mask = values != UNKNOWN
            known += mask.sum(axis=0)
            positive += np.where(mask, values, 0.0).sum(axis=0)
    return known, positive
