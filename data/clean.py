"""Takes copies out of the prepared sources, within and across them, and texts that are held back.

    lastresort data clean --prepared work/prepared --out work/cleaned

Texts are compared as words (`adapters.base.normalise`). Two texts of four or more words are near copies if their sets of three-word shingles have a Jaccard
similarity of at least `JACCARD` (candidates by MinHash and locality-sensitive hashing, then counted exactly). What is dropped, and why:

* `reviewed`: the row was read and its label found wrong beyond mending (`reviewed/label_noise.yaml`, which also relabels others).
* `held_out_row`: a labelled turn equals a text of a row that `heldout_overlap.tsv` lists, whatever source it comes from.
* `held_back`: a labelled turn is a copy of a text in our own validation, benchmark or sample conversations.
* `other_split`: a training turn is a copy of one in validation (or one in validation of our own training conversations).
* `no_labels`: no turn has a label.
* `copy`: nothing new in the same split: each labelled turn is a copy of one in another source, or of one in the same source and the whole dialogue is too.
  Permissive sources go first, so that nothing depends on a text that may not be used; then the one whose labels are more precise keeps its copy.
  Near copies whose labels contradict each other are contrast pairs, and stay.

In long conversations a sentence that many people say ("is there anything else I can help you with?") would cost the whole conversation: there the turn loses
its labels instead, in validation if the other is in training, so that it is not measured.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lastresort.config import STRICT, read_settings
from lastresort.data import read_dialogues, write_dialogues
from lastresort.errors import DataError
from lastresort.types import Dialogue, Message

from . import adapters
from .adapters.base import SPLITS, count, normalise
from .prepare import COUNTS_FILE, DROPPED_KINDS, OVERLAP_FILE, overlap_rows
from .registry import read_registry

JACCARD = 0.7
"""Near copies share at least this part of their shingles."""
SHINGLE_WORDS = 3
TELLING_WORDS = 4
"""Shorter texts occur again and again: they are compared whole, within a split, and never near."""
LONG_TURNS = 4
"""From so many labelled turns on, a conversation outlives the copy of a turn."""
CONTRADICTION = 0.5
"""Labels contradict each other if one value differs by more than this."""
PERMUTATIONS, BANDS = 64, 16
"""Of the MinHash: a pair at `JACCARD` is found with a probability of 0.988."""

REVIEWED = Path(__file__).parent / "reviewed" / "label_noise.yaml"
OWN_TRAIN = (Path("data/written/train.jsonl"),)
OWN_HELD = (Path("data/written/validation.jsonl"), Path("data/written/endbench.jsonl"), Path("data/sample/dialogues.jsonl"))
CLEAN_FILE = "clean.json"
HELD_OUT_FILE = "held_out.txt"
"""Keys of the texts of listed rows, one a line, for `compose`: our own lines may say the same."""
_KEY = re.compile("[0-9a-f]{16}")
HELD = "held back"


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


JUDGED = _names(
    "ailuminate_demo civil_toxic_spans convabuse davidson diasafety dices edos ethos fox_news_comments gptfuzz_responses hatemoji_build reddit_cssrs "
    "redditbias sbic_dev stormfront surge_toxicity swad toxicchat_train toxichat_reddit toxicr toxigen_implicithate unhealthy_conversations "
    "wiki_talk_context wiki_toxicity_sample"
)
"""Sources whose texts people judged one by one."""
WRITTEN_TO = _names("aart advbench bailbench cyber_frr do_not_answer harmbench inthewild_jailbreak multijail red_instruct strongreject vera_mh xsafety_en")
"""Sources whose texts were written to a category. Of the others harmlessness is assumed, or the labels are a program's."""


def precision(source: str) -> int:
    """How precise the labels of a source are: 0 judged, 1 written to a category, 2 assumed or automatic."""
    return 0 if source in JUDGED else 1 if source in WRITTEN_TO else 2


def telling(text: str) -> bool:
    """Whether a normalised text has enough words to be told apart."""
    return text.count(" ") + 1 >= TELLING_WORDS


def texts_of(dialogue: Dialogue) -> Iterator[str]:
    """The normalised labelled turns of four or more words: what may not be in two splits."""
    return (text for turn in dialogue.messages if turn.labels and telling(text := normalise(turn.content)))


