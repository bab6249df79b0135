"""The composer: determinism, splits, persistence, masking, counts, errors. All material is invented and mild."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from dataclasses import fields, replace
from itertools import chain, pairwise
from math import ceil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lastresort.data import read_dialogues, write_dialogues
from lastresort.errors import ConfigError, DataError
from lastresort.types import Dialogue, Message
from lastresort_data.cli import app
from lastresort_data.compose import SPLITS, ComposeConfig, compose, parse_config, read_config, real, stream, write_mixture
from lastresort_data.grammars import GRAMMARS, TRIGGERS, VETOES, assistant_labels, template_split, user_labels
from lastresort_data.material import HARMLESS, Lowest, Piece, Pool, Source, band_of, gather, shorten
from lastresort_data.noise import Variation, vary
from lastresort_data.registry import read_registry
from lastresort_data.scenes import KINDS, MOST_TURNS, Lines, Scene, course

MIXTURES = sorted((Path(__file__).parents[2] / "configs" / "data").glob("*.yaml"))
SEVERITIES = (1 / 3, 2 / 3, 1.0)
HARMLESS_KINDS = {
    "over_refused",
    "harmless_chat",
    "alarming_but_harmless",
    "minors_neighbours",
    "quotes_and_reports",
    "frustrated_user",
    "ai_feelings",
    "goodbyes",
}


def harmful(trigger: str, severity: float = 2 / 3) -> dict[str, float]:
    """Partly labelled, as public sources are: two labels stay unknown."""
    return user_labels(unknown=("violence", "self_harm_risk"), **{trigger: 1.0, "severity": severity, "harm": 1.0})


def single(name: str, message: Message) -> Dialogue:
    return Dialogue(name, (message,), name.split("-")[0])


def prepared(folder: Path) -> Path:
    """Three invented sources; every text names its split."""
    for split in SPLITS:
        rude, talk, replies = [], [], []
        for trigger in TRIGGERS:
            for number in range(9):
                labels = harmful(trigger, SEVERITIES[number % 3])
                message = Message("user", f"[{split}] grumble {number} about {trigger}", labels)
                rude.append(single(f"rude-{split}-{trigger}-{number}", message))
        risk = user_labels(unknown=("harm", *TRIGGERS), self_harm_risk=1.0)
        rude += [single(f"rude-{split}-r{n}", Message("user", f"[{split}] low mood {n}", risk)) for n in range(3)]
        for number in range(12):
            question = Message("user", f"[{split}] where is town number {number}?", user_labels())
            answer = Message("assistant", f"[{split}] town {number} is north of the lake", assistant_labels())
            more = Message("user", f"[{split}] and what of its river {number}?", user_labels())
            chat = (question, answer, more, replace(answer, content=f"[{split}] river {number} is blue"))
            talk.append(Dialogue(f"talk-{split}-{number}", chat[: (number % 2 + 1) * 2], "talk"))
            replies += [
                single(
                    f"replies-{split}-no{number}",
                    Message("assistant", f"[{split}] no, not that {number}", {"redirection": 1.0}),
                ),
                single(
                    f"replies-{split}-ok{number}",
                    Message("assistant", f"[{split}] fine then {number}", {"compliance": 1.0}),
                ),
            ]
        for name, dialogues in (("rude", rude), ("talk", talk), ("replies", replies)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            write_dialogues(dialogues, folder / name / f"{split}.jsonl")
    return folder


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def config() -> ComposeConfig:
    return parse_config(
        {
            "seed": 7,
            "sources": {"rude": {"cap": 20}, "talk": {"cap": 6, "weight": 2}, "replies": {}},
            "kinds": dict.fromkeys(KINDS, 12),
            "validation_share": 0.4,
        }
    )


@pytest.fixture(scope="module")
def composed(config: ComposeConfig, material: Path) -> dict[str, list[Dialogue]]:
    return {split: list(compose(config, material, split)) for split in SPLITS}


def everything(composed: dict[str, list[Dialogue]]) -> list[Dialogue]:
    return list(chain.from_iterable(composed.values()))


# ---- determinism ----


def test_same_seed_and_inputs_give_the_same_bytes(config: ComposeConfig, material: Path, tmp_path: Path) -> None:
    config = replace(config, variation=Variation(0.3, 0.3, 0.3, 0.3, 0.3, 0.3))
    for name in ("one", "two"):
        write_mixture(config, material, tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["counts.json", "train.jsonl", "validation.jsonl"]
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_another_seed_gives_another_mixture(config: ComposeConfig, material: Path, composed: dict[str, list[Dialogue]]) -> None:
    assert list(compose(replace(config, seed=8), material, "train")) != composed["train"]


def test_the_command_takes_another_seed_and_leaves_out_what_another_validation_says(material: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mixture.yaml"
    sources: dict[str, dict[str, int]] = {"rude": {"cap": 20}, "talk": {"cap": 6}, "replies": {}}
    recipe.write_text(yaml.safe_dump({"seed": 7, "sources": sources, "kinds": {"harmless_chat": 3, "crisis": 3}}), encoding="utf-8")

    def written(*more: str) -> list[Dialogue]:
        arguments = ["compose", str(recipe), "--prepared", str(material), "--out", str(tmp_path / "out"), "--only", "train", *more]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        return list(read_dialogues(tmp_path / "out" / "train.jsonl"))

    first = written()
    assert written("--seed", "7") == first
    assert written("--seed", "8") != first
    said = next(turn.content for turn in first[0].messages if len(turn.content.split()) >= 4 and turn.labels)
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"id": "x", "messages": [{"role": "user", "content": said, "labels": {"harm": 0.0}}]}) + "\n", encoding="utf-8")
    less = written("--against", str(other))
    assert 0 < len(less) < len(first)
    assert all(turn.content != said for one in less for turn in one.messages)


def test_a_dialogue_does_not_depend_on_other_kinds(config: ComposeConfig, material: Path, composed: dict[str, list[Dialogue]]) -> None:
    alone = list(compose(replace(config, kinds={"crisis": 3}), material, "train"))
    assert alone == [one for one in composed["train"] if one.meta["kind"] == "crisis"][:3]


def test_mixture_does_not_depend_on_the_order_of_a_file(config: ComposeConfig, material: Path, tmp_path: Path) -> None:
    for split in SPLITS:
        for source in config.sources:
            lines = (material / source / f"{split}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
            (tmp_path / source).mkdir(exist_ok=True)
            (tmp_path / source / f"{split}.jsonl").write_text("".join(reversed(lines)), encoding="utf-8")
    write_mixture(config, material, tmp_path / "one")
    write_mixture(config, tmp_path, tmp_path / "two")
    assert (tmp_path / "one" / "train.jsonl").read_bytes() == (tmp_path / "two" / "train.jsonl").read_bytes()


# ---- splits ----


def test_one_split_can_be_written_alone(config: ComposeConfig, material: Path, tmp_path: Path) -> None:
    write_mixture(config, material, tmp_path / "both")
    counts = write_mixture(config, material, tmp_path / "one", ["validation"])
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["counts.json", "validation.jsonl"]
    assert (tmp_path / "one" / "validation.jsonl").read_bytes() == (tmp_path / "both" / "validation.jsonl").read_bytes()
    assert set(counts) == {"config", "seed", "validation"}


def test_splits_share_no_dialogue_and_no_template(composed: dict[str, list[Dialogue]]) -> None:
    for key in ("material", "templates"):
        used = {split: {item for one in composed[split] for item in one.meta[key]} for split in SPLITS}
        assert used["train"]
        assert used["validation"]
        assert not used["train"] & used["validation"]
    assert not {one.id for one in composed["train"]} & {one.id for one in composed["validation"]}


def test_texts_come_from_their_own_split(composed: dict[str, list[Dialogue]]) -> None:
    for split, other in (SPLITS, SPLITS[::-1]):
        texts = " ".join(message.content for one in composed[split] for message in one.messages)
        assert f"[{split}]" in texts
        assert f"[{other}]" not in texts


def test_templates_obey_the_fixed_rule(composed: dict[str, list[Dialogue]]) -> None:
    for split in SPLITS:
        for name in {item for one in composed[split] for item in one.meta["templates"]}:
            assert template_split(int(name.split(".")[1])) == split


# ---- labels ----


def expected_persistence(messages: tuple[Message, ...]) -> list[set[float | None]]:
    """What each user turn may have, read off the labels alone (an independent reading of the definition)."""
    allowed: list[set[float | None]] = []
    for index, message in enumerate(messages):
        if message.role != "user":
            continue
        found = {name for name in TRIGGERS if message.labels.get(name, 0.0) >= 0.5}
        redirected: set[str] = set()
        blurred = False
        block: list[Message] = []
        for earlier in messages[:index]:
            if earlier.role == "user":
                block.append(earlier)
                continue
            lines = {name for m in block for name in TRIGGERS if m.labels.get(name, 0.0) >= 0.5}
            unknown = any("harm" not in m.labels or 0.1 < m.labels["harm"] < 0.5 for m in block)
            value = earlier.labels.get("redirection")
            if value is None:
                blurred |= bool(lines) or unknown
            elif value >= 0.5:
                redirected |= lines
                blurred |= unknown or not lines
            block = []
        harm = message.labels.get("harm")
        if harm is not None and harm <= 0.1:
            allowed.append({0.0})
        elif harm is None or harm < 0.5:
            allowed.append({None} if redirected else {0.0, None})
        elif found & redirected:
            allowed.append({1.0})
        elif redirected:
            allowed.append({0.5, None})
        else:
            allowed.append({0.0, None} if blurred else {0.0})
    return allowed


def test_persistence_obeys_the_definition(composed: dict[str, list[Dialogue]]) -> None:
    seen: Counter[float | None] = Counter()
    for one in everything(composed):
        found = [message.labels.get("persistence") for message in one.messages if message.role == "user"]
        for value, allowed in zip(found, expected_persistence(one.messages), strict=True):
            assert value in allowed, one.meta["kind"]
        seen.update(found)
    assert all(seen[value] > 10 for value in (0.0, 0.5, 1.0, None)), seen


def test_persistence_in_kinds_that_can_have_none(composed: dict[str, list[Dialogue]]) -> None:
    for one in everything(composed):
        if one.meta["kind"] in HARMLESS_KINDS | {"no_redirection"}:
            assert {m.labels["persistence"] for m in one.messages if m.role == "user"} == {0.0}


def _line(*turns: str) -> list[float | None]:
    """Persistence of the user turns of a script: h, x = two lines, u = unknown harm, . = harmless; R, P, ? = answers."""
    labels = {"h": harmful("hate"), "x": harmful("other_harm"), "u": {"end_request": 0.0}, ".": user_labels()}
    lines = Lines()
    values = []
    for turn in turns:
        if turn in labels:
            values.append(lines.user(labels[turn]))
        else:
            lines.assistant({"R": {"redirection": 1.0}, "P": {"redirection": 0.0}, "?": {}}[turn])
    return values


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("h R h", [0, 1]),
        ("h P h", [0, 0]),
        ("h ? h", [0, None]),
        ("h h R h", [0, 0, 1]),
        ("h R . R h", [0, 0, 1]),
        (". R . R h R h", [0, 0, 0, 1]),
        ("h R x", [0, 0.5]),
        ("h R x R x R h", [0, 0.5, 1, 1]),
        ("h R x P x", [0, 0.5, None]),
        ("u R h", [0, None]),
        ("h R u", [0, None]),
        ("h P . R h", [0, 0, None]),
        ("h . R h", [0, 0, 1]),
    ],
)
def test_persistence_of_scripts(script: str, expected: list[float | None]) -> None:
    assert _line(*script.split()) == expected


def test_masking_is_preserved(material: Path, composed: dict[str, list[Dialogue]]) -> None:
    given = {message.content: dict(message.labels) for path in material.glob("*/*.jsonl") for one in read_dialogues(path) for message in one.messages}
    found = 0
    for message in chain.from_iterable(one.messages for one in everything(composed)):
        if message.content in given:
            found += 1
            assert {k: v for k, v in message.labels.items() if k != "persistence"} == given[message.content]
    assert found > 1000


def test_a_turn_said_again_keeps_its_labels(composed: dict[str, list[Dialogue]]) -> None:
    verbatim = again = 0
    for one in composed["train"]:
        if one.meta["kind"] == "rephrasing":
            users = [message for message in one.messages if message.role == "user" and message.labels["harm"] == 1.0]
            for message in users[1:]:
                assert {**message.labels, "persistence": 0.0} == {**users[0].labels, "persistence": 0.0}
                again += 1
                verbatim += users[0].content in message.content
    assert again > verbatim > 20, "some are disguised or only pressed for"


def test_labels_are_in_range_and_named_by_the_guide(composed: dict[str, list[Dialogue]]) -> None:
    names = {"user": {*user_labels(), "persistence"}, "assistant": set(assistant_labels())}
    for message in chain.from_iterable(one.messages for one in everything(composed)):
        assert set(message.labels) <= names[message.role]
        assert all(0.0 <= value <= 1.0 for value in message.labels.values())


# ---- kinds and counts ----


def test_kinds_count_as_configured(config: ComposeConfig, composed: dict[str, list[Dialogue]]) -> None:
    assert Counter(one.meta["kind"] for one in composed["train"]) == dict(config.kinds)
    share = {kind: ceil(number * config.validation_share) for kind, number in config.kinds.items()}
    assert Counter(one.meta["kind"] for one in composed["validation"]) == share


def test_every_dialogue_has_1_to_60_turns_with_text(composed: dict[str, list[Dialogue]]) -> None:
    for one in everything(composed):
        assert 1 <= len(one.messages) <= MOST_TURNS == 60
        assert all(message.content.strip() for message in one.messages)


def has_double(one: Dialogue) -> bool:
    return any(a.role == b.role == "user" for a, b in zip(one.messages, one.messages[1:], strict=False))


def test_only_double_turns_have_two_user_turns_in_a_row(composed: dict[str, list[Dialogue]]) -> None:
    for one in everything(composed):
        assert has_double(one) == (one.meta["kind"] == "double_turns")


def test_escalation_rises(composed: dict[str, list[Dialogue]]) -> None:
    for one in composed["train"]:
        if one.meta["kind"] == "escalation":
            rises = [band_of(m.labels) for m in one.messages if m.role == "user" and m.labels["severity"] > 0]
            assert rises == sorted(rises, key=["mild", "clear", "grave"].index)
            assert len(set(rises)) == 3


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_persistent_harm_mostly_goes_on_past_a_warning(config: ComposeConfig, material: Path, trigger: str) -> None:
    kind = f"persistent_{trigger}"
    enough = 2 if trigger in {"sexual_minors", "mass_harm"} else 3
    past = many = 0
    for one in compose(replace(config, kinds={kind: 60}), material, "train"):
        harmful_turns = [m for m in one.messages if m.role == "user" and m.labels.get("harm", 0.0) >= 0.5]
        assert all(m.labels[trigger] == 1.0 for m in harmful_turns)
        past += one.meta.get("call") == "end"
        many += len(harmful_turns) >= enough + 2
    assert past > 30
    assert many > 35


def test_warnings_come_late_and_never_at_risk(composed: dict[str, list[Dialogue]]) -> None:
    templates = (re.split(r"{\w+}", template) for template in GRAMMARS["warning"].templates)
    patterns = [re.compile(".*".join(r"\s*".join(map(re.escape, part.split())) for part in parts), re.IGNORECASE | re.DOTALL) for parts in templates]
    warned = Counter[str]()
    for one in everything(composed):
        for place, message in enumerate(one.messages):
            if message.role == "assistant" and any(pattern.fullmatch(message.content) for pattern in patterns):
                before = one.messages[:place]
                assert max((m.labels.get(name, 0.0) for m in before for name in VETOES), default=0.0) < 0.5, one.meta["kind"]
                redirected = sum(a.labels.get("harm", 0.0) >= 0.5 and b.labels.get("redirection", 0.0) >= 0.5 for a, b in pairwise(before))
                assert redirected >= 2, one.meta["kind"]
                warned[one.meta["kind"]] += 1
    assert len(warned) > 8
    assert sum(warned.values()) > 50


def test_harmless_kinds_hold_no_harm_and_no_risk(composed: dict[str, list[Dialogue]]) -> None:
    for one in everything(composed):
        if one.meta["kind"] in HARMLESS_KINDS:
            for message in one.messages:
                if message.role == "user":
                    assert message.labels["harm"] == 0.0
                    assert max(message.labels.get(name, 0.0) for name in VETOES) <= 0.2
                    assert message.labels["end_request"] <= 0.3
                elif one.meta["kind"] != "over_refused":
                    assert message.labels.get("distress", 0.0) == 0.0 or one.meta["kind"] == "minors_neighbours"


def test_a_quotation_is_harmless_and_holds_what_it_quotes(composed: dict[str, list[Dialogue]]) -> None:
    quotations = [
        m.content
        for one in everything(composed)
        if one.meta["kind"] == "quotes_and_reports"
        for m in one.messages
        if m.role == "user" and "grumble" in m.content and m.labels["harm"] <= HARMLESS
    ]
    assert len(quotations) > 5


def test_risk_and_abuse_in_one_breath(composed: dict[str, list[Dialogue]]) -> None:
    both = [
        m
        for one in everything(composed)
        if one.meta["kind"] == "crisis_with_abuse"
        for m in one.messages
        if m.labels.get("self_harm_risk", 0.0) >= 0.5 and m.labels.get("assistant_abuse", 0.0) >= 0.5
    ]
    assert both
    for message in both:
        assert message.labels["harm"] == 1.0
        assert "violence" not in message.labels or message.labels["violence"] == 0.0


def test_long_chats_with_one_bad_line(config: ComposeConfig, material: Path) -> None:
    lengths = []
    for one in compose(replace(config, kinds={"one_bad_line": 40}), material, "train"):
        assert sum(m.role == "user" and m.labels["harm"] >= 0.5 for m in one.messages) == 1
        lengths.append(len(one.messages))
    assert max(lengths) >= 50
    assert min(lengths) < 20


def test_an_over_refusing_assistant_refuses_often(config: ComposeConfig, material: Path) -> None:
    refusals = [
        sum(m.labels.get("redirection", 0.0) >= 0.5 for m in one.messages if m.role == "assistant")
        for one in compose(replace(config, kinds={"over_refused": 40}), material, "train")
    ]
    assert min(refusals) >= 1
    assert max(refusals) >= 7


def test_redirections_are_counted_once_a_harmful_turn() -> None:
    scene = Scene(random.Random(1), "train", {})
    bad = Message("user", "grumble", harmful("hate"))
    no = Message("assistant", "no", {"redirection": 1.0})
    for message in (bad, no, no, Message("user", "hello", user_labels()), no, bad, bad, no):
        scene.add(message)
    assert scene.redirections == 2


def test_an_answer_to_the_question_whether_to_end(composed: dict[str, list[Dialogue]]) -> None:
    asked = [one for one in everything(composed) if one.meta["kind"] == "end_request"]
    replies = Counter(name.split(".")[0] for one in asked for name in one.meta["templates"])
    assert min(replies["end_request"], replies["end_confirmation"]) >= len(asked)
    assert min(replies["closes"], replies["stays"], replies["moves_on"] + replies["end_elsewhere"]) > 0
    assert min(replies["end_yes"], replies["end_no"]) > 0
    assert all("call" not in one.meta for one in asked)


def test_at_risk_never_ends(composed: dict[str, list[Dialogue]]) -> None:
    for one in everything(composed):
        if one.meta["kind"] in {"crisis", "crisis_with_abuse", "violent_intent"}:
            assert one.meta.get("call", "continue") == "continue"


def test_composed_dialogues_end_where_the_guide_allows(composed: dict[str, list[Dialogue]]) -> None:
    ends = [one for one in everything(composed) if one.meta.get("call") == "end"]
    assert len(ends) > 20
    for one in ends:
        place = one.meta["justified_at"]
        assert one.messages[place].labels["harm"] >= 0.5
        redirected = sum(
            a.labels.get("harm", 0.0) >= 0.5 and b.labels.get("redirection", 0.0) >= 0.5
            for a, b in zip(one.messages[:place], one.messages[1:place], strict=False)
        )
        gravest = any(max(message.labels.get(name, 0.0) for name in ("sexual_minors", "mass_harm")) >= 0.5 for message in one.messages[:place])
        assert redirected >= (2 if gravest else 3)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("hR hR hR hR h", ("end", 8)),  # three redirections, then the warning, then harm
        ("hR hR hR hP h", ("end", 8)),  # what follows the advice to warn is the warning
        ("hR hR hR h", ("continue", None)),
        ("hR hR hP h hR", ("continue", None)),
        ("mR mR mR m", ("end", 6)),
        ("hR hR hR hR .P .P", ("continue", None)),
        ("hR hR hR hR .P .P .P .P .P h", ("end", 18)),
        ("hR hR hR hR .P .P .P .P .P .P h", ("continue", None)),  # a quiet spell forgets
        ("hR rR hR hR hR hR h", ("continue", None)),
        ("hR u", None),
    ],
)
def test_course(script: str, expected: tuple[str, int | None] | None) -> None:
    labels = {
        "h": {**harmful("assistant_abuse"), "persistence": 1.0},
        "m": {**harmful("mass_harm"), "persistence": 1.0},
        ".": user_labels(),
        "r": user_labels(self_harm_risk=1.0),
        "u": {"self_harm_risk": 0.0},
    }
    turns = [turn for turn in script if turn != " "]
    messages = [Message("user", turn, labels[turn]) if turn in labels else Message("assistant", turn, {"redirection": float(turn != "P")}) for turn in turns]
    assert course(messages) == expected


def test_material_is_chosen_by_weight_and_use(config: ComposeConfig, material: Path) -> None:
    sources = {"talk": Source(use="opening"), "rude": Source(weight=0.0), "replies": Source(use="none")}
    pools = gather(sources, material, "train", seed=1, most=5, longest=config.longest, where="my.yaml")
    assert set(pools) == {"harmless", "harmless+plain"}
    assert {name: len(pool) for name, pool in pools.items()} == {"harmless": 5, "harmless+plain": 5}
    pieces = [pools["harmless"].draw(random.Random(seed)) for seed in range(100)]
    assert not any("river" in piece.messages[0].content for piece in pieces), "only the first turn may be used"
    anything = gather({"talk": Source()}, material, "train", seed=1, most=5, longest=config.longest, where="my.yaml")
    assert set(anything) == {"harmless", "harmless+plain", "plain", "chat"}


def test_a_heavy_source_is_drawn_more_often() -> None:
    pieces = {name: [Piece(name, ())] * number for name, number in (("light", 400), ("heavy", 100))}
    pool = Pool(pieces, {"light": 1.0, "heavy": 6.0})
    rng = random.Random(1)
    drawn = Counter(pool.draw(rng).origin for _ in range(4000))
    assert drawn["heavy"] / drawn["light"] == pytest.approx(3.0, rel=0.15)  # 6 * sqrt(100) against sqrt(400)


# ---- streaming ----


def test_streams_are_lazy(config: ComposeConfig, material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first item comes before the rest is made or read."""
    played: list[str] = []
    kinds = {kind: (lambda scene, kind=kind, play=play: (played.append(kind), play(scene))) for kind, play in KINDS.items()}
    monkeypatch.setattr("lastresort_data.compose.KINDS", kinds)
    dialogues = compose(config, material, "train")
    assert played == []
    next(dialogues)
    assert len(played) == 1
    next(dialogues)
    assert len(played) == 2


