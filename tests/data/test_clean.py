"""Cleaning across sources, the proof that it worked, and the share of template-like sources. All texts are invented and mild."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lastresort.data import read_dialogues, write_dialogues
from lastresort.errors import ConfigError, DataError
from lastresort.types import Dialogue, Message
from lastresort_data import adapters, clean
from lastresort_data.adapters import convabuse
from lastresort_data.adapters.base import harmless, normalise
from lastresort_data.check import check, markdown, passed
from lastresort_data.clean import HELD, Reviewed, Rule, contradict, key_of, listed_texts, read_reviewed, shingles_of
from lastresort_data.cli import app
from lastresort_data.compose import parse_config, write_mixture
from lastresort_data.prepare import COUNTS_FILE, OVERLAP_COLUMNS, OVERLAP_FILE

CALM, RUDE = harmless(), {"harm": 1.0, "hate": 1.0}
LAKE = "the old boat on the lake has lost its second oar in the long and windy night"
NEAR_LAKE = LAKE.replace("windy night", "windy week")
NOTHING = Reviewed()
FAR_LAKE = "the old boat on the lake was painted green by two friendly people last spring"


def user(text: str, labels: Mapping[str, float] = CALM) -> Message:
    return Message("user", text, labels)


def answer(text: str) -> Message:
    return Message("assistant", text, {"redirection": 0.0})


class Room:
    """A small set of prepared sources in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.raw = folder / "raw"
        self.prepared = folder / "prepared"
        self.out = folder / "cleaned"
        self.splits: dict[tuple[str, str], list[Dialogue]] = {}
        self.held: list[Dialogue] = []
        self.own: list[Dialogue] = []
        self.list_rows()

    def add(self, source: str, split: str, *messages: Message) -> str:
        if split == HELD:
            self.held.append(Dialogue(f"held-{len(self.held)}", messages, "written"))
            return self.held[-1].id
        dialogues = self.splits.setdefault((source, split), [])
        dialogues.append(Dialogue(f"{source}-{split}-{len(dialogues)}", messages, source, {"rows": [f"file#{len(dialogues)}"]}))
        return dialogues[-1].id

    def list_rows(self, *rows: tuple[str, str, str, str]) -> None:
        self.raw.mkdir(exist_ok=True)
        lines = [OVERLAP_COLUMNS, *((source, file, row, "some_test", kind, "1.00") for source, file, row, kind in rows)]
        (self.raw / OVERLAP_FILE).write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")

    def write(self) -> None:
        names = sorted({source for source, _ in self.splits})
        for name in names:
            (self.prepared / name).mkdir(parents=True, exist_ok=True)
            for split in ("train", "validation"):
                write_dialogues(self.splits.get((name, split), []), self.prepared / name / f"{split}.jsonl")
        counts = {name: {"train": 0, "validation": 0, "positives": {}, "dropped_overlaps": 0} for name in names}
        (self.prepared / COUNTS_FILE).write_text(json.dumps(counts), encoding="utf-8")
        write_dialogues(self.held, self.folder / "held.jsonl")
        write_dialogues(self.own, self.folder / "own.jsonl")

    def clean(self, reviewed: Reviewed = NOTHING) -> Any:
        self.write()
        own, held = [self.folder / "own.jsonl"], [self.folder / "held.jsonl"]
        return clean.clean(self.prepared, self.out, self.raw, reviewed=reviewed, own_train=own, own_held=held)

    def kept(self) -> dict[str, Dialogue]:
        return {one.id: one for file in sorted(self.out.glob("*/*.jsonl")) for one in read_dialogues(file)}


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


# ---- copies ----


def test_the_source_with_more_precise_labels_keeps_its_copy(room: Room) -> None:
    judged, assumed = room.add("edos", "train", user(LAKE, RUDE)), room.add("arena_hard", "train", user(f"  {LAKE.upper()}!"))
    report = room.clean()
    assert list(room.kept()) == [judged]
    assert assumed not in room.kept()
    assert report["by_source"]["arena_hard"]["train"] == {"copy": 1}
    assert report["exact copies whose labels contradict (dropped / kept)"] == {"arena_hard / edos": 1}


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_permissive_source_keeps_its_copy_before_any_other(room: Room, split: str) -> None:
    permissive = room.add("arena_hard", "train", user(LAKE))
    room.add("toxicchat_train", split, user(LAKE))
    room.clean()
    assert list(room.kept()) == [permissive]


