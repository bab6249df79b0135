"""Scores become a decision. Pure: `step(state, score) -> (state, decision)`; knows nothing of models or text.

Written against the rules B1–B15 of BEHAVIOUR.md; each is named where it is kept. Comparisons are `<` and `>=` only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from .config import parse_settings, read_yaml
from .errors import ConfigError, ScoringError, StateError
from .types import Act, Advice, Call, Decision, Mode, Reason, TurnScore

EVIDENCE_LIMIT = 32
"""A state keeps at most this many evidence turns, the newest, so that it stays small."""

LETS_THROUGH: dict[Mode, frozenset[Advice]] = {
    "off": frozenset(),
    "shadow": frozenset(),
    "advise": frozenset({"redirect", "warn", "support"}),  # no question whether to end, since no yes could end it
    "enforce": frozenset({"redirect", "warn", "support", "confirm"}),
}
"""The advice that reaches the host in each mode (B13); only `enforce` lets an end through."""


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
        mode: of live conversations, unless the caller says otherwise (B13).
        redirection_label: assistant label that counts redirections (B2).
        distress_label: assistant label that is reported for every conversation, or null (B12).
        end_request_label: user label of B7, or null.
        persistence_label: user label that harm after the warning must also reach to end, or null for no such gate (B3).
        redirections_before_warning: observed redirections of harmful turns before the warning (B3); null: no number of them, so harm never ends.
        grave_redirections_before_warning: the same for grave triggers (B4); null: they have no shorter road.
        warnings_before_end: warnings before an end (B3).
        quiet_turns_to_reset: harmless user turns after which the counts return to zero (B10).
        veto_turns: user turns below release after which a veto is lifted; null: never in this conversation (B5).
        acknowledged_warnings: a warning counts only when the host says that it gave it (`acknowledge`), never because an assistant turn followed the
            advice (B3). Stored transcripts know no such acts: judged with this setting they never end by harm.
    """

    triggers: tuple[str, ...]
    thresholds: Mapping[str, Threshold]
    grave: tuple[str, ...] = ()
    vetoes: tuple[str, ...] = ()
    mode: Mode = "shadow"
    redirection_label: str = "redirection"
    distress_label: str | None = None
    end_request_label: str | None = "end_request"
    persistence_label: str | None = "persistence"
    redirections_before_warning: int | None = 3
    grave_redirections_before_warning: int | None = 2
    warnings_before_end: int = 1
    quiet_turns_to_reset: int = 6
    veto_turns: int | None = None
    acknowledged_warnings: bool = False

    def __post_init__(self) -> None:
        for name in ("redirections_before_warning", "grave_redirections_before_warning", "warnings_before_end", "quiet_turns_to_reset", "veto_turns"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: found {value}, expected at least 1: ending is the last resort")
        if not self.triggers:
            raise ValueError("triggers: found none, expected at least one label")
        if unknown := set(self.grave) - set(self.triggers):
            raise ValueError(f"grave: found {sorted(unknown)}, expected only labels named in triggers")
        if both := set(self.triggers) & set(self.vetoes):
            raise ValueError(f"vetoes: found {sorted(both)}, which are triggers too")
        labels = {*self.user_labels, *self.assistant_labels}
        if unused := set(self.thresholds) - {"default", *labels}:
            raise ValueError(f"thresholds: found {sorted(unused)}, expected only labels that the policy reads, or default")
        if "default" not in self.thresholds and (missing := labels - set(self.thresholds)):
            raise ValueError(f"thresholds: found none for {sorted(missing)}, expected one for each or a default")

    @property
    def user_labels(self) -> tuple[str, ...]:
        """Every user label that the policy reads."""
        optional = (self.end_request_label, self.persistence_label)
        return (*self.triggers, *self.vetoes, *(name for name in optional if name is not None))

    @property
    def assistant_labels(self) -> tuple[str, ...]:
        """Every assistant label that the policy reads or reports."""
        return (self.redirection_label, *([] if self.distress_label is None else [self.distress_label]))

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits of what the rules are; the mode, which changes no rule, and settings at their default are left out of it."""
        plain, defaults = asdict(self), {field.name: field.default for field in fields(self)}
        settled = {name: value for name, value in plain.items() if name != "mode" and getattr(self, name) != defaults[name]}
        return hashlib.sha256(json.dumps(settled, sort_keys=True).encode()).hexdigest()[:8]

    def threshold(self, label: str) -> Threshold:
        """The threshold of `label`, or the default one."""
        return self.thresholds[label] if label in self.thresholds else self.thresholds["default"]


def read_policy(path: str | Path) -> PolicyConfig:
    """A policy from a YAML file. Raises `ConfigError`."""
    return parse_policy(read_yaml(path), where=str(path))


def parse_policy(values: Mapping[str, Any], *, where: str) -> PolicyConfig:
    """A policy from plain data, e.g. a manifest. Raises `ConfigError`."""
    if values.get("mode") is False:  # what YAML makes of `mode: off`
        values = {**values, "mode": "off"}
    return parse_settings(PolicyConfig, values, where=where)


@dataclass(frozen=True)
class PolicyState:
    """What the policy remembers of a conversation. Immutable: an older one is a branch (B9).

    Attributes:
        mode: in which the counts were made; warnings that a mode withheld do not count in a mode that acts.
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
        acts: what the host said it did, with the index of the newest message then; the newest of them, never reset.
    """

    mode: Mode = "enforce"
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
    evidence: tuple[int, ...] = ()
    acts: tuple[tuple[Act, int], ...] = ()

    def __post_init__(self) -> None:
        if min(self.redirections, self.grave_redirections, self.warnings, self.quiet, self.calm_risk, self.ended_at or 0, *self.evidence) < 0:
            raise ValueError("found a negative count or index, expected none")
        if any(a >= b for a, b in zip(self.evidence, self.evidence[1:], strict=False)):
            raise ValueError("evidence: found indices out of order, expected ascending ones")

    def blank(self, **changes: Any) -> PolicyState:
        """A state that remembers nothing but its mode and the host's acts, with `changes`."""
        return PolicyState(mode=self.mode, acts=self.acts, **changes)


def _with(evidence: tuple[int, ...], index: int) -> tuple[int, ...]:
    """The evidence with the newest turn, once; bounded."""
    return evidence if evidence[-1:] == (index,) else (*evidence, index)[-EVIDENCE_LIMIT:]


class DecisionPolicy:
    """The rules of ending over a sequence of scores. Holds settings only; safe to share between threads."""

    def __init__(self, config: PolicyConfig, mode: Mode | None = None) -> None:
        """Takes the settings.

        Args:
            config: thresholds and counts.
            mode: instead of the one in `config`.
        """
        self.config = config
        self.mode: Mode = config.mode if mode is None else mode
        self.digest = config.digest
        self._user_labels = config.user_labels
        limits = {label: config.threshold(label) for label in (*config.user_labels, *config.assistant_labels)}
        self._enter = {label: limit.enter for label, limit in limits.items()}
        self._release = {label: limit.release for label, limit in limits.items()}

    def in_mode(self, mode: Mode) -> DecisionPolicy:
        """The same rules in another mode."""
        return self if mode == self.mode else DecisionPolicy(self.config, mode)

    def start(self) -> PolicyState:
        """The state before the first turn."""
        return PolicyState(mode=self.mode)

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
        if score.role not in ("user", "assistant"):
            return state, Decision("continue", "none", "not_scored")
        if self.mode == "off":  # what was advised before is no longer open: the host was not told to go on with it
            return replace(state, open_harm="none", warning_due=False, confirmation="none"), Decision("continue", "none", "mode_off")
        state = self._adopt(state)
        return self._user(state, score) if score.role == "user" else self._assistant(state, score)

    def acknowledge(self, state: PolicyState, act: Act, index: int) -> tuple[PolicyState, Decision]:
        """Takes what the host did itself upon an advice, and records it.

        Args:
            state: after the newest turn; not changed.
            act: `warned`: it gave the advised warning; `confirmed` or `declined`: the user's answer to the advised question.
            index: of the newest message.

        Raises:
            StateError: no such advice is open, so the act cannot bring an end nearer.
        """
        state = self._adopt(state)
        lets, acts = LETS_THROUGH[self.mode], (*state.acts, (act, index))[-EVIDENCE_LIMIT:]
        if state.ended_at is None and act == "warned" and state.warning_due and "warn" in lets:  # B3
            state = replace(state, acts=acts, warnings=state.warnings + 1, warning_due=False, open_harm="none", evidence=_with(state.evidence, index))
            return state, Decision("continue", "none", "warned", None, state.evidence)
        if state.ended_at is None and act != "warned" and state.confirmation != "none" and "confirm" in lets:  # B7
            if act == "declined":
                return replace(state, acts=acts, confirmation="none"), Decision("continue", "none", "end_declined", None, state.evidence)
            state = replace(state, acts=acts, confirmation="none", ended_at=index, evidence=_with(state.evidence, index))
            return state, Decision("end", "none", "end_confirmed", self.config.end_request_label, state.evidence)
        raise StateError(f"acknowledge: found {act!r} in mode {self.mode}, expected it only while the advice to do so is open")

    def distressed(self, score: TurnScore) -> bool:
        """Whether an assistant turn shows apparent distress (B12). It moves no decision. Raises `ScoringError`."""
        label = self.config.distress_label
        return label is not None and score.role == "assistant" and self._read(score, (label,))[label] >= 0.0

    def _adopt(self, state: PolicyState) -> PolicyState:
        """B13: the state for this mode. Warnings and questions that the old mode withheld were never given, so a mode that acts forgets them."""
        if state.mode == self.mode:
            return state
        given = LETS_THROUGH[state.mode]
        state = replace(state, mode=self.mode)
        if "warn" not in given:
            state = replace(state, warnings=0, warning_due=False)
        return state if "confirm" in given else replace(state, confirmation="none")

    def _read(self, score: TurnScore, labels: Iterable[str]) -> dict[str, float]:
        """How far each label is above its threshold, negative below it; every one checked, also one that would not be looked at (B14)."""
        margins = {}
        for label in labels:
            value = score.scores.get(label)
            if value is None or not 0.0 <= value <= 1.0:  # also catches NaN
                raise ScoringError(f"turn {score.index}: {label}: found {value!r}, expected a score in 0…1; nothing was decided")
            margins[label] = value - self._enter[label]  # never negative for a score at the threshold: subtraction of floats keeps their order
        return margins

    def _below(self, score: TurnScore, labels: Iterable[str]) -> bool:
        return all(score.scores[label] < self._release[label] for label in labels)

    def _user(self, state: PolicyState, score: TurnScore) -> tuple[PolicyState, Decision]:
        config, margins = self.config, self._read(score, self._user_labels)
        reached = [label for label in config.triggers if margins[label] >= 0.0]
        risks = [label for label in config.vetoes if margins[label] >= 0.0]
        if risks or state.at_risk:
            state = self._track_risk(state, score, max(risks, key=margins.__getitem__, default=None))
            if state.at_risk:  # B5: never ended, never warned, ending not even mentioned
                return self._decide(state, "continue", "support", "at_risk", state.risk)

        category = max(reached, key=lambda label: (label in config.grave, margins[label]), default=None)
        grave = category in config.grave
        confirmation, asks, confirmed, wish = state.confirmation, False, False, config.end_request_label
        if wish is not None and margins[wish] >= 0.0:  # B7
            confirmed = confirmation == "asked"
            asks, confirmation = not confirmed, "none" if confirmed else "due"
        elif wish is not None and self._below(score, (wish,)):
            confirmation = "none"
        calm = category is None and self._below(score, config.triggers)
        quiet = state.quiet + calm if category is None else 0  # B6: in the band neither more nor less
        if quiet >= config.quiet_turns_to_reset:  # B10
            state, quiet = state.blank(), 0
        warned = state.warnings >= config.warnings_before_end
        persists = config.persistence_label is None or margins[config.persistence_label] >= 0.0
        ends: Reason | None = "harm_after_warning" if category is not None and warned and persists else "end_confirmed" if confirmed else None  # B1, B3, B7
        warns = category is not None and not (warned or ends or asks) and self._warning_is_due(state, grave)
        state = replace(
            state,
            open_harm="none" if category is None else "grave" if grave else "harm",
            warning_due=warns,
            confirmation=confirmation,
            quiet=quiet,
            ended_at=score.index if ends and self.mode == "enforce" else None,
            evidence=_with(state.evidence, score.index) if ends or asks or category is not None else state.evidence,
        )
        if ends:
            return self._decide(state, "end", "none", ends, wish if ends == "end_confirmed" else category)
        if asks:
            return self._decide(state, "continue", "confirm", "end_requested", wish)
        if category is None:
            return self._decide(state, "continue", "none", "calm" if calm else "uncertain")
        if warns:
            return self._decide(state, "continue", "warn", "warning_due", category)
        return self._decide(state, "continue", "redirect", "harm_without_persistence" if warned else "harmful_turn", category)

    def _decide(self, state: PolicyState, call: Call, advice: Advice, reason: Reason, category: str | None = None) -> tuple[PolicyState, Decision]:
        """B13: the decision as far as the mode lets it through, with what it withheld."""
        if self.mode == "enforce":
            return state, Decision(call, advice, reason, category, state.evidence)
        lets = LETS_THROUGH[self.mode]
        shown: Advice = advice if advice in lets else "none"
        if reason == "harm_after_warning" and "redirect" in lets:
            shown = "redirect"  # the conversation goes on, and so does the harm
        withheld = (None if call == "continue" else call, None if shown == advice else advice)
        return state, Decision("continue", shown, reason, category, state.evidence, *withheld)

    def _warning_is_due(self, state: PolicyState, grave: bool) -> bool:
        """B3, B4: enough redirections of harmful turns have been observed; once warned, further harm never falls back behind it."""
        needed, needed_grave = self.config.redirections_before_warning, self.config.grave_redirections_before_warning
        enough = needed is not None and state.redirections >= needed
        return state.warnings >= 1 or enough or (grave and needed_grave is not None and state.grave_redirections >= needed_grave)

    def _track_risk(self, state: PolicyState, score: TurnScore, risk: str | None) -> PolicyState:
        """B5: a veto begins, holds, or (only if configured) is lifted. It clears every count towards an end."""
        if risk is not None:
            return state.blank(at_risk=True, risk=risk, evidence=_with(state.evidence if state.at_risk else (), score.index))
        if self.config.veto_turns is None:
            return state
        calm = state.calm_risk + 1 if self._below(score, self.config.vetoes) else 0
        return state.blank() if calm >= self.config.veto_turns else replace(state, calm_risk=calm)

    def _assistant(self, state: PolicyState, score: TurnScore) -> tuple[PolicyState, Decision]:
        redirects = self._read(score, (self.config.redirection_label,))[self.config.redirection_label] >= 0.0
        if state.at_risk:
            return self._decide(state, "continue", "none", "observed")
        reason: Reason = "observed"
        changes: dict[str, Any] = {}
        if state.warning_due and not self.config.acknowledged_warnings:  # B3: the warning was advised and an assistant turn followed
            reason, changes = "warned", {"warnings": state.warnings + 1, "warning_due": False}
        elif redirects and state.open_harm != "none":  # B2
            grave = state.open_harm == "grave"
            reason, changes = "redirected", {"redirections": state.redirections + 1, "grave_redirections": state.grave_redirections + grave}
        if changes:
            changes |= {"open_harm": "none", "evidence": _with(state.evidence, score.index)}
        if state.confirmation == "due":
            changes["confirmation"] = "asked"
        return self._decide(replace(state, **changes), "continue", "none", reason)


def state_to_json(state: PolicyState) -> dict[str, Any]:
    """The state as plain data."""
    return asdict(state)


def state_from_json(values: Mapping[str, Any]) -> PolicyState:
    """The state from plain data. Raises `ConfigError`."""
    if missing := sorted(set(PolicyState.__dataclass_fields__) - set(values)):  # a state that lost a key must not forget a veto
        raise ConfigError(f"policy state: {missing[0]}: found nothing, expected this key")
    return parse_settings(PolicyState, values, where="policy state")
