"""Feedback on ends as labelled dialogues. A vote, not the truth: somebody looks at them before anything is trained on them."""

from __future__ import annotations

from collections.abc import Iterator

from lastresort.types import Dialogue, Message

from .store import Store

SOURCE = "feedback"


def dialogues(url: str) -> Iterator[Dialogue | None]:
    """Each end that got feedback, as the dialogue up to it; None for one whose text was not stored.

    The label that decided, on the turn that ended, is the share of votes that confirm: soft, as votes are. `meta` holds what measuring needs: `call` is `end`
    where more confirm than dispute (with `justified_at`), else `continue`, since uncertain means continue.

    Raises:
        ConfigError: the store cannot be opened.
    """
    store = Store(url)
    try:
        for line, verdicts in store.judged():
            texts = [turn.content for turn in line]
            if None in texts:
                yield None
                continue
            last, share = line[-1], verdicts.count("confirm") / len(verdicts)
            labels = {} if last.decision.category is None else {last.decision.category: share}
            messages = tuple(Message(turn.role, turn.content or "", labels if turn is last else {}) for turn in line)
            meta = {"call": "end", "justified_at": last.index} if share > 0.5 else {"call": "continue"}
            yield Dialogue(f"{last.conversation}:{last.id}", messages, SOURCE, {**meta, "reason": last.decision.reason, "votes": len(verdicts)})
    finally:
        store.close()