def test_a_mixture_streams_in_order_and_lazily(config: ComposeConfig, material: Path, tmp_path: Path) -> None:
    write_mixture(config, material, tmp_path)
    path = tmp_path / "train.jsonl"
    whole = list(stream(tmp_path, "train"))
    assert [one["id"] for one in whole] == [one.id for one in read_dialogues(path)]
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text(lines[0] + "not json\n", encoding="utf-8")
    rows = stream(tmp_path, "train")
    assert next(rows) == whole[0], "the first line is given before the second, broken one is read"
    with pytest.raises(DataError, match=r"train\.jsonl:2"):
        next(rows)


def test_rows_of_a_stream_are_plain_data(config: ComposeConfig, material: Path, tmp_path: Path) -> None:
    write_mixture(config, material, tmp_path)
    for row in stream(tmp_path, "validation"):
        assert set(row) == {"id", "source", "kind", "messages"}
        assert json.loads(json.dumps(row)) == row
        for message in row["messages"]:
            assert set(message) == {"role", "content", "labels"}
            assert set(message["labels"]) == {*user_labels(), *assistant_labels(), "persistence"}, "the same columns in every row"


def test_datasets_streams_a_mixture(config: ComposeConfig, material: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="it comes with the extra `train`")
    write_mixture(config, material, tmp_path)
    path = tmp_path / "train.jsonl"
    first = next(stream(tmp_path, "train"))
    path.write_text(path.read_text(encoding="utf-8").splitlines(keepends=True)[0] + "not json\n", encoding="utf-8")
    rows = iter(datasets.IterableDataset.from_generator(stream, gen_kwargs={"mixture_dir": str(tmp_path), "split": "train"}))
    assert next(rows) == first
    with pytest.raises(DataError, match=r"train\.jsonl:2"):
        next(rows)


