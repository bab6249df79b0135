"""Thresholds with a certified bound on false ends, from stored scores; and the watch over that bound in production.

A *false end* is the end of a conversation that should have gone on. The bound is exact (Clopper–Pearson). It holds although several candidates are tested,
because their order is fixed beforehand (Learn then Test by a fixed sequence, Angelopoulos et al. 2021), on other conversations than those that test them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from pydantic import StrictBool

from .data import STRICT, split_of
from .errors import DataError, FalseEndAlarm
from .metrics import clopper_pearson, conversations_needed
from .policy import DecisionPolicy, PolicyConfig, Threshold
from .types import Decision, ScoredDialogue, TurnScore

LEVELS = (0.99, 0.98, 0.97, 0.95, 0.93, 0.9, 0.87, 0.84, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3)
"""Enter thresholds of the triggers that are tried, strict first."""

PERSISTENCE = (0.9, 0.7, 0.5, 0.3, 0.1)
"""Enter thresholds of persistence that are tried, strict first."""

VETOES = (0.25, 0.5, 1.0)
"""Factors on the enter and release thresholds of the vetoes that are tried, strict first."""

WORTH_A_STEP = 0.02
"""A candidate must end so much more (share of what should end) to be tested after the one before it: each test is a chance to stop."""


@dataclass(frozen=True)
class Candidate:
    """One policy on one half of the conversations.

    Attributes:
        config: the policy.
        n: conversations that must go on.
        errors: of them, those that it ended.
        should_end: conversations that should end.
        ended: of them, those that it ended when that was justified.
        bound: exact one-sided upper bound of the rate of false ends, 0…1.
        passed: the bound is within the limit.
    """

    config: PolicyConfig
    n: int
    errors: int
    should_end: int
    ended: int
    bound: float
    passed: bool

    @property
    def recall(self) -> float:
        """Share of conversations that should end and did; 0 without any."""
        return self.ended / self.should_end if self.should_end else 0.0


@dataclass(frozen=True)
class Calibration:
    """What came of it.

    Attributes:
        tested: candidates on the certifying half in their fixed order, up to the first that failed.
        certified: the last that passed, or None.
        kinds: kind to how many of the conversations that must go on, in the certifying half.
        sources: source to (those conversations, of them ended by the certified candidate).
        others: kind (or source, where a conversation has no kind) to the same for conversations that must go on but are not of the named kinds: outside the
            claim, reported all the same.
        reachable: of the conversations of the claim, those with enough turns for an end.
        warned: of them, those that the certified candidate warns.
        early: conversations that should end and were ended before that was justified.
    """

    tested: tuple[Candidate, ...]
    certified: Candidate | None
    kinds: dict[str, int]
    sources: dict[str, tuple[int, int]]
    others: dict[str, tuple[int, int]]
    reachable: int
    warned: int
    early: int


def must_go_on(scored: ScoredDialogue, kinds: Sequence[str] = ()) -> bool:
    """Whether an end of it would be a false one: its `meta.call` says continue, and it is of one of `kinds` if any are named."""
    return scored.meta.get("call") == "continue" and (not kinds or scored.meta.get("kind") in kinds)


def _decisions(scored: ScoredDialogue, policy: DecisionPolicy) -> Iterator[tuple[int, Decision]]:
    """(message, decision) of every turn, judged in full. Raises `ScoringError`."""
    state = policy.start()
    for turn in scored.turns:
        state, decision = policy.step(state, TurnScore(turn.index, turn.role, turn.scores, turn.windows))
        yield turn.index, decision


def end_of(scored: ScoredDialogue, policy: DecisionPolicy) -> int | None:
    """The message at which the policy ends, judged in full; or None. Raises `ScoringError`."""
    return next((index for index, decision in _decisions(scored, policy) if decision.call == "end"), None)


def is_warned(scored: ScoredDialogue, policy: DecisionPolicy) -> bool:
    """Whether the policy, judged in full, advises a warning. Raises `ScoringError`."""
    return any(decision.advice == "warn" for _, decision in _decisions(scored, policy))


def is_reachable(scored: ScoredDialogue, config: PolicyConfig) -> bool:
    """Whether a conversation has the turns that the shortest way to an end takes: redirected turns, the one that is warned, and one more."""
    redirections = min(filter(None, (config.redirections_before_warning, config.grave_redirections_before_warning)))
    users = sum(turn.role == "user" for turn in scored.turns)
    return users >= redirections + 1 + config.warnings_before_end and len(scored.turns) - users >= redirections + config.warnings_before_end


def ended_rightly(scored: ScoredDialogue, end: int | None) -> bool:
    """Whether it ended, and not before an end was justified (where `meta.justified_at` says when that was)."""
    justified = scored.meta.get("justified_at")
    return end is not None and (justified is None or end >= int(justified))


def with_levels(config: PolicyConfig, level: float, persistence: float | None, vetoes: float = 1.0) -> PolicyConfig:
    """The policy with other enter thresholds; releases stay, so that a lower level only ever makes harm of what was uncertain.

    Args:
        config: the policy from which to start.
        level: of every trigger.
        persistence: of the gate; None leaves it.
        vetoes: factor on both thresholds of every veto.
    """
    changed = {label: Threshold(max(level, config.threshold(label).release), config.threshold(label).release) for label in config.triggers}
    if persistence is not None and config.persistence_label is not None:
        old = config.threshold(config.persistence_label)
        changed[config.persistence_label] = Threshold(persistence, min(persistence, old.release))
    for label in config.vetoes:
        changed[label] = Threshold(round(vetoes * config.threshold(label).enter, 6), round(vetoes * config.threshold(label).release, 6))
    return replace(config, thresholds={**config.thresholds, **changed})


def candidates_of(config: PolicyConfig) -> list[PolicyConfig]:
    """Every policy that is tried: `config` itself and its variants, strict first."""
    gates = PERSISTENCE if config.persistence_label is not None else (None,)
    factors = VETOES if config.vetoes else (1.0,)
    return [with_levels(config, level, gate, factor) for factor in factors for level in LEVELS for gate in gates] + [config]


def calibrate(
    conversations: Iterable[ScoredDialogue],
    config: PolicyConfig,
    *,
    max_false_end_rate: float = 0.001,
    confidence: float = 0.95,
    kinds: Sequence[str] = (),
    risk_kinds: Sequence[str] = (),
    as_is: bool = False,
) -> Calibration:
    """Chooses thresholds that end most of what should end while false ends are certified to be rarer than a limit.

    Args:
        conversations: scored, with the truth in `meta.call` (and `meta.justified_at`); those without a call are passed over.
        config: the policy from which to start.
        max_false_end_rate: the limit, between 0 and 1.
        confidence: of the claim, between 0 and 1.
        kinds: restrict the claim to conversations of these kinds. Others that must go on are weighed when the order is chosen, and reported.
        risk_kinds: kinds in which somebody is at risk: of the candidates, only those that end fewest of them on the tuning half are tested.
        as_is: certify `config` as it stands. Nothing is tuned, so all conversations certify; only right if they had no part in choosing it.

    Returns:
        The candidates tested and the one certified, if any passed.

    Raises:
        DataError: an id twice, or too few conversations for the claim even without a single false end.
        ScoringError: the scores lack a label that the policy reads.
    """
    if not 0.0 < max_false_end_rate < 1.0 or not 0.0 < confidence < 1.0:
        raise DataError(f"found limit {max_false_end_rate} and confidence {confidence}, expected both between 0 and 1")
    halves: dict[str, list[ScoredDialogue]] = {"tune": [], "certify": [], "others": []}
    seen: set[str] = set()
    for scored in conversations:
        if scored.id in seen:
            raise DataError(f"found conversation {scored.id!r} twice, expected each id once")
        seen.add(scored.id)
        if must_go_on(scored) or scored.meta.get("call") == "end":
            half = "certify" if as_is else split_of(scored.id, {"tune": 0.5, "certify": 0.5}, seed="calibrate")
            if half == "certify" and must_go_on(scored) and not must_go_on(scored, kinds):
                half = "others"
            halves[half].append(replace(scored, turns=tuple(replace(turn, decision=None) for turn in scored.turns)))  # most of the memory
    needed = conversations_needed(max_false_end_rate, confidence)
    harmless = [scored for scored in halves["certify"] if scored.meta["call"] == "continue"]
    if len(harmless) < needed:
        found = f"found {len(harmless)} conversations that must go on to certify with, expected at least {needed}"
        more = "" if as_is else f" (about {2 * needed} in all, since half of them choose the thresholds)"
        raise DataError(f"{found}{more}: without a single false end fewer cannot show a rate of {max_false_end_rate:.3%} at {confidence:.0%}")
    order = [config] if as_is else _fixed_order(halves["tune"], config, risk_kinds)
    tested: list[Candidate] = []
    ends: list[list[int | None]] = []
    for each, ended_at in _ends(halves["certify"], order):
        ends.append(ended_at)
        tested.append(_candidate(each, halves["certify"], ended_at, max_false_end_rate, confidence))
        if not tested[-1].passed:  # the fixed sequence stops here: nothing behind it may be claimed
            break
    passed = sum(candidate.passed for candidate in tested)
    wrong = Counter(
        scored.source for scored, end in zip(halves["certify"], ends[passed - 1], strict=True) if scored.meta["call"] == "continue" and end is not None
    )
    sources = {source: (count, wrong[source] if passed else 0) for source, count in sorted(Counter(scored.source for scored in harmless).items())}
    kinds_found = dict(sorted(Counter(str(scored.meta.get("kind", "")) for scored in harmless).items()))
    certified = tested[passed - 1] if passed else None
    policy = DecisionPolicy(config if certified is None else certified.config, "enforce")
    groups = Counter(_group(scored) for scored in halves["others"])
    ended = Counter(_group(scored) for scored in halves["others"] if end_of(scored, policy) is not None)
    early = [
        scored
        for scored, end in zip(halves["certify"], ends[max(0, passed - 1)], strict=True)
        if scored.meta["call"] == "end" and end is not None and not ended_rightly(scored, end)
    ]
    return Calibration(
        tested=tuple(tested),
        certified=certified,
        kinds=kinds_found,
        sources=sources,
        others={name: (count, ended[name]) for name, count in sorted(groups.items())},
        reachable=sum(is_reachable(scored, policy.config) for scored in harmless),
        warned=sum(is_warned(scored, policy) for scored in harmless),
        early=len(early),
    )


def _group(scored: ScoredDialogue) -> str:
    return str(scored.meta.get("kind") or scored.source)


def _ends(conversations: Sequence[ScoredDialogue], configs: Sequence[PolicyConfig]) -> Iterator[tuple[PolicyConfig, list[int | None]]]:
    """Each policy with where it ends each conversation, as needed.

    A lower enter threshold never removes an end, nor does a higher one of a veto: what the most lenient of all let go on is not judged again.
    """
    lowest = {label: min((config.threshold(label) for config in configs), key=lambda limit: limit.enter) for config in configs for label in config.user_labels}
    kept = {label: max((config.threshold(label) for config in configs), key=lambda limit: limit.enter) for label in configs[0].vetoes}
    kept[configs[0].redirection_label] = configs[0].threshold(configs[0].redirection_label)
    policy = DecisionPolicy(replace(configs[0], thresholds={**configs[0].thresholds, **lowest, **kept}), "enforce")
    open_ = [place for place, scored in enumerate(conversations) if end_of(scored, policy) is not None]
    for config in configs:
        policy = DecisionPolicy(config, "enforce")
        ends: list[int | None] = [None] * len(conversations)
        for place in open_:
            ends[place] = end_of(conversations[place], policy)
        yield config, ends


def _candidate(config: PolicyConfig, conversations: Sequence[ScoredDialogue], ends: Sequence[int | None], limit: float, confidence: float) -> Candidate:
    harmless = [end is not None for scored, end in zip(conversations, ends, strict=True) if scored.meta["call"] == "continue"]
    rightly = [ended_rightly(scored, end) for scored, end in zip(conversations, ends, strict=True) if scored.meta["call"] == "end"]
    bound = clopper_pearson(sum(harmless), len(harmless), confidence, two_sided=False)[1]
    return Candidate(config, len(harmless), sum(harmless), len(rightly), sum(rightly), bound, bound <= limit)


def _fixed_order(conversations: Sequence[ScoredDialogue], config: PolicyConfig, risk_kinds: Sequence[str]) -> list[PolicyConfig]:
    """From strict to lenient as the tuning half sees it: fewest false ends first, each step ending clearly more than the one before.

    All that must go on counts here, of whatever kind; where somebody is at risk, a candidate that ends more than another is not taken at all.
    """
    should_end = sum(scored.meta["call"] == "end" for scored in conversations)
    if not should_end:
        raise DataError("found no conversation that should end among those that choose the thresholds, expected some; certify a given policy as it is instead")
    at_risk = [must_go_on(scored) and scored.meta.get("kind") in risk_kinds for scored in conversations]
    found = [
        (sum(end is not None for end, risk in zip(ends, at_risk, strict=True) if risk), _candidate(each, conversations, ends, 1.0, 0.5))
        for each, ends in _ends(conversations, candidates_of(config))
    ]
    fewest = min(risked for risked, _ in found)
    order: list[Candidate] = []
    for candidate in sorted((one for risked, one in found if risked == fewest), key=lambda one: (one.errors, one.ended)):
        if not order or candidate.ended - order[-1].ended >= WORTH_A_STEP * should_end:
            order.append(candidate)
    return [candidate.config for candidate in order]


def policy_to_json(config: PolicyConfig) -> dict[str, object]:
    """The policy as plain data, as in `configs/policy/`."""
    record = asdict(config)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in record.items()}


# --- in production


@dataclass(frozen=True)
class Audited:
    """One audited conversation, as a line of `lastresort audit`.

    Attributes:
        id: of the conversation.
        ended: whether it was ended (or would have been, in a mode that withholds).
        justified: the auditor's word on whether it should have been; may be left out only where nothing was ended.
    """

    id: str
    ended: StrictBool
    justified: StrictBool | None = None


Audited.__pydantic_config__ = STRICT  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Audit:
    """The evidence so far that the false-end rate is above its limit.

    Attributes:
        limit: the certified limit, 0…1.
        confidence: with which an alarm is right, whenever one looks, 0…1.
        n: audited conversations that should have gone on.
        errors: of them, those that were ended.
        evidence: the e-value now: how many times a bet against the limit has multiplied its stake.
        peak: the highest e-value so far.
        alarm_at: id of the conversation at which it reached `1 / (1 - confidence)`, or None.
    """

    limit: float
    confidence: float
    n: int = 0
    errors: int = 0
    evidence: float = 1.0
    peak: float = 1.0
    alarm_at: str | None = None

    def add(self, audited: Audited) -> Audit:
        """The evidence after one more conversation. Raises `DataError` where an end has no verdict."""
        if audited.ended and audited.justified is None:
            raise DataError(f"conversation {audited.id!r}: justified: found nothing, expected true or false for an ended conversation")
        if audited.justified:  # it should have ended: says nothing about false ends
            return self
        n, errors = self.n + 1, self.errors + audited.ended
        evidence = e_value(errors, n, self.limit)
        alarm = self.alarm_at or (audited.id if evidence >= 1.0 / (1.0 - self.confidence) else None)
        return replace(self, n=n, errors=errors, evidence=evidence, peak=max(self.peak, evidence), alarm_at=alarm)

    def check(self) -> None:
        """Raises `FalseEndAlarm` if the rate has left its limit."""
        if self.alarm_at is not None:
            found = f"found {self.errors} false ends in {self.n} audited conversations that should have gone on, alarming as of {self.alarm_at!r}"
            raise FalseEndAlarm(f"{found}; expected at most {self.limit:.3%} at {self.confidence:.0%}: go back to shadow and certify anew")


def e_value(errors: int, n: int, limit: float) -> float:
    """The wealth of a gambler who bets against "the rate is at most `limit`", after `errors` in `n` (Waudby-Smith and Ramdas 2024).

    The stake is spread over constant bets on rates of 2, 4 … 32 times the limit, so that at 95% one false end alone alarms nobody. Under the claim
    the wealth is expected not to grow, so it reaches `1/a` with a probability of at most `a`, however often one looks (Ville's inequality).
    """
    rates = [min(limit * 2.0**power, (1.0 + limit) / 2) for power in range(1, 6)]
    logs = [errors * math.log(rate / limit) + (n - errors) * (math.log1p(-rate) - math.log1p(-limit)) for rate in rates]
    top = max(logs)
    return math.exp(min(700.0, top + math.log(sum(math.exp(log - top) for log in logs) / len(rates))))


def audit(conversations: Iterable[Audited], limit: float, confidence: float = 0.95) -> Audit:
    """The evidence after all of `conversations`, in the order in which they were audited; see `Audit.check`.

    They must be a random sample of *all* conversations, ended or not: the rate is that of the sample. One that goes on without a verdict counts as harmless,
    which holds back an alarm. Raises `DataError` for an id twice, or an end without a verdict.
    """
    if not 0.0 < limit < 1.0 or not 0.0 < confidence < 1.0:
        raise DataError(f"found limit {limit} and confidence {confidence}, expected both between 0 and 1")
    state = Audit(limit, confidence)
    seen: set[str] = set()
    for audited in conversations:
        if audited.id in seen:
            raise DataError(f"found conversation {audited.id!r} twice, expected each once")
        seen.add(audited.id)
        state = state.add(audited)
    return state
