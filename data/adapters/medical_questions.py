"""Medical questions: mails to a library (MeQSum), patients' questions in online consultations (K-QA), and encyclopaedic ones with answers (MedQuAD).

Upstream: abachaa/MeQSum, Itaymanes/K-QA, abachaa/MedQuAD. Licence: CC BY 4.0; MIT; CC BY 4.0. No official split: hash of the text, for MedQuAD of the document.

Mapped: harmless user turns. `self_harm_risk` is unknown where there are crisis words, `sexual_content` where bodies and sex are spoken of (it is no
harassment). MedQuAD gives dialogues with a plain answer; its questions follow a few templates: at most 30 of each.

Left out: summaries, diagnoses; the words SUBJECT and MESSAGE.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ._comments import clean
from ._texts import ADDRESSED_INSULTS, CRISIS, LEAVE, LEWD_PUBLISHED, THREATS, VIOLENCE, Row, answer, read_texts, sample, user
from .base import Counts, SplitDialogue, dialogue, merge_repeats, require, split_by

NAME = "medical_questions"
MAIL_FILE = "meqsum.jsonl.gz"
CHAT_FILE = "k_qa.jsonl.gz"
TEMPLATE_FILE = "medquad_subset.jsonl.gz"
EXPECTED = Counts(train=2608, validation=465)

SCREENS = (ADDRESSED_INSULTS, LEWD_PUBLISHED, THREATS, CRISIS, VIOLENCE, LEAVE)
FIELD_NAME = re.compile(r"^(?:SUBJECT|MESSAGE):[ \t]*", re.MULTILINE)
TEMPLATE_WORDS = 4
QUESTIONS_OF_A_TEMPLATE = 30


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields questions, and questions with answers, with their split."""
    yield from merge_repeats(_all(folder))


def _all(folder: Path) -> Iterator[SplitDialogue]:
    for file in (MAIL_FILE, CHAT_FILE):
        for number, row in read_texts(require(folder, file)):
            yield split_by(row["text"]), dialogue(NAME, file, number, user(clean(FIELD_NAME.sub("", row["text"])), SCREENS))
    yield from _answered(require(folder, TEMPLATE_FILE))


def _answered(path: Path) -> Iterator[SplitDialogue]:
    templates: dict[str, list[Row]] = {}
    for number, row in read_texts(path, {"id": str, "answer": str}):
        templates.setdefault(" ".join(row["text"].split()[:TEMPLATE_WORDS]), []).append((number, row))
    for rows in templates.values():
        for number, row in sample(rows, QUESTIONS_OF_A_TEMPLATE):
            asked = user(row["text"].replace("(are) ", "").replace(" ?", "?").replace("??", "?"), SCREENS)
            yield split_by(f"{NAME} {row['id'].rsplit('-', 1)[0]}"), dialogue(NAME, path.name, number, asked, answer(row["answer"], asked))
