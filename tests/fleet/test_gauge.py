"""Whether a log is full is found out beside its publishes, and never given up."""

import asyncio

import pytest

from amplitude_async.exceptions import LogFullError, LogUnreachableError
from amplitude_async.fleet.postgres.gauge import Gauge
from tests.fleet.scene import until

__all__: list[str] = []


async def test_who_could_not_look_at_once_looks_again() -> None:
    """A task may end before whoever made it goes on: an eager factory does that."""
    loop = asyncio.get_running_loop()
    answers: list[int] = []

    async def size() -> int:
        if not answers:
            raise LogUnreachableError("this log is not open")
        return answers[-1]

    gauge = Gauge(10, size, size)
    eager = getattr(asyncio, "eager_task_factory", None)
    if eager is None:
        pytest.skip("this Python starts no task at once")
    loop.set_task_factory(eager)
    try:
        gauge.check()
        answers.append(11)

        def full() -> bool:
            try:
                gauge.check()
            except LogFullError:
                return True
            return False

        await until(full)
    finally:
        loop.set_task_factory(None)
        await gauge.close()
