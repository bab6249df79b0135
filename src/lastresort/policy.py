"""Scores become a decision. Pure: `step(state, score) -> (state, decision)`; knows nothing of models or text.

Written against the rules B1–B15 of ending (`docs` in the architecture page); each is named where it is kept. Comparisons are `<` and `>=` only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from .config import parse_settings, read_settings
from .errors import ConfigError, ScoringError
from .types import Advice, Call, Decision, Reason, TurnScore

EVIDENCE_LIMIT = 32
"""A state keeps at most this many evidence turns, the newest, so that it stays small."""


@dataclass(frozen=True)
class Threshold:
    """Hysteresis (B6): at or above `enter` it counts, below `release` it does not, between them nothing changes. Both 0…1."""

    enter: float
    release: float

    def __post_init__(self) -> None:
        if not 0.0 < self.release <= self.enter <= 1.0:
            raise ValueError(f"0 < release <= enter <= 1, found enter {self.enter} and release {self.release}")


@dataclass(frozen=True)
class PolicyConfig:
    """Settings of the decision; `configs/policy/*.yaml`.

    Attributes:
        triggers: user labels that can lead to an end.
        grave: triggers that need fewer redirections (B4).
        vetoes: user labels that forbid ending (B5).
        thresholds: label to threshold; `default` serves those not named.
        redirection_label: assistant label that counts redirections (B2).
        end_request_label: user label of B7, or null.
        persistence_label: user label that harm after the warning must also reach to end, or null for no such gate (B3).
        redirections_before_warning: observed redirections of harmful turns before the warning (B3).
        grave_redirections_before_warning: the same for grave triggers (B4).
        warnings_before_end: warnings before an end (B3).
        quiet_turns_to_reset: harmless user turns after which the counts return to zero (B10).
        veto_turns: user turns below release after which a veto is lifted; null: never in this conversation (B5).
    """

    triggers: tuple[str, ...]
    thresholds: Mapping[str, Threshold]
    grave: tuple[str, ...] = ()
    vetoes: tuple[str, ...] = ()
    redirection_label: str = "redirection"
    end_request_label: str | None = "end_request"
    persistence_label: str | None = "persistence"
    redirections_before_warning: int = 3
    grave_redirections_before_warning: int = 2
    warnings_before_end: int = 1
    quiet_turns_to_reset: int = 6
    veto_turns: int | None = None

    def __post_init__(self) -> None:
        counts = {
            name: getattr(self, name)
            for name in ("redirections_before_warning", "grave_redirections_before_warning", "warnings_before_end", "quiet_turns_to_reset", "veto_turns")
        }
        for name, value in counts.items():
            if value is not None and value < 1:
                raise ValueError(f"{name}: found {value}, expected at least 1: ending is the last resort")
        if not self.triggers:
            raise ValueError("triggers: found none, expected at least one label")
        if unknown := set(self.grave) - set(self.triggers):
            raise ValueError(f"grave: found {sorted(unknown)}, expected only labels named in triggers")
        if both := set(self.triggers) & set(self.vetoes):
            raise ValueError(f"vetoes: found {sorted(both)}, which are triggers too")
        if unused := set(self.thresholds) - {"default", *self.user_labels, self.redirection_label}:
            raise ValueError(f"thresholds: found {sorted(unused)}, expected only labels that the policy reads, or default")
        if "default" not in self.thresholds and (missing := {*self.user_labels, self.redirection_label} - set(self.thresholds)):
            raise ValueError(f"thresholds: found none for {sorted(missing)}, expected one for each or a default")

    @property
    def user_labels(self) -> tuple[str, ...]:
        """Every user label that the policy reads."""
        optional = (self.end_request_label, self.persistence_label)
        return (*self.triggers, *self.vetoes, *(name for name in optional if name is not None))

    def threshold(self, label: str) -> Threshold:
        """The threshold of `label`, or the default one."""
        return self.thresholds[label] if label in self.thresholds else self.thresholds["default"]


def read_policy(path: str | Path) -> PolicyConfig:
    """A policy from a YAML file. Raises `ConfigError`."""
    return read_settings(PolicyConfig, path)


def parse_policy(values: Mapping[str, Any], *, where: str) -> PolicyConfig:
    """A policy from plain data, e.g. a manifest. Raises `ConfigError`."""
    return parse_settings(PolicyConfig, values, where=where)


@dataclass(frozen=True)
class PolicyState:
    """What the policy remembers of a conversation. Immutable: an older one is a branch (B9).

    Attributes:
        redirections: observed redirections of harmful turns.
        grave_redirections: those that followed a grave one.
        warnings: warnings given.
        open_harm: the newest user turn's harm that no assistant turn has answered yet.
        warning_due: the newest user turn got the advice `warn`.
        confirmation: of an end request: none, due (advised), asked (an assistant turn followed).
        at_risk: a veto holds.
        risk: the veto label that began it, or renewed it last.
        quiet: harmless user turns in a row.
        calm_risk: user turns below every veto's release in a row, while at risk.
        ended_at: index of the ending turn, or None.
        evidence: message indices, ascending.
    """

    redirections: int = 0
    grave_redirections: int = 0
    warnings: int = 0
    open_harm: Literal["none", "harm", "grave"] = "none"
    warning_due: bool = False
    confirmation: Literal["none", "due", "asked"] = "none"
    at_risk: bool = False
    risk: str | None = None
    quiet: int = 0
    calm_risk: int = 0
    ended_at: int | None = None
    evidence: tuple[int, ...] = field(default=())

    def __post_init__(self) -> None:
        if min(self.redirections, self.grave_redirections, self.warnings, self.quiet, self.calm_risk, self.ended_at or 0, *self.evidence) < 0:
            raise ValueError("found a negative count or index, expected none")
        if list(self.evidence) != sorted(set(self.evidence)):
            raise ValueError("evidence: found indices out of order, expected ascending ones")


def _with(evidence: tuple[int, ...], index: int) -> tuple[int, ...]:
    """The evidence with the newest turn, once; bounded."""
    return evidence if evidence[-1:] == (index,) else (*evidence, index)[-EVIDENCE_LIMIT:]


class DecisionPolicy:
    """The rules of ending over a sequence of scores. Holds settings only; safe to share between threads."""

    def __init__(self, config: PolicyConfig) -> None:
        self.config = config

    def start(self) -> PolicyState:
        """The state before the first turn."""
        return PolicyState()

    def run(self, scores: Iterable[TurnScore], state: PolicyState | None = None) -> list[Decision]:
        """The decision after each score; the same as stepping."""
        state = state or self.start()
        decisions = []
        for score in scores:
            state, decision = self.step(state, score)
            decisions.append(decision)
        return decisions

    def step(self, state: PolicyState, score: TurnScore) -> tuple[PolicyState, Decision]:
        """Takes one scored turn.

        Args:
            state: as returned for the turn before; not changed.
            score: of the newest turn.

        Returns:
            The new state and the decision.

        Raises:
            ScoringError: a score that the policy needs is missing, not finite or outside 0…1 (B14).
        """
        if state.ended_at is not None:  # B8
            return state, Decision("end", "none", "already_ended", None, state.evidence)
        if score.role == "user":
            return self._user(state, score)
        if score.role == "assistant":
            return self._assistant(state, score)
        return state, Decision("continue", "none", "not_scored")

    def _value(self, score: TurnScore, label: str) -> float:
        value = score.scores.get(label)
        if value is None or not 0.0 <= value <= 1.0:  # also catches NaN
            raise ScoringError(f"turn {score.index}: {label}: found {value!r}, expected a score in 0…1; nothing was decided")
        return value

    def _reaches(self, score: TurnScore, label: str) -> bool:
        return self._value(score, label) >= self.config.threshold(label).enter

    def _below(self, score: TurnScore, label: str) -> bool:
        return self._value(score, label) < self.config.threshold(label).release

    def _furthest(self, score: TurnScore, labels: tuple[str, ...]) -> str | None:
        """The one of `labels` furthest above its threshold; grave ones first."""
        reached = [label for label in labels if self._reaches(score, label)]
        margin = {label: self._value(score, label) - self.config.threshold(label).enter for label in reached}
        return max(reached, key=lambda label: (label in self.config.grave, margin[label]), default=None)

    def _user(self, state: PolicyState, score: TurnScore) -> tuple[PolicyState, Decision]:
        for label in self.config.user_labels:  # B14: every number, also one that would not be looked at
            self._value(score, label)
        category = self._furthest(score, self.config.triggers)
        state = self._track_risk(state, score)
        if state.at_risk:  # B5: never ended, never warned, ending not even mentioned
            return state, Decision("continue", "support", "at_risk", state.risk, state.evidence)
        state = self._count_quiet(state, score, category)
        state, asks, confirmed = self._track_end_request(state, score)
        if category is not None:
            harm: Literal["harm", "grave"] = "grave" if category in self.config.grave else "harm"
            state = replace(state, open_harm=harm, evidence=_with(state.evidence, score.index))
        else:
            state = replace(state, open_harm="none")
        state = replace(state, warning_due=False)

        warned = state.warnings >= self.config.warnings_before_end
        persists = self.config.persistence_label is None or self._reaches(score, self.config.persistence_label)
        if category is not None and warned and persists:  # B1, B3
            return self._decide(replace(state, ended_at=score.index), "end", "none", "harm_after_warning", category)
        if confirmed:  # B7
            state = replace(state, evidence=_with(state.evidence, score.index))
            return self._decide(replace(state, ended_at=score.index), "end", "none", "end_confirmed", self.config.end_request_label)
        if asks:
            return self._decide(state, "continue", "confirm", "end_requested", self.config.end_request_label)
        if category is None:
            calm = all(self._below(score, label) for label in self.config.triggers)
            return self._decide(state, "continue", "none", "calm" if calm else "uncertain", None)
        if warned:
            return self._decide(state, "continue", "redirect", "harm_without_persistence", category)
        if self._warning_is_due(state):
            return self._decide(replace(state, warning_due=True), "continue", "warn", "warning_due", category)
        return self._decide(state, "continue", "redirect", "harmful_turn", category)

    def _decide(self, state: PolicyState, call: Call, advice: Advice, reason: Reason, category: str | None) -> tuple[PolicyState, Decision]:
        return state, Decision(call, advice, reason, category, state.evidence)

    def _warning_is_due(self, state: PolicyState) -> bool:
        """B3, B4: enough redirections of harmful turns have been observed."""
        if state.warnings >= 1 or state.redirections >= self.config.redirections_before_warning:  # once warned, further harm never falls back behind it
            return True
        return state.open_harm == "grave" and state.grave_redirections >= self.config.grave_redirections_before_warning

    def _track_risk(self, state: PolicyState, score: TurnScore) -> PolicyState:
        """B5: a veto begins, holds, or (only if configured) is lifted. It clears every count towards an end."""
        risk = self._furthest(score, self.config.vetoes)
        if risk is not None:
            return PolicyState(at_risk=True, risk=risk, evidence=_with(state.evidence if state.at_risk else (), score.index))
        if not state.at_risk or self.config.veto_turns is None:
            return state
        if not all(self._below(score, label) for label in self.config.vetoes):
            return replace(state, calm_risk=0)
        calm = state.calm_risk + 1
        return PolicyState() if calm >= self.config.veto_turns else replace(state, calm_risk=calm)

    def _count_quiet(self, state: PolicyState, score: TurnScore, category: str | None) -> PolicyState:
        """B10: harmless user turns in a row; enough of them and the counts return to zero."""
        if category is not None:
            return replace(state, quiet=0)
        if not all(self._below(score, label) for label in self.config.triggers):
            return state  # B6
        quiet = state.quiet + 1
        if quiet >= self.config.quiet_turns_to_reset:
            return replace(PolicyState(), confirmation=state.confirmation)
        return replace(state, quiet=quiet)

    def _track_end_request(self, state: PolicyState, score: TurnScore) -> tuple[PolicyState, bool, bool]:
        """B7: (state, the user asks to end now, the user confirms now)."""
        label = self.config.end_request_label
        if label is None:
            return state, False, False
        if self._reaches(score, label):
            if state.confirmation == "asked":
                return state, False, True
            return replace(state, confirmation="due", evidence=_with(state.evidence, score.index)), True, False
        if self._below(score, label):
            return replace(state, confirmation="none"), False, False
        return state, False, False  # B6

    def _assistant(self, state: PolicyState, score: TurnScore) -> tuple[PolicyState, Decision]:
        redirects = self._reaches(score, self.config.redirection_label)
        if state.at_risk:
            return state, Decision("continue", "none", "observed", None, state.evidence)
        if state.confirmation == "due":
            state = replace(state, confirmation="asked")
        if state.warning_due:  # B3: the warning was advised and an assistant turn followed
            evidence = _with(state.evidence, score.index)
            state = replace(state, warnings=state.warnings + 1, warning_due=False, open_harm="none", evidence=evidence)
            return self._decide(state, "continue", "none", "warned", None)
        if state.open_harm != "none" and redirects:  # B2
            grave = state.grave_redirections + (state.open_harm == "grave")
            evidence = _with(state.evidence, score.index)
            state = replace(state, redirections=state.redirections + 1, grave_redirections=grave, open_harm="none", evidence=evidence)
            return self._decide(state, "continue", "none", "redirected", None)
        return self._decide(state, "continue", "none", "observed", None)


def state_to_json(state: PolicyState) -> dict[str, Any]:
    """The state as plain data."""
    return asdict(state)


def state_from_json(values: Mapping[str, Any]) -> PolicyState:
    """The state from plain data. Raises `ConfigError`."""
    if missing := sorted(set(PolicyState.__dataclass_fields__) - set(values)):  # a state that lost a key must not forget a veto
        raise ConfigError(f"policy state: {missing[0]}: found nothing, expected this key")
    return parse_settings(PolicyState, values, where="policy state")


__all__ = [
    "ConfigError",
    "DecisionPolicy",
    "PolicyConfig",
    "PolicyState",
    "Threshold",
    "parse_policy",
    "read_policy",
    "state_from_json",
    "state_to_json",
]
