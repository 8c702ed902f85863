"""A Starlette service that tracks events, and each request with its route and status.

It needs ``pip install starlette uvicorn`` beside this package. Run it with
AMPLITUDE_API_KEY set: ``python examples/starlette_service.py``.
"""

import os

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from amplitude_async import bind
from amplitude_async.integrations.asgi import AmplitudeMiddleware, amplitude_lifespan

__all__ = ["app"]


async def sign_up(request: Request) -> JSONResponse:
    """Sign a user up."""
    user_id = request.path_params["user_id"]
    bind(user_id=user_id)
    await request.state.amplitude.track("Signed Up")
    return JSONResponse({"welcome": user_id})


app = Starlette(
    routes=[Route("/users/{user_id}", sign_up, methods=["POST"])],
    middleware=[Middleware(AmplitudeMiddleware, request_event="Request")],
    lifespan=amplitude_lifespan(),
)

if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
