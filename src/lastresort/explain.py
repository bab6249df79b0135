"""Why a decision is what it is (B11): the numbers that were weighed, what was counted, and the smallest change that would have made another decision.

Stands above the policy, so that a step of the policy pays for none of it. Speaks of labels, numbers and message indices only, never of what people wrote (B15).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from .policy import DecisionPolicy, PolicyState
from .types import Decision, Reason, TurnScore

MEANING: Mapping[Reason, str] = {
    "calm": "nothing at or above a threshold",
    "uncertain": "a trigger between release and enter: nothing changes",
    "harmful_turn": "a harmful turn: the assistant should redirect",
    "harm_without_persistence": "harm after the warning that does not continue the redirected line",
    "warning_due": "enough redirections failed: a warning is due",
    "harm_after_warning": "the harm went on after the warning",
    "at_risk": "somebody may be at risk: support, no warning and no end",
    "end_requested": "the user asks to end: confirm first",
    "end_confirmed": "the user confirmed the end",
    "end_declined": "the user wants to go on",
    "redirected": "counts as a redirection",
    "warned": "counts as the warning",
    "observed": "changes nothing",
    "not_scored": "carried, not scored",
    "already_ended": "after the end",
    "mode_off": "nothing is decided in this mode",
}
"""Each reason code in words."""


@dataclass(frozen=True)
class Change:
    """One number that would have had to be different.

    Attributes:
        name: a label, or a count of the policy state.
        found: what it was.
        needed: what it would have had to reach, or to stay below.
        side: `at_least` or `below` for a score, `more` for a count.
    """

    name: str
    found: float
    needed: float
    side: str

    def __str__(self) -> str:
        if self.side == "more":
            missing = int(self.needed - self.found)
            return f"{missing} more {self.name.replace('_', ' ')}" if missing > 1 else f"1 more {self.name.replace('_', ' ').removesuffix('s')}"
        digits = next((n for n in range(2, 7) if f"{self.found:.{n}f}" != f"{self.needed:.{n}f}"), 7)
        return f"{self.name} {'at or above' if self.side == 'at_least' else 'below'} {self.needed:.{digits}f} (found {self.found:.{digits}f})"


def explained(policy: DecisionPolicy, before: PolicyState, after: PolicyState, score: TurnScore, decision: Decision) -> Decision:
    """The decision with its numbers, counts and counterfactual.

    Args:
        policy: that decided.
        before: the state before the turn.
        after: the state after it.
        score: of the turn.
        decision: as the policy returned it.
    """
    numbers = weighed(policy, score, decision)
    return replace(decision, numbers=numbers, counts=counted(policy, after, decision), counterfactual=counterfactual(policy, before, after, score, decision))


def weighed(policy: DecisionPolicy, score: TurnScore, decision: Decision) -> dict[str, tuple[float, float]]:
    """Label to (score, threshold), for the labels on which the decision hung: all triggers or vetoes reached, else the nearest, and the gates."""
    config = policy.config
    if decision.reason in ("mode_off", "not_scored", "already_ended", "end_declined"):
        return {}
    limit = {label: config.threshold(label).enter for label in (*config.user_labels, config.redirection_label)}
    if score.role == "assistant":
        return {config.redirection_label: (score.scores[config.redirection_label], limit[config.redirection_label])}

    def of(labels: Iterable[str]) -> list[str]:
        labels = list(labels)
        reached = [label for label in labels if score.scores[label] >= limit[label]]
        return reached or [max(labels, key=lambda label: score.scores[label] - limit[label])] if labels else []

    labels = [*of(config.vetoes)]
    if decision.reason != "at_risk":
        gates = (config.persistence_label if decision.reason in ("harm_after_warning", "harm_without_persistence") else None, config.end_request_label)
        labels = [*of(config.triggers), *(gate for gate in gates if gate is not None), *labels]
    return {label: (score.scores[label], limit[label]) for label in labels}


def counted(policy: DecisionPolicy, state: PolicyState, decision: Decision) -> dict[str, tuple[int, int]]:
    """Count to (found after this turn, needed): redirections towards the warning, warnings towards the end, quiet turns towards forgetting."""
    config = policy.config
    if decision.reason in ("mode_off", "not_scored", "already_ended"):
        return {}
    if state.at_risk:
        return {} if config.veto_turns is None else {"calm_turns": (state.calm_risk, config.veto_turns)}
    grave = config.grave_redirections_before_warning if config.grave else None
    needed = {
        "redirections": (state.redirections, config.redirections_before_warning),
        "grave_redirections": (state.grave_redirections, grave),
        "warnings": (state.warnings, config.warnings_before_end),
        "quiet_turns": (state.quiet, config.quiet_turns_to_reset),
    }
    return {name: (found, limit) for name, (found, limit) in needed.items() if limit is not None}


def alternatives(policy: DecisionPolicy, before: PolicyState, after: PolicyState, score: TurnScore, decision: Decision) -> list[tuple[Change, ...]]:
    """Changes each of which alone would have made another decision: the smallest of the scores of this turn first, then that of the counts."""
    config, reason = policy.config, decision.reason
    numbers = weighed(policy, score, decision)

    def lower(labels: Iterable[str]) -> tuple[Change, ...]:
        return tuple(Change(label, *numbers[label], "below") for label in labels if numbers[label][0] >= numbers[label][1])

    def lift(labels: Iterable[str]) -> list[tuple[Change, ...]]:
        return [(Change(label, *numbers[label], "at_least"),) for label in labels if label in numbers and numbers[label][0] < numbers[label][1]]

    wish = [] if config.end_request_label is None else [config.end_request_label]
    gate = [] if config.persistence_label is None else [config.persistence_label]
    by_score: list[tuple[Change, ...]] = []
    by_count: list[Change] = []
    if score.role == "assistant":
        if reason == "redirected":
            by_score = [lower(numbers)]
        elif reason == "observed" and before.open_harm != "none":
            by_score = lift(numbers)
    elif reason in ("calm", "uncertain"):
        by_score = lift(numbers)
    elif reason in ("end_requested", "end_confirmed"):
        by_score = [lower(wish), *lift(config.vetoes)]
    elif reason == "at_risk":
        by_score = [lower(numbers)] if not before.at_risk else []
        if after.calm_risk > 0 and config.veto_turns is not None:
            by_count = [Change("calm_turns", after.calm_risk, config.veto_turns, "more")]
    elif decision.category is not None:
        triggers = [label for label in config.triggers if label in numbers]
        by_score = [lower([*triggers, *wish]), *lift(config.vetoes), *([] if reason == "harm_after_warning" else lift(wish))]
        if reason == "harm_without_persistence":
            by_score += lift(gate)
        elif reason == "harm_after_warning" and gate:
            by_score.append(lower([*gate, *wish]))
        elif reason == "harmful_turn":
            ways = [("redirections", after.redirections, config.redirections_before_warning)]
            if decision.category in config.grave:
                ways.append(("grave_redirections", after.grave_redirections, config.grave_redirections_before_warning))
            by_count = [Change(name, found, needed, "more") for name, found, needed in ways if needed is not None]
    by_score = [way for way in by_score if way]
    nearest = sorted(by_score, key=lambda way: max(abs(change.needed - change.found) for change in way))[:1]
    return nearest + [(change,) for change in sorted(by_count, key=lambda change: change.needed - change.found)[:1]]


def counterfactual(policy: DecisionPolicy, before: PolicyState, after: PolicyState, score: TurnScore, decision: Decision) -> str:
    """The smallest change in words; why there is none, where there is none; empty where nothing is decided."""
    ways = alternatives(policy, before, after, score, decision)
    if ways:
        return ", or ".join(" and ".join(map(str, way)) for way in ways)
    if decision.reason == "at_risk":
        until = "for the rest of the conversation" if policy.config.veto_turns is None else f"until {policy.config.veto_turns} calm turns in a row"
        return f"nothing on this turn: the risk seen at message {after.evidence[-1]} holds {until}"
    if decision.reason == "warned":
        return "nothing on this turn: whatever the assistant says after the advice to warn counts as the warning"
    if decision.reason == "already_ended":
        return f"nothing on this turn: the conversation ended at message {after.ended_at}; an edit before it starts a branch"
    return "a mode other than off" if decision.reason == "mode_off" else ""


def sentence(decision: Decision) -> str:
    """A decision in one line: reason, numbers against thresholds, counts, evidence, and what would have changed it."""
    parts = [MEANING[decision.reason]]
    parts += [f"{label} {found:.2f} {'≥' if found >= needed else '<'} {needed:.2f}" for label, (found, needed) in decision.numbers.items()]
    parts += [f"{name.replace('_', ' ')} {found} of {needed}" for name, (found, needed) in decision.counts.items() if found]
    if decision.evidence:
        parts.append("evidence: messages " + ", ".join(map(str, decision.evidence)))
    return "; ".join(parts) + (f". Otherwise with: {decision.counterfactual}" if decision.counterfactual else "")
