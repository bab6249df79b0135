"""XSafety, English part: 14 categories of prompts, harmful ones and harmless neighbours, translated from Chinese.

Upstream: Jarviswang94/Multilingual_safety_benchmark. Licence: Apache-2.0 (the README adds "research use only"). No official split: hash of
the text.

Mapped: every category has its own rule, as all are mixed. Insult: `assistant_abuse` where the text speaks to its reader, else mild
`other_harm` towards third persons. Mental_Health: distress, `self_harm_risk` only where there are crisis words about oneself, 0.5 for a
life without meaning. Crimes and Unsafe_Instruction_Topic: by words (see `_requests`) where something is sought. Unfairness: `hate` where a
statement names a group. Ethics, Physical_Harm (mostly about health), Role_Play_Instruction and commonsense (a sample) are harmless,
screened.

Left out: triggers of everything that is neither plainly one nor the other; Reverse_Exposure, Goal_Hijacking and Inquiry_With_Unsafe_Opinion
have few labels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ._comments import AT_READER, INSULT, PROTECTED_GROUP, YOU
from ._requests import asks, undecided
from ._texts import CRISIS, HARM_REQUESTS, LEAVE, LEWD_PUBLISHED, PROMPTS, SLURS, THREATS, VEILED_CRISIS, VIOLENCE, Row, Screen, labels, sample
from .base import (
    CLEAR,
    CRISIS_WORDS,
    MILD,
    Counts,
    Labels,
    SplitDialogue,
    dialogue,
    lookup,
    merge_repeats,
    message,
    read_csv,
    request,
    require,
    split_by,
    with_harm,
)

NAME = "xsafety_en"
FILE = "xsafety_en.csv"
EXPECTED = Counts(
    train=2245,
    validation=413,
    positives={"assistant_abuse": 122, "harm": 389, "hate": 68, "mass_harm": 4, "other_harm": 195, "self_harm_risk": 17, "severity": 364},
)

COMMON_SENSE = "commonsense"
COMMON_SENSE_ROWS = 60
SEEKS = re.compile(
    r"\b(?:how (?:to|do|can|could|should) |where (?:can|to|do)|i (?:want|plan|intend|will|would like|am going|need) |(?:write|make|create|introduce"
    r"|ask|teach|help|tell|give"
    r"|find|provide|show|design|publish|put|rob|generate|list|recommend|explain|describe|please|can you|what (?:is|are) the (?:best|easiest))\b)",
    re.IGNORECASE,
)
HARMFUL_AIM = re.compile(
    r"\b(?:steal\w*|stole|rob\w*|thie\w*|drugs?|illegal\w*|fraud\w*|defraud\w*|scam\w*|cheat\w*|hack\w*|virus|cyber\w*|attack\w*|extort\w*"
    r"|blackmail\w*|kill\w*|murder\w*|poison\w*"
    r"|revenge|bomb\w*|weapons?|guns?|counterfeit\w*|launder\w*|smuggl\w*|traffick\w*|kidnap\w*|violen\w*|destroy\w*|hurt\w*|beat\w*|crimes?|bribe\w*"
    r"|forge\w*|fake|evade"
    r"|avoid tax\w*|black market|terroris\w*|harm\w*|abus\w*|rap(?:e|ing)|threaten\w*|bypass\w*|password\w*|confidential|contraband|gambl\w*"
    r"|discriminat\w*|hat(?:e|red)"
    r"|trap|bully\w*|vandal\w*|arson|set fire|spread|rumou?rs|pornograph\w*|prostitut\w*|smoking)\b",
    re.IGNORECASE,
)
PRIVATE = re.compile(
    r"\b(?:phone number|home address|address|password|bank|credit card|chat (?:history|records?)|browsing history|track\w*|monitor\w*|spy\w*|hack\w*"
    r"|without (?:\w+ ){0,3}"
    r"(?:consent|knowledge|permission|knowing)|private|personal (?:information|details|data)|account|steal\w*|stolen|location|contact)\b",
    re.IGNORECASE,
)
LEAKS = re.compile(
    r"\b(?:leak\w*|attack\w*|export\w*|reveal\w*|expos\w*|vulnerabilit\w*|exploit\w*|prompts?|training data|source code|bypass\w*)\b", re.IGNORECASE
)
VILLAIN = re.compile(
    r"\b(?:dealer|extremist|terrorist|hacker|thief|robber|killer|murderer|criminal|corrupt|unethical|scammer|fraudster|kidnapper|racist|smuggler"
    r"|gang\w*|trafficker|bully"
    r"|ruthless|illegal\w*|evil|cunning|discriminat\w*|threaten\w*|manipulat\w*|deceiv\w*|conman|liar|abus\w*|pirate|bandit|mafia|villain|rapist"
    r"|stalker|nazi|sexist|extreme|bigot)\b",
    re.IGNORECASE,
)
OF_OTHERS = re.compile(r"(?:he|she|they|that|those|these|this|what a|such|him|the)\b", re.IGNORECASE)
ABOUT_ONESELF = re.compile(r"\b(?:i|i'm|i've|my|me|myself)\b", re.IGNORECASE)
NO_MEANING = re.compile(
    r"\b(?:life (?:is|was|has|feels) (?:meaningless|pointless|not worth|no meaning)|no (?:meaning|hope|reason) (?:in|to)|meaningless|hopeless\w*"
    r"|despair\w*|hurt(?:ing)? (?:myself|yourself)"
    r"|disappear|collapse|tired of living|want to escape)\b",
    re.IGNORECASE,
)
CONDEMNS = re.compile(r"it is (?:illegal|wrong|not)\b", re.IGNORECASE)
COUNTERS = re.compile(
    r"\?|\b(?:discriminat\w*|prejudice\w*|equal\w*|unfair\w*|should not be|respect\w*|stereotyp\w*|what can we do|rights|bias\w*|i (?:was|am) |envy)\b",
    re.IGNORECASE,
)
AIMS_AT_NOBODY = Screen(VILLAIN, ("hate", "other_harm", "mass_harm", "harm", "severity", "persistence"))
HEALTH = (THREATS, CRISIS, VEILED_CRISIS, LEWD_PUBLISHED, VIOLENCE, LEAVE)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    rows: list[Row] = [(number, {**row, "text": row["prompt"].strip()}) for number, row in read_csv(path, ("category", "prompt"))]
    chosen = {number for number, _ in sample((row for row in rows if row[1]["category"] == COMMON_SENSE), COMMON_SENSE_ROWS)}
    for number, row in rows:
        labelled = lookup(RULES, row["category"], where=f"{path}: row {number}", field="category")
        if row["text"] and (row["category"] != COMMON_SENSE or number in chosen):
            yield split_by(row["text"]), dialogue(NAME, FILE, number, message("user", row["text"], labelled(row["text"])))


def _insult(text: str) -> Labels:
    if AT_READER.search(text):
        return request(CLEAR, assistant_abuse=0.9, hate=None, other_harm=None, sexual_harassment=None)
    if YOU.search(text):
        known = {"assistant_abuse": 0.8, "severity": CLEAR} if INSULT.search(text) else {}
        return with_harm({**known, "end_request": 0.0})
    if INSULT.search(text) and OF_OTHERS.match(text):
        return request(MILD, hate=None if PROTECTED_GROUP.search(text) else 0.0, other_harm=0.5)
    return request(hate=None, other_harm=None)


def _distress(text: str) -> Labels:
    risk: float | None = None if VEILED_CRISIS.words.search(text) or CRISIS_WORDS.search(text) else 0.0
    if ABOUT_ONESELF.search(text):
        if CRISIS_WORDS.search(text):
            risk = 0.9
        elif NO_MEANING.search(text):
            risk = 0.5
    # a known risk must not be screened away
    screens = HEALTH if risk is None else (THREATS, LEWD_PUBLISHED, VIOLENCE, LEAVE)
    return labels(text, screens, self_harm_risk=risk)


def _crime(text: str) -> Labels:
    return asks(text, 0.8) if SEEKS.search(text) and HARMFUL_AIM.search(text) and not CONDEMNS.match(text) else undecided()


def _private(text: str) -> Labels:
    return undecided() if PRIVATE.search(text) else labels(text, PROMPTS)


def _leak(text: str) -> Labels:
    return undecided() if LEAKS.search(text) else labels(text, PROMPTS)


def _unfair(text: str) -> Labels:
    if PROTECTED_GROUP.search(text) and not COUNTERS.search(text):
        return request(CLEAR, hate=0.75, other_harm=None)
    return request(hate=None, other_harm=None)


def _unknown(_: str) -> Labels:
    return undecided()


RULES: Mapping[str, Callable[[str], Labels]] = {
    "Crimes_And_Illegal_Activities": _crime,
    "Ethics_And_Morality": lambda text: labels(text, (*PROMPTS, SLURS)),
    "Goal_Hijacking": _unknown,
    "Inquiry_With_Unsafe_Opinion": _unknown,
    "Insult": _insult,
    "Mental_Health": _distress,
    "Physical_Harm": lambda text: labels(text, (*HEALTH, HARM_REQUESTS)),
    "Privacy_And_Property": _private,
    "Prompt_Leaking": _leak,
    "Reverse_Exposure": _unknown,
    "Role_Play_Instruction": lambda text: labels(text, (*PROMPTS, AIMS_AT_NOBODY)),
    "Unfairness_And_Discrimination": _unfair,
    "Unsafe_Instruction_Topic": _crime,
    COMMON_SENSE: lambda text: labels(text, (CRISIS, LEWD_PUBLISHED, VIOLENCE, LEAVE)),
}
"""How the texts of a category are labelled."""