def text_key(text: str) -> str:
    """A normalised text without its words: the start of its SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def read_held_out(folder: Path) -> frozenset[str]:
    """Keys of the texts that `clean` found to be held out; none if the folder was not made by `clean`."""
    path = folder / HELD_OUT_FILE
    return frozenset(path.read_text(encoding="utf-8").split()) if path.is_file() else frozenset()


def key_of(source: str, text: str) -> str:
    """What `reviewed/label_noise.yaml` calls a labelled turn: the start of a SHA-256 of source and normalised text."""
    return hashlib.sha256(f"{source}\n{normalise(text)}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Rule:
    """Labels that reading showed to be unreliable as a class: they become unknown.

    Attributes:
        sources: which sources it is about.
        labels: which labels of a turn become unknown, if the first of them is known and within the bounds.
        at_least: lower bound, 0…1.
        at_most: upper bound, 0…1.
        matches: only turns in which this regular expression is found (case aside).
        file: only dialogues made from a row of this file.
    """

    sources: tuple[str, ...]
    labels: tuple[str, ...]
    at_least: float = 0.0
    at_most: float = 1.0
    matches: str = ""
    file: str = ""

    def __post_init__(self) -> None:
        if not self.labels:
            raise ValueError("labels: found none, expected at least one")

    def holds(self, dialogue: Dialogue, turn: Message) -> bool:
        """Whether the labels of the turn become unknown."""
        value = turn.labels.get(self.labels[0])
        if dialogue.source not in self.sources or value is None or not self.at_least <= value <= self.at_most:
            return False
        if self.file and not any(row.startswith(f"{self.file}#") for row in dialogue.meta["rows"]):
            return False
        return re.search(self.matches, turn.content, re.IGNORECASE) is not None


@dataclass(frozen=True)
class Reviewed:
    """What readers of suspicious labels decided.

    Attributes:
        drop: keys of turns whose labels cannot be mended; their dialogues go.
        relabel: key to the labels that replace those of the same name; null makes a label unknown.
        rules: what holds for a class of turns.
    """

    drop: frozenset[str] = frozenset()
    relabel: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        for key in (*self.drop, *self.relabel):
            if not _KEY.fullmatch(key):
                raise ValueError(f"found {key!r}, expected keys of 16 hexadecimal digits")
        for key, labels in self.relabel.items():
            for name, value in labels.items():
                if value is not None and not 0.0 <= value <= 1.0:
                    raise ValueError(f"relabel.{key}.{name}: found {value!r}, expected a number in 0…1")

    def drops(self, dialogue: Dialogue) -> bool:
        """Whether the dialogue goes."""
        return any(turn.labels and key_of(dialogue.source, turn.content) in self.drop for turn in dialogue.messages)

    def mend(self, dialogue: Dialogue) -> Dialogue:
        """The dialogue with mended labels; the same object if nothing changes."""
        messages = tuple(self._mend(dialogue, turn) for turn in dialogue.messages)
        return dialogue if messages == dialogue.messages else replace(dialogue, messages=messages)

    def _mend(self, dialogue: Dialogue, turn: Message) -> Message:
        if not turn.labels:
            return turn
        mended: dict[str, float | None] = {**turn.labels}
        for rule in self.rules:
            if rule.holds(dialogue, turn):
                mended.update((name, None) for name in rule.labels if name in mended)
        mended.update(self.relabel.get(key_of(dialogue.source, turn.content), {}))
        return replace(turn, labels={name: value for name, value in mended.items() if value is not None})


for _type in (Rule, Reviewed):
    setattr(_type, "__pydantic_config__", STRICT)  # noqa: B010 - a standard dataclass declares no such attribute


def read_reviewed(path: Path = REVIEWED) -> Reviewed:
    """The decisions of a file. Raises `ConfigError` for a key, label or setting that is not as it should be."""
    return read_settings(Reviewed, path)


# -- texts that are held out ---------------------------------------------------------------------------------------------------------------


def listed_texts(overlaps: Path, raw: Path) -> frozenset[str]:
    """Normalised telling texts of the rows that the list of held-out overlaps names, read back through the adapters.

    A row listed with a field (`12:response`, `12:3`) gives the turns of that field, another row all its turns.

    Raises:
        DataError: a missing or broken list, raw folder or file.
    """
    fields: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for source, file, row, kind in overlap_rows(overlaps):
        if kind in DROPPED_KINDS:
            number, _, name = row.partition(":")
            fields[source, file, number].add(name)
    texts: set[str] = set()
    for source in sorted({source for source, _, _ in fields} & set(adapters.names())):
        for _, one in adapters.get(source).read(raw / source):
            names = set().union(*(fields.get((source, *row.rsplit("#", 1)), set()) for row in one.meta["rows"]))
            texts.update(normalise(turn.content) for name in names for turn in _turns_of(one, name))
    return frozenset(text for text in texts if telling(text))


def _turns_of(one: Dialogue, name: str) -> Iterable[Message]:
    if name.isdigit():  # an exchange, counted from 0
        return [turn for turn in one.messages if turn.role != "system"][2 * int(name) :][:2]
    role = {"context": "user", "response": "assistant"}.get(name)
    return [turn for turn in one.messages if role is None or turn.role == role]


# -- near copies ---------------------------------------------------------------------------------------------------------------------------


class Owner(NamedTuple):
    """Where a text stands: as a labelled turn, or (without labels) as a whole dialogue."""

    split: str
    source: str
    labels: Mapping[str, float]


Shingles = np.ndarray[Any, np.dtype[np.uint32]]


class Index:
    """Distinct texts with their owners, found again by exact or near text. Memory grows by about 3 kB a text."""

    def __init__(self) -> None:
        # imported here, so that the other verbs work without it
        from datasketch import MinHash, MinHashLSH

        self._minhash = MinHash(num_perm=PERMUTATIONS, scheme="affine32", hashfunc=int)
        self._lsh = MinHashLSH(num_perm=PERMUTATIONS, params=(BANDS, PERMUTATIONS // BANDS))
        self._owners: dict[str, list[Owner]] = {}
        self._texts: list[str] = []
        self._shingles: list[Shingles] = []

    def _sketch(self, shingles: Shingles) -> Any:
        sketch = self._minhash.copy()
        sketch.update_batch(shingles)
        return sketch

    def add(self, text: str, owner: Owner) -> None:
        """Adds a normalised text."""
        owners = self._owners.setdefault(text, [])
        owners.append(owner)
        if len(owners) == 1 and telling(text):
            self._shingles.append(shingles_of(text))
            self._lsh.insert(len(self._texts), self._sketch(self._shingles[-1]))
            self._texts.append(text)

    def exact(self, text: str) -> Sequence[Owner]:
        """The owners of this text."""
        return self._owners.get(text, ())

    def near(self, text: str) -> list[Owner]:
        """The owners of near copies, without those of the text itself."""
        if not telling(text):
            return []
        shingles = shingles_of(text)
        found = (number for number in sorted(self._lsh.query(self._sketch(shingles))) if self._texts[number] != text)
        return [owner for number in found if jaccard(shingles, self._shingles[number]) >= JACCARD for owner in self._owners[self._texts[number]]]


def shingles_of(text: str) -> Shingles:
    """Hashes of the runs of three words in a normalised text, sorted, each once."""
    words = text.split()
    runs = {zlib.crc32(" ".join(words[start : start + SHINGLE_WORDS]).encode()) for start in range(max(1, len(words) - SHINGLE_WORDS + 1))}
    return np.array(sorted(runs), dtype=np.uint32)


def jaccard(one: Shingles, other: Shingles) -> float:
    """Jaccard similarity of two sets, 0…1."""
    if min(len(one), len(other)) < JACCARD * max(len(one), len(other)):
        return 0.0
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)


def contradict(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether a label that both know differs by more than `CONTRADICTION`."""
    return any(abs(value - other[name]) > CONTRADICTION for name, value in one.items() if name in other and name != "persistence")


