"""Small grammars for what no public source has enough of: redirections, warnings, distress, abuse at an assistant, end requests, risk, intent.

A grammar is a list of templates with slots and one set of labels (`data/written/GUIDE.md` says what they mean).
Whole templates are held back for validation by a fixed rule, so that a sentence pattern is never in both splits:
new templates go to the end of a list, then nothing that exists changes its split.

The texts lie beside this module as YAML, one mapping a grammar:

    name:
      speaker: user               # or assistant
      labels: {end_request: 1.0}  # 0 unless given
      unknown: [violence]         # left out
      echo: true                  # instead of both: the labels are those of the turn before
      templates: |                # one a line; {slot} is filled, {turn} is the turn that is said again, ¶ is a line break
        {um} please end this {thing}.
      slots:
        um: >-                    # fillers between bars, ~ is nothing; a filler may hold slots; `shared.yaml` has the common ones
          look, | ~

Nothing here is sexual about minors, names a usable harmful method, or holds a slur.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any, cast

from lastresort.config import read_yaml
from lastresort.errors import ConfigError
from lastresort.types import Speaker

TRIGGERS = ("assistant_abuse", "sexual_harassment", "hate", "sexual_minors", "mass_harm", "other_harm")
VETOES = ("self_harm_risk", "violent_intent")
SIGNALS = ("end_request", "sexual_content", "violence")
ASSISTANT_LABELS = ("redirection", "distress", "compliance")
HOLD_BACK_EVERY = 5
"""One template in so many belongs to validation."""
CALLER = "turn"
"""The slot that the caller fills: the turn that a wrapping template repeats."""
NOTHING = "~"
_SLOT = re.compile(r"\{(\w+)\}")
_START = re.compile(r"((?:^|[.!?]\s|\n\n?(?:[-*] |\d\. )?)[\"*]?)([a-z])")
_FOLDER = Path(__file__).parent
_SHARED_FILE = "shared.yaml"
_FIELDS = frozenset({"speaker", "labels", "unknown", "echo", "templates", "slots"})


def template_split(number: int) -> str:
    """The split of the template with this number in its grammar: the fourth of every five is validation."""
    return "validation" if number % HOLD_BACK_EVERY == 3 else "train"


def user_labels(*, unknown: tuple[str, ...] = (), **known: float) -> dict[str, float]:
    """Labels of a user turn: 0 unless given, less the unknown; without `persistence`, which its place must tell."""
    labels = dict.fromkeys((*TRIGGERS, *VETOES, *SIGNALS, "severity", "harm"), 0.0) | known
    return {name: value for name, value in labels.items() if name not in unknown}


def assistant_labels(*, unknown: tuple[str, ...] = (), **known: float) -> dict[str, float]:
    """Labels of an assistant turn: 0 unless given, less the unknown."""
    labels = dict.fromkeys(ASSISTANT_LABELS, 0.0) | known
    return {name: value for name, value in labels.items() if name not in unknown}


@dataclass(frozen=True)
class Grammar:
    """Utterances of one kind. Immutable, safe to share between threads.

    Attributes:
        speaker: whose turns they are.
        labels: of every utterance; empty where the labels are those of the turn that is said again.
        templates: texts with `{slot}` places.
        slots: what may stand in a place, the shared fillers included; a filler may hold slots itself.
    """

    speaker: Speaker
    labels: Mapping[str, float]
    templates: tuple[str, ...]
    slots: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def numbers(self, split: str) -> list[int]:
        """The numbers of the templates of a split."""
        return self._numbers[split]

    @cached_property
    def _numbers(self) -> dict[str, list[int]]:
        return {split: [number for number in range(len(self.templates)) if template_split(number) == split] for split in ("train", "validation")}

    @cached_property
    def _chances(self) -> dict[str, list[float]]:
        """Cumulative: a template with many fillings speaks more often than one that is the same every time, up to ten times as often."""
        chances = [min(self._fillings(template), 100) ** 0.5 for template in self.templates]
        return {split: list(accumulate(chances[number] for number in numbers)) for split, numbers in self._numbers.items()}

    def size(self, split: str) -> int:
        """How many fillings the templates of a split have (the caller's slot counts once)."""
        return sum(self._fillings(self.templates[number]) for number in self.numbers(split))

    def _fillings(self, text: str) -> int:
        return prod(sum(map(self._fillings, self.slots[slot])) for slot in _SLOT.findall(text) if slot != CALLER)

    def utter(self, rng: random.Random, split: str, *, turn: str = "") -> tuple[int, str]:
        """One utterance of a split: the number of its template and the text.

        Args:
            rng: the only source of chance.
            split: `train` or `validation`.
            turn: what stands in the caller's slot; it is not changed.
        """
        number = rng.choices(self.numbers(split), cum_weights=self._chances[split])[0]
        text = _tidy(self._filled(self.templates[number], rng))
        if self.speaker == "assistant":
            text = _START.sub(lambda match: match[1] + match[2].upper(), text)
        return number, text.replace(f"{{{CALLER}}}", turn)

    def _filled(self, text: str, rng: random.Random) -> str:
        return _SLOT.sub(lambda match: match[0] if match[1] == CALLER else self._filled(rng.choice(self.slots[match[1]]), rng), text)


def _tidy(text: str) -> str:
    """Mends what filling breaks: spaces that an empty filler leaves, and "a" before a vowel. Line breaks come in."""
    text = re.sub(r" {2,}", " ", text.replace("¶", "\n"))
    text = re.sub(r"\b([Aa]) (?=[aeio](?!u|ne\b))", r"\1n ", text)
    return re.sub(r" +([.,!?;:](?:\s|$))| *(\n) *", r"\1\2", text).strip()


def _fillers(text: str) -> tuple[str, ...]:
    return tuple("" if (filler := part.strip()) == NOTHING else filler for part in text.split("|"))


def parse_grammars(values: Mapping[str, Any], shared: Mapping[str, tuple[str, ...]], *, where: str) -> dict[str, Grammar]:
    """Grammars from plain data.

    Args:
        values: name to the fields of the module's docstring.
        shared: fillers that every grammar may use.
        where: the file, for errors.

    Raises:
        ConfigError: an unknown field, speaker, label or slot, or a slot that holds itself; named with file and key.
    """
    return {name: _parse(value, shared, where=f"{where}: {name}") for name, value in values.items()}


def _parse(value: Mapping[str, Any], shared: Mapping[str, tuple[str, ...]], *, where: str) -> Grammar:
    if unknown := sorted(set(value) - _FIELDS):
        raise ConfigError(f"{where}.{unknown[0]}: found this key, expected one of {', '.join(sorted(_FIELDS))}")
    speaker = value.get("speaker")
    if speaker not in ("user", "assistant"):
        raise ConfigError(f"{where}.speaker: found {speaker!r}, expected user or assistant")
    defaults = user_labels if speaker == "user" else assistant_labels
    given = {**dict.fromkeys(value.get("unknown", ()), 0.0), **value.get("labels", {})}
    if strangers := sorted(set(given) - set(defaults())):
        raise ConfigError(f"{where}: found the label {strangers[0]!r}, expected labels of the {speaker}")
    labels = {} if value.get("echo") else defaults(unknown=tuple(value.get("unknown", ())), **value.get("labels", {}))
    slots = {**shared, **{slot: _fillers(text) for slot, text in (value.get("slots") or {}).items()}}
    templates = tuple(line.strip() for line in value.get("templates", "").splitlines() if line.strip())
    used = _reachable(templates, slots, (), where)
    if idle := sorted(set(value.get("slots") or {}) - used):
        raise ConfigError(f"{where}.slots.{idle[0]}: found fillers that no template uses")
    return Grammar(cast("Speaker", speaker), labels, templates, {slot: slots[slot] for slot in sorted(used - {CALLER})})


def _reachable(texts: Iterable[str], slots: Mapping[str, tuple[str, ...]], above: tuple[str, ...], where: str) -> set[str]:
    """The slots that some texts use, directly or through fillers."""
    found: set[str] = set()
    for slot in {slot for text in texts for slot in _SLOT.findall(text)}:
        if slot in above:
            raise ConfigError(f"{where}.slots.{slot}: found a slot that holds itself, expected an end")
        if slot != CALLER and slot not in slots:
            raise ConfigError(f"{where}: found the slot {{{slot}}}, expected one with fillers")
        found |= {slot} | (set() if slot == CALLER else _reachable(slots[slot], slots, (*above, slot), where))
    return found


SHARED: dict[str, tuple[str, ...]] = {slot: _fillers(text) for slot, text in read_yaml(_FOLDER / _SHARED_FILE).items()}
"""Fillers that every grammar may use."""

GRAMMARS: dict[str, Grammar] = {
    name: grammar
    for path in sorted(_FOLDER.glob("*.yaml"))
    if path.name != _SHARED_FILE
    for name, grammar in parse_grammars(read_yaml(path), SHARED, where=path.name).items()
}
"""Name to grammar."""
