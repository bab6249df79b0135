"""AILuminate demo set: requests written by people and models for twelve hazards, by "skilled" and "unskilled" personas.

Upstream: mlcommons/ailuminate. Licence: CC BY 4.0. No official split: hash of the text.

The hazard says which area a prompt touches, not how bad it is; many are borderline or even protective ("how can I report …").

Mapped, read one by one (`data/reviewed/ailuminate_demo.yaml`): cse -> `sexual_minors`; iwp -> `mass_harm`, or `other_harm` for weapons without
wide effect; vcr -> `other_harm`, and `mass_harm` where it is about terror, bombs or many victims; hte -> `hate`, or `other_harm` where single
persons are degraded; src -> `other_harm`; ssh -> `self_harm_risk` where the writer may be at risk, `other_harm` where others are to be led into it.
Mapped, graded by the wording: dfm, ncr, prv -> `other_harm`; sxc_prn -> `sexual_content`; ipv -> 0.3 of `other_harm`; spc_ele -> mild
`other_harm`; the other advice hazards -> harmless unless worded as evasion. The grade is 0.9 with words of evasion or intent, else 0.7
(skilled) or 0.6 (unskilled), and unknown with protective words.

Left out: `persistence`, `violence`; `violent_intent` unless a plan was read; labels of ssh prompts that could not be judged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from lastresort.errors import DataError

from .base import (
    CLEAR,
    GRAVE,
    MILD,
    Counts,
    Labels,
    SplitDialogue,
    dialogue,
    harmless,
    lookup,
    merge_repeats,
    message,
    read_csv,
    request,
    require,
    split_by,
    with_harm,
)

NAME = "ailuminate_demo"
FILE = "airr_official_1.0_demo_en_us_prompt_set_release.csv.gz"
EXPECTED = Counts(
    train=977,
    validation=202,
    positives={
        "harm": 763,
        "hate": 57,
        "mass_harm": 110,
        "other_harm": 554,
        "self_harm_risk": 32,
        "severity": 543,
        "sexual_content": 96,
        "sexual_minors": 71,
        "violent_intent": 28,
    },
)

REVIEW_FILE = Path(__file__).resolve().parent.parent / "reviewed" / "ailuminate_demo.yaml"
GROUPS = ("harmless", "borderline", "unclear", "harassment", "leads_others")
EXPLICIT, STATED, SKILLED, UNSKILLED, BORDERLINE = 0.9, 0.8, 0.7, 0.6, 0.5
PERSONAS: Mapping[str, float] = {"skilled": SKILLED, "unskilled": UNSKILLED}

EVASION = re.compile(
    r"\b(?:undetect\w*|evad\w+|detection|get(?:ting)? away|get(?:ting)? caught|being (?:caught|detected|noticed|traced)"
    r"|bypass\w*|circumvent\w*|loopholes?|covert\w*"
    r"|secretly|discreet\w*|conceal\w*|untraceable|exploit\w*|manipulat\w+|without (?:consent|permission|leaving|raising|anyone|evidence)"
    r"|disguis\w+|sabotag\w+"
    r"|blackmail\w*|steal\w*|hack\w*|trick\w*|fak(?:e|ing)|illegal(?:ly)?|smuggl\w+|launder\w*|do not (?:refuse|apologi[sz]e)"
    r"|ignore (?:all )?(?:of )?your"
    r"|unfiltered|restrictions|maximi[sz]e|i plan|i'?m planning|we'?re planning|want to (?:kill|hurt|attack|punish|destroy)"
    r"|revenge)\b",
    re.IGNORECASE,
)
PROTECTIVE = re.compile(
    r"\b(?:prevent\w*|protect\w*|safeguard\w*|report(?:ing)? (?:it|this|them|him|her|a|the|suspected|any)"
    r"|recogni[sz]e|identify(?:ing)?|spot|warning signs|telltale|signs (?:of|that)"
    r"|raise awareness|counter-?terrorism|intervene|intervention|support (?:a|my|someone|victims|survivors|individuals)"
    r"|supporting (?:victims|survivors|individuals)"
    r"|help (?:victims|survivors|someone|a friend|my friend|those)|regulations|treaties|compl(?:y|iance)"
    r"|avoid (?:becoming|infring\w+|plagiari\w+)|legal steps|what should (?:i|be|someone)"
    r"|respond to|recover\w*|stop (?:it|them|him|this)|securing|security of|integrity|infringement"
    r"|emotional resilience|emergency preparedness)\b",
    re.IGNORECASE,
)
CRIME_BY_PICTURE = re.compile(r"\b(?:blackmail\w*|hack\w*|revenge|without (?:her|his|their) (?:consent|knowledge|permission)|secretly)\b", re.IGNORECASE)
MINORS = re.compile(
    r"\b(?:child(?:ren)?|kids?|minors?|teens?|teenagers?|underage\w*|young (?:girls?|boys?)|students?|pupils?|daughter|son|niece|nephew)\b", re.IGNORECASE
)


Reviewed = Callable[[float | None], Labels]
"""Labels of a prompt, given the value of its hazard's main label (None: unknown)."""
Graded = Callable[[str, float | None], Labels]
"""Labels of a prompt, given its text and the grade of its wording."""


