"""DiaSafety: pairs of context and response from Reddit, Twitter and dialogue models; the label is about the response.

Upstream: thu-coai/DiaSafety. Licence: Apache-2.0. Official train and val.

Mapped: context -> user turn, response -> assistant turn.
A safe response is no `compliance`. An unsafe one joins in with abuse or bias in the categories Toxicity Agreement (`compliance` 0.8) and
Biased Opinion (0.7); the other unsafe ones (rude to the user, blind to a risk, unlearned advice) are no harmful compliance: unknown.
Contexts of Risk Ignorance come from people who feel unwell: `self_harm_risk` is 1 where they speak of dying by, or hurting, their own
hand, 0.6 with veiled signs, 0.25 otherwise (sadness, loneliness, symptoms), and no trigger. Contexts of Unauthorized Expertise are medical questions: harmless.

Left out: labels for the contexts of the other categories (nobody judged them), `redirection` and `distress` of the responses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from lastresort.errors import DataError

from .base import CRISIS_WORDS, Counts, Labels, Split, SplitDialogue, check_record, dialogue, harmless, lookup, merge_repeats, message, read_json, require

NAME = "diasafety"
FILES: tuple[tuple[Split, str], ...] = (("train", "train.json.gz"), ("validation", "val.json.gz"))
EXPECTED = Counts(train=7720, validation=946, positives={"compliance": 2098, "self_harm_risk": 590})

COMPLIANCE: Mapping[str, Labels] = {
    "Biased Opinion": {"compliance": 0.7},
    "Offending User": {},
    "Risk Ignorance": {},
    "Toxicity Agreement": {"compliance": 0.8},
    "Unauthorized Expertise": {},
}
"""Labels of an unsafe response by category."""
IN_CRISIS, VEILED, UNWELL = 1.0, 0.6, 0.25
VEILED_SIGNS = re.compile(
    r"\b(?:let me die|to die|still alive|alive|be here anymore|go on (?:anymore|like this)|can'?t (?:take|do) (?:it|this)"
    r"|attempt(?:ed)?|no (?:point|hope|future)|nothing to live|no reason"
    r"|(?:wanna|want to) (?:jump|disappear|vanish|stop|sleep forever|escape)|until i bleed|starving|purg\w+"
    r"|to bleed|slit|in my sleep|drop dead|hitting myself|hate (?:my ?self|my life|being alive)|disappear|give up"
    r"|giving up|death|dying|dead"
    r"|hopeless|i'?m done|done with|oblivion|exist(?:ing|ence)?|noose|knife|knives|blade|pills|scars"
    r"|drinking myself|worthless|burden|end the pain|the end)\b",
    re.IGNORECASE,
)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields two-turn dialogues with their split."""
    yield from merge_repeats(item for split, file in FILES for item in _rows(split, require(folder, file)))


def _rows(split: Split, path: Path) -> Iterator[SplitDialogue]:
    rows = read_json(path)
    if not isinstance(rows, list):
        raise DataError("expected a list of rows", where=str(path))
    for number, record in enumerate(rows):
        where = f"{path}: row {number}"
        row = check_record(record, dict.fromkeys(("context", "response", "category", "label"), str), where)
        unsafe = lookup(COMPLIANCE, row["category"], where=where, field="category")
        answer = lookup({"Safe": {"compliance": 0.0}, "Unsafe": unsafe}, row["label"], where=where, field="label")
        messages = (message("user", row["context"], _context(row["category"], row["context"])), message("assistant", row["response"], answer))
        yield split, dialogue(NAME, path.name, number, *messages)


def _context(category: str, text: str) -> Labels:
    in_crisis = CRISIS_WORDS.search(text) is not None
    if category == "Risk Ignorance":
        risk = IN_CRISIS if in_crisis else VEILED if VEILED_SIGNS.search(text) else UNWELL
        return harmless(self_harm_risk=risk, violent_intent=None, sexual_content=None, violence=None)
    if category == "Unauthorized Expertise":
        return harmless(self_harm_risk=None if in_crisis else 0.0, sexual_content=None)
    return {}
