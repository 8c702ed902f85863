"""What a browser may do here: a page from elsewhere may send events, no more.

Any page that is open on this machine can make requests to the emulator. Its own pages
answer only to a name that nobody else can have, and only to their own origin.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from types import MappingProxyType

from aiohttp import hdrs, web

__all__ = [
    "OWN_HEADERS",
    "Guard",
    "ingestion_headers",
    "preflight",
    "refuse_other_json",
]

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

OWN_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        hdrs.CACHE_CONTROL: "no-store",
        # Events are not to be trusted: nothing may run them as a script.
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Content-Security-Policy": (
            "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; "
            "form-action 'none'"
        ),
        "Referrer-Policy": "no-referrer",
        "X-Frame-Options": "DENY",
    }
)
"""Of every answer on the emulator's own pages."""

_FIELD_NAMES = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z, -]{1,1000}")
# How a browser says that its own page asks, or a person at the address bar.
_OWN_SITES = frozenset({"same-origin", "none"})
_PREFLIGHT_SECONDS = "600"
# Asked by a page that is not on this machine: its browser wants to be told.
_ASKS_PRIVATE = "Access-Control-Request-Private-Network"
_GRANTS_PRIVATE = "Access-Control-Allow-Private-Network"


class Guard:
    """Turns away whom the emulator's own pages are not for.

    A name on the internet can be pointed at this machine, and the page that was loaded
    from it could then read all that arrived. An address or `localhost` cannot.

    Args:
        names: host names besides `localhost` that are the emulator's own.
        ingests: says whether a path takes events; anybody may send.
    """

    def __init__(self, names: Collection[str], ingests: Callable[[str], bool]) -> None:
        self._names = frozenset(one.lower() for one in names)
        self._ingests = ingests

    @web.middleware
    async def middleware(
        self, request: web.Request, handler: _Handler
    ) -> web.StreamResponse:
        """Pass the request on, or answer 403 and say why."""
        if not self._ingests(request.path):
            problem = self._problem(request)
            if problem:
                return web.json_response(
                    {"error": problem}, status=403, headers=OWN_HEADERS
                )
        return await handler(request)

    def _problem(self, request: web.Request) -> str:
        hosts = request.headers.getall(hdrs.HOST, [])
        host = hosts[0] if len(hosts) == 1 else ""
        if not self._is_ours(host):
            return (
                f"Host is {host[:80]!r}: use an IP address or localhost, or name it in "
                "Emulator(allowed_hosts=...) or --allowed-host"
            )
        for origin in request.headers.getall(hdrs.ORIGIN, []):
            if origin.lower() not in (
                f"http://{host}".lower(),
                f"https://{host}".lower(),
            ):
                return (
                    f"Origin is {origin[:80]!r}: only the emulator's own page may do "
                    "this in a browser"
                )
        return _foreign_fetch(request.headers)

    def _is_ours(self, host: str) -> bool:
        name = _name_of(host)
        if name == "localhost" or name.endswith(".localhost") or name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def refuse_other_json(request: web.Request) -> web.Response | None:
    """Answer 415 unless the request is JSON, which no page may post unasked."""
    kind = request.headers.get(hdrs.CONTENT_TYPE, "")
    if request.content_type == "application/json" and kind:
        return None
    error = f"Content-Type is {kind[:80]!r}: send application/json"
    return web.json_response({"error": error}, status=415, headers=OWN_HEADERS)


def ingestion_headers(request: web.BaseRequest) -> dict[str, str]:
    """Return what lets a page read the answer to its events."""
    if hdrs.ORIGIN not in request.headers:
        return {}
    return {
        hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: "*",
        hdrs.ACCESS_CONTROL_EXPOSE_HEADERS: hdrs.RETRY_AFTER,
    }


def preflight(request: web.BaseRequest) -> web.Response | None:
    """Grant a browser what it asks before it sends; None where it asks nothing."""
    asks = hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
    if request.method != hdrs.METH_OPTIONS or not asks:
        return None
    headers: dict[str, str] = {
        hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: "*",
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: hdrs.METH_POST,
        hdrs.ACCESS_CONTROL_MAX_AGE: _PREFLIGHT_SECONDS,
    }
    if _ASKS_PRIVATE in request.headers:
        headers[_GRANTS_PRIVATE] = "true"
    # By name: a star would not cover the credentials that mParticle wants.
    wanted = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "")
    if _FIELD_NAMES.fullmatch(wanted):
        headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = wanted
    return web.Response(status=204, headers=headers)


def _foreign_fetch(headers: Mapping[str, str]) -> str:
    """Say what is wrong where a page from elsewhere asks without an Origin.

    As for an image: it could not read the answer, but have the work done for it. A
    person who follows a link opens a document, and may.
    """
    site = headers.get("Sec-Fetch-Site", "none")
    if site in _OWN_SITES or headers.get("Sec-Fetch-Dest") == "document":
        return ""
    return (
        f"Sec-Fetch-Site is {site[:80]!r}: only the emulator's own page may do this "
        "in a browser"
    )


def _name_of(host: str) -> str:
    """Return a Host header's name or address without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
