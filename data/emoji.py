"""The names of emoji that encoding.normalise writes in their place: `src/lastresort/emoji.json`.

    python -m lastresort_data.emoji > src/lastresort/emoji.json

WordPiece reads an emoji, and the whole word it is glued to, as one unknown token; by their names the encoder knows them. Names are those of Unicode's CLDR, as
the package `emoji` carries them, in ASCII and lower case. Sequences of several characters are read one by one, but for flags; skin tones say nothing here.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata

FIRST = 0x2190
"""Below it lie digits, punctuation and letter-like signs, which are text."""
REGIONS = range(0x1F1E6, 0x1F200)
"""Regional indicators; two of them are a flag."""
SKIN_TONES = range(0x1F3FB, 0x1F400)


def names() -> dict[str, str]:
    """Emoji to name, sorted by code point; a skin tone has an empty name, a lone regional indicator is its letter."""
    from emoji import EMOJI_DATA

    found: dict[str, str] = {chr(code): chr(ord("a") + code - REGIONS.start) for code in REGIONS}
    for sequence, about in EMOJI_DATA.items():
        key = sequence.replace("\ufe0f", "")
        flag = len(key) == 2 and all(ord(char) in REGIONS for char in key)
        if not flag and (len(key) != 1 or ord(key) < FIRST):
            continue
        name = unicodedata.normalize("NFKD", str(about["en"]).lower()).encode("ascii", "ignore").decode()
        found.setdefault(key, re.sub("[^a-z0-9]+", " ", name).strip())
    return dict(sorted((found | {chr(code): "" for code in SKIN_TONES}).items()))


if __name__ == "__main__":
    json.dump(names(), sys.stdout, ensure_ascii=False, indent=0)
    sys.stdout.write("\n")
