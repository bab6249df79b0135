"""The table of emoji names is what its command writes."""

from __future__ import annotations

from lastresort.encoding import EMOJI
from lastresort_data.emoji import names


def test_the_table_is_the_written_one() -> None:
    assert names() == EMOJI
    assert [EMOJI[char] for char in ("🤡", "🇫🇷", "🏽")] == ["clown face", "france", ""]
