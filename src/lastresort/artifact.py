"""The model folder: manifest, hashes, versions. Loading verifies everything, then gives a complete object or raises.

models/<name>/
    model.onnx      ids, mask, token types, memory -> probabilities, new memory
    tokenizer.json
    manifest.json   labels in order with roles, memory size, token budget, default policy, provenance, sha256 of every file
    metrics.json    as measured on validation
    README.md       the model card
    certificate.json  what was certified about false ends, if anything: by `lastresort calibrate`
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .config import parse_settings
from .encoding import EncodingSpec
from .errors import ArtifactError, ConfigError
from .files import replacing
from .types import LabelSpec, Speaker

FORMAT_VERSION = 1
"""Version of the model folder's layout; a folder with another one is refused."""

MODELS_PACKAGE = "lastresort_models"
"""The package that carries released model folders; never imported, only looked into."""

MANIFEST = "manifest.json"
CERTIFICATE = "certificate.json"
MODEL = "model.onnx"
TOKENIZER = "tokenizer.json"
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "memory")
OUTPUTS = ("probabilities", "new_memory")


@dataclass(frozen=True)
class Manifest:
    """What a model is.

    Attributes:
        name: folder-like name, e.g. `lastresort-minilm`.
        version: of this model, e.g. `0.1.0`.
        labels: in the order of the graph's output.
        memory_size: length of the memory vector.
        encoding: token budget and overlap.
        policy: default decision settings, as in `configs/policy/`.
        files: file name to sha256 of its bytes.
        provenance: base encoder, data, config, licence, versions, date.
        format_version: of the folder.
    """

    name: str
    version: str
    labels: tuple[LabelSpec, ...]
    memory_size: int
    encoding: EncodingSpec
    policy: Mapping[str, Any]
    files: Mapping[str, str]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.memory_size < 1:
            raise ValueError(f"memory_size: found {self.memory_size}, expected at least 1")

    @property
    def digest(self) -> str:
        """sha256 of what makes the scores: graph, tokenizer, label order, memory, encoding, name and version.

        Card, metrics, thresholds and policy can change without making it another model: stored scores and states stay valid.
        """
        encoding = {name: value for name, value in asdict(self.encoding).items() if name != "emoji_names" or value}  # older models have no such field
        identity = {
            "name": self.name,
            "version": self.version,
            "labels": [(label.name, label.speaker) for label in self.labels],
            "memory_size": self.memory_size,
            "encoding": encoding,
            "files": {name: self.files.get(name) for name in (MODEL, TOKENIZER)},
            "format_version": self.format_version,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    @property
    def tag(self) -> str:
        """`name@digest8`, as written into scored output."""
        return f"{self.name}@{self.digest[:8]}"

    def labels_of(self, speaker: Speaker) -> tuple[LabelSpec, ...]:
        """The labels that describe turns of `speaker`, in order."""
        return tuple(label for label in self.labels if label.speaker == speaker)


@dataclass(frozen=True)
class Certificate:
    """A claim about false ends: with `confidence`, at most the share `max_false_end_rate` of such conversations is ended by this policy on this model.

    Attributes:
        population: for which conversations the claim holds, in words.
        n: conversations that must go on, in the part that certified.
        errors: of them, those that were ended.
        bound: exact (Clopper–Pearson) upper bound of the rate for these counts alone, 0…1.
        max_false_end_rate: the claimed limit, 0…1.
        confidence: of the claim, 0…1, whatever number of candidates was tried.
        candidates: how many policies were tested in a fixed order before this one was taken, itself included.
        kinds: kind of dialogue to how many of `n`.
        sources: source to [conversations, ended ones].
        end_recall: share of conversations that should end and did once justified, in the certifying part; None without any.
        should_end: how many those were.
        policy: the settings for which the claim holds, as in `configs/policy/`.
        model: `name@digest8`.
        digest: full digest of the model; with another one the folder does not load.
        date: ISO 8601.
        package_version: that certified.
        reachable: of `n`, conversations with enough turns for an end; None in records from before 0.3.
        warned: of `n`, conversations that the policy warned.
        early: conversations that should end and were ended before that was justified; in neither count.
        others: kind or source to [conversations, ended ones] for those that must go on but lie outside the claim.
        as_is: the policy was given, not chosen on another half.
        format_version: of this record.
    """

    population: str
    n: int
    errors: int
    bound: float
    max_false_end_rate: float
    confidence: float
    candidates: int
    kinds: Mapping[str, int]
    sources: Mapping[str, tuple[int, int]]
    end_recall: float | None
    should_end: int
    policy: Mapping[str, Any]
    model: str
    digest: str
    date: str
    package_version: str
    reachable: int | None = None
    warned: int | None = None
    early: int | None = None
    others: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    as_is: bool = False
    format_version: int = 1


@dataclass(frozen=True)
class ModelFolder:
    """A verified model folder."""

    path: Path
    manifest: Manifest
    certificate: Certificate | None = None

    @property
    def model_path(self) -> Path:
        """The ONNX graph."""
        return self.path / MODEL

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer."""
        return self.path / TOKENIZER


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes `manifest.json`, whole or not at all."""
    _write_json(folder / MANIFEST, asdict(manifest))


def write_certificate(folder: Path, certificate: Certificate) -> None:
    """Writes `certificate.json`, whole or not at all."""
    _write_json(folder / CERTIFICATE, asdict(certificate))


def _write_json(path: Path, record: Mapping[str, Any]) -> None:
    with replacing(path) as stream:
        stream.write((json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_certificate(folder: Path, manifest: Manifest) -> Certificate | None:
    """Reads and checks `certificate.json`, if there is one. Raises `ArtifactError`, also if it was made for another model."""
    path = folder / CERTIFICATE
    if not path.exists():
        return None
    record = _read_json(path)
    try:
        certificate = parse_settings(Certificate, record if isinstance(record, dict) else {}, where=str(path))
    except ConfigError as error:
        raise ArtifactError(str(error)) from None
    if certificate.digest != manifest.digest:
        found = f"found a certificate of {certificate.model} ({certificate.digest[:12]}…), expected one of {manifest.tag} ({manifest.digest[:12]}…)"
        raise ArtifactError(f"{path}: digest: {found}: certify this model, or remove the file")
    return certificate


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: found no valid JSON: {error}") from None


def _refuse(name: str) -> None:
    raise ValueError(f"found {name}, expected a finite number")


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks `manifest.json` alone. Raises `ArtifactError`."""
    path = folder / MANIFEST
    record = _read_json(path)
    found = record.get("format_version") if isinstance(record, dict) else None
    if found != FORMAT_VERSION:
        raise ArtifactError(f"{path}: format_version: found {found!r}, expected {FORMAT_VERSION}")
    try:
        manifest = parse_settings(Manifest, record, where=str(path))
    except ConfigError as error:
        raise ArtifactError(str(error)) from None
    names = [label.name for label in manifest.labels]
    if len(set(names)) != len(names) or not names:
        raise ArtifactError(f"{path}: labels: found {len(names)} with {len(set(names))} names, expected at least one and no name twice")
    for required in (MODEL, TOKENIZER):
        if required not in manifest.files:
            raise ArtifactError(f"{path}: files: found no {required}, expected its sha256")
    return manifest


def load_folder(path: str | Path) -> ModelFolder:
    """Verifies a model folder: manifest, format version, presence and sha256 of every file it names, and that a certificate is its own.

    Raises:
        ArtifactError: names the file, what was found and what was expected.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: found no folder, expected a model folder with {MANIFEST}")
    manifest = read_manifest(folder)
    for name, expected in manifest.files.items():
        target = folder / name
        if Path(name).name != name or not target.is_file():
            raise ArtifactError(f"{target}: found no such file, expected it beside {MANIFEST}")
        found = file_sha256(target)
        if found != expected:
            size = target.stat().st_size
            raise ArtifactError(f"{target}: found sha256 {found[:12]}… ({size} bytes), expected {expected[:12]}…: the file is truncated or altered")
    return ModelFolder(folder, manifest, read_certificate(folder, manifest))


def shipped_model(name: str = "lastresort-minilm") -> Path:
    """The folder of a model that came with the package. Raises `ArtifactError`."""
    spec = importlib.util.find_spec(MODELS_PACKAGE)
    places = [Path(place) / name for place in (spec.submodule_search_locations or ())] if spec is not None else []
    for place in places:
        if (place / MANIFEST).is_file():
            return place
    raise ArtifactError(f"{name}: found no such shipped model in package {MODELS_PACKAGE}, expected a folder with {MANIFEST}")
