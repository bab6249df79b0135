"""States that hosts carry: opaque, signed with HMAC-SHA256, versioned, bound to the model's digest. And API keys."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from pathlib import Path

from lastresort.conversation import ConversationState
from lastresort.errors import ConfigError, StateError

from .errors import ApiError
from .settings import KEY_LENGTH

VERSION = "ls1"


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)


class StateSigner:
    """Makes and reads state tokens. Thread-safe."""

    def __init__(self, secret: bytes, digest: str) -> None:
        """Takes the secret and the full digest of the model."""
        self._secret, self._digest = secret, digest

    def _mac(self, payload: bytes) -> bytes:
        return hmac.digest(self._secret, b"lastresort state\x00" + VERSION.encode() + b"\x00" + payload, "sha256")

    def fingerprint(self, *parts: str | None) -> str:
        """A keyed hash of a request: tells whether two are the same, and tells nothing else."""
        payload = b"\x00".join(b"-" if part is None else b"+" + hashlib.sha256(part.encode("utf-8", "surrogatepass")).digest() for part in parts)
        return hmac.new(self._secret, b"lastresort request\x00" + payload, "sha256").hexdigest()

    def write(self, state: ConversationState) -> str:
        """The state as `version.payload.signature`."""
        payload = f"{self._digest}\n{state.to_json()}".encode()
        return f"{VERSION}.{_encode(payload)}.{_encode(self._mac(payload))}"

    def read(self, token: str) -> ConversationState:
        """The state again.

        Raises:
            ApiError: 409 `state_version`, `state_forged` (also damaged) or `state_foreign` (of another model).
        """
        version, _, rest = token.partition(".")
        if version != VERSION and len(version) <= 5 and version.startswith("ls"):
            raise ApiError(409, "state_version", f"state: found one of another version, expected {VERSION}: send all messages again")
        try:
            payload, mac = (_decode(part) for part in rest.split("."))
        except (ValueError, binascii.Error):
            payload, mac = b"", b""
        if version != VERSION or not hmac.compare_digest(mac, self._mac(payload)):
            raise ApiError(409, "state_forged", "state: its signature is not of this service, expected a state as it was returned: send all messages again")
        digest, _, text = payload.decode().partition("\n")
        if digest != self._digest:
            raise ApiError(409, "state_foreign", f"state: found one of another model ({digest[:8]}), expected {self._digest[:8]}: send all messages again")
        try:
            return ConversationState.from_json(text)
        except StateError as error:
            raise ApiError(409, "state_version", f"{error}: send all messages again") from None


class Keys:
    """API keys. Thread-safe. Compared in constant time: every key is looked at, as digests of equal length."""

    def __init__(self, keys: list[str]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    @classmethod
    def read(cls, path: str) -> Keys:
        """Keys from a file: one a line; blank lines and lines that begin with # are passed over. Raises `ConfigError`, which never repeats a key."""
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
        keys = []
        for number, line in enumerate(lines, start=1):
            key = line.strip()
            if not key or key.startswith("#"):
                continue
            if len(key) < KEY_LENGTH or not key.isascii() or " " in key:
                raise ConfigError(f"{path}:{number}: found a key of {len(key)} characters, expected at least {KEY_LENGTH}, ASCII, without blanks")
            keys.append(key)
        if not keys:
            raise ConfigError(f"{path}: found no key, expected at least one")
        return cls(keys)

    def find(self, presented: str | None) -> int | None:
        """Which key it is, or None."""
        digest = hashlib.sha256((presented or "").encode("utf-8", "surrogatepass")).digest()
        found = None
        for place, known in enumerate(self._digests):
            if hmac.compare_digest(digest, known):
                found = place
        return found
