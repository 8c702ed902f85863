"""A Litestar service that tracks events, and each request with its route and status.

It needs ``pip install 'litestar>=2.23' uvicorn`` beside this package. Run it with
AMPLITUDE_API_KEY set: ``python examples/litestar_service.py``.
"""

import os

import uvicorn
from litestar import Litestar, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from amplitude_async import Amplitude, bind
from amplitude_async.integrations.litestar import AmplitudePlugin

__all__ = ["app"]


@post("/users/{user_id:str}")
async def sign_up(
    user_id: FromPath[str], amplitude: NamedDependency[Amplitude]
) -> dict[str, str]:
    """Sign a user up."""
    bind(user_id=user_id)
    await amplitude.track("Signed Up")
    return {"welcome": user_id}


app = Litestar([sign_up], plugins=[AmplitudePlugin(request_event="Request")])

if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
