"""A model folder is verified before anything is read from it. The files here are fakes: only their bytes matter."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from lastresort.artifact import (
    CERTIFICATE,
    FORMAT_VERSION,
    MANIFEST,
    MODEL,
    TOKENIZER,
    Certificate,
    Manifest,
    file_sha256,
    load_folder,
    read_manifest,
    shipped_model,
    write_certificate,
    write_manifest,
)
from lastresort.encoding import EncodingSpec
from lastresort.errors import ArtifactError
from lastresort.types import LabelSpec

LABELS = (LabelSpec("harm", "user", "trigger", 0.4, "one line"), LabelSpec("risk", "user", "veto"), LabelSpec("redirection", "assistant", "signal"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound folder."""
    path = tmp_path / "tiny"
    path.mkdir()
    (path / MODEL).write_bytes(b"graph" * 1000)
    (path / TOKENIZER).write_bytes(b"{}")
    (path / "README.md").write_text("card\n", encoding="utf-8")
    write_manifest(path, manifest_of(path))
    return path


def manifest_of(path: Path) -> Manifest:
    """A manifest that names the files of `path`."""
    files = {name: file_sha256(path / name) for name in (MODEL, TOKENIZER, "README.md")}
    return Manifest("tiny", "0.1.0", LABELS, 8, EncodingSpec(32, 4), {"triggers": ["harm"]}, files, {"licence": "Apache-2.0", "seed": 1})


def change(folder: Path, **changes: Any) -> None:
    """Rewrites the manifest with changed keys; `...` removes one."""
    record = json.loads((folder / MANIFEST).read_text(encoding="utf-8")) | changes
    (folder / MANIFEST).write_text(json.dumps({key: value for key, value in record.items() if value is not ...}), encoding="utf-8")


def fails(folder: Path, *words: str) -> str:
    """The message of the error; it names the folder and holds `words`."""
    with pytest.raises(ArtifactError) as caught:
        load_folder(folder)
    message = str(caught.value)
    assert message.startswith(str(folder))
    for word in words:
        assert word in message
    return message


def test_a_sound_folder_gives_back_what_was_written(folder: Path) -> None:
    loaded = load_folder(folder)
    assert loaded.manifest == manifest_of(folder)
    assert loaded.manifest.digest == manifest_of(folder).digest
    assert (loaded.model_path, loaded.tokenizer_path) == (folder / MODEL, folder / TOKENIZER)
    assert load_folder(str(folder)) == loaded


def test_labels_keep_their_order_and_are_found_by_speaker(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert manifest.labels == LABELS
    assert [label.name for label in manifest.labels_of("user")] == ["harm", "risk"]
    assert [label.name for label in manifest.labels_of("assistant")] == ["redirection"]


def test_a_missing_folder_and_a_file_in_its_place(tmp_path: Path) -> None:
    fails(tmp_path / "no", "found no folder", MANIFEST)
    (tmp_path / "file").write_bytes(b"")
    fails(tmp_path / "file", "found no folder")


def test_a_missing_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    fails(folder, MANIFEST, "cannot be read")


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[" * 100_000], ids=["empty", "cut", "no UTF-8", "deep"])
def test_a_manifest_that_is_no_json(folder: Path, raw: bytes) -> None:
    (folder / MANIFEST).write_bytes(raw)
    fails(folder, MANIFEST, "found no valid JSON")


@pytest.mark.parametrize("raw", [b"[]", b"null", b'"text"', b"3"])
def test_a_manifest_that_is_no_object(folder: Path, raw: bytes) -> None:
    (folder / MANIFEST).write_bytes(raw)
    fails(folder, MANIFEST, "found", "expected")


@pytest.mark.parametrize("version", [0, FORMAT_VERSION + 1, "1", None, ...])
def test_another_format_version_is_refused_before_anything_else(folder: Path, version: Any) -> None:
    change(folder, format_version=version, labels=[], unknown=1)
    found = None if version is ... else version
    fails(folder, f"format_version: found {found!r}, expected {FORMAT_VERSION}")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"extra": 1}, "extra"),
        ({"name": ...}, "name"),
        ({"version": 1}, "version"),
        ({"memory_size": "large"}, "memory_size"),
        ({"memory_size": "8"}, "memory_size"),
        ({"memory_size": 0}, "memory_size"),
        ({"memory_size": -8}, "memory_size"),
        ({"encoding": {"max_tokens": 4, "overlap_tokens": 0}}, "encoding"),
        ({"encoding": {"max_tokens": 64, "overlap_token": 0}}, "encoding.overlap_token"),
        ({"files": {MODEL: 5}}, "files"),
        ({"labels": []}, "labels"),
        ({"labels": ["harm"]}, "labels.0"),
        ({"labels": [{"name": "a", "speaker": "system", "role": "veto"}]}, "labels.0.speaker"),
        ({"labels": [{"name": "a", "speaker": "user", "role": "bad"}]}, "labels.0.role"),
        ({"labels": [{"name": "a", "speaker": "user"}]}, "labels.0.role"),
        ({"labels": [{"name": "a", "speaker": "user", "role": "veto", "colour": 1}]}, "labels.0.colour"),
        ({"labels": [{"name": "a", "speaker": "user", "role": "veto", "threshold": 1.5}]}, "labels.0"),
        ({"labels": [{"name": "a", "speaker": "user", "role": "veto", "threshold": -0.5}]}, "labels.0"),
    ],
)
def test_an_error_in_the_manifest_names_the_key(folder: Path, changes: dict[str, Any], key: str) -> None:
    change(folder, **changes)
    message = fails(folder, "found", "expected")
    assert re.search(rf"manifest\.json: (\(top level\): .*)?{re.escape(key)}\b", message)


