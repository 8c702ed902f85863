"""Jobs that all run at once, each with an identity of its own."""

import asyncio

from amplitude_async import Amplitude, bind, bindings
from amplitude_async.emulator import Emulator

__all__ = ["Interleaved"]


class Interleaved:
    """So many jobs that wait for each other, and what shows that none cross.

    Each was sent with ``user_id`` bound and carried.
    """

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._gate = asyncio.Barrier(jobs)

    async def work(self, amplitude: Amplitude, job: int) -> None:
        """Track before a bind and after it, in a child task and a thread's sight."""
        await amplitude.track("Carried", event_properties={"job": job})
        await self._gate.wait()
        bind(device_id=f"device-{job}")
        await self._gate.wait()
        await asyncio.create_task(self._child(amplitude, job))
        if job % 10 == 0:
            name = await asyncio.to_thread(lambda: bindings()["user_id"])
            assert name == f"user-{job}"
        await self._gate.wait()
        await amplitude.track("Bound", event_properties={"job": job})

    async def _child(self, amplitude: Amplitude, job: int) -> None:
        await asyncio.sleep(0)
        await amplitude.track("Child", event_properties={"job": job})

    def check(self, emulator: Emulator) -> None:
        """Fail unless each event has its own job's identities."""
        assert len(emulator.events) == 3 * self._jobs
        for event in emulator.events:
            job = event["event_properties"]["job"]
            assert event["user_id"] == f"user-{job}"
            if event["event_type"] != "Carried":
                assert event["device_id"] == f"device-{job}"
