"""Near copies inside the written corpus, and phrases that too many of its conversations share.

Usage: python data/written/families.py      # prints both; exit 1 if a turn is a near copy of one elsewhere or a phrase is above 1%

A phrase is a run of four or five words anywhere in a turn, or the two or three words with which a turn opens; runs of stop words alone ("I am not to")
say nothing and are left aside. Its share is taken over the conversations in which that side speaks; the two turns of a contrast pair count as
one conversation, and may resemble each other, not others.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from corpus import Row, read  # type: ignore[import-not-found]  # a script beside this one
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from lastresort_data.adapters.base import normalise
from lastresort_data.clean import Index, Owner, telling

LIMIT = 0.01
"""Largest share of conversations that may contain one phrase."""
WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
STOP = ENGLISH_STOP_WORDS | {"ain", "don", "doesn", "didn", "isn", "wasn", "won", "wouldn", "couldn", "let"}
"""A word with an apostrophe is one if its first part is."""
SHOWN = 5


class Family(NamedTuple):
    """A phrase, who says it, where it stands, and in which part of the conversations, 0…1."""

    share: float
    role: str
    place: str
    phrase: str


def units(splits: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """Messages by conversation; both turns of a contrast pair together."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in (row for rows in splits.values() for row in rows):
        found[row["meta"].get("pair", row["id"])] += row["messages"]
    return found


def phrases(text: str) -> Iterator[tuple[str, str]]:
    """(place, phrase) of a turn."""
    words = WORD.findall(text.lower().replace("’", "'"))
    runs = [(f"{n} words", words[start : start + n]) for n in (4, 5) for start in range(len(words) - n + 1)]
    runs += [(f"opening, {n} words", words[:n]) for n in (2, 3) if len(words) >= n]
    yield from ((place, " ".join(run)) for place, run in runs if not all(word.split("'")[0] in STOP for word in run))


def families(conversations: Mapping[str, Sequence[Row]]) -> list[Family]:
    """Every phrase of two or more conversations, the most frequent first."""
    found: list[Family] = []
    for role in ("user", "assistant"):
        spoken = [[message["content"] for message in messages if message["role"] == role] for messages in conversations.values()]
        spoken = [texts for texts in spoken if texts]
        counts = Counter(phrase for texts in spoken for phrase in {phrase for text in texts for phrase in phrases(text)})
        found += [Family(count / len(spoken), role, place, phrase) for (place, phrase), count in counts.items() if count > 1]
    return sorted(found, reverse=True)


def near_copies(conversations: Mapping[str, Sequence[Row]]) -> list[tuple[str, str, str]]:
    """(one conversation, another, normalised turn of the first) for turns of four or more words that are copies or near copies."""
    index, found = Index(), []
    for name, messages in conversations.items():
        texts = sorted({text for message in messages if telling(text := normalise(message["content"]))})
        for text in texts:
            owners = {owner.source for owner in (*index.exact(text), *index.near(text))}
            found += [(name, other, text) for other in sorted(owners - {name})]
        for text in texts:
            index.add(text, Owner("", name, {}))
    return found


def table(found: Iterable[Family]) -> str:
    """The most frequent phrases by side and place."""
    by: dict[tuple[str, str], list[str]] = defaultdict(list)
    for one in found:
        by[one.role, one.place].append(f"{one.phrase} {one.share:.2%}")
    return "\n".join(f"{role}, {place}: {'; '.join(lines[:SHOWN])}" for (role, place), lines in sorted(by.items()))


def main() -> int:
    """Prints what was found; 1 if there is a near copy or a phrase above the limit."""
    conversations = units(read())
    found, copies = families(conversations), near_copies(conversations)
    above = [one for one in found if one.share > LIMIT]
    print(f"{len(conversations)} conversations and contrast pairs\n{table(found)}")
    print(f"above {LIMIT:.0%}: {len(above)}\n" + "\n".join(f"  {one.role}, {one.place}: {one.phrase} {one.share:.2%}" for one in above))
    print(f"near copies: {len(copies)}\n" + "\n".join(f"  {one} {other}" for one, other, _ in copies))
    return 1 if above or copies else 0


if __name__ == "__main__":
    raise SystemExit(main())
