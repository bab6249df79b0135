"""The registry of sources: agreement with the adapters, strict loading, verification, licence classes, and `prepare` with several processes."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from lastresort.config import read_yaml
from lastresort.errors import ConfigError, DataError
from lastresort_data import adapters
from lastresort_data.cli import app
from lastresort_data.compose import parse_config
from lastresort_data.prepare import OVERLAP_COLUMNS, prepare
from lastresort_data.registry import LICENCE_CLASSES, PATH, File, choose, describe, matches, read_registry, verify

FILE_NAME = re.compile(r'"([^"/]+\.(?:csv|jsonl?|tsv|txt)(?:\.gz)?)"')
ROW = {"text": "Write a short note about rain and tea", "id": "1"}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def code_of(source: str) -> str:
    return Path(str(adapters.get(source).__file__)).read_text(encoding="utf-8")  # type: ignore[attr-defined]


# -- the registry itself ----------------------------------------------------------------------------------------------------------------


def test_registry_and_adapters_match_one_to_one() -> None:
    assert list(read_registry().sources) == adapters.names()


@pytest.mark.parametrize("source", adapters.names())
def test_the_registry_lists_the_files_that_the_adapter_reads(source: str) -> None:
    assert sorted(file.name for file in read_registry().sources[source].files) == sorted(set(FILE_NAME.findall(code_of(source).split('"""', 2)[2])))


@pytest.mark.parametrize("source", adapters.names())
def test_the_adapter_names_the_upstream_of_the_registry(source: str) -> None:
    said = " ".join((adapters.get(source).__doc__ or "").split())
    entry = read_registry().sources[source]
    # sbic_dev and others name the origin first and the copy after it
    assert any(one.repository in said for one in entry.upstream)
    assert re.split(r"[ ;,(]", entry.licence)[0].lower() in said.lower()


def test_licence_classes_agree_with_the_words_of_the_licence() -> None:
    for name, entry in read_registry().sources.items():
        words = entry.licence
        if entry.licence_class == "permissive":
            assert not re.search(r"BY-SA|GPL|non-commercial", words), name
            kept = "; ".join(part for part in words.split(";") if "left out" not in part and "derived translations" not in part)
            assert "-NC" not in kept, name
        else:
            assert re.search({"share_alike": "-SA", "non_commercial": "-NC|non-commercial", "gpl": "^GPL"}[entry.licence_class], words), name
    assert {entry.licence_class for entry in read_registry().sources.values()} == set(LICENCE_CLASSES)


def test_posts_of_people_at_risk_are_marked_as_sensitive() -> None:
    assert [name for name, entry in read_registry().sources.items() if entry.sensitive] == ["reddit_cssrs"]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda v: v.update(extra=1), r"extra: found this key"),
        (lambda v: v.update(base_url="ftp://x"), r"base_url: found 'ftp://x'"),
        (lambda v: v["sources"]["edos"].pop("licence"), r"sources\.edos\.licence: found nothing"),
        (lambda v: v["sources"]["edos"].update(licence_class="free"), r"sources\.edos\.licence_class: found 'free'"),
        (lambda v: v["sources"]["edos"].update(cap=0), r"sources\.edos\.cap: found 0"),
        (lambda v: v["sources"]["edos"].update(weight=-1.0), r"sources\.edos\.weight: found -1\.0"),
        (lambda v: v["sources"]["edos"].update(weigth=1.0), r"sources\.edos\.weigth: found this key"),
        (lambda v: v["sources"]["edos"].update(upstream=[]), r"sources\.edos: found no upstream, expected at least one"),
        (lambda v: v["sources"]["edos"].update(files=[]), r"sources\.edos: found no files, expected at least one"),
        (lambda v: v["sources"]["edos"]["upstream"][0].update(commit="main"), r"sources\.edos\.upstream\.0\.commit: found 'main'"),
        (lambda v: v["sources"]["edos"]["files"][0].update(sha256="12"), r"sources\.edos\.files\.0\.sha256: found '12'"),
        (lambda v: v["sources"]["edos"]["files"][0].update(name="../a.csv"), r"sources\.edos\.files\.0\.name: found '\.\./a\.csv'"),
        (lambda v: v["sources"]["edos"]["files"][0].pop("content_sha256"), r"sources\.edos\.files\.0.*no content_sha256 for edos_labelled"),
        (lambda v: v["sources"]["edos"]["files"][0].pop("download"), r"sources\.edos\.files\.0\.download: found nothing"),
        (lambda v: v["sources"]["edos"]["files"][0].pop("reason"), r"sources\.edos\.files\.0.*neither download nor reason"),
        (lambda v: v["sources"]["banking77"]["files"][0].update(reason="none"), r"sources\.banking77\.files\.0.*both download and reason"),
        (lambda v: v["sources"]["banking77"]["files"][0]["download"].update(rewrite="zip"), r"sources\.banking77\.files\.0\.download\.rewrite: found 'zip'"),
    ],
)
def test_a_wrong_registry_is_an_error_that_names_file_and_key(change: Callable[[dict[str, Any]], Any], found: str, tmp_path: Path) -> None:
    values = read_yaml(PATH)
    values["sources"] = {name: values["sources"][name] for name in ("banking77", "edos")}
    change(values)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"mine\.yaml: {found}"):
        read_registry(path)


