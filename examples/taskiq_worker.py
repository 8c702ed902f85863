"""A taskiq worker that tracks events: one client for its life, a user for each task.

It needs ``pip install taskiq`` beside this package. Broker, worker and sender are one
process here, so that nothing else has to run. With a broker of its own, such as
``ListQueueBroker`` of taskiq-redis, only the line that makes ``broker`` changes, and
``taskiq worker examples.taskiq_worker:broker`` runs the tasks.

Run it with AMPLITUDE_API_KEY set: ``python examples/taskiq_worker.py``; SIGTERM or
Ctrl-C stops it.
"""

import asyncio
import signal

from taskiq import InMemoryBroker, TaskiqDepends

from amplitude_async import Amplitude, bound
from amplitude_async.integrations.taskiq import AmplitudeTaskMiddleware, amplitude_of

__all__ = ["broker", "welcome"]

broker = InMemoryBroker()
broker.add_middlewares(AmplitudeTaskMiddleware(carry=["user_id"]))


@broker.task
async def welcome(
    language: str,
    amplitude: Amplitude = TaskiqDepends(amplitude_of),  # noqa: B008 - taskiq's way
) -> None:
    """Welcome the user that the sender of the task has bound."""
    await amplitude.track("User Welcomed", event_properties={"language": language})
    print("welcomed in", language)


async def main() -> None:
    """Send three tasks, and work until a signal."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await broker.startup()
    try:
        for user, language in [("user-1", "en"), ("user-2", "de"), ("user-3", "fr")]:
            with bound(user_id=user):
                await welcome.kiq(language)
        await stop.wait()
        await broker.wait_all()
    finally:
        await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
