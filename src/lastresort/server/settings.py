"""Settings of the service; strict, immutable. Loads nothing of the extra."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from lastresort.errors import ConfigError
from lastresort.types import Mode

DEFAULT_STORE = "sqlite:///lastresort.db"
NO_STORE = "none"
KEY_LENGTH = 16
"""Shortest key that is taken, in characters."""


@dataclass(frozen=True)
class ServerSettings:
    """Settings of the service.

    Attributes:
        host: address to listen on; another one than loopback needs `api_key_file`, or `anonymous`.
        port: 0 for a free one.
        workers: processes.
        threads: scoring threads of each process; null: one a CPU of the process.
        model: model folder; null: the shipped model.
        policy: policy file; null: the model's own.
        mode: how far decisions act; null: as the policy says.
        store: database URL (`sqlite:///FILE`, `postgresql://…`), or `none` for a stateless service.
        store_text: keep what was said.
        keep_days: delete conversations that had no turn for so many days; null: keep them.
        api_key_file: one key a line; null: no key is asked for.
        state_key_file: secret that signs states, 16 bytes or more; null: made once and kept in the store, or for the life of the process without a store.
        anonymous: listen beyond loopback without keys.
        queue_size: how many requests may wait for a thread in each process; more are refused.
        max_in_flight_per_key: requests of one key (or address) at a time; null: no limit of its own.
        max_body_bytes: of a request.
        max_messages: of a request.
        max_characters: of all texts of a request together.
        time_limit: seconds for a request, waiting included.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    threads: int | None = None
    model: str | None = None
    policy: str | None = None
    mode: Mode | None = None
    store: str = DEFAULT_STORE
    store_text: bool = False
    keep_days: int | None = None
    api_key_file: str | None = None
    state_key_file: str | None = None
    anonymous: bool = False
    queue_size: int = 64
    max_in_flight_per_key: int | None = None
    max_body_bytes: int = 1 << 20
    max_messages: int = 500
    max_characters: int = 200_000
    time_limit: float = 30.0

    def __post_init__(self) -> None:
        for name in ("workers", "threads", "keep_days", "max_in_flight_per_key", "max_body_bytes", "max_messages", "max_characters"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: found {value}, expected at least 1")
        if self.queue_size < 0:
            raise ValueError(f"queue_size: found {self.queue_size}, expected 0 or more")
        if not 0.0 < self.time_limit < float("inf"):
            raise ValueError(f"time_limit: found {self.time_limit}, expected a positive number of seconds")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port: found {self.port}, expected 0…65535")
        if self.mode == "off":
            raise ValueError("mode: found off, expected shadow, advise or enforce: a service that decides nothing need not run")
        if self.workers > 1 and self.store == NO_STORE and self.state_key_file is None:
            raise ValueError("state_key_file: found none, expected one: several workers without a store must share the secret that signs states")
        if not (self.loopback or self.api_key_file or self.anonymous):
            raise ValueError(
                f"host: found {self.host}, which others can reach, expected an api_key_file too (or anonymous, if something before it asks for keys)"
            )

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def scoring_threads(self) -> int:
        """How many threads score."""
        return self.threads or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else self.threads or os.cpu_count() or 1


def read_secret(path: str) -> bytes:
    """The secret that signs states. Raises `ConfigError`."""
    try:
        secret = Path(path).read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(secret) < KEY_LENGTH:
        raise ConfigError(f"{path}: found {len(secret)} bytes, expected a secret of at least {KEY_LENGTH}")
    return secret
