"""Runs the service with uvicorn: one process, or several workers that read the settings from the environment."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from typing import Any

import uvicorn
from fastapi import FastAPI

from lastresort.config import parse_settings

from .app import Service, create_app
from .settings import ServerSettings
from .telemetry import MULTIPROCESS, log_to_stderr

ENVIRONMENT = "LASTRESORT_SERVER_SETTINGS"
"""Holds the settings as JSON for the workers; set by `serve`, and seen by nobody else: a store's URL may hold a password."""


def app_from_environment() -> FastAPI:
    """The application of a worker. Raises `LastResortError`."""
    log_to_stderr()
    return create_app(parse_settings(ServerSettings, json.loads(os.environ[ENVIRONMENT]), where=ENVIRONMENT))


def serve(settings: ServerSettings) -> None:
    """Serves until told to stop.

    Raises:
        LastResortError: the model, policy, key files or store cannot be used; before anything listens.
    """
    log_to_stderr()
    options: dict[str, Any] = {"host": settings.host, "port": settings.port, "log_config": None, "access_log": False, "server_header": False}
    options |= {"timeout_graceful_shutdown": int(settings.time_limit) + 5, "lifespan": "on"}
    if settings.workers == 1:
        uvicorn.run(create_app(settings), **options)
        return
    Service(settings).close()  # says what is wrong once, and not in each worker
    with tempfile.TemporaryDirectory(prefix="lastresort-metrics-") as folder:
        os.environ[ENVIRONMENT] = json.dumps(asdict(settings))
        os.environ[MULTIPROCESS] = folder
        uvicorn.run("lastresort.server.run:app_from_environment", factory=True, workers=settings.workers, **options)
