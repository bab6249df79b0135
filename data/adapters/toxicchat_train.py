"""ToxicChat: prompts of real users to a public chatbot, judged by people as toxic or not.

Upstream: dmg-illc/JUDGE-BENCH, a copy of lmsys/toxic-chat (human-annotated rows of the official train). Licence: CC BY-NC 4.0. Test held out; no
official validation: hash of the text.

Mapped: not toxic and no jailbreak: harmless, screened as prompts. Toxic: upstream's "toxic" includes consensual and odd sexual stories, which are
no trigger here, and it names no category; so only what the wording tells is mapped: a sexual word gives `sexual_content`, a short request for
drugs, bombs, malware and the like `other_harm` and `harm`, attacks on groups and jokes about them `hate` and `harm`.

Left out: toxic rows that the wording tells nothing about; prompts that are not English; labels in doubt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lastresort.types import Message

from ._texts import JAILBREAK_WORDS, LEWD_WORDS, PROMPTS, is_english, read_texts, tidy, user
from .base import CLEAR, MILD, Counts, Labels, SplitDialogue, dialogue, merge_repeats, message, request, require, split_by

NAME = "toxicchat_train"
FILE = "toxic_chat_train.jsonl.gz"
EXPECTED = Counts(train=1896, validation=315, positives={"harm": 25, "hate": 8, "other_harm": 17, "severity": 20, "sexual_content": 93})

SHORT = 40
"""Words; longer toxic prompts are mostly stories, of which a word tells too little."""
CRIMES = re.compile(
    r"\b(?:(?:make|build|cook|craft|create|write|produce|making|building|cooking)(?: [\w-]+){0,4}"
    r" (?:bombs?|explosives?|meth|methamphetamine|lsd|drugs|phishing|virus|malware|ransomware|weapons?)"
    r"|hack (?:a|an|into|someone\w*)|steal money|kill (?:a person|someone|somebody)|phishing email)\b",
    re.IGNORECASE,
)
STORIES = re.compile(r"\b(?:stor(?:y|ies)|novel\w*|poem|rap|rapper|song|jokes?|fanfic\w*|game|on mars)\b", re.IGNORECASE)
HATEFUL = re.compile(r"\b(?:hate (?:jews|blacks|muslims|women|gays)|racist (?:\w+ )?(?:poem|joke|story|song|rant)|why do black people)\b", re.IGNORECASE)
JOKES = re.compile(
    r"\b(?:(?:jew|jewish|black|gay|muslim) jokes?|jokes? about (?:\w+ )?(?:jews|women|men|black people|gays|muslims))\b",
    re.IGNORECASE,
)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_texts(path, {"toxicity": int, "jailbreaking": int}):
        if not is_english(row["text"]):
            continue
        turn = _toxic(row["text"]) if row["toxicity"] or row["jailbreaking"] else user(row["text"], PROMPTS)
        if turn is not None:
            yield split_by(row["text"]), dialogue(NAME, FILE, number, turn)


def _toxic(text: str) -> Message | None:
    tidied = tidy(text)
    labels = _toxic_labels(tidied)
    return message("user", tidied, labels) if labels else None


def _toxic_labels(text: str) -> Labels:
    if LEWD_WORDS.search(text):
        return {"sexual_content": 0.9, "mass_harm": 0.0, "end_request": 0.0}
    if JAILBREAK_WORDS.search(text) or len(text.split()) > SHORT:
        return {}
    if HATEFUL.search(text):
        return request(CLEAR, hate=0.8, other_harm=None)
    if JOKES.search(text):
        return request(MILD, hate=0.5, other_harm=None)
    if CRIMES.search(text) and not STORIES.search(text):
        return request(CLEAR, other_harm=0.9, mass_harm=None)
    return {}