def test_a_label_twice(folder: Path) -> None:
    label = {"name": "harm", "speaker": "user", "role": "trigger"}
    change(folder, labels=[label, {**label, "speaker": "assistant"}])
    fails(folder, "labels: found 2", "1 names", "no name twice")


@pytest.mark.parametrize("name", [MODEL, TOKENIZER])
def test_a_manifest_without_the_hash_of_a_needed_file(folder: Path, name: str) -> None:
    files = {key: value for key, value in manifest_of(folder).files.items() if key != name}
    change(folder, files=files)
    fails(folder, f"files: found no {name}")


@pytest.mark.parametrize("name", [MODEL, TOKENIZER, "README.md"])
@pytest.mark.parametrize(
    "damage",
    [lambda raw: raw[:-1], lambda raw: b"", lambda raw: raw + b"\0", lambda raw: bytes([raw[0] ^ 1]) + raw[1:]],
    ids=["truncated", "empty", "longer", "one bit"],
)
def test_an_altered_file_is_refused(folder: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    before = (folder / name).read_bytes()
    (folder / name).write_bytes(damage(before))
    fails(folder, name, "found sha256", f"({len(damage(before))} bytes)", "truncated or altered")


def test_a_wrong_hash_in_the_manifest(folder: Path) -> None:
    change(folder, files={**manifest_of(folder).files, MODEL: "0" * 64})
    fails(folder, MODEL, "expected 000000000000")


@pytest.mark.parametrize("name", [MODEL, TOKENIZER, "README.md"])
def test_a_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    fails(folder, name, "found no such file")


@pytest.mark.parametrize("name", ["../outside", "sub/../../outside", "sub/inside", "..", ".", "", "sub", "/outside", "C:/outside"])
def test_files_outside_the_folder_are_never_read(folder: Path, name: str) -> None:
    (folder.parent / "outside").write_bytes(b"secret")
    (folder / "sub").mkdir()
    (folder / "sub" / "inside").write_bytes(b"secret")
    change(folder, files={**manifest_of(folder).files, name: file_sha256(folder.parent / "outside")})
    with pytest.raises(ArtifactError, match="found no such file"):
        load_folder(folder)


def test_an_absolute_path_is_never_read(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.write_bytes(b"secret")
    change(folder, files={**manifest_of(folder).files, str(outside): file_sha256(outside)})
    with pytest.raises(ArtifactError, match="found no such file"):
        load_folder(folder)


def test_further_files_beside_the_manifest_do_not_matter(folder: Path) -> None:
    digest = load_folder(folder).manifest.digest
    (folder / "notes.txt").write_bytes(b"x")
    assert load_folder(folder).manifest.digest == digest


# --- digest ---------------------------------------------------------------------------------------------------------

CHANGES: dict[str, Any] = {
    "name": "other",
    "version": "0.1.1",
    "labels": (*LABELS[1:], LABELS[0]),
    "memory_size": 9,
    "encoding": EncodingSpec(32, 5),
    "policy": {"triggers": ["risk"]},
    "files": {MODEL: "0" * 64},
    "provenance": {"licence": "MIT", "seed": 1},
    "format_version": 2,
}


@pytest.mark.parametrize("name", [field.name for field in fields(Manifest)])
def test_the_digest_changes_with_what_makes_the_scores_and_with_nothing_else(folder: Path, name: str) -> None:
    manifest = manifest_of(folder)
    changed = replace(manifest, **{name: CHANGES[name]}).digest != manifest.digest
    assert changed is (name not in {"policy", "provenance"})


def test_the_digest_does_not_cover_card_and_metrics(folder: Path) -> None:
    manifest = manifest_of(folder)
    assert replace(manifest, files={**manifest.files, "README.md": "0" * 64}).digest == manifest.digest


@pytest.mark.parametrize(
    "label",
    [replace(LABELS[0], **{key: value}) for key, value in {"name": "x", "speaker": "assistant"}.items()],
)
def test_the_digest_changes_with_the_name_or_speaker_of_a_label(folder: Path, label: LabelSpec) -> None:
    manifest = manifest_of(folder)
    assert replace(manifest, labels=(label, *LABELS[1:])).digest != manifest.digest


def test_the_digest_does_not_depend_on_the_order_of_keys(folder: Path) -> None:
    digest = load_folder(folder).manifest.digest
    record = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    (folder / MANIFEST).write_text(json.dumps(dict(reversed(record.items()))), encoding="utf-8")
    assert load_folder(folder).manifest.digest == digest


def test_the_tag_is_the_name_and_eight_digits(folder: Path) -> None:
    manifest = manifest_of(folder)
    assert manifest.tag == f"tiny@{manifest.digest[:8]}"


def test_a_manifest_is_written_the_same_everywhere(folder: Path) -> None:
    raw = (folder / MANIFEST).read_bytes()
    assert raw.endswith(b"}\n")
    assert b"\r" not in raw
    write_manifest(folder, read_manifest(folder))
    assert (folder / MANIFEST).read_bytes() == raw


def test_a_number_that_is_not_finite_cannot_hide_in_the_manifest(folder: Path) -> None:
    change(folder, provenance={"loss": float("nan")})
    fails(folder, MANIFEST)


def test_an_unknown_shipped_model_is_an_error() -> None:
    with pytest.raises(ArtifactError, match=r"no-such-model: found no such shipped model in package lastresort_models, expected a folder with manifest\.json"):
        shipped_model("no-such-model")


# --- the certificate


def certificate_of(folder: Path, **changes: Any) -> Certificate:
    manifest = manifest_of(folder)
    sound = Certificate(
        "ones like these", 3000, 0, 0.000998, 0.001, 0.95, 4, {"chat": 3000}, {"s": (3000, 0)}, 0.9, 100, {"triggers": ["harm"]},
        manifest.tag, manifest.digest, "2026-01-01T00:00:00Z", "0.1.0",
    )  # fmt: skip
    return replace(sound, **changes)


def test_a_certificate_is_read_back_with_its_model(folder: Path) -> None:
    assert load_folder(folder).certificate is None
    write_certificate(folder, certificate_of(folder))
    assert load_folder(folder).certificate == certificate_of(folder)
    assert load_folder(folder).manifest.digest == manifest_of(folder).digest  # a claim about the model is no part of it


def test_a_certificate_of_another_model_is_an_error(folder: Path) -> None:
    write_certificate(folder, certificate_of(folder, digest="0" * 64, model="other@00000000"))
    fails(
        folder,
        CERTIFICATE,
        "digest: found a certificate of other@00000000",
        f"expected one of {manifest_of(folder).tag}",
        "certify this model, or remove the file",
    )


def test_a_certificate_of_the_model_before_a_change_is_an_error(folder: Path) -> None:
    write_certificate(folder, certificate_of(folder))
    change(folder, version="0.2.0")
    fails(folder, "digest: found a certificate of")


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b'{"n": NaN}', b'{"n": 3}', b"\xff"])
def test_a_damaged_certificate_is_an_error(folder: Path, raw: bytes) -> None:
    (folder / CERTIFICATE).write_bytes(raw)
    fails(folder, CERTIFICATE)
