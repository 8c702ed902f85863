"""A FastAPI service that tracks events: one client for the life of the service.

It needs ``pip install fastapi uvicorn`` beside this package. Run it with
AMPLITUDE_API_KEY set: ``python examples/fastapi_service.py``.
"""

import os

import uvicorn
from fastapi import FastAPI

from amplitude_async.integrations.asgi import AmplitudeMiddleware, amplitude_lifespan
from amplitude_async.integrations.fastapi import AmplitudeDep

__all__ = ["app"]

app = FastAPI(lifespan=amplitude_lifespan())
app.add_middleware(AmplitudeMiddleware)


@app.post("/users/{user_id}")
async def sign_up(user_id: str, amplitude: AmplitudeDep) -> dict[str, str]:
    """Sign a user up."""
    await amplitude.track("Signed Up", user_id=user_id)
    return {"welcome": user_id}


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