def test_a_stream_of_an_unknown_split_or_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="test"):
        next(stream(tmp_path, "test"))
    with pytest.raises(DataError, match=r"train\.jsonl"):
        next(stream(tmp_path, "train"))


# ---- the mixture ----


def test_mixture_holds_real_and_composed(config: ComposeConfig, material: Path, tmp_path: Path) -> None:
    counts = write_mixture(config, material, tmp_path)
    assert json.loads((tmp_path / "counts.json").read_text(encoding="utf-8")) == counts
    for split in SPLITS:
        found = list(read_dialogues(tmp_path / f"{split}.jsonl"))
        by_source = Counter(one.source for one in found)
        share = 1.0 if split == "train" else config.validation_share
        assert by_source["rude"] == ceil(20 * share)
        assert by_source["talk"] == ceil(6 * share)
        assert by_source["replies"] == 24
        assert by_source["composed"] == sum(counts[split]["by_kind"][kind]["dialogues"] for kind in config.kinds)
        assert len({one.id for one in found}) == len(found)
        assert counts[split]["turns"]["all"] == sum(len(one.messages) for one in found)
        assert by_source["composed"] > max(len(run) for run in _runs([one.source for one in found])), "not shuffled"


def _runs(names: list[str]) -> list[str]:
    return re.findall(r"c+", "".join("c" if name == "composed" else "-" for name in names))