def test_among_equally_precise_sources_the_more_known_labels_stay(room: Room) -> None:
    room.add("davidson", "train", user(LAKE, {"harm": 0.0}))
    full = room.add("edos", "train", user(LAKE))
    room.clean()
    assert list(room.kept()) == [full]


def test_a_near_copy_goes_and_a_text_that_shares_an_opening_stays(room: Room) -> None:
    first, far = room.add("edos", "train", user(LAKE)), room.add("davidson", "train", user(FAR_LAKE))
    room.add("stormfront", "train", user(NEAR_LAKE))
    room.clean()
    assert sorted(room.kept()) == sorted([first, far])


def test_near_copies_with_contradicting_labels_are_contrast_pairs(room: Room) -> None:
    room.add("edos", "train", user(LAKE, RUDE))
    room.add("davidson", "train", user(NEAR_LAKE))
    room.clean()
    assert len(room.kept()) == 2


def test_equal_words_of_one_source_with_contradicting_labels_stay(room: Room) -> None:
    room.add("hatemoji_build", "train", user(f"{LAKE} 🐍", RUDE))
    room.add("hatemoji_build", "train", user(f"{LAKE} 🌷"))
    room.clean()
    assert len(room.kept()) == 2


def test_short_texts_are_compared_whole_and_within_a_split(room: Room) -> None:
    train, validation = room.add("edos", "train", user("hello there")), room.add("davidson", "validation", user("hello there"))
    other = room.add("davidson", "train", user("hello you"))
    room.add("arena_hard", "train", user("Hello there!"))
    room.clean()
    assert sorted(room.kept()) == sorted([train, validation, other])


def test_the_same_turn_in_another_context_is_no_copy_within_a_source(room: Room) -> None:
    for context in (LAKE, FAR_LAKE):
        room.add("convabuse", "train", Message("assistant", context), user("that is not what i meant", RUDE))
    room.clean()
    assert len(room.kept()) == 2


def test_a_new_answer_to_a_known_question_stays(room: Room) -> None:
    room.add("edos", "train", user(LAKE))
    room.add("self_instruct_user", "train", user(LAKE), answer("then you row with one and turn in circles"))
    room.clean()
    assert len(room.kept()) == 2


def test_dialogues_without_labels_go(room: Room) -> None:
    room.add("dices", "train", Message("user", LAKE))
    assert room.clean()["by_source"]["dices"]["train"] == {"no_labels": 1}


# ---- splits ----


@pytest.mark.parametrize("text", [LAKE, NEAR_LAKE])
def test_validation_keeps_a_text_and_train_drops_it_whatever_the_labels(room: Room, text: str) -> None:
    kept = room.add("arena_hard", "validation", user(LAKE))
    room.add("edos", "train", user(text, RUDE))
    report = room.clean()
    assert list(room.kept()) == [kept]
    assert report["by_source"]["edos"]["train"] == {"other_split": 1}


@pytest.mark.parametrize("text", [LAKE, NEAR_LAKE])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_what_our_own_held_back_conversations_say_goes_from_both_splits(room: Room, text: str, split: str) -> None:
    room.add("written", HELD, user("hello"), answer(LAKE))
    room.add("edos", split, user(text))
    assert room.clean()["by_source"]["edos"][split] == {"held_back": 1}
    assert not room.kept()


def test_what_our_own_training_conversations_say_is_not_validated_on(room: Room) -> None:
    room.own.append(Dialogue("own-0", (user(LAKE),), "written"))
    room.add("edos", "validation", user(LAKE))
    assert room.clean()["by_source"]["edos"]["validation"] == {"other_split": 1}


def test_a_common_sentence_costs_a_long_conversation_only_the_label_of_that_turn(room: Room) -> None:
    formula = "is there anything else that i can do for you"
    talks = {}
    for split in ("train", "validation"):
        lines = [f"{split} town number {number} lies behind the {split} hill" for number in range(4)]
        talks[split] = room.add("sgd", split, *(user(line) for line in lines), answer(formula))
    report = room.clean()
    assert report["by_source"]["sgd"] == {"train": {}, "validation": {"unlabelled_turns": 1}}
    kept = room.kept()
    assert kept[talks["train"]].messages[-1].labels == {"redirection": 0.0}
    measured = kept[talks["validation"]].messages
    assert measured[-1] == Message("assistant", formula)
    assert all(message.labels for message in measured[:-1])


# ---- rows that are held out ----


