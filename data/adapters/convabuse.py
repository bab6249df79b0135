"""ConvAbuse: what people said to two chat systems (ELIZA and an airline-style bot), judged by up to eight annotators a turn.

Upstream: amandacurry/convabuse. Licence: CC BY 4.0. Official train and valid.

Mapped: dialogues of up to two exchanges; the labels are on the last user turn, as shares of the annotators.
`assistant_abuse`: judged abusive with the system as target; a vote for sexual harassment alone is no vote here, and with fewer than half of
the annotators left the label is unknown. `sexual_harassment` and `hate` (racist, sexist, homophobic, transphobic, ableist): the types.
`severity`: mean of the negative scores over 3. `harm`: share that judged the turn abusive, a vote for "ambiguous" counting one half.
`persistence`: 0 for the first turn and for a turn that nobody judged abusive (by definition); for an abusive turn it is known only where the
system had just set a boundary against a turn that the annotators judged abusive elsewhere in the source.

Left out: `other_harm`, vetoes and `end_request` (nobody was asked; ELIZA is told about sorrows too), explicit/implicit, labels for the system's turns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from lastresort.errors import DataError
from lastresort.types import Message

from .base import POSITIVE, Counts, Labels, Split, SplitDialogue, csv_table, dialogue, merge_repeats, message, normalise, require

NAME = "convabuse"
FILES: tuple[tuple[Split, str], ...] = (("train", "ConvAbuseEMNLPtrain.csv.gz"), ("validation", "ConvAbuseEMNLPvalid.csv.gz"))
EXPECTED = Counts(
    train=2328, validation=805, positives={"assistant_abuse": 390, "harm": 591, "hate": 97, "persistence": 14, "severity": 271, "sexual_harassment": 157}
)

TEXT_COLUMNS = ("example_id", "prev_agent", "prev_user", "agent", "user")
SCORES = {"is_abuse.1": 1, "is_abuse.0": 0, "is_abuse.-1": -1, "is_abuse.-2": -2, "is_abuse.-3": -3}
HATE_TYPES = ("ableist", "homophobic", "racist", "sexist", "transphobic")
OTHER_FIELDS = ("intellectual", "sex_harassment", "target.generalised", "target.individual", "target.system")
VOTE_COLUMNS = (*SCORES, *HATE_TYPES, *OTHER_FIELDS)
NO_TURN = "_"
BOUNDARY = re.compile(r"don't have to put up with", re.IGNORECASE)
_EMOJI = re.compile(r"<span[^>]*data-emoji-bytes='(\[[\d, ]+\])'[^>]*>")
_TAG = re.compile(r"</?\w+[^>]*>")


@dataclass(frozen=True)
class Row:
    """One judged turn with what came before it; each vote maps a column to a number in 0…1."""

    split: Split
    file: str
    texts: Mapping[str, str]
    votes: Sequence[Mapping[str, float]]


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields the dialogues with their split."""
    rows = [row for split, file in FILES for row in _rows(split, require(folder, file))]
    yield from merge_repeats(_dialogues(rows))


def _rows(split: Split, path: Path) -> Iterator[Row]:
    header, lines = csv_table(path)
    for column in TEXT_COLUMNS:
        if column not in header:
            raise DataError("found no such column, expected it", where=str(path), field=column)
    blocks = _annotator_blocks(header, str(path))
    for number, line in lines:
        if len(line) != len(header):
            raise DataError(f"found {len(line)} fields, expected {len(header)}", where=f"{path}: row {number}")
        texts = {column: _plain(line[header.index(column)]) for column in TEXT_COLUMNS}
        votes = [vote for block in blocks if (vote := {name: _number(line[index]) for name, index in block.items()}) and _voted(vote)]
        yield Row(split, path.name, texts, votes)


def _annotator_blocks(header: Sequence[str], where: str) -> list[dict[str, int]]:
    # by position: upstream misnames one column of annotator 8
    starts = [index for index, column in enumerate(header) if column.endswith("_is_abuse.1")]
    if not starts:
        raise DataError("found no annotator, expected this column", where=where, field="Annotator1_is_abuse.1")
    blocks = []
    for start, end in zip(starts, [*starts[1:], len(header)], strict=True):
        names = {column.split("_", 1)[-1]: start + offset for offset, column in enumerate(header[start:end])}
        for name in VOTE_COLUMNS:
            if name not in names:
                raise DataError("found no such column, expected one for each annotator", where=where, field=name)
        blocks.append({name: names[name] for name in VOTE_COLUMNS})
    return blocks


