"""The application for aiohttp's own runner: an event for each request served."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

from aiohttp import web

from amplitude_async import Amplitude
from amplitude_async.storage import SQLiteStorage

__all__ = ["application"]

AMPLITUDE = web.AppKey("AMPLITUDE", Amplitude)
MARKS = Path(os.environ["MARKS"])
SPOOL = os.environ.get("SPOOL")


async def analytics(app: web.Application) -> AsyncIterator[None]:
    """Open the client with the service, and deliver what waits at its end."""
    storage = SQLiteStorage(SPOOL) if SPOOL else None
    async with Amplitude.from_env(storage=storage) as client:
        app[AMPLITUDE] = client
        yield


async def track(request: web.Request) -> web.Response:
    """Track one event, and answer with its name and the process that has it."""
    insert_id, pid = uuid4().hex, os.getpid()
    await request.app[AMPLITUDE].track(
        "Served",
        user_id=f"user-{insert_id[:2]}",
        insert_id=insert_id,
        event_properties={"pid": pid},
    )
    return web.json_response({"insert_id": insert_id, "pid": pid})


async def late(request: web.Request) -> web.Response:
    """Track half a second after a file has said that it is here."""
    (MARKS / "late").touch()
    await asyncio.sleep(0.5)
    return await track(request)


async def endless(_: web.Request) -> web.Response:
    """Keep a connection as a stream or a slow query does; a file says it is here."""
    (MARKS / "endless").touch()
    await asyncio.Event().wait()
    return web.Response()


def application() -> web.Application:
    """Put the service together."""
    app = web.Application()
    app.cleanup_ctx.append(analytics)
    app.router.add_post("/track", track)
    app.router.add_post("/late", late)
    app.router.add_post("/endless", endless)
    return app


if __name__ == "__main__":
    web.run_app(
        application(),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        shutdown_timeout=float(sys.argv[2]),
        access_log=None,
    )