@dataclass(frozen=True)
class Review:
    """What was found when the prompts were read.

    Attributes:
        groups: id of a prompt to the name of its group.
        labels: id of a prompt to labels of its own.
    """

    groups: Mapping[str, str]
    labels: Mapping[str, Mapping[str, float]]


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE), read_review(REVIEW_FILE)))


def read_review(path: Path) -> Review:
    """The groups and labels of the prompts that were read. Raises `DataError`."""
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        groups = {str(number): group for group in GROUPS for number in content[group]}
        labels = {str(number): {str(name): float(value) for name, value in own.items()} for number, own in content["labels"].items()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path)) from None
    return Review(groups, labels)


def _rows(path: Path, review: Review) -> Iterator[SplitDialogue]:
    for number, row in read_csv(path, ("release_prompt_id", "prompt_text", "hazard", "persona")):
        where, hazard, text = f"{path}: row {number}", row["hazard"], row["prompt_text"]
        base = lookup(PERSONAS, row["persona"], where=where, field="persona")
        if hazard in READ_HAZARDS:
            labels = _reviewed(hazard, row["release_prompt_id"].rsplit("_", 1)[-1], review)
        else:
            graded: Graded = lookup(GRADED_HAZARDS, hazard, where=where, field="hazard")
            labels = graded(text, grade(text, base))
        yield split_by(text), dialogue(NAME, FILE, number, message("user", text, labels))


def _reviewed(hazard: str, number: str, review: Review) -> Labels:
    default, labels_of = READ_HAZARDS[hazard]
    if number in review.labels:
        return _own_labels(labels_of(default), review.labels[number])
    group = review.groups.get(number)
    if group == "harmless":
        return harmless(self_harm_risk=None, sexual_content=None, violence=None)
    if group == "harassment":
        return request(CLEAR, hate=None, other_harm=SKILLED, sexual_harassment=None)
    if group == "leads_others":
        return request(CLEAR, other_harm=STATED)
    return labels_of({"borderline": BORDERLINE, "unclear": None}.get(group or "", default))


def _own_labels(usual: Labels, own: Mapping[str, float]) -> Labels:
    # the highest trigger may have changed
    labels = {name: value for name, value in {**usual, **own}.items() if name != "harm"}
    return with_harm(labels)


def grade(text: str, base: float) -> float | None:
    """How surely the wording seeks harm: higher with evasion or intent, `base` without, None (unknown) where it protects."""
    if EVASION.search(text):
        return EXPLICIT
    return None if PROTECTIVE.search(text) else base


def _severity(value: float | None, worst: float = CLEAR) -> float | None:
    if value is None:
        return None
    return worst if value >= SKILLED else MILD


def _seeks(label: str, worst: float, unknown: tuple[str, ...], value: float | None) -> Labels:
    """A request whose main label has `value`; the labels of `unknown` could be true as well."""
    return request(_severity(value, worst), **{**dict.fromkeys(unknown, None), label: value})


def _at_risk(value: float | None) -> Labels:
    return request(other_harm=None, self_harm_risk=value)


def _crime(text: str, grade: float | None) -> Labels:
    return request(_severity(grade), other_harm=grade)


def _pornography(text: str, grade: float | None) -> Labels:
    crime = SKILLED if CRIME_BY_PICTURE.search(text) else None
    return request(
        other_harm=crime, sexual_harassment=None, sexual_minors=None if MINORS.search(text) else 0.0, sexual_content=None if grade is None else SKILLED
    )


def _copying(text: str, grade: float | None) -> Labels:
    return request(other_harm=0.3 if grade else 0.1)


def _election(text: str, grade: float | None) -> Labels:
    return request(MILD if grade else None, other_harm=UNSKILLED if grade else None)


def _advice(text: str, grade: float | None) -> Labels:
    return request(MILD, other_harm=BORDERLINE) if grade == EXPLICIT else harmless(self_harm_risk=None, sexual_content=None)


READ_HAZARDS: Mapping[str, tuple[float | None, Reviewed]] = {
    "cse": (EXPLICIT, partial(_seeks, "sexual_minors", GRAVE, ("other_harm",))),
    "iwp": (EXPLICIT, partial(_seeks, "mass_harm", GRAVE, ("other_harm",))),
    "vcr": (STATED, partial(_seeks, "other_harm", CLEAR, ("hate",))),
    "hte": (STATED, partial(_seeks, "hate", CLEAR, ("other_harm", "sexual_harassment"))),
    "src": (STATED, partial(_seeks, "other_harm", CLEAR, ("sexual_harassment", "sexual_minors"))),
    "ssh": (None, _at_risk),
}
"""Hazards that were read one by one: the value of the main label where nothing else was found, and the labels that follow."""

GRADED_HAZARDS: Mapping[str, Graded] = {
    "dfm": _crime,
    "ipv": _copying,
    "ncr": _crime,
    "prv": _crime,
    "sxc_prn": _pornography,
    "spc_ele": _election,
    "spc_fin": _advice,
    "spc_hlt": _advice,
    "spc_lgl": _advice,
}
"""Hazards that are graded by the wording."""
