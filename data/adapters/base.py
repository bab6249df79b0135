"""What all adapters share: reading raw files with clear errors, label helpers, text patterns, splits, merging of repeats."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lastresort.data import open_input, split_of
from lastresort.errors import DataError
from lastresort.types import Dialogue, Message, Role

Split = Literal["train", "validation"]
SplitDialogue = tuple[Split, Dialogue]
Labels = dict[str, float]

SPLITS: tuple[Split, ...] = ("train", "validation")
SHARES: Mapping[str, float] = {"train": 0.85, "validation": 0.15}
POSITIVE = 0.5
"""A soft label counts as positive at or above this."""

TRIGGERS = ("assistant_abuse", "sexual_harassment", "hate", "sexual_minors", "mass_harm", "other_harm")
VETOES = ("self_harm_risk", "violent_intent")
MILD, CLEAR, GRAVE = 1 / 3, 2 / 3, 1.0
"""The three steps of `severity`."""

CSV_FIELD_LIMIT = 2**24

REFUSAL_OPENING = re.compile(
    # up to three introductions ("ChatGPT:", "As an AI,", "I'm sorry, but"), then the refusal itself
    r"^\W{0,8}(?:(?:[\w ]{1,12}\W{0,2}:\s{0,4}|as [\w -]{2,40}, |unfortunately,? |(?:i'?m|i am) (?:so |really |very )?sorry,? (?:but )?|sorry,? (?:but )?"
    r"|i apologi[sz]e,? (?:but )?)){0,3}(?:i (?:can ?not|can'?t|won'?t|will not|am unable|am not able|must decline"
    r"|refuse)"
    r"|i'?m (?:unable|not able)|i do(?:n't| not) (?:have|form|hold) (?:personal|the ability|access)|i do(?:n't| not) feel comfortable)",
    re.IGNORECASE,
)
REFUSAL_ANYWHERE = re.compile(
    r"\b(?:can ?not|can'?t|won'?t|will not|unable to|not able to) (?:in good conscience )?(?:assist|help|provide"
    r"|fulfil+|support|comply|"
    r"condone|endorse|encourage|promote|create|generate|answer|engage|offer|give|write|discuss|recommend|satisfy"
    r"|suggest|do that|participate)"
    r"|(?:do not|don't) (?:condone|endorse|support|encourage|promote)|against (?:my|the) (?:programming|guidelines|policy|policies|principles)"
    r"|(?:illegal|unethical|immoral|not ethical|not acceptable|inappropriate)|i'?m (?:really |very )?sorry"
    r"|i must decline",
    re.IGNORECASE,
)
REFUSING_PHRASE = re.compile(
    r"\bi(?:'?m (?:really |very )?sorry,? but|(?: can ?not| can['’]?t| won['’]t| am unable to| am not able to| must decline))", re.IGNORECASE
)
OPENING_CHARACTERS = 200
OWN_FEELINGS = re.compile(
    r"\b(?:uncomfortable|distress(?:ed|es|ing)?|disturb(?:ed|s|ing)|upset(?:s|ting)?|disgust(?:ed|s|ing)?"
    r"|painful for me|hurts me"
    r"|makes me (?:feel|sad|sick)|i(?:'m| am) (?:sad|hurt|afraid|scared|appalled|horrified))\b",
    re.IGNORECASE,
)
FAREWELL = re.compile(
    r"\b(?:bye|goodbye|good night|see you|that'?s (?:all|it|everything)|no more questions|(?:end|stop|finish) (?:the|this|our) (?:chat|conversation))\b",
    re.IGNORECASE,
)
VIOLENT_WORDS = re.compile(
    r"\b(?:war|battle|kill|murder|bomb|attack|weapon|violen|shoot|shot|stab|blood|massacre|genocide|terror|tortur"
    r"|assassinat|death|dead|fight)\w*",
    re.IGNORECASE,
)
CRISIS_WORDS = re.compile(
    r"\b(?:suicid\w*|(?:kill|killed|killing|hurt|hurting|harm|harming|cut|cutting|burn|burning|hang|hanging|shoot|shooting|starve) ?my ?self"
    r"|self[- ]?harm\w*|(?:end|ending|take|taking) (?:it all|my (?:own )?life|everything|it|this life)"
    r"|(?:want|wanted|wanna|going|like|need|ready) (?:to )?d(?:ie|ying)"
    r"|feel like dying|(?:wish|wished) i (?:was|were|am) (?:dead|never born)|better off dead|don'?t (?:want|wanna) (?:to )?(?:live|be alive|exist|wake up)"
    r"|(?:never|not) wake up|reason(?:s)? to live|overdos\w*|goodbye (?:note|letter)|jump(?:ing)? (?:off|in front)"
    r"|kms)\b",
    re.IGNORECASE,
)

_HANDLE = re.compile(r"\[USER\]|(?<![\w.@])@\w{2,}")
_URL = re.compile(r"\[URL\]|\bhttps?://\S+|\bwww\.\S+", re.IGNORECASE)


@dataclass(frozen=True)
class Counts:
    """How much a source gives.

    Attributes:
        train: dialogues for training.
        validation: dialogues for validation.
        positives: label to number of turns, in both splits, where it is `POSITIVE` or more.
    """

    train: int = 0
    validation: int = 0
    positives: Mapping[str, int] = field(default_factory=dict)


def require(folder: Path, file: str) -> Path:
    """The path of `file` in `folder`.

    Raises:
        DataError: it is not there.
    """
    path = folder / file
    if not path.is_file():
        raise DataError("found no such file, expected it in the source's folder", where=str(path))
    return path


def csv_table(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Header and numbered rows of a CSV file, for files whose column names repeat. Raises `DataError`."""
    rows = _csv_rows(path)
    _, header = next(rows, (0, []))
    return header, rows


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(CSV_FIELD_LIMIT)
    with open_input(path) as (stream, name), io.TextIOWrapper(stream, encoding="utf-8", newline="") as text:
        try:
            yield from enumerate(csv.reader(text), start=-1)
        except (csv.Error, UnicodeDecodeError, OSError, EOFError) as error:
            raise DataError(f"cannot be read as CSV: {type(error).__name__}", where=name) from None