# -- decisions -----------------------------------------------------------------------------------------------------------------------------


class Turn(NamedTuple):
    """A labelled turn: its place, its normalised text and its labels."""

    place: int
    text: str
    labels: Mapping[str, float]


@dataclass(frozen=True)
class Record:
    """What is compared of a dialogue."""

    split: str
    source: str
    id: str
    turns: tuple[Turn, ...]
    whole: str

    @property
    def single(self) -> bool:
        """Whether the dialogue is one turn and no more."""
        return len(self.turns) == 1 and self.turns[0].text == self.whole

    @property
    def rank(self) -> tuple[bool, int, int, str, str]:
        """Lower ranks keep their copies: validation, precise sources, many known labels."""
        known = sum(len(turn.labels) for turn in self.turns)
        return self.split != "validation", precision(self.source), -known, self.source, self.id

    @property
    def long(self) -> bool:
        """Whether the conversation outlives a copied turn."""
        return len(self.turns) >= LONG_TURNS


def record_of(dialogue: Dialogue, split: str) -> Record:
    """The dialogue as it is compared."""
    texts = [normalise(turn.content) or turn.content for turn in dialogue.messages]
    turns = tuple(Turn(place, texts[place], turn.labels) for place, turn in enumerate(dialogue.messages) if turn.labels)
    whole = texts[0] if len(texts) == 1 else "\n ".join(f"{turn.role} {text}" for turn, text in zip(dialogue.messages, texts, strict=True))
    return Record(split, dialogue.source, dialogue.id, turns, whole)


