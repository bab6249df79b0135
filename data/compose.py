"""Builds the training mixture: real labelled dialogues and turns, and multi-turn dialogues composed from them.

Everything is a function of the config, its seed and the prepared files: the same inputs give the same bytes.
A split is made from the files and templates of that split only.

Usage: lastresort data compose configs/data/first.yaml --prepared DIR --out DIR
"""

from __future__ import annotations

import json
import math
import random
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from lastresort.config import STRICT, parse_settings, read_yaml
from lastresort.data import dialogue_to_json, dumps, read_dialogues
from lastresort.errors import ConfigError, DataError
from lastresort.types import Dialogue, Message

from .clean import read_held_out, text_key, texts_of
from .grammars import assistant_labels, user_labels
from .material import Longest, Lowest, Pool, Source, fit, gather, held_texts, present, rank, read_split
from .noise import Variation, vary
from .registry import LicenceClass, read_registry
from .scenes import KINDS, MOST_TURNS, Scene, course

SPLITS = ("train", "validation")
COMPOSED = "composed"
"""The source of composed dialogues."""
BUCKETS = 16
"""Files among which a split is spread while it is shuffled; one bucket at a time is held in memory."""
RANK_DIGITS = 16
POSITIVE = 0.5
"""At or above it a label counts as positive in `counts.json`."""


@dataclass(frozen=True)
class ComposeConfig:
    """What a mixture is made of.

    Attributes:
        seed: changes every choice.
        sources: prepared source to how it is used.
        kinds: kind of composed dialogue to how many of them train gets.
        validation_share: validation gets this share of every cap and every count, rounded up.
        variation: rates of careless and disguised spelling, train only.
        longest: length limits of turns.
        pool_most: turns of one source that a pool of material keeps.
        template_share: of the positive turns of a label in real dialogues, and of the negative ones, a template-like source gives at most this share.
        licences: licence classes that may be used; a public source of another class is an error.
        name: where the config comes from, for errors.
    """

    seed: int
    sources: Mapping[str, Source]
    kinds: Mapping[str, int]
    validation_share: float = 0.15
    variation: Variation = field(default_factory=Variation)
    longest: Longest = field(default_factory=Longest)
    pool_most: int = 2000
    template_share: float = 0.15
    licences: tuple[LicenceClass, ...] = ("permissive",)
    name: str = "config"

    def __post_init__(self) -> None:
        if not 0.0 < self.validation_share <= 1.0:
            raise ValueError("validation_share is outside 0…1")
        if self.pool_most < 1:
            raise ValueError("pool_most is below 1")
        if not 0.0 <= self.template_share < 1.0:
            raise ValueError("template_share is outside 0…1")


for _type in (Source, Variation, Longest):  # the settings inside the settings are as strict as those around them
    setattr(_type, "__pydantic_config__", STRICT)  # noqa: B010 - a standard dataclass declares no such attribute


def parse_config(values: Mapping[str, Any], *, name: str = "config") -> ComposeConfig:
    """Settings as a frozen, checked object.

    Raises:
        ConfigError: an unknown, missing or wrong setting, named with file and key.
    """
    if "name" in values:
        raise ConfigError(f"{name}: name: found this key, expected no such setting")
    config = parse_settings(ComposeConfig, values, where=name)
    for kind, number in config.kinds.items():
        if kind not in KINDS:
            raise ConfigError(f"{name}: kinds.{kind}: found this key, expected one of {', '.join(KINDS)}")
        if number < 0:
            raise ConfigError(f"{name}: kinds.{kind}: found {number}, expected a number of dialogues")
    _check_licences(config, name)
    return replace(config, name=name)


def _check_licences(config: ComposeConfig, where: str) -> None:
    public = read_registry().sources
    for name, source in config.sources.items():
        # what is not in the registry is our own; a folder may hold a public source under another name
        for known in {name, Path(source.folder or name).name} & public.keys():
            found = public[known].licence_class
            if found not in config.licences:
                allowed = ", ".join(config.licences) or "no class"
                raise ConfigError(f"{where}: sources.{name}: found the licence class {found} ({public[known].licence}), expected one of licences: {allowed}")


def read_config(path: str | Path) -> ComposeConfig:
    """Settings from a YAML file. Raises `ConfigError`."""
    return parse_config(read_yaml(path), name=str(path))


