"""A FastAPI service that knows its users: whoever calls is on every event.

It needs ``pip install fastapi uvicorn`` beside this package. Run it with
AMPLITUDE_API_KEY set: ``python examples/orders_service.py``. A token is a user and the
signature of it; ``token_of`` makes one.
"""

import asyncio
import hmac
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from amplitude_async import Amplitude, Revenue, bind, bound
from amplitude_async.integrations.asgi import AmplitudeMiddleware, amplitude_lifespan
from amplitude_async.integrations.fastapi import AmplitudeDep

__all__ = ["app", "token_of"]

SECRET = os.environ.get("TOKEN_SECRET", "only-for-this-example").encode()


async def nightly(client: Amplitude) -> None:
    """Mail the reports: a job, and no request."""
    with bound(user_id="user-1", event_properties={"job": "nightly"}):
        await client.track("Report Mailed")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
    """Run the job beside the requests, with the same client."""
    async with amplitude_lifespan()(app) as state:
        job = asyncio.create_task(nightly(state["amplitude"]))
        yield state
        await job


app = FastAPI(lifespan=lifespan)
app.add_middleware(
    AmplitudeMiddleware, properties=["path"], capture=["ip", "user_agent"]
)


@dataclass(frozen=True)
class Claims:
    """What a token says."""

    sub: str


def token_of(user_id: str) -> str:
    """Make the token of a user."""
    return f"{user_id}.{hmac.digest(SECRET, user_id.encode(), 'sha256').hex()}"


def claims(
    given: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())],
) -> Claims:
    """Believe a token that is signed."""
    user_id = given.credentials.rpartition(".")[0]
    if not hmac.compare_digest(given.credentials.encode(), token_of(user_id).encode()):
        raise HTTPException(401)
    return Claims(sub=user_id)


Token = Annotated[Claims, Depends(claims)]


async def user(token: Token) -> str:
    """Bind the user for the rest of this request and its tasks."""
    bind(user_id=token.sub)
    return token.sub


User = Annotated[str, Depends(user)]


@app.post("/orders/{order}")
async def pay(order: str, total: float, _: User, amplitude: AmplitudeDep) -> None:
    """Pay an order."""
    await amplitude.revenue(Revenue(revenue=total), insert_id=f"paid-{order}")
    await amplitude.track("Order Paid", event_properties={"order": order})


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
