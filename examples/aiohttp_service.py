"""An aiohttp service that tracks events: one client for the life of the service.

Run it with AMPLITUDE_API_KEY set: ``python examples/aiohttp_service.py``.
"""

import os
from collections.abc import AsyncIterator

from aiohttp import web

from amplitude_async import Amplitude

__all__ = ["application"]

AMPLITUDE = web.AppKey("AMPLITUDE", Amplitude)


async def analytics(app: web.Application) -> AsyncIterator[None]:
    """Open the client with the service, and deliver what waits at its end."""
    async with Amplitude.from_env() as client:
        app[AMPLITUDE] = client
        yield


async def sign_up(request: web.Request) -> web.Response:
    """Sign a user up."""
    user_id = request.match_info["user_id"]
    await request.app[AMPLITUDE].track("Signed Up", user_id=user_id)
    return web.json_response({"welcome": user_id})


def application() -> web.Application:
    """Put the service together."""
    app = web.Application()
    app.cleanup_ctx.append(analytics)
    app.router.add_post("/users/{user_id}", sign_up)
    return app


if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8000"))
    web.run_app(application(), host="127.0.0.1", port=port)