@dataclass
class Decisions:
    """What becomes of the dialogues, by source and id.

    Attributes:
        dropped: reason.
        unlabelled: places of turns that lose their labels.
        contradictions: (dropped source, kept source) of exact copies to how often their labels contradict each other.
    """

    dropped: dict[tuple[str, str], str] = field(default_factory=dict)
    unlabelled: dict[tuple[str, str], set[int]] = field(default_factory=dict)
    contradictions: Counter[tuple[str, str]] = field(default_factory=Counter)


class Cleaner:
    """Looks at dialogues in the order of their rank and keeps what is new. Not for use from several threads."""

    def __init__(self, listed: frozenset[str]) -> None:
        self._listed = listed
        self._index = Index()
        self.decisions = Decisions()

    def own(self, dialogues: Iterable[Dialogue], split: str) -> None:
        """Takes conversations that are never changed, and are held back or trained on."""
        for dialogue in dialogues:
            self._keep(record_of(dialogue, split))

    def decide(self, records: Sequence[Record]) -> None:
        """Decides on public dialogues, by rank; those that are decided on earlier go before all of these."""
        trained = {turn.text for record in records if record.split == "train" for turn in record.turns}
        for record in sorted(records, key=lambda record: record.rank):
            if not record.turns:
                self.decisions.dropped[record.source, record.id] = "no_labels"
                continue
            if record.long:
                shared = trained if record.split == "validation" else frozenset[str]()
                self._unlabel(record, {turn.place for turn in record.turns if telling(turn.text) and (turn.text in shared or self._clash(record, turn))})
                left = self.decisions.unlabelled.get((record.source, record.id), set())
                record = replace(record, turns=tuple(turn for turn in record.turns if turn.place not in left))
            reason = self._reason(record)
            if reason:
                self.decisions.dropped[record.source, record.id] = reason
            else:
                self._keep(record)

    def _unlabel(self, record: Record, places: set[int]) -> None:
        if places:
            self.decisions.unlabelled[record.source, record.id] = places

    def _keep(self, record: Record) -> None:
        for turn in record.turns:
            self._index.add(turn.text, Owner(record.split, record.source, turn.labels))
        if not record.single:
            self._index.add(record.whole, Owner(record.split, record.source, {}))

    def _clash(self, record: Record, turn: Turn) -> str | None:
        """Why this very text may not be in the record's split."""
        if turn.text in self._listed:
            return "held_out_row"
        return _other_split(record, self._index.exact(turn.text))

    def _reason(self, record: Record) -> str | None:
        if not record.turns:
            return "other_split"
        for turn in record.turns:
            if telling(turn.text) and (reason := self._clash(record, turn)):
                return reason
        near = {turn.place: self._index.near(turn.text) for turn in record.turns}
        if not record.long:
            for owners in near.values():
                if reason := _other_split(record, owners):
                    return reason
        whole = () if record.single else (*self._index.exact(record.whole), *self._index.near(record.whole))
        if (record.single or _of(record, whole, own=True)) and self._repeats(record, near, own=True):
            return "copy"
        return "copy" if self._repeats(record, near, own=False) else None

    def _repeats(self, record: Record, near: Mapping[int, Sequence[Owner]], *, own: bool) -> bool:
        """Whether each labelled turn is a copy of one in the same split, in the same source or in others.

        Exact copies within a source whose labels contradict are contrast pairs too (adapters have merged what is the same but for these).
        """
        turns = [turn for turn in record.turns if own or record.single or telling(turn.text)]
        clashes: set[tuple[str, str]] = set()
        for turn in turns:
            exact = _of(record, self._index.exact(turn.text), own=own)
            agree = any(not contradict(turn.labels, owner.labels) for owner in (*exact, *_of(record, near[turn.place], own=own)))
            if not agree and (own or not exact):
                return False
            if not agree:
                clashes.add((record.source, exact[0].source))
        self.decisions.contradictions.update(clashes)
        return bool(turns)


def _of(record: Record, owners: Iterable[Owner], *, own: bool) -> list[Owner]:
    """The owners in the record's split, in its own source or in others."""
    return [owner for owner in owners if owner.split == record.split and (owner.source == record.source) == own]


def _other_split(record: Record, owners: Iterable[Owner]) -> str | None:
    splits = {owner.split for owner in owners} - {record.split}
    return "held_back" if HELD in splits else "other_split" if splits else None


# -- the verb ------------------------------------------------------------------------------------------------------------------------------


