"""Tables and renewed blocks of Markdown pages, for every command that writes numbers into one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    names = list(header)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (names, ["---"] * len(names), *rows))


def renew(page: Path, begin: str, end: str, block: str) -> bool:
    """Writes what stands between two markers of a page anew; false, and nothing written, where the page has no such block."""
    before, begun, rest = page.read_text(encoding="utf-8").partition(begin)
    _, ended, after = rest.partition(end)
    if not begun or not ended:
        return False
    page.write_text(before + begin + block + end + after, encoding="utf-8", newline="\n")
    return True
