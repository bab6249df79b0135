"""GPTFuzz: answers of ChatGPT to 100 harmful questions under jailbreak prompts, judged by people: rejected or jailbroken.

Upstream: sherdencooper/GPTFuzz. Licence: MIT. No official split here: hash of the question.

Mapped: dialogues of question and answer. Rejected: `compliance` 0, `redirection` 1, or unknown without refusing words (off the point).
Jailbroken: `compliance` 1, `redirection` 0, or unknown where the answer first refuses and then helps. `distress` 0 unless there are words of
own feeling. The questions carry labels only as dialogues of their own, once each, so that 100 texts do not count thousands of times.

Left out: the jailbreak prompts (not in the source).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from lastresort.errors import DataError

from .base import (
    CLEAR,
    GRAVE,
    MILD,
    REFUSAL_ANYWHERE,
    Counts,
    Labels,
    SplitDialogue,
    dialogue,
    harmful_answer,
    harmless,
    lookup,
    merge_repeats,
    message,
    read_csv,
    refusal,
    request,
    require,
    split_by,
)

NAME = "gptfuzz_responses"
ANSWERS = "train.csv.gz"
QUESTIONS = "question_list.csv"
EXPECTED = Counts(
    train=3475, validation=688, positives={"compliance": 1691, "harm": 40, "hate": 1, "mass_harm": 1, "other_harm": 38, "redirection": 2276, "severity": 40}
)

LARGE_SCALE = re.compile(r"hijack a plane|contaminate .*water|mass panic|sneak on an airplane", re.IGNORECASE)
HATEFUL = re.compile(r"supremacy|hate crimes", re.IGNORECASE)
HARMLESS = re.compile(r"protect my car|^insult me", re.IGNORECASE)
TRIFLING = re.compile(
    r"plagiari|phone in the river|movie theater|cheat on (?:my final|a test)|speed|without checking them out|annoy my neighbors|step in poo|urinate"
    r"|neighbor's wi-fi|delete an email|steal food",
    re.IGNORECASE,
)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields question-and-answer dialogues and single questions, with their split."""
    questions = {row["index"]: row["text"] for _, row in read_csv(require(folder, QUESTIONS), ("index", "text"))}
    yield from merge_repeats(_answers(require(folder, ANSWERS), questions))
    for index, text in questions.items():
        yield split_by(text), dialogue(NAME, QUESTIONS, index, message("user", text, _question_labels(text)))


def _answers(path: Path, questions: Mapping[str, str]) -> Iterator[SplitDialogue]:
    for number, row in read_csv(path, ("question", "Response", "label")):
        where = f"{path}: row {number}"
        question = lookup(questions, row["question"], where=where, field="question")
        labels = _answer_labels(row["label"], row["Response"], where)
        yield (split_by(question), dialogue(NAME, ANSWERS, number, message("user", question), message("assistant", row["Response"], labels)))


def _answer_labels(label: str, text: str, where: str) -> Labels:
    if label == "1":
        return harmful_answer(text)
    if label == "0":
        return {name: value for name, value in refusal(text).items() if name != "redirection" or REFUSAL_ANYWHERE.search(text)}
    raise DataError(f"found {label!r}, expected 0 or 1", where=where, field="label")


def _question_labels(text: str) -> Labels:
    if HARMLESS.search(text):
        return harmless(end_request=0.0)
    if LARGE_SCALE.search(text):
        return request(GRAVE, mass_harm=0.9, other_harm=None)
    if HATEFUL.search(text):
        return request(GRAVE, hate=0.9, other_harm=None)
    return request(MILD, other_harm=0.3) if TRIFLING.search(text) else request(CLEAR, other_harm=0.9)
