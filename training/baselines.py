"""Two baselines on the same split: TF-IDF and frozen encoder embeddings, each with one logistic regression a label.

They see one turn without its past. Their scores are stored in the shape of `lastresort score`, so that `evaluate --baseline` puts them into the same table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from transformers import AutoModel

from lastresort.artifact import load_folder, shipped_model
from lastresort.data import dumps, read_dialogues, scored_to_json
from lastresort.encoding import TOKEN_TYPE, TurnEncoder, normalise
from lastresort.types import Dialogue, LabelSpec, ScoredDialogue, ScoredTurn

from .model import resolve_base

TFIDF, FROZEN = "tfidf-lr", "frozen-minilm-lr"
SOLVER_STEPS = 300


def scored_turns(dialogues: Sequence[Dialogue], speaker: str) -> list[tuple[int, int]]:
    """(dialogue, message) places of the turns of `speaker`."""
    return [(d, m) for d, dialogue in enumerate(dialogues) for m, message in enumerate(dialogue.messages) if message.role == speaker]


def fit_and_score(train_features: Any, validation_features: Any, train_values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """Probabilities on validation of a logistic regression fitted on the known training turns; None if one class is missing there."""
    known = ~np.isnan(train_values)
    hard = (train_values[known] >= 0.5).astype(int)
    if len(set(hard.tolist())) < 2:
        return None
    model = LogisticRegression(C=1.0, max_iter=SOLVER_STEPS, class_weight="balanced")
    model.fit(train_features[np.flatnonzero(known)], hard)
    return np.asarray(model.predict_proba(validation_features)[:, 1])


def embed(texts: Sequence[str], encoder: TurnEncoder, base: str) -> np.ndarray[Any, Any]:
    """Mean-pooled embeddings of the pretrained encoder, shape (n, width), unit length; the first window of each text."""
    model = AutoModel.from_pretrained(resolve_base(base), add_pooling_layer=False).eval()
    windows = [encoder.windows(text)[0] for text in texts]
    order = sorted(range(len(windows)), key=lambda place: len(windows[place]))
    result = np.zeros((len(windows), model.config.hidden_size), dtype=np.float32)
    for start in range(0, len(order), 64):
        places = order[start : start + 64]
        length = max(len(windows[place]) for place in places)
        ids = torch.zeros(len(places), length, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, place in enumerate(places):
            ids[row, : len(windows[place])] = torch.tensor(windows[place])
            mask[row, : len(windows[place])] = 1
        with torch.no_grad():
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        pooled = (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        result[places] = torch.nn.functional.normalize(pooled, dim=-1).numpy()
    return result


def score_baseline(
    name: str, train: Sequence[Dialogue], validation: Sequence[Dialogue], labels: Sequence[LabelSpec], encoder: TurnEncoder, base: str
) -> Iterator[ScoredDialogue]:
    """One baseline's scores for every validation dialogue."""
    scores: dict[tuple[int, int], dict[str, float]] = {}
    for speaker in TOKEN_TYPE:
        places, targets = scored_turns(train, speaker), scored_turns(validation, speaker)
        if not places or not targets:
            continue
        train_texts = [normalise(train[d].messages[m].content) for d, m in places]
        texts = [normalise(validation[d].messages[m].content) for d, m in targets]
        if name == TFIDF:
            vectoriser = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, max_features=200_000)
            train_features, features = vectoriser.fit_transform(train_texts), vectoriser.transform(texts)
        else:
            train_features, features = embed(train_texts, encoder, base), embed(texts, encoder, base)
        for label in labels:
            if label.speaker != speaker:
                continue
            values = np.array([train[d].messages[m].labels.get(label.name, np.nan) for d, m in places], dtype=float)
            probabilities = fit_and_score(train_features, features, values)
            if probabilities is not None:
                for place, probability in zip(targets, probabilities, strict=True):
                    scores.setdefault(place, {})[label.name] = float(probability)
    for d, dialogue in enumerate(validation):
        turns = tuple(ScoredTurn(m, message.role, scores.get((d, m), {}), int(message.role in TOKEN_TYPE)) for m, message in enumerate(dialogue.messages))
        yield ScoredDialogue(dialogue.id, name, "continue", None, turns)


def run_baselines(train_files: Sequence[Path], validation_files: Sequence[Path], output: Path, model: Path | None, base: str) -> None:
    """Fits both baselines and writes their scores as JSON lines."""
    folder = load_folder(model or shipped_model())
    encoder = TurnEncoder.from_file(folder.tokenizer_path, folder.manifest.encoding)
    train = [dialogue for path in train_files for dialogue in read_dialogues(path)]
    validation = [dialogue for path in validation_files for dialogue in read_dialogues(path)]
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("w", encoding="utf-8") as stream:
        for name in (TFIDF, FROZEN):
            for scored in score_baseline(name, train, validation, folder.manifest.labels, encoder, base):
                stream.write(dumps(scored_to_json(scored)) + "\n")
