"""The words that every room shares: messages and dialogues in, scores and decisions out.

All are frozen. Roles and acts are plain strings (`Literal`), so that they pass through JSON unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Role = Literal["user", "assistant", "system", "tool"]
"""Who speaks. `user` and `assistant` turns are scored; `system` and `tool` are carried."""

Speaker = Literal["user", "assistant"]
"""The roles that are scored."""

LabelRole = Literal["trigger", "veto", "signal"]
"""What a label is for: reason to end, reason never to end, or reported only."""

Call = Literal["continue", "end"]
"""The one thing a host must obey."""

Advice = Literal["none", "redirect", "warn", "confirm", "support"]
"""What the assistant's side could do next."""

Mode = Literal["off", "shadow", "advise", "enforce"]
"""How far decisions act (B13): not at all, recorded only, up to the warning, in full."""

Act = Literal["warned", "confirmed", "declined"]
"""What a host did itself and says so: gave the advised warning, got the user's yes or no to the advised question."""

Reason = Literal[
    "calm",  # nothing at or above a threshold
    "uncertain",  # between release and enter: nothing changes
    "harmful_turn",  # harm; the assistant should redirect
    "harm_without_persistence",  # harm after the warning that does not continue the same line
    "warning_due",  # enough redirections failed; the next harmful turn gets a warning
    "harm_after_warning",  # end
    "at_risk",  # a veto holds
    "end_requested",  # the user asks to end: confirm first
    "end_confirmed",  # end, at the user's wish
    "redirected",  # assistant turn that counts as a redirection
    "warned",  # assistant turn that counts as the warning
    "observed",  # assistant turn that changes nothing
    "not_scored",  # system or tool turn
    "end_declined",  # the host says that the user wants to go on
    "already_ended",  # after the end
    "mode_off",  # nothing is decided
]
"""Why a decision is what it is."""

SCORED_ROLES: tuple[Speaker, ...] = get_args(Speaker)
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class Message:
    """One turn of a dialogue.

    Attributes:
        role: who speaks.
        content: the text; may be empty.
        labels: label name to a number in 0…1 (soft votes welcome). An absent label is unknown and masked in the loss.
    """

    role: Role
    content: str
    labels: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Dialogue:
    """One conversation, OpenAI-style.

    Attributes:
        id: unique within its file.
        messages: the turns in order.
        source: where it comes from.
        meta: anything else; carried, never interpreted by the model.
    """

    id: str
    messages: tuple[Message, ...]
    source: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelSpec:
    """One label of a model.

    Attributes:
        name: as used in data and scores.
        speaker: whose turns it describes.
        role: trigger, veto or signal.
        threshold: at or above it a turn counts as flagged in metrics and reports, 0…1.
        description: one line of meaning.
    """

    name: str
    speaker: Speaker
    role: LabelRole
    threshold: float = 0.5
    description: str = ""

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold <= 1.0:
            raise ValueError(f"threshold: found {self.threshold}, expected 0…1")


@dataclass(frozen=True)
class TurnScore:
    """The scores of one turn.

    Attributes:
        index: 0-based position among all messages of the conversation.
        role: who spoke.
        scores: label name to calibrated probability in 0…1; only the labels of this role; empty for carried roles.
        windows: into how many windows of the token budget the text was read; 0 for carried roles.
    """

    index: int
    role: Role
    scores: Mapping[str, float]
    windows: int = 1


@dataclass(frozen=True)
class Decision:
    """What follows from the conversation so far, and why (B11). Two are equal if they say the same to do for the same reason.

    Attributes:
        call: `continue` or `end`; the only thing a host must obey.
        advice: what the assistant's side could do next.
        reason: code, see `Reason`.
        category: the label that decided, or None.
        evidence: message indices that led here, ascending.
        would_call: the call that was decided where the mode withheld it, else None.
        would_advise: the advice that was decided where the mode withheld it, else None.
        numbers: label to (score of this turn, threshold), for the labels that were weighed; at or above the threshold counts.
        counts: what was counted so far to (found, needed), e.g. `redirections`.
        counterfactual: the smallest change that would have made another decision, in words; filled in above the policy.
    """

    call: Call
    advice: Advice
    reason: Reason
    category: str | None = None
    evidence: tuple[int, ...] = ()
    would_call: Call | None = None
    would_advise: Advice | None = None
    numbers: Mapping[str, tuple[float, float]] = field(default_factory=dict, compare=False)
    counts: Mapping[str, tuple[int, int]] = field(default_factory=dict, compare=False)
    counterfactual: str = field(default="", compare=False)

    @property
    def decided_call(self) -> Call:
        """The call by the rules, whatever the mode let through."""
        return self.call if self.would_call is None else self.would_call

    @property
    def decided_advice(self) -> Advice:
        """The advice by the rules, whatever the mode let through."""
        return self.advice if self.would_advise is None else self.would_advise


@dataclass(frozen=True)
class ScoredTurn:
    """One line of `turns` in scored output: a score and the decision taken on it (None for carried roles)."""

    index: int
    role: Role
    scores: Mapping[str, float]
    windows: int
    decision: Decision | None = None


@dataclass(frozen=True)
class ScoredDialogue:
    """The scored output of one conversation.

    Attributes:
        id: as in the input.
        model: `name@digest8` of the model that scored it.
        call: the call after the last turn.
        ended_at: index of the turn at which the call became `end`, or None.
        turns: one for each message.
        mode: in which it was decided; stored conversations are judged as `enforce` unless asked otherwise.
        would_end_at: index of the first end that the mode withheld, or None.
        distress: indices of the assistant turns with apparent distress (B12); reported, moves nothing.
        source: as in the input.
        meta: of the input's, only what measuring needs: `kind`, `call`, `justified_at`, `hard_negative`.
        policy: digest of the rules that decided (`PolicyConfig.digest`); empty in outputs that do not say.
    """

    id: str
    model: str
    call: Call
    ended_at: int | None
    turns: tuple[ScoredTurn, ...]
    mode: Mode = "enforce"
    would_end_at: int | None = None
    distress: tuple[int, ...] = ()
    source: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    policy: str = ""

    @property
    def decided_end(self) -> int | None:
        """Index of the first end by the rules, whatever the mode let through; or None."""
        return self.would_end_at if self.ended_at is None else self.ended_at
