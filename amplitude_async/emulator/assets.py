"""The page that shows a running emulator: files beside the code, served as they are.

Nothing in an event can run there: scripts need a nonce that is new in every answer, and
no text may become markup.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType

from aiohttp import web

from .browsers import OWN_HEADERS
from .page import PAGE

__all__ = ["NONCE_MARK", "Assets"]

NONCE_MARK = "{{nonce}}"
"""Where the page is to have the nonce of its answer."""

_INDEX = "index.html"
_KINDS: Mapping[str, str] = MappingProxyType(
    {
        "css": "text/css",
        "js": "text/javascript",
        "svg": "image/svg+xml",
        "png": "image/png",
        "ico": "image/x-icon",
        "txt": "text/plain",
        "webmanifest": "application/manifest+json",
    }
)
# The old page is one file that has its scripts inside.
_OLD_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True, slots=True)
class _File:
    kind: str
    body: bytes


class Assets:
    """Answers `/` and the files of the page, read once when somebody looks."""

    def __init__(self) -> None:
        self._files: Mapping[str, _File] | None = None

    def routes(self) -> list[web.RouteDef]:
        """Return the routes to add to the application."""
        return [
            web.get("/", self._index),
            web.get(r"/_emulator/page/{name:[A-Za-z0-9_.-]{1,80}}", self._file),
        ]

    async def _index(self, _: web.Request) -> web.Response:
        found = (await self._read()).get(_INDEX)
        if found is None:
            headers = {**OWN_HEADERS, "Content-Security-Policy": _OLD_POLICY}
            return web.Response(text=PAGE, content_type="text/html", headers=headers)
        nonce = secrets.token_urlsafe(18)
        body = found.body.replace(NONCE_MARK.encode(), nonce.encode())
        headers = {**OWN_HEADERS, "Content-Security-Policy": _policy(nonce)}
        return web.Response(
            body=body, content_type="text/html", charset="utf-8", headers=headers
        )

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        found = (await self._read()).get(name)
        if found is None or name == _INDEX:
            error = f"the page has no file {name!r}"
            return web.json_response({"error": error}, status=404, headers=OWN_HEADERS)
        charset = None if found.kind.startswith("image/") else "utf-8"
        return web.Response(
            body=found.body,
            content_type=found.kind,
            charset=charset,
            headers=OWN_HEADERS,
        )

    async def _read(self) -> Mapping[str, _File]:
        if self._files is None:
            self._files = await asyncio.to_thread(_read_files)
        return self._files


def _read_files() -> Mapping[str, _File]:
    found = {}
    folder = files(__package__ or "") / "page"
    for file in folder.iterdir() if folder.is_dir() else ():
        kind = _KINDS.get(file.name.rpartition(".")[2])
        if file.name == _INDEX:
            kind = "text/html"
        if kind is not None and file.is_file():
            found[file.name] = _File(kind, file.read_bytes())
    return found


def _policy(nonce: str) -> str:
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
        "connect-src 'self'; img-src 'self' data:; "
        # Or a text of an event could become markup by a slip of the page's.
        "require-trusted-types-for 'script'; trusted-types 'none'; "
        # Or another page could lay itself over this one and have its button pressed.
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
