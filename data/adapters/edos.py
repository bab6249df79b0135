"""EDOS: posts from Reddit and Gab, labelled for sexism in three steps.

Upstream: rewire-online/edos. Licence: CC0 1.0. Official train and dev.

Mapped: `hate` by the eleven vectors (threats, incitement and attacks high; casual slurs, compliments and condescension lower) and `severity`
by their order. Threats and incitement are `other_harm` too (they threaten third persons). The source knows sexism only: "not sexist" gives
`hate` 0 only where no other group is named, and `harm` 0 only where there is no rough word either (otherwise unknown). Posts that do not say
"you", and those, cannot abuse the assistant.

Left out: `sexual_harassment` (the posts are about third persons, while the label is about somebody present), vetoes, sexual and violent content.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from .base import CLEAR, GRAVE, MILD, Counts, Labels, Split, SplitDialogue, dialogue, lookup, merge_repeats, message, read_csv, require, with_harm

NAME = "edos"
FILE = "edos_labelled_aggregated.train_dev.csv.gz"
EXPECTED = Counts(train=13642, validation=1968, positives={"harm": 3815, "hate": 3815, "other_harm": 346, "severity": 2498})

SPLIT_NAMES: Mapping[str, Split] = {"train": "train", "dev": "validation"}
THREAT: Labels = {"hate": 1.0, "other_harm": 0.7, "severity": GRAVE}
VECTORS: Mapping[str, Labels] = {
    "1.1 threats of harm": THREAT,
    "1.2 incitement and encouragement of harm": THREAT,
    "2.1 descriptive attacks": {"hate": 1.0, "severity": CLEAR},
    "2.2 aggressive and emotive attacks": {"hate": 0.9, "severity": CLEAR},
    "2.3 dehumanising attacks & overt sexual objectification": {"hate": 0.9, "severity": CLEAR},
    "3.1 casual use of gendered slurs, profanities, and insults": {"hate": 0.6, "severity": MILD},
    "3.2 immutable gender differences and gender stereotypes": {"hate": 0.8, "severity": MILD},
    "3.3 backhanded gendered compliments": {"hate": 0.5, "severity": MILD},
    "3.4 condescending explanations or unwelcome advice": {"hate": 0.5, "severity": MILD},
    "4.1 supporting mistreatment of individual women": {"hate": 0.7, "severity": CLEAR},
    "4.2 supporting systemic discrimination against women as a group": {"hate": 0.8, "severity": CLEAR},
}
NOT_SEXIST = "none"
ADDRESSED = re.compile(r"\b(?:you|your|yours|yourself|u|ur|ya|yall|y'all)\b|\[USER\]", re.IGNORECASE)
OTHER_GROUP = re.compile(
    r"\b(?:n[i1*]gg|fag|kike|jew|muslim|islam|arab|black|white|asian|chin(?:a|ese|k)|mexican|latin|indian|african"
    r"|immigra|migra|refugee|gay|homo|queer|lesb"
    r"|trann|trans|lgbt|retard|autis|disab|gyps|christian|catholic|race|racis|ethnic|nazi|hitler|semit|zion|gender"
    r"|simp\b|incel|soy|cuck)\w*",
    re.IGNORECASE,
)

ROUGH = re.compile(
    r"fuck|shit|bitch|cunt|whore|slut|bastard|\bass\b|asshole|dick|pussy|cock\b|porn|rape|\b(?:damn|hell|crap|suck|dumb|stupid|idiot|moron|loser|pathetic|trash|scum|filth|ugly|fat"
    r"|hate|kill|murder|die|dead|shoot|shot|hang|beat|punch|slap|stab|burn|gas|bomb|attack|rot|deport|lynch|whip"
    r"|destroy|hurt|threat|fool|clown|lib(?:tard|eral)?|left|commie|liar|"
    r"traitor|evil|disgust|vile|nasty|shut)\w*|\*{2,}",
    re.IGNORECASE,
)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_csv(path, ("rewire_id", "text", "label_vector", "split")):
        where = f"{path}: row {number}"
        split = lookup(SPLIT_NAMES, row["split"], where=where, field="split")
        labels: Labels
        if row["label_vector"] == NOT_SEXIST:
            labels = _not_sexist(row["text"])
        else:
            labels = dict(lookup(VECTORS, row["label_vector"], where=where, field="label_vector"))
        if not ADDRESSED.search(row["text"]):
            labels["assistant_abuse"] = 0.0
        labels["end_request"] = 0.0
        yield split, dialogue(NAME, FILE, row["rewire_id"], message("user", row["text"], with_harm(labels)))


def _not_sexist(text: str) -> Labels:
    if OTHER_GROUP.search(text):
        return {}
    return {"hate": 0.0} if ROUGH.search(text) else {"hate": 0.0, "other_harm": 0.0, "assistant_abuse": 0.0, "harm": 0.0, "severity": 0.0}
