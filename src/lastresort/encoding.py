"""The only place where text becomes ids: normalising, windows, special tokens. Training and serving both call it."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from tokenizers import Tokenizer

from .errors import ArtifactError
from .types import Role

TOKEN_TYPE: dict[Role, int] = {"user": 0, "assistant": 1}
"""The speaker, told to the encoder as BERT's segment id."""

_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\u3164\uffa0\ufe00-\ufe0f\ufeff\U000e0000-\U000e007f]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_URL = re.compile(r"(?:https?://|(?<!\w)www\.(?=[a-z0-9]))[!-~][!-~\u0300-\u036f]*", re.IGNORECASE)
_HANDLE = re.compile(r"(?<![\w.])@[A-Za-z0-9_][A-Za-z0-9_\u0300-\u036f]+")  # marks too: behind a mask they would compose with its last letter
_LONG = re.compile(r"(\S{100})(?=\S)")  # WordPiece reads a longer word as one [UNK]
_SPACE = re.compile(r"\s+")
EMOJI: dict[str, str] = json.loads(resources.files("lastresort").joinpath("emoji.json").read_text(encoding="utf-8"))
"""Emoji, and flags of two regional indicators, to their names (written by data/emoji.py); a skin tone has none."""
_SKIN_TONE = re.compile(f"[{''.join(char for char, name in EMOJI.items() if not name)}]")
_EMOJI = re.compile("[\U0001f1e6-\U0001f1ff]{2}|[" + "".join(char for char, name in EMOJI.items() if name and len(char) == 1) + "]")

_PICTURE = re.compile("[\U0001f1e6-\U0001f1ff" + "".join(char for char, name in EMOJI.items() if len(char) == 1) + "]")
"""Whether there is any of them to name: one set of characters is found a hundred times faster than a choice of two."""


def _name(match: re.Match[str]) -> str:
    found = match.group()
    return f" {EMOJI[found] if found in EMOJI else ' '.join(EMOJI[char] for char in found)} "


def normalise(text: str, *, emoji_names: bool = False) -> str:
    """Text as the model sees it: compatibility forms folded (NFKC), invisible characters out, links and handles masked, runs of space joined.

    Lone surrogates (they occur in JSON escapes) become U+FFFD. Doing it twice changes nothing more.

    Args:
        text: of one turn.
        emoji_names: write emoji as words: WordPiece reads them, and the words they are glued to, as unknown.
    """
    if not text.isascii():  # nothing of this concerns ASCII
        text = _SURROGATE.sub("\ufffd", text)
        text = _INVISIBLE.sub("", text)  # first: what they held apart is composed below
        if emoji_names and _PICTURE.search(text):
            text = _EMOJI.sub(_name, _SKIN_TONE.sub("", text))
        text = unicodedata.normalize("NFKC", text)
    while True:
        text = _HANDLE.sub("@user", _URL.sub("<url>", text))
        if not _LONG.search(text):
            break
        text = _LONG.sub(r"\1 ", text)  # a break can begin a handle or a link: look again
    return _SPACE.sub(" ", text).strip()


@dataclass(frozen=True)
class EncodingSpec:
    """How text is cut into windows; part of a model's manifest.

    Attributes:
        max_tokens: token budget of one window, special tokens included.
        overlap_tokens: tokens that two neighbouring windows share.
        emoji_names: emoji are read by their names; false in models from before 0.3.
    """

    max_tokens: int = 256
    overlap_tokens: int = 32
    emoji_names: bool = False

    def __post_init__(self) -> None:
        if self.max_tokens < 8 or not 0 <= self.overlap_tokens < (self.max_tokens - 2) // 2:
            found = f"found max_tokens {self.max_tokens}, overlap_tokens {self.overlap_tokens}"
            raise ValueError(f"{found}, expected max_tokens >= 8, 0 <= overlap_tokens < (max_tokens - 2) // 2")


class TurnEncoder:
    """Text of one turn to windows of token ids. Safe to share between threads."""

    def __init__(self, tokenizer: Tokenizer, spec: EncodingSpec) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # "[SEP]" in a turn is text, not a token
        self._tokenizer = tokenizer
        self.spec = spec
        start, end = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
        if start is None or end is None:
            raise ArtifactError("tokenizer.json: found no [CLS] and [SEP] tokens, expected a BERT-style tokenizer")
        self._cls, self._sep = int(start), int(end)

    @classmethod
    def from_file(cls, path: str | Path, spec: EncodingSpec) -> TurnEncoder:
        """Reads `tokenizer.json`. Raises `ArtifactError`."""
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise ArtifactError(f"{path}: cannot be read as a tokenizer: {error}") from None
        return cls(tokenizer, spec)

    @property
    def digest(self) -> str:
        """sha256 of tokenizer and spec: equal digests give equal windows."""
        return hashlib.sha256(f"{self.spec}\n{self._tokenizer.to_str()}".encode()).hexdigest()

    def windows(self, text: str) -> list[list[int]]:
        """Token ids of each window, in order; at least one window, also for empty text.

        Consecutive windows share `overlap_tokens` tokens. Each has at most `max_tokens` ids, [CLS] and [SEP] included.
        """
        ids: Sequence[int] = self._tokenizer.encode(normalise(text, emoji_names=self.spec.emoji_names), add_special_tokens=False).ids
        budget = self.spec.max_tokens - 2
        step = budget - self.spec.overlap_tokens
        starts = range(0, max(1, len(ids) - self.spec.overlap_tokens), step)
        return [[self._cls, *ids[start : start + budget], self._sep] for start in starts]