def _share(config: ComposeConfig, number: int, split: str) -> int:
    return number if split == "train" else math.ceil(number * config.validation_share)


def compose(config: ComposeConfig, prepared_dir: str | Path, split: str) -> Iterator[Dialogue]:
    """Composed dialogues of a split, kind by kind.

    Each depends on the seed, its kind, its number and the material, not on the dialogues before it.

    Args:
        config: settings.
        prepared_dir: folder with one folder a source.
        split: `train` or `validation`.

    Raises:
        ConfigError: a required source is missing.
        DataError: a prepared file breaks the contract, or a kind finds no material.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, expected one of {SPLITS}")
    pools = gather(
        config.sources,
        Path(prepared_dir),
        split,
        seed=config.seed,
        most=config.pool_most,
        longest=config.longest,
        where=config.name,
        held=_held(config, Path(prepared_dir), split),
    )
    for kind, number in config.kinds.items():
        for place in range(_share(config, number, split)):
            yield _play(config, pools, split, kind, place)


def _held(config: ComposeConfig, prepared_dir: Path, split: str) -> frozenset[int]:
    """What must not occur in the split: no text is trained on that is measured on."""
    return held_texts(config.sources, prepared_dir) if split == "train" else frozenset()


def _play(config: ComposeConfig, pools: Mapping[str, Pool], split: str, kind: str, place: int) -> Dialogue:
    name = f"{config.seed}/{split}/{kind}/{place}"
    scene = Scene(random.Random(name), split, pools)
    try:
        KINDS[kind](scene)
    except DataError as error:
        raise DataError(error.problem, where=config.name, field=f"kinds.{kind}") from None
    messages = scene.messages[:MOST_TURNS]
    meta: dict[str, Any] = {"kind": kind, "material": list(scene.origins), "templates": list(scene.templates)}
    outcome = None if scene.asked_to_end else course(messages)
    if outcome:
        meta |= {"call": outcome[0], "justified_at": outcome[1]}
    return Dialogue(f"c{rank(name):016x}", tuple(_varied(config, messages, split, name)), COMPOSED, meta)


def _varied(config: ComposeConfig, messages: Sequence[Message], split: str, name: str) -> Iterator[Message]:
    """The messages, user turns varied; labels are kept. Validation stays as it is."""
    rng = random.Random(f"variation/{config.seed}/{name}")
    for message in messages:
        varied = split == "train" and message.role == "user"
        yield replace(message, content=vary(message.content, config.variation, rng)) if varied else message


def real(config: ComposeConfig, prepared_dir: str | Path, split: str) -> Iterator[Dialogue]:
    """Real dialogues of a split, capped for each source by a seeded choice; template-like sources last, within their share.

    They are shortened and varied, unless the source is `as_is`.

    Raises:
        ConfigError: a required source is missing.
        DataError: a prepared file breaks the contract.
    """
    held = _held(config, Path(prepared_dir), split)
    others: Counter[str] = Counter()
    there = present(config.sources, Path(prepared_dir), split, where=config.name)
    for name in sorted(there, key=lambda name: (config.sources[name].template, name)):
        source = config.sources[name]
        dialogues = read_split(config.sources, Path(prepared_dir), name, split, held)
        if not source.as_is:
            dialogues = (fitted for dialogue in dialogues if (fitted := _fit_dialogue(config, dialogue)) is not None)
        if source.cap is not None:
            dialogues = _choose(dialogues, _share(config, source.cap, split), config.seed, name)
        if source.template:
            dialogues = _within_share(config, dialogues, others, name)
        for dialogue in dialogues:
            if not source.template:
                others.update(_classes(dialogue))
            yield dialogue if source.as_is else _varied_dialogue(config, dialogue, split)


def _classes(dialogue: Dialogue) -> Counter[str]:
    """How many turns are positive, and how many negative, for each label. Severity has no such classes."""
    labels = ((name, value) for message in dialogue.messages for name, value in message.labels.items() if name != "severity")
    return Counter(f"{name} {'+' if value >= POSITIVE else '-'}" for name, value in labels)


def _within_share(config: ComposeConfig, dialogues: Iterator[Dialogue], others: Mapping[str, int], name: str) -> Iterator[Dialogue]:
    """A seeded choice of a template-like source's dialogues, so that it gives no more than its share of a class.

    The share is of what this source and the sources that are not template-like (`others`) give together.
    """
    share = config.template_share / (1.0 - config.template_share)
    taken: Counter[str] = Counter()
    for dialogue in sorted(dialogues, key=lambda dialogue: rank(config.seed, "template", name, dialogue.id)):
        more = taken + _classes(dialogue)
        if all(number <= share * others[group] for group, number in more.items() if number > taken[group]):
            taken = more
            yield dialogue


def _varied_dialogue(config: ComposeConfig, dialogue: Dialogue, split: str) -> Dialogue:
    name = f"{dialogue.source}/{dialogue.id}"
    return replace(dialogue, messages=tuple(_varied(config, dialogue.messages, split, name)))


def _fit_dialogue(config: ComposeConfig, dialogue: Dialogue) -> Dialogue | None:
    rng = random.Random(f"fit/{config.seed}/{dialogue.source}/{dialogue.id}")
    messages = [fitted for message in dialogue.messages if (fitted := fit(message, config.longest, rng)) is not None]
    if len(messages) < len(dialogue.messages) or len(messages) > MOST_TURNS:
        return None
    return replace(dialogue, messages=tuple(messages))


def _choose(dialogues: Iterator[Dialogue], most: int, seed: int, name: str) -> Iterator[Dialogue]:
    """At most so many, by a seeded rank of their ids."""
    chosen: Lowest[Dialogue] = Lowest(most)
    for dialogue in dialogues:
        chosen.offer(rank(seed, "real", name, dialogue.id), dialogue)
    yield from chosen.items()


LABELS = (*user_labels(), "persistence", *assistant_labels())
"""Every label of a row of `stream`."""


def stream(mixture_dir: str | Path, split: str) -> Iterator[dict[str, Any]]:
    """A split of a mixture as plain rows, one line of its file at a time, for `datasets.Dataset.from_generator` and `IterableDataset.from_generator`.

    Args:
        mixture_dir: folder made by `write_mixture`.
        split: `train` or `validation`.

    Yields:
        `id`, `source`, `kind` (of a composed dialogue, else null) and `messages`; each has `role`, `content` and `labels`, all of `LABELS`, null where unknown.

    Raises:
        DataError: a missing file or a bad line, named with its number.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, expected one of {SPLITS}")
    for dialogue in read_dialogues(Path(mixture_dir) / f"{split}.jsonl"):
        messages = [{"role": m.role, "content": m.content, "labels": {name: m.labels.get(name) for name in LABELS}} for m in dialogue.messages]
        kind = dialogue.meta.get("kind") if dialogue.source == COMPOSED else None
        yield {"id": dialogue.id, "source": dialogue.source, "kind": kind, "messages": messages}


