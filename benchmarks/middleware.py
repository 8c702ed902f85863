"""What the middleware costs a request, in microseconds of processor time.

An ASGI application that answers at once is called with the middleware around it, and
without, in turn. The first rows are a middleware of which nothing is used, the others
add what an application may ask for. The best of many short runs counts: the rest is the
machine.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import process_time
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from amplitude_async.integrations.asgi import AmplitudeMiddleware
from amplitude_async.testing import RecordingAmplitude

__all__: list[str] = []

REQUESTS = 100
RUNS = 300
BARE = "the application alone"

HEADERS = [
    (b"host", b"shop.example"),
    (b"connection", b"keep-alive"),
    (b"accept", b"application/json"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"accept-language", b"en-GB,en;q=0.8"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/140.0"),
    (b"x-forwarded-for", b"203.0.113.9, 198.51.100.1"),
    (b"cookie", b"session=0123456789abcdef"),
]
START = {"type": "http.response.start", "status": 200, "headers": []}
END = {"type": "http.response.body", "body": b"{}"}

App = Callable[[Any, Any, Any], Awaitable[None]]


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """Answer at once."""
    del scope, receive
    await send(START)
    await send(END)


async def receive() -> Any:
    """Give nothing: nobody asks."""


async def send(message: Any) -> None:
    """Take a message."""


def identify(scope: Any) -> dict[str, str]:
    """Know everybody."""
    del scope
    return {"user_id": "user-1"}


def request() -> dict[str, Any]:
    """Return the scope of a request."""
    return {
        "type": "http",
        "method": "GET",
        "scheme": "https",
        "path": "/orders/o-1",
        "root_path": "",
        "client": ("192.0.2.7", 4711),
        "headers": HEADERS,
        "path_template": "/orders/{order}",
    }


async def cost(app: App) -> float:
    """Return the microseconds of one request, in one short run."""
    scope = request()
    before = process_time()
    for _ in range(REQUESTS):
        await app(scope, receive, send)
    return (process_time() - before) / REQUESTS * 1e6


def applications(client: RecordingAmplitude) -> dict[str, App]:
    """Return what is measured, by name."""
    rows: dict[str, dict[str, Any]] = {
        "nothing asked for": {"capture": ()},
        "exclude": {"capture": (), "exclude": ["/health", "/internal/*"]},
        "address, program, language": {},
        "the same, behind a proxy": {"trusted_hops": 1},
        "identify": {"capture": (), "identify": identify},
        "capture, identify": {"identify": identify},
        "capture, identify, two properties": {
            "identify": identify,
            "properties": ["path", "method"],
        },
        "capture, identify, request event": {
            "identify": identify,
            "request_event": "Request",
            "client": client,
        },
    }
    return {name: AmplitudeMiddleware(answer, **row) for name, row in rows.items()}


async def main() -> None:
    """Print a table."""
    async with RecordingAmplitude(max_storage_capacity=1_000_000) as client:
        apps = {BARE: answer, **applications(client)}
        best = dict.fromkeys(apps, float("inf"))
        for _ in range(RUNS):
            for name, app in apps.items():
                best[name] = min(best[name], await cost(app))
            await client.flush()
            client.clear()
    bare = best.pop(BARE)
    print(f"{BARE:40} {bare:6.2f} us")
    for name, whole in best.items():
        print(f"{name:40} {whole - bare:+6.2f} us")


asyncio.run(main())