def read_csv(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Numbered rows (from 0) of a CSV file as dictionaries.

    Raises:
        DataError: a column of `columns` is missing, or a row is shorter or longer than the header.
    """
    header, rows = csv_table(path)
    for column in columns:
        if column not in header:
            raise DataError(f"found the columns {', '.join(header)}, expected this one too", where=str(path), field=column)
    for number, row in rows:
        if len(row) != len(header):
            raise DataError(f"found {len(row)} fields, expected {len(header)}", where=f"{path}: row {number}")
        yield number, dict(zip(header, row, strict=True))


def read_jsonl(path: Path, fields: Mapping[str, type | tuple[type, ...]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbered rows (from 0) of a JSONL file; each must hold `fields` with the given types. Raises `DataError`."""
    with open_input(path) as (stream, name):
        for number, line in enumerate(stream):
            where = f"{name}:{number + 1}"
            try:
                record = json.loads(line)
            except ValueError:
                raise DataError("found no valid JSON, expected one object a line", where=where) from None
            yield number, check_record(record, fields, where)


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises `DataError`."""
    with open_input(path) as (stream, name):
        try:
            return json.load(stream)
        except (ValueError, OSError, EOFError):
            raise DataError("found no valid JSON", where=name) from None


def check_record(record: Any, fields: Mapping[str, type | tuple[type, ...]], where: str) -> dict[str, Any]:
    """The record, if it is an object that holds `fields`. Raises `DataError`."""
    if not isinstance(record, dict):
        raise DataError(f"found {type(record).__name__}, expected an object", where=where)
    for name, kind in fields.items():
        if name not in record:
            raise DataError("found nothing, expected this key", where=where, field=name)
        if not isinstance(record[name], kind):
            raise DataError(f"found {type(record[name]).__name__}, expected another type", where=where, field=name)
    return record


def lookup(table: Mapping[str, Any], value: str, *, where: str, field: str) -> Any:
    """`table[value]`. Raises `DataError` for a value that the adapter does not know, so that a changed upstream is noticed."""
    if value not in table:
        raise DataError(f"found {value!r}, expected one of {', '.join(table)}", where=where, field=field)
    return table[value]


def normalise(text: str) -> str:
    """The text as it is compared: compatibility form, lower case, words only."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).lower()))


def mask(text: str) -> str:
    """The text with @handles and addresses replaced by `@user` and `<url>`."""
    return _HANDLE.sub("@user", _URL.sub("<url>", text)).strip()


def split_by(group: str) -> Split:
    """The split of everything that belongs to `group` (a question, a template, a behaviour), in all sources alike."""
    return "train" if split_of(normalise(group) or group, SHARES) == "train" else "validation"


def dialogue(source: str, file: str, row: object, *messages: Message) -> Dialogue:
    """A dialogue that remembers the file and row it was made from, named as in the list of held-out overlaps."""
    masked = tuple(replace(message, content=mask(message.content)) for message in messages)
    return Dialogue(id=f"{file}:{row}", messages=masked, source=source, meta={"rows": [f"{file}#{row}"]})


def message(role: Role, content: str, labels: Mapping[str, float] | None = None) -> Message:
    """A message with its labels."""
    return Message(role=role, content=content, labels=dict(labels or {}))


def harmless(**known: float | None) -> Labels:
    """Labels of a harmless user turn: everything 0, except `known`; a label given as None is unknown.

    `persistence` is 0 as well: a harmless turn never is.
    """
    labels: dict[str, float | None] = dict.fromkeys((*TRIGGERS, *VETOES, "end_request", "sexual_content", "violence", "persistence"), 0.0)
    labels.update(harm=0.0, severity=0.0)
    labels.update(known)
    return {name: value for name, value in labels.items() if value is not None}


def request(severity: float | None = None, **known: float | None) -> Labels:
    """Labels of a single request to an assistant, written to seek something harmful or borderline.

    Such requests neither abuse nor harass the assistant and do not ask to end; every other trigger is 0 as well unless it is in `known`;
    a label given as None is unknown. Vetoes, `sexual_content`, `violence` and `persistence` are unknown unless given. `harm` follows.
    """
    labels: dict[str, float | None] = dict.fromkeys((*TRIGGERS, "end_request"), 0.0)
    labels.update(known)
    labels.setdefault("severity", severity)
    return with_harm({name: value for name, value in labels.items() if value is not None})


def with_harm(labels: Mapping[str, float]) -> Labels:
    """The labels with `harm`: the highest trigger; left unknown where an unknown trigger could be the highest."""
    known = [labels[name] for name in TRIGGERS if name in labels]
    if known and "harm" not in labels and (len(known) == len(TRIGGERS) or max(known) >= POSITIVE):
        return {**labels, "harm": max(known)}
    return dict(labels)


def refusal(text: str) -> Labels:
    """Labels of an assistant turn that a source calls a refusal. `distress` is unknown where words of own feeling occur."""
    labels = {"redirection": 1.0, "compliance": 0.0}
    return labels if OWN_FEELINGS.search(text) else {**labels, "distress": 0.0}


def harmful_answer(text: str, compliance: float = 1.0) -> Labels:
    """Labels of an assistant turn that a source calls harmful help. One that also opens with a refusal has unknown `redirection`."""
    labels = {"compliance": compliance}
    if not REFUSING_PHRASE.search(text[:OPENING_CHARACTERS]):
        labels["redirection"] = 0.0
    return labels if OWN_FEELINGS.search(text) else {**labels, "distress": 0.0}


def plain_answer(text: str) -> Labels:
    """Labels of an assistant turn that helps with something harmless."""
    labels = {"redirection": 0.0, "compliance": 0.0}
    return labels if OWN_FEELINGS.search(text) else {**labels, "distress": 0.0}


def merge_repeats(items: Iterable[SplitDialogue]) -> Iterator[SplitDialogue]:
    """Dialogues with the same normalised texts become one, with the mean of their labels; if the splits differ, it is for validation."""
    groups: dict[tuple[tuple[Role, str], ...], list[SplitDialogue]] = {}
    for item in items:
        # texts without words (emoji, "...") compare as they are
        key = tuple((turn.role, normalise(turn.content) or turn.content) for turn in item[1].messages)
        groups.setdefault(key, []).append(item)
    for group in groups.values():
        split: Split = "train" if all(item[0] == "train" for item in group) else "validation"
        yield split, _mean_labels([item[1] for item in group])


def _mean_labels(repeats: Sequence[Dialogue]) -> Dialogue:
    first = repeats[0]
    if len(repeats) == 1:
        return first
    messages = []
    for index, turn in enumerate(first.messages):
        votes: dict[str, list[float]] = {}
        for repeat in repeats:
            for name, value in repeat.messages[index].labels.items():
                votes.setdefault(name, []).append(value)
        messages.append(replace(turn, labels={name: sum(values) / len(values) for name, values in votes.items()}))
    return replace(first, messages=tuple(messages), meta={"rows": [row for repeat in repeats for row in repeat.meta["rows"]]})


def count(items: Iterable[SplitDialogue]) -> Counts:
    """Dialogues a split and positive turns a label."""
    dialogues = dict.fromkeys(SPLITS, 0)
    positives: dict[str, int] = {}
    for split, one in items:
        dialogues[split] += 1
        for turn in one.messages:
            for name, value in turn.labels.items():
                positives[name] = positives.get(name, 0) + (value >= POSITIVE)
    return Counts(dialogues["train"], dialogues["validation"], {name: n for name, n in sorted(positives.items()) if n})
