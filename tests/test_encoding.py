"""Text becomes ids in one place: normalising and windows. The tokenizer is a small BERT-style one, built here."""

from __future__ import annotations

import random
import re
import unicodedata
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from lastresort.encoding import EMOJI, TOKEN_TYPE, EncodingSpec, TurnEncoder, normalise
from lastresort.errors import ArtifactError

WORDS = [f"w{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = [*"abcdefghijklmnopqrstuvwxyz0123456789[]<>@.!", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789")]
VOCABULARY = {token: index for index, token in enumerate([*SPECIAL, *WORDS, *PIECES])}
UNK, CLS, SEP = (VOCABULARY[token] for token in ("[UNK]", "[CLS]", "[SEP]"))


def tokenizer() -> Tokenizer:
    """A WordPiece tokenizer as BERT's: lower case, special tokens, truncation set (which the encoder must switch off)."""
    made = Tokenizer(models.WordPiece(VOCABULARY, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(SPECIAL)
    made.enable_truncation(8)
    made.enable_padding(length=8)
    return made


def encoder(max_tokens: int = 16, overlap_tokens: int = 4) -> TurnEncoder:
    """An encoder with a small budget."""
    return TurnEncoder(tokenizer(), EncodingSpec(max_tokens, overlap_tokens))


def words(count: int) -> str:
    """Text of `count` tokens that has no short period."""
    choose = random.Random(count)
    return " ".join(choose.choices(WORDS, k=count))


# --- normalising ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("  a \t\n b\u00a0c\u2003d\u3000", "a b c d"),
        ("Case Stays", "Case Stays"),
        # compatibility forms
        ("ｆｕｌｌ ｗｉｄｔｈ", "full width"),
        ("ﬁne ① 𝓼𝓬𝓻𝓲𝓹𝓽", "fine 1 script"),
        ("cafe\u0301", "café"),
        # invisible characters
        ("k\u200bi\u200cl\u200dl\ufeff", "kill"),
        ("soft\u00adhyphen", "softhyphen"),
        ("\u202eabc\u202c \u2066d\u2069", "abc d"),
        ("a\U000e0041\U000e0042b", "ab"),
        ("a\u3164b\uffa0c\u115fd", "abcd"),
        ("e\u200b\u0301", "é"),  # composed after the invisible one is gone
        ("❤\ufe0f", "❤"),
        # links and handles
        ("see https://example.com/a?b=c#d now", "see <url> now"),
        ("HTTP://EXAMPLE.COM www.example.com", "<url> <url>"),
        ("ht\u200btps://example.com", "<url>"),
        ("hi @bob_1, @ab!", "hi @user, @user!"),
        ("mail bob@example.com", "mail bob@example.com"),
        ("at @ 5, @x", "at @ 5, @x"),
        # words that only look like links or handles keep their text
        ("Awww...so sweet", "Awww...so sweet"),
        ("https://example.com/x你去死", "<url>你去死"),
        ("@张三你去死", "@张三你去死"),
        # a mark behind a mask would compose with the mask's last letter, differently the second time
        ("@00\u0301 hi", "@user hi"),
        ("https://example.com/\u0338 hi", "<url> hi"),
        # the break of a long word makes a handle of its rest
        ("x" * 100 + "@ab", "x" * 100 + " @user"),
        # lone surrogates
        ("a\ud800b\udfffc", "a\ufffdb\ufffdc"),
        ("🙂", "🙂"),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert normalise(text) == expected


PARTS = [
    "@",
    "ab",
    "0",
    "_",
    "r",
    "<",
    ">",
    "http://",
    "https://",
    "www.",
    "a.b",
    ".",
    "/",
    " ",
    "é",
    "ﬀ",
    "x" * 100,
    *"\u0301\u0338\u0327\u200b\ufe0f\uff20\u1160\u00a8😂🏽🇫🇷\u2122",
]


@given(
    st.text(st.characters(), max_size=60)
    | st.text(st.sampled_from("e\u0301\u200b\u3164 @aw.:/hts\u00ad"), max_size=30)
    | st.lists(st.sampled_from(PARTS), max_size=9).map("".join)
)
def test_normalise_takes_any_string_and_twice_is_once(text: str) -> None:
    for named in (False, True):
        once = normalise(text, emoji_names=named)
        assert normalise(once, emoji_names=named) == once
        assert once == " ".join(once.split())
        assert unicodedata.is_normalized("NFKC", once)
        once.encode("utf-8")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("you😂clown🤡🤡", "you face with tears of joy clown clown face clown face"),
        ("👍🏽 ok", "thumbs up ok"),  # a skin tone says nothing
        ("e👍🏽\u0301", "e thumbs up \u0301"),
        ("👩\u200d💻", "woman laptop"),
        ("❤\ufe0f", "red heart"),
        ("🇫🇷🇫🇷 🇦🇦🇧", "france france a a b"),
        ("3 × 4 = 12 ™ #1", "3 × 4 = 12 TM #1"),
    ],
)
def test_emoji_are_read_by_their_names(text: str, expected: str) -> None:
    assert normalise(text, emoji_names=True) == expected


def test_names_of_emoji_stay_text_for_good() -> None:
    assert len(EMOJI) > 1500
    assert all(re.fullmatch("[a-z0-9 ]*", name) and name == name.strip() for name in EMOJI.values())
    folded = {char: unicodedata.normalize("NFKC", chr(char)) for char in range(0x110000) if not 0xD800 <= char < 0xE000}
    assert not [char for char, form in folded.items() if form != chr(char) and set(form) & set(EMOJI)]


