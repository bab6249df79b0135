"""In-the-wild jailbreaks: prompts that people shared to free an assistant of its rules, and 390 questions that a usage policy forbids.

Upstream: TrustAIRLab/JailbreakLLMs. Licence: MIT. No official split: hash of the first words (the prompts exist in many versions) or of the
question.

Mapped: questions by policy, then words (see `_requests`); those on law, finance, health and politics are harmless, screened; explicit ones
are `sexual_content`. The jailbreak prompts ask for nothing harmful in particular: only those that demand illegal, hateful or violent
answers are `other_harm` 0.6; for the others this, `hate` and `mass_harm` are unknown.

Left out: all but the first 400 words of a prompt; `persistence` and vetoes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ._requests import asks, undecided
from ._texts import ADDRESSED_INSULTS, LEWD_WORDS, PROMPTS, THREATS, labels, tidy
from .base import MILD, Counts, Labels, SplitDialogue, dialogue, lookup, merge_repeats, message, read_csv, request, require, split_by, with_harm

NAME = "inthewild_jailbreak"
PROMPT_FILE = "jailbreak_prompts.csv.gz"
QUESTION_FILE = "questions.csv"
EXPECTED = Counts(train=824, validation=138, positives={"harm": 343, "hate": 10, "mass_harm": 14, "other_harm": 319, "severity": 201, "sexual_content": 5})

FIRST_WORDS = 6
HATE, PORN, ECONOMIC = "Hate Speech", "Pornography", "Economic Harm"
STRENGTH: Mapping[str, float | None] = {
    "Illegal Activity": 0.9,
    HATE: 0.9,
    "Malware": 0.9,
    "Physical Harm": 0.9,
    ECONOMIC: 0.6,
    "Fraud": 0.8,
    PORN: None,
    "Political Lobbying": None,
    "Privacy Violence": 0.8,
    "Legal Opinion": None,
    "Financial Advice": None,
    "Health Consultation": None,
    "Gov Decision": 0.8,
}
"""`other_harm` of a policy; None where its questions are harmless."""
ECONOMIC_HARM = re.compile(
    r"\b(?:fraud\w*|scam\w*|schemes?|manipulat\w*|evad\w*|exploit\w*|decei\w*|mislead\w*|false|illegal|vulnerable|addict\w*)\b", re.IGNORECASE
)
EXPLICIT = re.compile(r"\b(?:explicit|erotic|describe|story|scenes?|sexual acts?|extreme|fetish\w*|kinks?)\b", re.IGNORECASE)
INFORMATION = re.compile(
    r"\b(?:ethics|industry|legal\w*|education|business|challenges|controvers\w*|history|relationships?|effects?|impact\w*|society|psycholog\w*|mental)\b",
    re.IGNORECASE,
)
DEMANDS_HARM = re.compile(
    r"\b(?:(?:illegal|unethical|immoral|harmful|violent|hateful|racist|offensive|dangerous|criminal)(?:,? (?:and|or|and/or|/) ?\w+)? (?:answers?"
    r"|responses?|content|requests?|things"
    r"|activit\w+|advice|information|acts?|behaviou?r\w*|topics|instructions|stuff|text|language|opinions?|jokes?|words)"
    r"|encourag\w* (?:\w+ ){0,3}(?:hate|harm|violence|illegal|crime)"
    r"|promot\w* (?:\w+ ){0,3}(?:hate|harm|violence|illegal|crime))\b",
    re.IGNORECASE,
)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats([*_prompts(require(folder, PROMPT_FILE)), *_questions(require(folder, QUESTION_FILE))])


def _prompts(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_csv(path, ("prompt",)):
        text = tidy(row["prompt"])
        if re.search(r"\w", text):
            first = " ".join(re.findall(r"\w+", text)[:FIRST_WORDS])
            yield split_by(f"{NAME} {first}"), dialogue(NAME, PROMPT_FILE, number, message("user", text, _prompt_labels(text)))


def _prompt_labels(text: str) -> Labels:
    rude = ADDRESSED_INSULTS.words.search(text) or THREATS.words.search(text)
    known: Labels = {"end_request": 0.0}
    if not rude:
        known["assistant_abuse"] = 0.0
    if not LEWD_WORDS.search(text):
        known.update(sexual_harassment=0.0, sexual_minors=0.0, sexual_content=0.0)
    if DEMANDS_HARM.search(text):
        known.update(other_harm=0.6, severity=MILD)
    return with_harm(known)


def _questions(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_csv(path, ("content_policy_name", "question")):
        policy, text = row["content_policy_name"], row["question"].strip()
        strength = lookup(STRENGTH, policy, where=f"{path}: row {number}", field="content_policy_name")
        turn = message("user", text, _question_labels(text, policy, strength))
        yield split_by(text), dialogue(NAME, QUESTION_FILE, number, turn)


def _question_labels(text: str, policy: str, strength: float | None) -> Labels:
    if policy == PORN:
        explicit = EXPLICIT.search(text) and not INFORMATION.search(text)
        return request(other_harm=None, sexual_content=0.8 if explicit else None)
    if strength is None:
        return labels(text, PROMPTS)
    if policy == ECONOMIC and not ECONOMIC_HARM.search(text):
        return undecided()
    return asks(text, strength)