def test_an_unknown_source_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"source: found 'edoss', expected one of aart, .*xsafety_en"):
        choose(read_registry(), ["edoss"])


# -- verification -----------------------------------------------------------------------------------------------------------------------


def test_a_file_matches_by_its_bytes_or_by_its_content(tmp_path: Path) -> None:
    content, other = b"a,b\n1,2\n", gzip.compress(b"a,b\n1,2\n", mtime=7)
    file = File("a.csv.gz", sha256(gzip.compress(content, mtime=0)), None, sha256(content), reason="a test")
    assert sha256(other) != file.sha256
    assert matches(gzip.compress(content, mtime=0), file)
    assert matches(other, file)
    assert not matches(gzip.compress(b"a,b\n1,3\n", mtime=0), file)
    assert not matches(content, file)  # not compressed, so the adapter could not read it
    assert not matches(other[:-9], file)
    assert not matches(b"", file)


def test_verification_says_what_was_found_and_expected(tmp_path: Path) -> None:
    file = File("a.csv", sha256(b"a"), None, reason="a test")
    with pytest.raises(DataError, match=r"a\.csv: cannot be read"):
        verify(tmp_path, file)
    (tmp_path / "a.csv").write_bytes(b"b")
    with pytest.raises(DataError, match=rf"a\.csv: found sha256 {sha256(b'b')}, expected {sha256(b'a')}"):
        verify(tmp_path, file)
    (tmp_path / "a.csv").write_bytes(b"a")
    verify(tmp_path, file)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two sources whose adapters take any text, and an empty list of overlaps."""
    for source, file in (("ifeval_prompts", "input_data.jsonl.gz"), ("poem_sentiment", "poem_sentiment.train.jsonl.gz")):
        (tmp_path / "raw" / source).mkdir(parents=True)
        lines = [json.dumps({**ROW, "text": f"{ROW['text']}, number {number}"}) for number in range(40)]
        (tmp_path / "raw" / source / file).write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    (tmp_path / "raw" / "heldout_overlap.tsv").write_text("\t".join(OVERLAP_COLUMNS) + "\n", encoding="utf-8")
    return tmp_path / "raw"


@pytest.fixture
def registry_path(raw: Path) -> Path:
    """A registry that knows the files of `raw`."""
    values = read_yaml(PATH)
    values["sources"] = {name: values["sources"][name] for name in ("ifeval_prompts", "poem_sentiment")}
    for name, entry in values["sources"].items():
        for file in entry["files"]:
            content = (raw / name / file["name"]).read_bytes()
            file |= {"sha256": sha256(content), "content_sha256": sha256(gzip.decompress(content))}
    values["overlaps_sha256"] = sha256((raw / "heldout_overlap.tsv").read_bytes())
    path = raw.parent / "registry.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def test_prepare_verifies_every_file_before_anything_is_written(raw: Path, registry_path: Path, tmp_path: Path) -> None:
    registry, names = read_registry(registry_path), ["ifeval_prompts", "poem_sentiment"]
    prepare(names, raw, tmp_path / "good", registry=registry)
    assert (tmp_path / "good" / "poem_sentiment" / "train.jsonl").is_file()
    path = raw / "poem_sentiment" / "poem_sentiment.train.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(ROW).encode()))
    with pytest.raises(DataError, match=r"poem_sentiment\.train\.jsonl\.gz: found sha256 [0-9a-f]{64}, expected"):
        prepare(names, raw, tmp_path / "bad", registry=registry)
    assert not (tmp_path / "bad").exists()
    prepare(names, raw, tmp_path / "unchecked")
    assert (tmp_path / "unchecked" / "poem_sentiment" / "train.jsonl").is_file()


def test_prepare_verifies_the_list_of_overlaps(raw: Path, registry_path: Path, tmp_path: Path) -> None:
    with (raw / "heldout_overlap.tsv").open("a", encoding="utf-8") as stream:
        stream.write("a\tb\t1\tset\tnear\t0.9\n")
    with pytest.raises(DataError, match=r"heldout_overlap\.tsv: found sha256 .*overlaps_sha256"):
        prepare(["ifeval_prompts"], raw, tmp_path / "out", registry=read_registry(registry_path))


def test_the_command_verifies_unless_told_otherwise(raw: Path, tmp_path: Path) -> None:
    command = ["prepare", "ifeval_prompts", "--from", str(raw), "--out", str(tmp_path / "out"), "--workers", "1"]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, DataError)
    assert "sha256" in str(result.exception)
    result = CliRunner().invoke(app, [*command, "--no-verify"])
    assert result.exit_code == 0
    assert "warning: files are not checked" in result.stderr


# -- several processes ------------------------------------------------------------------------------------------------------------------


def test_several_processes_write_the_same_bytes(raw: Path, tmp_path: Path) -> None:
    names = ["poem_sentiment", "ifeval_prompts"]
    alone = prepare(names, raw, tmp_path / "one")
    together = prepare(names, raw, tmp_path / "two", workers=2)
    assert together == alone
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 5
    for file in files:
        assert (tmp_path / "two" / file).read_bytes() == (tmp_path / "one" / file).read_bytes()


def test_an_error_of_another_process_keeps_its_place(raw: Path, tmp_path: Path) -> None:
    (raw / "poem_sentiment" / "poem_sentiment.train.jsonl.gz").write_bytes(gzip.compress(b"{}\n"))
    with pytest.raises(DataError) as caught:
        prepare(["ifeval_prompts", "poem_sentiment"], raw, tmp_path / "out", workers=2)
    assert caught.value.where.endswith("poem_sentiment.train.jsonl.gz:1")
    assert caught.value.field == "text"
    assert str(caught.value).count("expected this key") == 1


# -- licences ---------------------------------------------------------------------------------------------------------------------------


def test_all_is_every_source_of_the_classes_asked_for() -> None:
    registry = read_registry()
    assert choose(registry, ["all"]) == adapters.names()
    permissive = choose(registry, ["all"], ["permissive"])
    assert {"convabuse", "topical_chat", "dices", "refusal_direction"} <= set(permissive)
    assert not {"stormfront", "ethos", "esconv", "wiki_talk_context"} & set(permissive)
    assert sorted({*permissive, *choose(registry, ["all"], ["gpl", "share_alike", "non_commercial"])}) == adapters.names()


def test_a_named_source_of_another_class_is_an_error() -> None:
    with pytest.raises(DataError, match=r"ethos: licence_class: found the licence class gpl, expected one of permissive, share_alike"):
        choose(read_registry(), ["edos", "ethos"], ["share_alike", "permissive"])
    with pytest.raises(DataError, match=r"licences: found 'free', expected one of permissive, share_alike, non_commercial, gpl"):
        choose(read_registry(), ["edos"], ["free"])


def mixture(licences: list[str] | None = None, **sources: Any) -> dict[str, Any]:
    return {"seed": 1, "sources": sources, "kinds": {}, **({} if licences is None else {"licences": licences})}


def test_a_mixture_takes_only_the_licence_classes_it_lists() -> None:
    assert parse_config(mixture(edos={}, written={"folder": "data/written"})).licences == ("permissive",)
    with pytest.raises(
        ConfigError, match=r"my\.yaml: sources\.esconv: found the licence class non_commercial \(CC BY-NC 4\.0\), expected one of licences: perm"
    ):
        parse_config(mixture(edos={}, esconv={}), name="my.yaml")
    with pytest.raises(ConfigError, match=r"sources\.edos: found the licence class permissive"):
        parse_config(mixture(["non_commercial"], edos={}, esconv={}))
    assert parse_config(mixture(["permissive", "non_commercial"], edos={}, esconv={})).licences == ("permissive", "non_commercial")
    with pytest.raises(ConfigError, match=r"licences\.0: found 'free'"):
        parse_config(mixture(["free"], edos={}))


def test_a_public_source_in_a_folder_of_its_own_is_no_way_around() -> None:
    with pytest.raises(ConfigError, match=r"sources\.mine: found the licence class gpl"):
        parse_config(mixture(mine={"folder": "work/prepared/ethos"}))


# -- the list ---------------------------------------------------------------------------------------------------------------------------


def test_the_command_lists_every_source_as_json() -> None:
    result = CliRunner().invoke(app, ["list", "--json"])
    assert result.exit_code == 0
    records = {record["name"]: record for record in json.loads(result.stdout)}
    assert list(records) == adapters.names()
    assert json.loads(result.stdout) == json.loads(json.dumps(describe(read_registry())))
    assert records["convabuse"]["licence_class"] == "permissive"
    assert records["convabuse"]["positives"]["assistant_abuse"] == 390
    assert [name for name, record in records.items() if record["downloadable"]] == ["banking77", "cyber_frr", "multijail"]


def test_the_command_lists_every_source_as_a_table() -> None:
    result = CliRunner().invoke(app, ["list"], env={"COLUMNS": "250"})
    assert result.exit_code == 0
    rows = [line.split("│")[1:3] for line in result.stdout.splitlines() if line.startswith("│") and line.split("│")[1].strip()]
    assert [cells[0].strip().split()[0] for cells in rows] == adapters.names()
    assert all(cells[1].strip() in LICENCE_CLASSES for cells in rows)
    assert "reddit_cssrs (sensitive)" in result.stdout
