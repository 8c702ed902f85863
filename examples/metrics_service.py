"""A FastAPI service that shows Prometheus what its client counts, and a probe.

It needs ``pip install "amplitude-async[prometheus]" fastapi uvicorn``. Run it with
AMPLITUDE_API_KEY set: ``python examples/metrics_service.py``, and look at /metrics/.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, Response
from prometheus_client import make_asgi_app

from amplitude_async import Amplitude, Health
from amplitude_async.integrations.prometheus import AmplitudeCollector

__all__ = ["app"]

client = Amplitude.from_env()
collector = AmplitudeCollector(client)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Open the client with the service, and deliver what waits at its end."""
    async with collector.updating(), client:
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/metrics", make_asgi_app())


@app.post("/orders/{user_id}")
async def pay(user_id: str) -> dict[str, str]:
    """Track an order."""
    await client.track("Order Paid", user_id=user_id)
    return {"paid": user_id}


@app.get("/ready")
async def ready(response: Response) -> dict[str, object]:
    """Say that this pod can deliver events; only a collector of events needs it."""
    if client.health is Health.REFUSED:
        response.status_code = 503
    return {"analytics": client.health, "waiting": client.stats.pending}


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
