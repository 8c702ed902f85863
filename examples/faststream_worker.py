"""A FastStream service that tracks events: one client, and a user for each message.

It needs ``pip install "faststream[redis]"`` beside this package, and a Redis server at
REDIS_URL. Run it with AMPLITUDE_API_KEY set: ``faststream run
examples.faststream_worker:app``, or ``python examples/faststream_worker.py``.

Whoever publishes gives its broker the same middleware, and binds the user: then
``await broker.publish("en", list="welcome")`` takes the user along.
"""

import asyncio
import os

from faststream import FastStream
from faststream.redis import RedisBroker

from amplitude_async.integrations.faststream import (
    AmplitudeDep,
    AmplitudeMessageMiddleware,
    amplitude_lifespan,
)

__all__ = ["app", "broker", "welcome"]

broker = RedisBroker(
    os.environ.get("REDIS_URL", "redis://localhost:6379"),
    middlewares=[AmplitudeMessageMiddleware(carry=["user_id"])],
)
app = FastStream(broker, lifespan=amplitude_lifespan())


@broker.subscriber(list="welcome")
async def welcome(language: str, amplitude: AmplitudeDep) -> None:
    """Welcome the user whom the sender of the message has bound."""
    await amplitude.track("User Welcomed", event_properties={"language": language})
    print("welcomed in", language)


if __name__ == "__main__":
    asyncio.run(app.run())