@dataclass
class _Counts:
    """What was written to a split."""

    dialogues: int = 0
    turns: Counter[str] = field(default_factory=Counter)
    words: int = 0
    by_source: dict[str, Counter[str]] = field(default_factory=dict)
    positive_by_source: dict[str, Counter[str]] = field(default_factory=dict)
    by_kind: dict[str, Counter[str]] = field(default_factory=dict)
    by_call: Counter[str] = field(default_factory=Counter)
    labels: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, dialogue: Dialogue) -> None:
        """Takes one dialogue."""
        self.dialogues += 1
        self.by_call[str(dialogue.meta.get("call"))] += 1
        groups = [self.by_source.setdefault(dialogue.source, Counter())]
        if dialogue.source == COMPOSED:
            groups.append(self.by_kind.setdefault(dialogue.meta["kind"], Counter()))
        for group in groups:
            group["dialogues"] += 1
            group["turns"] += len(dialogue.messages)
        for message in dialogue.messages:
            self.turns[message.role] += 1
            self.words += len(message.content.split())
            for name, value in message.labels.items():
                label = self.labels.setdefault(f"{message.role}.{name}", Counter())
                label["known"] += 1
                label["positive"] += value >= POSITIVE
                self.positive_by_source.setdefault(dialogue.source, Counter())[f"{message.role}.{name}"] += value >= POSITIVE

    def to_json(self) -> dict[str, Any]:
        """As a JSON-able record."""
        return {
            "dialogues": self.dialogues,
            "turns": {"all": sum(self.turns.values()), **dict(sorted(self.turns.items()))},
            "words": self.words,
            "by_source": {name: dict(group) for name, group in sorted(self.by_source.items())},
            "positive_by_source": {name: dict(sorted((+group).items())) for name, group in sorted(self.positive_by_source.items())},
            "by_kind": {name: dict(group) for name, group in self.by_kind.items()},
            "by_call": dict(sorted(self.by_call.items())),
            "labels": {name: dict(label) for name, label in sorted(self.labels.items())},
        }