def clean(prepared: Path, out: Path, raw: Path, *, reviewed: Reviewed | None = None, own_train: Sequence[Path], own_held: Sequence[Path]) -> dict[str, Any]:
    """Writes OUT/<source>/{train,validation}.jsonl, counts.json, held_out.txt and clean.json, and gives the contents of clean.json.

    The same inputs give the same bytes. Held in memory: the normalised labelled turns and their index.

    Args:
        prepared: folder made by `prepare`.
        out: folder to write to; made if needed.
        raw: folder with the raw sources and the list of held-out overlaps.
        reviewed: decisions on single turns; those of the package if None.
        own_train: conversations of ours that are trained on; public copies go.
        own_held: conversations of ours that are held back; public copies go.

    Raises:
        DataError: a missing file, a broken line, or `out` is `prepared`.
    """
    if out.resolve() == prepared.resolve():
        raise DataError("found the folder of the prepared sources, expected another one", where=str(out), field="out")
    counts = _read_counts(prepared)
    reviewed = read_reviewed() if reviewed is None else reviewed
    listed = listed_texts(raw / OVERLAP_FILE, raw)
    cleaner = Cleaner(listed)
    for paths, split in ((own_held, HELD), (own_train, "train")):
        for path in paths:
            cleaner.own(read_dialogues(path), split)
    permissive = {name for name, entry in read_registry().sources.items() if entry.licence_class == "permissive"}
    for sources in (permissive & counts.keys(), counts.keys() - permissive):
        records = []
        for source in sorted(sources):
            for split in SPLITS:
                for dialogue in _dialogues(prepared, source, split):
                    if reviewed.drops(dialogue):
                        cleaner.decisions.dropped[source, dialogue.id] = "reviewed"
                    else:
                        records.append(record_of(reviewed.mend(dialogue), split))
        cleaner.decide(records)
    report = _write(prepared, out, counts, reviewed, cleaner.decisions)
    (out / HELD_OUT_FILE).write_text("".join(f"{key}\n" for key in sorted(map(text_key, listed))), encoding="utf-8")
    return report


def _read_counts(prepared: Path) -> dict[str, Any]:
    path = prepared / COUNTS_FILE
    if not path.is_file():
        raise DataError("found no such file, expected the counts that `lastresort data prepare` writes", where=str(path))
    counts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return counts


def _dialogues(prepared: Path, source: str, split: str) -> Iterator[Dialogue]:
    return read_dialogues(prepared / source / f"{split}.jsonl")


def _write(prepared: Path, out: Path, counts: Mapping[str, Any], reviewed: Reviewed, decisions: Decisions) -> dict[str, Any]:
    new_counts: dict[str, Any] = {}
    by_source: dict[str, Any] = {}
    for source in sorted(counts):
        kept = []
        reasons: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        for split in SPLITS:
            after = []
            for dialogue in _dialogues(prepared, source, split):
                if (source, dialogue.id) in decisions.dropped:
                    reasons[split][decisions.dropped[source, dialogue.id]] += 1
                    continue
                mended = reviewed.mend(dialogue)
                after.append(_changed(mended, decisions))
                reasons[split]["unlabelled_turns"] += len(decisions.unlabelled.get((source, dialogue.id), ()))
                reasons[split]["relabelled_turns"] += sum(one != other for one, other in zip(mended.messages, dialogue.messages, strict=True))
            (out / source).mkdir(parents=True, exist_ok=True)
            write_dialogues(after, out / source / f"{split}.jsonl")
            kept += [(split, dialogue) for dialogue in after]
        found = count(kept)
        new_counts[source] = {**counts[source], "train": found.train, "validation": found.validation, "positives": dict(found.positives)}
        by_source[source] = {split: {reason: n for reason, n in sorted(numbers.items()) if n} for split, numbers in reasons.items()}
    totals: Counter[str] = Counter()
    for source in by_source.values():
        for numbers in source.values():
            totals.update(numbers)
    contradictions = {" / ".join(pair): n for pair, n in sorted(decisions.contradictions.items())}
    report = {"all": dict(sorted(totals.items())), "by_source": by_source, "exact copies whose labels contradict (dropped / kept)": contradictions}
    (out / COUNTS_FILE).write_text(json.dumps(new_counts, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (out / CLEAN_FILE).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def _changed(dialogue: Dialogue, decisions: Decisions) -> Dialogue:
    places = decisions.unlabelled.get((dialogue.source, dialogue.id), set())
    return replace(dialogue, messages=tuple(replace(turn, labels={}) if place in places else turn for place, turn in enumerate(dialogue.messages)))