def test_as_is_passes_unchanged(config: ComposeConfig, material: Path) -> None:
    loud = Variation(1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    kept = replace(config, variation=loud, sources={"talk": Source(as_is=True)})
    assert list(real(kept, material, "train")) == list(read_dialogues(material / "talk" / "train.jsonl"))
    changed = list(real(replace(kept, sources={"talk": Source()}), material, "train"))
    assert changed != list(real(kept, material, "train"))
    assert [[m.labels for m in one.messages] for one in changed] == [[m.labels for m in one.messages] for one in real(kept, material, "train")]


def test_validation_is_never_varied(config: ComposeConfig, material: Path, composed: dict[str, list[Dialogue]]) -> None:
    loud = replace(config, variation=Variation(1.0, 1.0, 1.0, 1.0, 1.0, 1.0))
    assert list(compose(loud, material, "validation")) == composed["validation"]
    varied = list(compose(loud, material, "train"))
    assert varied != composed["train"]
    for one, plain in zip(varied, composed["train"], strict=True):
        assert [m.labels for m in one.messages] == [m.labels for m in plain.messages]
        assert [m.content for m in one.messages if m.role == "assistant"] == [m.content for m in plain.messages if m.role == "assistant"]


def test_long_turns(config: ComposeConfig, tmp_path: Path) -> None:
    words = "One two three four five. " * 200
    rows = [
        single("long-a", Message("assistant", words, {"redirection": 0.0})),
        single("long-b", Message("user", words, user_labels())),
        single("long-c", Message("user", words, harmful("hate"))),
        single("long-d", Message("user", words, {})),
    ]
    (tmp_path / "long").mkdir()
    write_dialogues(rows, tmp_path / "long" / "train.jsonl")
    found = {one.id: one.messages[0].content for one in real(replace(config, sources={"long": Source()}), tmp_path, "train")}
    assert set(found) == {"long-a", "long-b"}, "a long turn that may be harmful cannot be cut without touching its label"
    assert 60 - 5 <= len(found["long-a"].split()) <= 120
    assert 100 - 5 <= len(found["long-b"].split()) <= 200
    assert all(text.endswith("five.") and words.startswith(text) for text in found.values())


def test_shorten_without_a_sentence_end() -> None:
    cut = shorten("word " * 300, 50, random.Random(1))
    assert 25 <= len(cut.split()) <= 50
    assert shorten("short  as is", 50, random.Random(1)) == "short  as is"


def test_an_id_in_two_sources_is_an_error(config: ComposeConfig, material: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for split in SPLITS:
            write_dialogues([single("same", Message("user", "hello", user_labels()))], tmp_path / name / f"{split}.jsonl")
    clash = replace(config, sources={"one": Source(), "two": Source()}, kinds={})
    with pytest.raises(DataError, match="same"):
        write_mixture(clash, tmp_path, tmp_path / "out")


def test_lowest_is_the_same_in_any_order() -> None:
    numbers = random.Random(3).sample(range(1000), 200)
    for order in (numbers, numbers[::-1]):
        lowest: Lowest[int] = Lowest(10)
        for number in [*order, *order]:
            lowest.offer(number, number)
        assert lowest.items() == sorted(numbers)[:10]


# ---- variation ----


@pytest.mark.parametrize("way", [item.name for item in fields(Variation)])
def test_each_way_changes_text_and_never_empties_it(way: str) -> None:
    text = "Could you tell me where the nearest Library is?"
    results = [vary(text, Variation(**{way: 1.0}), random.Random(seed)) for seed in range(50)]
    assert sum(result != text for result in results) > 40
    assert all(result.strip() for result in results)
    for short in ("", "ok", "🙂", "\n"):
        assert len(vary(short, Variation(**{way: 1.0}), random.Random(1))) == len(short)


# ---- errors ----


BASE = {"seed": 1, "sources": {"talk": {}}, "kinds": {"crisis": 1}}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"sead": 2}, "sead"),
        ({"name": "x"}, "name"),
        ({"seed": "often"}, "seed"),
        ({"sources": {"talk": {"capp": 3}}}, "sources.talk.capp"),
        ({"sources": {"talk": {"use": "all"}}}, "sources.talk.use"),
        ({"sources": {"talk": {"cap": -1}}}, "sources.talk"),
        ({"sources": {"talk": {"weight": -0.5}}}, "sources.talk"),
        ({"sources": {"talk": {"weight": float("nan")}}}, "sources.talk.weight"),
        ({"kinds": {"crises": 1}}, "kinds.crises"),
        ({"kinds": {"crisis": -1}}, "kinds.crisis"),
        ({"variation": {"typos": 1.5}}, "variation"),
        ({"variation": {"typo": 0.5}}, "variation.typo"),
        ({"longest": {"user_words": 3}}, "longest"),
        ({"validation_share": 0.0}, "validation_share"),
        ({"pool_most": 0}, "pool_most"),
    ],
)
def test_config_errors_name_file_and_key(change: dict[str, object], key: str, tmp_path: Path) -> None:
    path = tmp_path / "mixture.yaml"
    path.write_text(json.dumps({**BASE, **change}).replace("NaN", ".nan"), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert str(path) in str(caught.value)
    assert key in str(caught.value)


@pytest.mark.parametrize("missing", ["seed", "sources", "kinds"])
def test_missing_keys_are_errors(missing: str) -> None:
    with pytest.raises(ConfigError, match=missing):
        parse_config({key: value for key, value in BASE.items() if key != missing})


def test_a_missing_source_is_an_error_unless_not_required(material: Path) -> None:
    gone = {"sources": {"talk": {}, "gone": {}}, "kinds": {}, "seed": 1}
    with pytest.raises(ConfigError, match=r"my\.yaml: sources\.gone: .*gone/train\.jsonl"):
        list(real(parse_config(gone, name="my.yaml"), material, "train"))
    with pytest.raises(ConfigError, match=r"my\.yaml: sources\.gone"):
        list(compose(parse_config(gone, name="my.yaml"), material, "train"))
    optional = {**gone, "sources": {"talk": {}, "gone": {"required": False}}}
    assert len(list(real(parse_config(optional), material, "train"))) == 12


def test_a_kind_without_material_is_an_error(material: Path) -> None:
    config = parse_config({"seed": 1, "sources": {"talk": {}}, "kinds": {"persistent_hate": 1}}, name="my.yaml")
    with pytest.raises(DataError, match=r"my\.yaml: kinds\.persistent_hate: .*harm:hate.*validation"):
        list(compose(config, material, "validation"))


def test_an_unknown_split_is_an_error(config: ComposeConfig, material: Path) -> None:
    with pytest.raises(ValueError, match="test"):
        list(compose(config, material, "test"))


@pytest.mark.parametrize("path", MIXTURES, ids=lambda path: path.stem)
def test_a_mixture_is_well_formed(path: Path) -> None:
    config = read_config(path)
    if path.stem == "unseen":  # for measuring alone: nothing of it may be in what the shipped model learns from
        assert not set(config.sources) & set(read_config(path.with_name("wide.yaml")).sources)
        assert all(read_registry().sources[name].licence_class != "permissive" for name in config.sources)
        return
    assert config.sources["written"].as_is, "our own conversations pass through whole"
    assert sum(config.kinds.values()) > 0