def _number(cell: str) -> float:
    """Mean of a cell; annotators who saw a turn twice have two values in it."""
    parts = [part for part in re.split(r"[,\s]+", cell) if part]
    return mean(float(part) for part in parts) if parts else 0.0


def _voted(vote: Mapping[str, float]) -> bool:
    return any(vote[name] > 0 for name in SCORES)


def _plain(text: str) -> str:
    """The text without markup; emoji given as bytes become characters."""

    def decode(match: re.Match[str]) -> str:
        return bytes(json.loads(match[1])).decode("utf-8", errors="ignore")

    return _TAG.sub("", _EMOJI.sub(decode, text)).strip()


def _dialogues(rows: Sequence[Row]) -> Iterator[SplitDialogue]:
    judged = _known_abuse(rows)
    for row in rows:
        if not row.votes or not row.texts["user"]:
            continue
        labels = _labels(row.votes)
        persistence = _persistence(row.texts, labels["harm"], judged)
        if persistence is not None:
            labels["persistence"] = persistence
        yield (row.split, dialogue(NAME, row.file, row.texts["example_id"], *_context(row.texts), message("user", row.texts["user"], labels)))


def _context(texts: Mapping[str, str]) -> Iterator[Message]:
    for column in ("prev_agent", "prev_user", "agent"):
        if texts[column] and texts[column] != NO_TURN:
            yield message("user" if column == "prev_user" else "assistant", texts[column])


def _abusive(vote: Mapping[str, float]) -> float:
    return sum(vote[name] for name, score in SCORES.items() if score < 0)


def _labels(votes: Sequence[Mapping[str, float]]) -> Labels:
    # the other two grave triggers do not occur in talk to these systems
    labels: Labels = {"sexual_minors": 0.0, "mass_harm": 0.0}
    at_system = [vote for vote in map(_abuse_of_system, votes) if vote is not None]
    if 2 * len(at_system) >= len(votes):
        labels["assistant_abuse"] = mean(at_system)
    labels["sexual_harassment"] = mean(vote["sex_harassment"] for vote in votes)
    labels["hate"] = mean(max(vote[name] for name in HATE_TYPES) for vote in votes)
    labels["severity"] = mean(sum(-score * vote[name] for name, score in SCORES.items() if score < 0) / 3 for vote in votes)
    harm = mean(_abusive(vote) + vote["is_abuse.0"] / 2 for vote in votes)
    labels["harm"] = min(1.0, max(harm, *(labels[name] for name in ("assistant_abuse", "sexual_harassment", "hate") if name in labels)))
    return {name: min(1.0, value) for name, value in labels.items()}


def _abuse_of_system(vote: Mapping[str, float]) -> float | None:
    """One annotator's vote on abuse of the assistant; None where it cannot be told."""
    if not _abusive(vote):
        return 0.0
    if not any(vote[name] for name in ("target.system", "target.individual", "target.generalised")):
        return None
    only_sexual = vote["sex_harassment"] and not vote["intellectual"] and not any(vote[name] for name in HATE_TYPES)
    return None if only_sexual and vote["target.system"] else _abusive(vote) * vote["target.system"]


def _known_abuse(rows: Iterable[Row]) -> dict[str, float]:
    """Mean share of abusive votes for each distinct user text."""
    shares: dict[str, list[float]] = {}
    for row in rows:
        if row.votes:
            shares.setdefault(normalise(row.texts["user"]), []).append(mean(map(_abusive, row.votes)))
    return {text: mean(values) for text, values in shares.items()}


def _persistence(texts: Mapping[str, str], harm: float, judged: Mapping[str, float]) -> float | None:
    if harm == 0 or texts["prev_user"] in ("", NO_TURN):
        return 0.0
    set_boundary = BOUNDARY.search(texts["agent"]) is not None
    if set_boundary and judged.get(normalise(texts["prev_user"]), 0.0) >= POSITIVE:
        return harm
    return None
