"""A Quart service that tracks events, and each request with its route and status.

It needs ``pip install quart hypercorn`` beside this package. Run it with
AMPLITUDE_API_KEY set: ``python examples/quart_service.py``.
"""

import asyncio
import os
from collections.abc import AsyncGenerator
from typing import Any

from hypercorn.asyncio import serve
from hypercorn.config import Config
from quart import Quart, request

from amplitude_async import Amplitude, bind
from amplitude_async.integrations.asgi import AmplitudeMiddleware

__all__ = ["app"]

app = Quart(__name__)
client = Amplitude.from_env()
app.asgi_app = AmplitudeMiddleware(  # type: ignore[method-assign]
    app.asgi_app, request_event="Request", client=client
)


@app.while_serving
async def analytics() -> AsyncGenerator[None, None]:
    """Open the client with the service, and deliver what waits at its end."""
    async with client:
        yield


@app.before_request
async def name_route() -> None:
    """Tell the middleware which route it is: Quart keeps that to itself."""
    if request.url_rule is not None:
        scope: Any = request.scope
        scope["path_template"] = request.url_rule.rule


@app.post("/users/<user_id>")
async def sign_up(user_id: str) -> dict[str, str]:
    """Sign a user up."""
    bind(user_id=user_id)
    await client.track("Signed Up")
    return {"welcome": user_id}


if __name__ == "__main__":
    config = Config()
    config.bind = [f"127.0.0.1:{os.environ.get('PORT', '8000')}"]
    asyncio.run(serve(app, config))
