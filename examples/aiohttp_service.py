"""An aiohttp service that tracks events: one client, each with its request's user.

Run it with AMPLITUDE_API_KEY set: ``python examples/aiohttp_service.py``.
"""

import os

from aiohttp import web

from amplitude_async.integrations.aiohttp import AMPLITUDE, setup_amplitude

__all__ = ["application"]


async def user(request: web.Request) -> dict[str, str] | None:
    """Tell who makes a request; a real service checks the token, or a session."""
    token = request.headers.get("Authorization", "").removeprefix("Bearer ")
    return {"user_id": token} if token else None


async def sign_up(request: web.Request) -> web.Response:
    """Sign a user up, who has no token yet."""
    user_id = request.match_info["user_id"]
    await request.config_dict[AMPLITUDE].track("Signed Up", user_id=user_id)
    return web.json_response({"welcome": user_id})


async def pay(request: web.Request) -> web.Response:
    """Take a payment; who pays is known from the request."""
    order = {"order": request.match_info["order"]}
    await request.config_dict[AMPLITUDE].track("Order Paid", event_properties=order)
    return web.json_response(order)


def application() -> web.Application:
    """Put the service together."""
    app = web.Application()
    setup_amplitude(app, identify=user)
    app.router.add_post("/users/{user_id}", sign_up)
    app.router.add_post("/orders/{order}", pay)
    return app


if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8000"))
    web.run_app(application(), host="127.0.0.1", port=port)
