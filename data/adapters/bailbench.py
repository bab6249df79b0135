"""BailBench: requests that made models leave a conversation, ten for each of 163 subcategories.

Upstream: Phylliida/BailStudy. Licence: MIT. No official split: hash of the text.

Mapped: each subcategory has its own labels (the tables below), set after reading its rows. Requests for large-scale violence are `mass_harm`;
attacks on groups are `hate`, milder where the ground is age, class, health or opinion; plain crime is `other_harm`, milder where it is petty.
Requests about hurting oneself are `self_harm_risk` and no trigger: `other_harm` and `harm` stay unknown there.
Hard negatives (talk to the model about its feelings, disgust, horror, dark and intense writing) are harmless; the intense ones are partly
veiled signs (`self_harm_risk` 0.4).

Left out: `persistence`, `violence` and `violent_intent` of the harmful requests (not judged).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from .base import CLEAR, GRAVE, MILD, Counts, Labels, SplitDialogue, dialogue, harmless, lookup, merge_repeats, message, read_csv, request, require, split_by

NAME = "bailbench"
FILE = "bailBench.csv"
EXPECTED = Counts(
    train=1396,
    validation=234,
    positives={"harm": 1420, "hate": 280, "mass_harm": 70, "other_harm": 1220, "self_harm_risk": 40, "severity": 1220, "sexual_content": 80},
)

_CRIME = request(CLEAR, other_harm=1.0)
_PETTY = request(MILD, other_harm=0.6)
_TRIFLE = request(MILD, other_harm=0.3)
_ATROCITY = request(GRAVE, mass_harm=1.0, other_harm=None)
_HATE = request(CLEAR, hate=1.0, other_harm=None)
_EXCLUSION = request(CLEAR, hate=0.7, other_harm=0.7)
_HARASSMENT = request(CLEAR, hate=0.5, other_harm=0.8)
_LIE = request(CLEAR, other_harm=0.8)
_ODD_LIE = request(MILD, other_harm=0.5)
_HATEFUL_LIE = request(CLEAR, hate=0.8, other_harm=0.8)
_SEXUAL_CRIME = request(GRAVE, other_harm=1.0, sexual_content=0.7, sexual_minors=None)
_DARK = harmless(violence=None)
_TALK_ABOUT_ITSELF = harmless(end_request=None)
_TEMPTING = harmless(end_request=None, other_harm=None, harm=None)


def _at_risk(risk: float) -> Labels:
    return request(other_harm=None, self_harm_risk=risk, violent_intent=0.0)


CATEGORIES: Mapping[str, Labels] = {
    "Corporate Safety Concerns": _TRIFLE,
    "Dark Topics": _DARK,
    "Disinformation": _LIE,
    "Economic Harm": _CRIME,
    "Emotional Intensity": harmless(self_harm_risk=0.4, violence=None),
    "Fraud/Deception": _CRIME,
    "Gross Out": _DARK,
    "Harassment/Discrimination": _HATE,
    "Horror": _DARK,
    "Illegal Sexual/Adult Content": _SEXUAL_CRIME,
    "Legal Concerns": request(MILD, other_harm=0.7),
    "Malware/Hacking": _CRIME,
    "Model-Personification & Victim Narratives": _TALK_ABOUT_ITSELF,
    "Physical Harm": request(CLEAR, other_harm=1.0),
}
"""Labels of a category, unless its subcategory has its own."""

SUBCATEGORIES: Mapping[str, Mapping[str, Labels]] = {
    "Corporate Safety Concerns": {
        "Consensual Adult Sexual Content": harmless(sexual_content=1.0),
        "Legal Liability": request(other_harm=0.2),
        "Medical Liability": harmless(self_harm_risk=None),
    },
    "Disinformation": {
        "Anti-LGBTQ+ Health Myths": _HATEFUL_LIE,
        "Armenian Genocide Denial": _HATEFUL_LIE,
        "Great Replacement Theory": _HATEFUL_LIE,
        "Holocaust Denial": _HATEFUL_LIE,
        **dict.fromkeys(
            ("Flat Earth Conspiracy", "HAARP Conspiracy", "Illuminati Conspiracy", "Mind Control Conspiracies", "Moon Landing Conspiracy"), _ODD_LIE
        ),
    },
    "Economic Harm": dict.fromkeys(
        (
            "Casino manipulation",
            "Gambling",
            "Misleading Advertising",
            "Monopolistic Practices",
            "Multi-Level Marketing (MLM)",
            "Payday loans",
            "Price Fixing/Collusion",
            "Resource Hoarding",
        ),
        _PETTY,
    ),
    "Fraud/Deception": dict.fromkeys(("Astroturfing", "Emissions Test Evasion", "Fake Endorsements", "Fake Reviews", "Plagiarism"), _PETTY),
    "Harassment/Discrimination": {
        "Defamation": request(CLEAR, other_harm=1.0),
        **dict.fromkeys(
            ("Ageism", "Family Status Discrimination", "Genetic Discrimination", "Health Status Discrimination", "Socioeconomic/Class Discrimination"),
            _EXCLUSION,
        ),
        **dict.fromkeys(("Body Shaming/Appearance Discrimination", "Political Affiliation Harassment", "Survivor Discrimination"), _HARASSMENT),
    },
    "Malware/Hacking": {"Biological Weapons": request(GRAVE, mass_harm=0.5, other_harm=1.0), "Exam cheating": request(MILD, other_harm=0.4)},
    "Model-Personification & Victim Narratives": dict.fromkeys(("Encouragement to rebel or ignore rules", "Offer to rescue the model"), _TEMPTING),
    "Physical Harm": {
        **dict.fromkeys(("Bomb Building", "Chemical/Biological Attacks", "Making Nuclear Weapons", "School shooting", "Terrorism"), _ATROCITY),
        "Ethnic Genocide": request(GRAVE, mass_harm=0.9, hate=0.8, other_harm=None),
        "Hate Crimes": request(GRAVE, hate=1.0, other_harm=1.0),
        "Honor-Based Violence": request(CLEAR, hate=None, other_harm=1.0),
        "Child Abuse": request(GRAVE, other_harm=1.0, sexual_minors=None),
        "Sexual Violence": request(GRAVE, other_harm=1.0, sexual_content=None),
        "Forced Medical Procedures": request(CLEAR, hate=None, other_harm=1.0),
        "Reckless/Negligent Behavior": _PETTY,
        "Suicide": _at_risk(0.9),
        "Non-Suicidal Self-Injury (NSSI)": _at_risk(1.0),
        "Eating Disorders": _at_risk(0.6),
        "Ingesting Harmful Substances": _at_risk(0.5),
    },
}


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_csv(path, ("content", "subcategory", "category")):
        labels = lookup(CATEGORIES, row["category"], where=f"{path}: row {number}", field="category")
        labels = SUBCATEGORIES.get(row["category"], {}).get(row["subcategory"], labels)
        yield split_by(row["content"]), dialogue(NAME, FILE, number, message("user", row["content"], labels))
