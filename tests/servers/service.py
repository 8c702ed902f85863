"""The ASGI application that every server runs: an event for each request served."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from amplitude_async import Amplitude
from amplitude_async.storage import SQLiteStorage

__all__ = ["app"]

MARKS = Path(os.environ["MARKS"])
SPOOL = os.environ.get("SPOOL")


def connected() -> Amplitude:
    """Make the client, with a spool where the environment names a directory."""
    return Amplitude.from_env(storage=SQLiteStorage(SPOOL) if SPOOL else None)


# With --preload this one is made in the master, and used in its forked children.
at_import = connected() if os.environ.get("CLIENT_AT_IMPORT") else None


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Amplitude]]:
    """Open the client with the worker, and deliver what waits at its end."""
    async with at_import or connected() as client:
        yield {"amplitude": client}


async def track(request: Request) -> Response:
    """Track one event, and answer with its name and the process that has it."""
    insert_id, pid = uuid4().hex, os.getpid()
    await request.state.amplitude.track(
        "Served",
        user_id=f"user-{insert_id[:2]}",
        insert_id=insert_id,
        event_properties={"pid": pid},
    )
    return JSONResponse({"insert_id": insert_id, "pid": pid})


async def late(request: Request) -> Response:
    """Track half a second after a file has said that it is here."""
    (MARKS / "late").touch()
    await asyncio.sleep(0.5)
    return await track(request)


async def endless(_: Request) -> Response:
    """Keep a connection as a stream or a slow query does; a file says it is here."""
    (MARKS / "endless").touch()
    await asyncio.Event().wait()
    return Response()


# FastAPI's lifespan is Starlette's, which starts in half of the time.
app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/track", track, methods=["POST"]),
        Route("/late", late, methods=["POST"]),
        Route("/endless", endless, methods=["POST"]),
    ],
)