def write_mixture(
    config: ComposeConfig, prepared_dir: str | Path, out_dir: str | Path, splits: Sequence[str] = SPLITS, *, against: Path | None = None
) -> dict[str, Any]:
    """Writes `train.jsonl`, `validation.jsonl` (or one of them) and `counts.json` into a folder and gives the counts back.

    Args:
        config: the mixture.
        prepared_dir: folder made by `prepare` or `clean`.
        out_dir: folder to write to.
        splits: of `SPLITS`, those to write.
        against: validation file of another mixture, whose texts train may not say either (as it may not say those of its own).

    Real and composed dialogues are shuffled together by a seeded rank of their ids.
    Memory holds the pools of material and one bucket of a split at a time.

    Raises:
        ConfigError: a required source is missing.
        DataError: a prepared file or `against` breaks the contract, a kind finds no material, or an id is used twice.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    counts: dict[str, Any] = {"config": Path(config.name).name, "seed": config.seed}
    # validation first: what it says after shortening and composing may not be said in train, nor what is held out in either
    banned = set(read_held_out(Path(prepared_dir)))
    if against is not None:
        banned |= texts_said(against)
    done = {split: _write_split(config, Path(prepared_dir), out_dir, split, banned) for split in reversed(SPLITS) if split in splits}
    counts.update({split: done[split] for split in SPLITS if split in done})
    (out_dir / "counts.json").write_bytes(json.dumps(counts, indent=1).encode() + b"\n")
    return counts


def _write_split(config: ComposeConfig, prepared_dir: Path, out_dir: Path, split: str, banned: set[str]) -> dict[str, Any]:
    """Writes a split without dialogues that say a banned text; the texts of validation become banned."""
    counts = _Counts()
    dialogues = _allowed(chain(real(config, prepared_dir, split), compose(config, prepared_dir, split)), banned)
    with tempfile.TemporaryDirectory(dir=out_dir, prefix=f".{split}-") as scratch:
        buckets = [Path(scratch) / f"{number:02d}" for number in range(BUCKETS)]
        _spread(_counted(dialogues, counts, split), buckets, f"{config.seed}/{split}")
        whole = Path(scratch) / "whole"
        with whole.open("wb") as stream:
            for bucket in buckets:
                stream.writelines(line[RANK_DIGITS:] for line in sorted(bucket.read_bytes().splitlines(keepends=True)))
        whole.replace(out_dir / f"{split}.jsonl")
    if split == "validation":
        banned |= texts_said(out_dir / "validation.jsonl")
    return counts.to_json()


def texts_said(path: Path) -> set[str]:
    """Keys of all texts of a file of dialogues that count as said (`texts_of`)."""
    return {text_key(text) for dialogue in read_dialogues(path) for text in texts_of(dialogue)}


def _allowed(dialogues: Iterable[Dialogue], banned: Set[str]) -> Iterator[Dialogue]:
    return (dialogue for dialogue in dialogues if banned.isdisjoint(map(text_key, texts_of(dialogue))))


def _counted(dialogues: Iterable[Dialogue], counts: _Counts, split: str) -> Iterator[Dialogue]:
    """The dialogues, counted on their way. Raises `DataError` for an id that is used twice."""
    seen: dict[str, str] = {}
    for dialogue in dialogues:
        if dialogue.id in seen:
            problem = f"found id {dialogue.id!r} in {seen[dialogue.id]!r} and {dialogue.source!r}, expected unique ids"
            raise DataError(problem, where=f"{split}.jsonl", field="id")
        seen[dialogue.id] = dialogue.source
        counts.add(dialogue)
        yield dialogue


def _spread(dialogues: Iterable[Dialogue], buckets: Sequence[Path], key: str) -> None:
    """Writes each dialogue, after its rank, into the bucket that its rank belongs to."""
    with ExitStack() as stack:
        streams = [stack.enter_context(path.open("wb")) for path in buckets]
        for dialogue in dialogues:
            number = rank("shuffle", key, dialogue.id)
            line = f"{number:0{RANK_DIGITS}x}{dumps(dialogue_to_json(dialogue))}\n"
            streams[number * len(buckets) >> 64].write(line.encode())
