"""The page at `/`: plain files beside this module, no build step, nothing from elsewhere. It asks the stateless endpoints only, so nothing of it is stored."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Response

FOLDER = Path(__file__).parent / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".json": "application/json", ".svg": "image/svg+xml"}
FILES = {
    "/": "index.html",
    **{f"/page/{name}": name for name in ("style.css", "app.js", "api.js", "transcript.js", "tree.js", "view.js", "data.json", "icon.svg")},
}
"""Path to file; these ask for no key, since they hold nothing but the page."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def add_page(app: FastAPI) -> None:
    """Adds the page and its files to the service."""
    for path, name in FILES.items():
        _add(app, path, (FOLDER / name).read_bytes(), TYPES[Path(name).suffix])


def _add(app: FastAPI, path: str, content: bytes, kind: str) -> None:
    @app.get(path, include_in_schema=False)
    async def file() -> Response:
        return Response(content, media_type=f"{kind}; charset=utf-8", headers=HEADERS)
