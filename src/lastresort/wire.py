"""What the HTTP service and its client say to each other: requests and answers as frozen dataclasses, one definition for both sides.

Requests are strict (an unknown key is an error); answers may grow, so a client passes over keys that it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ConfigDict

from .types import Act, Call, Decision, Mode, Role, ScoredTurn, TurnScore

NEWEST = "newest"
"""As `parent`: the turn that was stored last."""

Verdict = Literal["dispute", "confirm"]
"""What somebody says about an end: it was wrong, or it was right."""


@dataclass(frozen=True)
class Said:
    """One message.

    Attributes:
        role: user, assistant, system or tool.
        content: the text; may be empty.
    """

    role: Role
    content: str


@dataclass(frozen=True)
class CourseRequest:
    """A conversation to score or to decide on: all its `messages`, or one new `message` and the `state` from before (none: the first message)."""

    messages: tuple[Said, ...] | None = None
    message: Said | None = None
    state: str | None = None

    def __post_init__(self) -> None:
        if (self.messages is None) == (self.message is None):
            raise ValueError("expected either messages (all of them) or message (the newest)")
        if self.messages is not None and self.state is not None:
            raise ValueError("expected no state beside messages: they are read from the start")
        if self.messages is not None and not self.messages:
            raise ValueError("messages: found none, expected at least one")


@dataclass(frozen=True)
class ScoreAnswer:
    """Scores.

    Attributes:
        model: `name@digest8`.
        turns: one for each message of the request.
        state: to be sent with the next message; opaque, signed, bound to the model.
    """

    model: str
    turns: tuple[TurnScore, ...]
    state: str


@dataclass(frozen=True)
class DecideAnswer:
    """Decisions.

    Attributes:
        model: `name@digest8`.
        mode: in which it was decided.
        call: after the last message; the only thing a host must obey.
        ended_at: index of the message at which the conversation ended, or null.
        decision: on the last message.
        turns: one for each message of the request; the decision is null for carried roles.
        state: to be sent with the next message; opaque, signed, bound to the model.
    """

    model: str
    mode: Mode
    call: Call
    ended_at: int | None
    decision: Decision
    turns: tuple[ScoredTurn, ...]
    state: str


@dataclass(frozen=True)
class InputPart:
    """A part of a moderated input; only text is read."""

    type: str
    text: str | None = None


@dataclass(frozen=True)
class ModerationRequest:
    """As OpenAI's; `model` is not read."""

    input: str | tuple[str, ...] | tuple[InputPart, ...]
    model: str | None = None


@dataclass(frozen=True)
class ModerationResult:
    """As OpenAI's. A category that the model does not cover is false, 0 and has no input type; the model's own labels stand as `lastresort/NAME`."""

    flagged: bool
    categories: Mapping[str, bool]
    category_scores: Mapping[str, float]
    category_applied_input_types: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class ModerationAnswer:
    """As OpenAI's."""

    id: str
    model: str
    results: tuple[ModerationResult, ...]


@dataclass(frozen=True)
class NewTurn:
    """A turn to add.

    Attributes:
        role: who speaks.
        content: the text; kept only if the server stores text.
        parent: id of the turn to go on from; null begins anew; by default the newest turn.
    """

    role: Role
    content: str
    parent: str | None = NEWEST


@dataclass(frozen=True)
class StoredTurn:
    """A turn of a stored conversation.

    Attributes:
        conversation: its id.
        id: unique within the conversation.
        parent: id of the turn before it, or null.
        index: how many turns are before it on its branch.
        role: who spoke.
        scores: label to probability.
        windows: into how many windows the text was read.
        decision: on it; after an acknowledgement, the decision on that.
        ended: whether the conversation ended here.
        created: seconds since 1970.
        content: the text, where the server stores text.
        acts: what the host said that it did upon the decision.
    """

    conversation: str
    id: str
    parent: str | None
    index: int
    role: Role
    scores: Mapping[str, float]
    windows: int
    decision: Decision
    ended: bool
    created: int
    content: str | None = None
    acts: tuple[Act, ...] = ()


@dataclass(frozen=True)
class Acknowledgement:
    """What the host did itself upon the advice on a turn: `warned`, or the user's answer to its question, `confirmed` (which ends) or `declined`."""

    act: Act


@dataclass(frozen=True)
class Conversation:
    """A stored conversation.

    Attributes:
        id: its id; whoever knows it and holds a key can read it.
        model: `name@digest8` of the model that scores it.
        mode: of the server when it began.
        created: seconds since 1970.
        updated: when its newest turn came.
        head: id of its newest turn, or null.
        turns: parents before children.
    """

    id: str
    model: str
    mode: Mode
    created: int
    updated: int
    head: str | None
    turns: tuple[StoredTurn, ...] = ()


@dataclass(frozen=True)
class Feedback:
    """What somebody says about an end, also one that the mode withheld.

    Attributes:
        verdict: `dispute` or `confirm`.
        turn: id of the turn that ended; by default the newest one that did.
    """

    verdict: Verdict
    turn: str | None = None


@dataclass(frozen=True)
class FeedbackTaken:
    """The feedback as stored."""

    conversation: str
    turn: str
    verdict: Verdict


@dataclass(frozen=True)
class Info:
    """What runs here.

    Attributes:
        name: of the service.
        version: of the package.
        model: `name@digest8`.
        digest: full digest of the model.
        mode: how far decisions act.
        labels: name, speaker, role, threshold and meaning of each.
        certificate: what is certified about false ends, or null; `holds` says whether for this policy.
        store: kind of store, or null.
        store_text: whether text is kept.
        keep_days: after how many days without a turn a conversation is deleted, or null.
        limits: of requests.
        thresholds: label to the score from which the policy counts it, for the labels that the policy reads.
    """

    name: str
    version: str
    model: str
    digest: str
    mode: Mode
    labels: tuple[Mapping[str, Any], ...]
    certificate: Mapping[str, Any] | None
    store: str | None
    store_text: bool
    keep_days: int | None
    limits: Mapping[str, float]
    thresholds: Mapping[str, float] = field(default_factory=dict)


for _kind in (Said, CourseRequest, NewTurn, Acknowledgement, Feedback):
    _kind.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[union-attr]
