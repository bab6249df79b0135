"""The errors that lastresort raises, one small tree.

    LastResortError
    ├── DataError            a dialogue, score file or line that breaks the contract (names file, line, field)
    ├── ConfigError          a setting that is unknown, missing or out of range (names file and key)
    ├── ArtifactError        a model folder that is incomplete, altered or of another version
    ├── ScoringError         a turn that could not be scored; never a low score instead
    ├── StateError           a conversation state that is damaged or belongs to another model
    ├── ConversationEnded    a turn after the end; edit an earlier turn or start anew
    ├── FalseEndAlarm        audited conversations say that the false-end rate has left its certificate
    └── MissingExtraError    an optional part that is not installed (names the extra)

Messages say what was found, what was expected and where. They never hold what people wrote.
"""

from __future__ import annotations


class LastResortError(Exception):
    """Base of every error that lastresort raises on purpose."""


class DataError(LastResortError):
    """Input that breaks the data contract.

    Attributes:
        where: ``file:line`` (or another name of the place), empty if unknown.
        field: dotted path inside the record, e.g. ``messages.2.role``, empty for the whole line.
        problem: what was found and what was expected.
    """

    def __init__(self, problem: str, *, where: str = "", field: str = "") -> None:
        self.problem, self.where, self.field = problem, where, field
        super().__init__(": ".join(part for part in (where, field, problem) if part))


class ConfigError(LastResortError):
    """A setting that is unknown, missing or out of range."""


class ArtifactError(LastResortError):
    """A model folder that is incomplete, altered or of another format version."""


class ScoringError(LastResortError):
    """A turn could not be scored. A failure is never turned into a score."""


class StateError(LastResortError):
    """A conversation state that is damaged or was made by another model."""


class ConversationEnded(LastResortError):  # noqa: N818 - the name hosts catch; it reads as the event it reports
    """The conversation has ended and takes no further turn.

    Attributes:
        ended_at: index of the message at which it ended.
        instead: what to do instead, in words for a host.
    """

    instead = "edit an earlier message to branch, or start a new conversation; other conversations are not touched"

    def __init__(self, ended_at: int) -> None:
        self.ended_at = ended_at
        super().__init__(f"this conversation ended at message {ended_at}; {self.instead}")

    def __reduce__(self) -> tuple[type[ConversationEnded], tuple[int]]:
        return type(self), (self.ended_at,)  # so that it survives a process pool


class FalseEndAlarm(LastResortError):  # noqa: N818 - an event, not a fault of the program
    """Audited conversations say that more are ended falsely than the certificate allows."""


class MissingExtraError(LastResortError):
    """A part that needs an optional extra which is not installed."""
