"""An arq worker that tracks events: one client for its life, and a user for each job.

It needs ``pip install arq`` beside this package, and a Redis server at REDIS_URL. Run
it with AMPLITUDE_API_KEY set: ``arq examples.arq_worker.WorkerSettings``, or ``python
examples/arq_worker.py``. ``python examples/arq_worker.py send`` sends it some jobs.
"""

import asyncio
import os
import sys
from typing import Any

from arq import create_pool, run_worker
from arq.connections import RedisSettings

from amplitude_async import Amplitude, bound
from amplitude_async.integrations.arq import AmplitudeJobs

__all__ = ["WorkerSettings", "send", "welcome"]

SERVER = RedisSettings.from_dsn(os.environ.get("REDIS_URL", "redis://localhost:6379"))
jobs = AmplitudeJobs(carry=["user_id"])


async def welcome(ctx: dict[str, Any], language: str) -> None:
    """Welcome the user whom the sender of the job has bound."""
    amplitude: Amplitude = ctx["amplitude"]
    await amplitude.track("User Welcomed", event_properties={"language": language})
    print("welcomed in", language)


@jobs.worker
class WorkerSettings:
    """What ``arq`` reads."""

    functions = (welcome,)
    redis_settings = SERVER


async def send() -> None:
    """Send a job for each of fifty users."""
    pool = await create_pool(SERVER, job_serializer=jobs.job_serializer)
    for number in range(50):
        with bound(user_id=f"user-{number}"):
            await pool.enqueue_job("welcome", f"l-{number}")
    await pool.aclose()


if __name__ == "__main__":
    if sys.argv[1:] == ["send"]:
        asyncio.run(send())
    else:
        run_worker(WorkerSettings)  # type: ignore[arg-type]  # as the command does