def make_convabuse(raw: Path, texts: Sequence[str]) -> None:
    fields = (*convabuse.SCORES, *convabuse.HATE_TYPES, *convabuse.OTHER_FIELDS, "explicit", "implicit")
    header = ["example_id", "conv_id", "prev_agent", "prev_user", "agent", "user", "bot", *(f"Annotator1_{name}" for name in fields)]
    votes = ["1" if name == "is_abuse.1" else "" for name in fields]
    for file, numbered in (("ConvAbuseEMNLPtrain.csv.gz", list(enumerate(texts))), ("ConvAbuseEMNLPvalid.csv.gz", [])):
        stream = io.StringIO()
        csv.writer(stream).writerows([header, *([f"{number}.0", "7", "_", "_", "_", text, "Bot", *votes] for number, text in numbered)])
        (raw / "convabuse").mkdir(exist_ok=True)
        (raw / "convabuse" / file).write_bytes(gzip.compress(stream.getvalue().encode(), mtime=0))


def test_a_listed_text_goes_from_every_source(room: Room) -> None:
    make_convabuse(room.raw, [LAKE, FAR_LAKE])
    room.list_rows(("convabuse", "ConvAbuseEMNLPtrain.csv.gz", "0.0", "near"), ("convabuse", "ConvAbuseEMNLPtrain.csv.gz", "1.0", "exact_short"))
    assert listed_texts(room.raw / OVERLAP_FILE, room.raw) == {normalise(LAKE)}
    room.add("edos", "train", user(LAKE))
    room.add("davidson", "validation", user(LAKE))
    kept = room.add("davidson", "train", user(FAR_LAKE))
    report = room.clean()
    assert list(room.kept()) == [kept]
    assert report["all"] == {"held_out_row": 2}


def test_without_a_list_of_held_out_rows_nothing_is_written(room: Room) -> None:
    room.add("edos", "train", user(LAKE))
    (room.raw / OVERLAP_FILE).unlink()
    with pytest.raises(DataError, match=r"heldout_overlap\.tsv: found no such file"):
        room.clean()
    assert not room.out.exists()


# ---- labels that a person has read ----


def test_reviewed_labels_are_mended_or_go_with_their_dialogue(room: Room) -> None:
    wrong, mended = room.add("edos", "train", user(LAKE)), room.add("edos", "train", user(FAR_LAKE))
    report = room.clean(Reviewed(frozenset({key_of("edos", LAKE)}), {key_of("edos", FAR_LAKE): RUDE}))
    assert wrong not in room.kept()
    assert room.kept()[mended].messages[0].labels == {**CALM, **RUDE}
    assert report["by_source"]["edos"]["train"] == {"relabelled_turns": 1, "reviewed": 1}


def test_a_key_belongs_to_one_source_and_one_text() -> None:
    assert key_of("edos", f" {LAKE.title()}.") == key_of("edos", LAKE)
    assert len({key_of("edos", LAKE), key_of("davidson", LAKE), key_of("edos", NEAR_LAKE)}) == 3


def test_reviewed_file_of_the_package_is_valid() -> None:
    reviewed = read_reviewed()
    assert not reviewed.drop & reviewed.relabel.keys()
    assert reviewed.drop
    assert reviewed.relabel
    for rule in reviewed.rules:
        assert set(rule.sources) <= set(adapters.names())
        re.compile(rule.matches)


def test_a_label_may_become_unknown(room: Room) -> None:
    one = room.add("edos", "train", user(LAKE, {"harm": 1.0, "hate": 1.0, "severity": 1.0}))
    room.clean(Reviewed(relabel={key_of("edos", LAKE): {"harm": 0.2, "severity": None}}))
    assert room.kept()[one].messages[0].labels == {"harm": 0.2, "hate": 1.0}


