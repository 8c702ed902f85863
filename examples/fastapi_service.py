"""A FastAPI service that tracks events: one client for the life of the service.

It needs ``pip install fastapi uvicorn`` beside this package. Run it with
AMPLITUDE_API_KEY set: ``python examples/fastapi_service.py``.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, Request

from amplitude_async import Amplitude

__all__ = ["app"]


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Amplitude]]:
    """Open the client with the service, and deliver what waits at its end."""
    async with Amplitude.from_env() as client:
        yield {"amplitude": client}


app = FastAPI(lifespan=lifespan)


@app.post("/users/{user_id}")
async def sign_up(user_id: str, request: Request) -> dict[str, str]:
    """Sign a user up."""
    await request.state.amplitude.track("Signed Up", user_id=user_id)
    return {"welcome": user_id}


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