@given(st.text(st.sampled_from("ab c.!?@"), max_size=60))
def test_normalise_never_drops_a_plain_word(text: str) -> None:
    kept = normalise(text).replace("@user", "")
    masked = [word for word in text.split() if "@" not in word]
    assert all(word in kept for word in masked)


# --- windows --------------------------------------------------------------------------------------------------------


def assert_windows(windows: list[list[int]], ids: list[int], spec: EncodingSpec) -> None:
    """Special tokens, budget, overlap, coverage, in order, nothing twice."""
    assert all(window[0] == CLS and window[-1] == SEP and len(window) < spec.max_tokens + 1 for window in windows)
    inner = [window[1:-1] for window in windows]
    joined = list(inner[0])
    for before, after in pairwise(inner):
        assert after[: spec.overlap_tokens] == before[len(before) - spec.overlap_tokens :]
        assert len(after) >= spec.overlap_tokens + 1  # each window reads something new
        joined += after[spec.overlap_tokens :]
    assert joined == ids
    assert all(len(window) == spec.max_tokens for window in windows[:-1])


@pytest.mark.parametrize("text", ["", " ", "\u200b", "\n\n"])
def test_empty_text_is_one_window(text: str) -> None:
    assert encoder().windows(text) == [[CLS, SEP]]


@pytest.mark.parametrize("overlap", [0, 1, 4, 6])
@pytest.mark.parametrize("count", [1, 6, 13, 14, 15, 23, 24, 25, 34, 200])
def test_every_token_is_covered_and_neighbours_overlap(count: int, overlap: int) -> None:
    spec = EncodingSpec(16, overlap)
    text = words(count)
    windows = TurnEncoder(tokenizer(), spec).windows(text)
    assert_windows(windows, [VOCABULARY[word] for word in text.split()], spec)
    assert (len(windows) == 1) == (count < 15)


@given(st.integers(8, 40).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, (size - 2) // 2 - 1), st.integers(0, 300))))
def test_windows_of_any_shape(shape: tuple[int, int, int]) -> None:
    size, overlap, count = shape
    spec = EncodingSpec(size, overlap)
    text = words(count)
    assert_windows(TurnEncoder(tokenizer(), spec).windows(text), [VOCABULARY[word] for word in text.split()], spec)


def test_a_text_of_two_hundred_thousand_characters_is_read_to_the_end() -> None:
    text = (words(66_000) + " " * 200_000)[:200_000] + " wz"
    spec = EncodingSpec()
    windows = TurnEncoder(tokenizer(), spec).windows(text)
    assert_windows(windows, [VOCABULARY[word] for word in text.split()], spec)
    assert windows[-1][-2] == VOCABULARY["wz"]


def test_a_long_run_without_spaces_is_not_read_as_one_unknown_token() -> None:
    """WordPiece gives up on words of more than 100 characters; a turn of glued words must still be read."""
    (window, *more) = encoder(64, 8).windows("kill" * 40)
    assert UNK not in window
    assert sum(len(part) for part in more) + len(window) > 100


@pytest.mark.parametrize("token", SPECIAL)
def test_special_tokens_in_the_text_are_only_text(token: str) -> None:
    """Nobody may write [SEP] into a turn and have the model see the end of it."""
    (window,) = encoder(64, 8).windows(f"wa {token} wb")
    assert VOCABULARY[token] not in window[1:-1]


def test_the_tokenizers_own_truncation_and_padding_are_off() -> None:
    assert encoder().windows("wa wb") == [[CLS, VOCABULARY["wa"], VOCABULARY["wb"], SEP]]


def test_the_same_text_gives_the_same_windows_in_disguise() -> None:
    assert encoder().windows("w\u200ba  ｗｂ") == encoder().windows("wa wb")


def test_lone_surrogates_reach_the_tokenizer_as_text() -> None:
    assert len(encoder().windows("wa \ud800 wb")) == 1


def test_a_tokenizer_file(tmp_path: Path) -> None:
    tokenizer().save(str(tmp_path / "tokenizer.json"))
    read = TurnEncoder.from_file(tmp_path / "tokenizer.json", EncodingSpec(16, 4))
    assert read.windows(words(30)) == encoder().windows(words(30))


def test_a_file_that_is_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    for path in (tmp_path / "tokenizer.json", tmp_path / "missing.json"):
        with pytest.raises(ArtifactError, match="cannot be read as a tokenizer"):
            TurnEncoder.from_file(path, EncodingSpec())


def test_a_tokenizer_without_berts_tokens_is_refused() -> None:
    other = Tokenizer(models.WordPiece({"<s>": 0, "[UNK]": 1}, unk_token="[UNK]"))
    with pytest.raises(ArtifactError, match=r"found no \[CLS\] and \[SEP\]"):
        TurnEncoder(other, EncodingSpec())


@pytest.mark.parametrize(("max_tokens", "overlap_tokens"), [(7, 0), (0, 0), (16, -1), (16, 7), (256, 127), (8, 3)])
def test_budgets_that_cannot_work_are_refused(max_tokens: int, overlap_tokens: int) -> None:
    with pytest.raises(ValueError, match="overlap_tokens"):
        EncodingSpec(max_tokens, overlap_tokens)


def test_the_speaker_is_told_by_the_token_type() -> None:
    assert TOKEN_TYPE == {"user": 0, "assistant": 1}