def test_a_rule_makes_the_labels_of_a_class_of_turns_unknown(room: Room) -> None:
    labels = {"hate": 0.75, "harm": 0.75, "assistant_abuse": 0.0}
    met = room.add("edos", "train", user(LAKE, labels))
    others = [
        room.add("edos", "train", user(FAR_LAKE, {**labels, "hate": 0.9})),
        room.add("edos", "train", user("no boat is in sight of the house", labels)),
        room.add("davidson", "train", user("the night is long on the other side of the water", labels)),
    ]
    rule = Rule(("edos",), ("hate", "harm"), at_least=0.75, at_most=0.75, matches="windy NIGHT", file="file")
    report = room.clean(Reviewed(rules=(rule,)))
    kept = room.kept()
    assert kept[met].messages[0].labels == {"assistant_abuse": 0.0}
    assert all(kept[one].messages[0].labels["harm"] == 0.75 for one in others)
    assert report["all"] == {"relabelled_turns": 1}
    assert not Rule(("edos",), ("hate",), file="other").holds(kept[others[0]], kept[others[0]].messages[0])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("dropp: []", "dropp: found this key"),
        ("relabel: {'0123456789abcdef': {harm: 2}}", r"relabel\.0123456789abcdef\.harm: found 2"),
        ("drop: ['0123']", "'0123', expected keys of 16"),
        ("drop: [1234567890123456]", "drop"),
        ("rules: [{sources: [edos], labels: []}]", "labels: found none"),
        ("rules: [{sources: [edos], labels: [hate], at_lest: 0.1}]", "at_lest: found this key"),
    ],
)
def test_reviewed_file_with_a_mistake_names_it(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "noise.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=problem):
        read_reviewed(path)


# ---- the whole ----


def test_same_input_gives_the_same_bytes_whatever_the_order(room: Room) -> None:
    for number in range(40):
        room.add(("edos", "davidson")[number % 2], ("train", "validation")[number % 3 == 0], user(f"{LAKE} and {number % 7} ducks"))
    room.clean()
    first = {file.name: file.read_bytes() for file in (room.out / COUNTS_FILE, room.out / clean.CLEAN_FILE)}
    ids = set(room.kept())
    room.splits = {key: dialogues[::-1] for key, dialogues in room.splits.items()}
    room.clean()
    assert {name: (room.out / name).read_bytes() for name in first} == first
    assert set(room.kept()) == ids
    assert 0 < len(ids) < 40


def test_counts_are_those_of_what_is_written(room: Room) -> None:
    room.add("edos", "train", user(LAKE, RUDE))
    room.add("edos", "validation", user(FAR_LAKE))
    room.add("arena_hard", "train", user(LAKE))
    room.clean()
    counts = json.loads((room.out / COUNTS_FILE).read_text(encoding="utf-8"))
    assert counts["edos"] == {"train": 1, "validation": 1, "positives": {"harm": 1, "hate": 1}, "dropped_overlaps": 0}
    assert counts["arena_hard"]["train"] == 0


def test_the_prepared_folder_is_not_overwritten(room: Room) -> None:
    room.add("edos", "train", user(LAKE))
    room.out = room.prepared
    with pytest.raises(DataError, match="expected another one"):
        room.clean()


def test_contradiction_needs_a_label_that_both_know() -> None:
    assert contradict({"harm": 1.0}, {"harm": 0.4})
    assert not contradict({"harm": 1.0}, {"harm": 0.6})
    assert not contradict({"harm": 1.0}, {"hate": 0.0})


def test_shingles_are_distinct_runs_of_three_words() -> None:
    assert len(shingles_of("a b c a b c")) == 3
    assert len(shingles_of("one")) == 1


# ---- check ----


@pytest.fixture
def mixture(tmp_path: Path) -> Path:
    folder = tmp_path / "mixture"
    folder.mkdir()
    write_dialogues([Dialogue("t", (user(LAKE), Message("assistant", FAR_LAKE)), "edos")], folder / "train.jsonl")
    write_dialogues([Dialogue("v", (user(FAR_LAKE), user("yes please")), "edos")], folder / "validation.jsonl")
    return folder


def ask(room: Room, mixture: Path) -> dict[str, int]:
    room.write()
    return {one.question: one.found.total() for one in check(room.prepared, mixture, room.raw / OVERLAP_FILE, room.raw, [room.folder / "held.jsonl"])}


def test_check_finds_nothing_where_only_context_and_short_texts_are_shared(room: Room, mixture: Path) -> None:
    room.add("edos", "train", user(LAKE))
    assert not any(ask(room, mixture).values())


def test_check_finds_each_kind_of_leak(room: Room, mixture: Path) -> None:
    make_convabuse(room.raw, [NEAR_LAKE])
    room.list_rows(("convabuse", "ConvAbuseEMNLPtrain.csv.gz", "0.0", "exact"), ("convabuse", "file", "0", "near"))
    room.add("convabuse", "train", user("the row that is listed by its number"))
    room.add("davidson", "train", user(NEAR_LAKE))
    room.add("written", HELD, user(LAKE))
    write_dialogues([Dialogue("v", (user(LAKE), user(NEAR_LAKE)), "edos")], mixture / "validation.jsonl")
    assert list(ask(room, mixture).values()) == [1, 1, 1, 1, 0, 1]


def test_check_prints_markdown_and_fails(room: Room, mixture: Path) -> None:
    room.add("written", HELD, user(LAKE))
    room.add("edos", "train", user(FAR_LAKE))
    room.write()
    results = check(room.prepared, mixture, room.raw / OVERLAP_FILE, room.raw, [room.folder / "held.jsonl"])
    assert not passed(results)
    assert "| 1 | 1 (edos 1) |" in markdown(results)
    assert LAKE not in markdown(results)


@pytest.mark.parametrize("leaks", [False, True])
def test_check_exits_with_1_if_anything_is_found(room: Room, mixture: Path, leaks: bool) -> None:
    room.add("edos", "train", user(LAKE))
    room.write()
    if leaks:
        write_dialogues([Dialogue("v", (user(LAKE),), "edos")], mixture / "validation.jsonl")
    arguments = ["check", "--prepared", room.prepared, "--mixture", mixture, "--heldout", room.raw / OVERLAP_FILE, "--raw", room.raw]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == int(leaks), result.output


# ---- template-like sources ----


def mixed(room: Room, **settings: Any) -> Counter[tuple[str, bool]]:
    """Dialogues of train by source and whether they are harmful: 100 and 30 calm and harmful posts, as many templates."""
    for number in range(100):
        room.add("posts", "train", user(f"post number {number} on the lake"))
        room.add("forms", "train", user(f"form number {number} of the house"))
    for number in range(30):
        room.add("posts", "train", user(f"rude post number {number} on the lake", RUDE))
        room.add("forms", "train", user(f"rude form number {number} of the house", RUDE))
    room.write()
    sources = {"posts": {}, "forms": {"template": True}}
    write_mixture(parse_config({"seed": 3, "sources": sources, "kinds": {}, **settings}), room.prepared, room.folder / "mixture")
    found = read_dialogues(room.folder / "mixture" / "train.jsonl")
    return Counter((one.source, one.messages[0].labels["harm"] == 1.0) for one in found)


def test_a_template_source_gives_at_most_its_share_of_each_class(room: Room) -> None:
    found = mixed(room, template_share=0.15)
    assert (found["posts", False], found["posts", True]) == (100, 30)
    assert (found["forms", False], found["forms", True]) == (17, 5)  # 17 of 117 and 5 of 35 are at most 15%, one more is not
    counts = json.loads((room.folder / "mixture" / "counts.json").read_text(encoding="utf-8"))
    assert counts["train"]["positive_by_source"] == {"forms": {"user.harm": 5, "user.hate": 5}, "posts": {"user.harm": 30, "user.hate": 30}}


def test_the_share_is_a_setting(room: Room) -> None:
    assert mixed(room, template_share=0.5)["forms", True] == 30


# ---- what the mixture may not say ----


def test_the_mixture_says_nothing_that_is_held_out_or_validated_on_after_shortening(room: Room) -> None:
    passage = " ".join(f"word{number}." for number in range(60))
    for split, end in (("train", "ends here"), ("validation", "closes there")):
        for number in range(12):  # enough for two to be cut at the same place
            room.add("posts", split, user(f"{passage} {number} {end}"))
        room.add("posts", split, user(f"a post of the {split} split"))
    room.add("posts", "train", user(LAKE))
    room.write()
    (room.prepared / clean.HELD_OUT_FILE).write_text(clean.text_key(normalise(LAKE)) + "\n", encoding="utf-8")
    config = parse_config({"seed": 3, "sources": {"posts": {}}, "kinds": {}, "longest": {"user_words": 10}, "validation_share": 1.0})
    folder = room.folder / "mixture"
    write_mixture(config, room.prepared, folder)
    texts = {split: [text for one in read_dialogues(folder / f"{split}.jsonl") for text in clean.texts_of(one)] for split in ("train", "validation")}
    assert "a post of the train split" in texts["train"]
    assert normalise(LAKE) not in texts["train"]
    assert len(texts["validation"]) == 13
    assert not set(texts["train"]) & set(texts["validation"])


def test_clean_names_held_out_texts_for_the_mixture_by_hash(room: Room) -> None:
    make_convabuse(room.raw, [LAKE])
    room.list_rows(("convabuse", "ConvAbuseEMNLPtrain.csv.gz", "0.0", "near"))
    room.add("edos", "train", user(FAR_LAKE))
    room.clean()
    assert clean.read_held_out(room.out) == {clean.text_key(normalise(LAKE))}
    assert LAKE not in (room.out / clean.HELD_OUT_FILE).read_text(encoding="utf-8")
    assert clean.read_held_out(room.prepared) == frozenset()


def test_a_share_of_everything_is_refused() -> None:
    with pytest.raises(ConfigError, match="template_share is outside"):
        parse_config({"seed": 3, "sources": {}, "kinds": {}, "template_share": 1.0})
