"""What waits in each place: counted by the server, and estimated where it is not."""

from typing import Final

from amplitude_async.fleet.log import Backlog, Place
from amplitude_async.fleet.nats.api import Api, Stored, timestamp
from amplitude_async.fleet.nats.lease import Entry
from amplitude_async.fleet.nats.plan import Plan

__all__ = ["Figures"]

SAMPLE: Final = 8
SAMPLE_BYTES: Final = 1024 * 1024


class Figures:
    """The backlog of one project.

    The server counts chunks. Bytes and events are those of a few chunks, times the
    number of chunks: exact where at most as many wait as are looked at.

    Args:
        api: asks the server.
        plan: names streams and subjects.
    """

    def __init__(self, api: Api, plan: Plan) -> None:
        self._api = api
        self._plan = plan

    async def backlog(self) -> list[Backlog]:
        """Say what waits in each place that anybody ever used."""
        counts: dict[str, int] = {}
        now = 0.0
        while True:
            answer = await self._api.info(
                self._plan.stream, subjects_filter=">", offset=len(counts)
            )
            if answer is None:
                return []
            now = timestamp(answer["ts"])
            page = answer["state"].get("subjects") or {}
            counts.update(page)
            if not page or len(counts) >= answer.get("total", 0):
                break
        found = await self._api.latest(self._plan.held, [self._plan.lease_subjects])
        leases = {self._plan.place(one.subject): Entry.read(one) for one in found}
        waiting = {self._plan.place(subject): n for subject, n in counts.items()}
        return [
            await self._estimate(
                place, waiting.get(place, 0), lease=leases.get(place), now=now
            )
            for place in sorted(waiting.keys() | leases.keys())
        ]

    async def _estimate(
        self, place: Place, chunks: int, *, lease: Entry | None, now: float
    ) -> Backlog:
        holder = None
        if lease is not None and lease.holder and now - lease.at < lease.lease:
            holder = lease.holder
        sample = await self._sample(place) if chunks else []
        if not sample:
            return Backlog(place, chunks, 0, 0, None, holder)
        events = sum(int(message.headers.get("Ax-Events", "1")) for message in sample)
        size = sum(len(message.data) for message in sample)
        share = chunks / len(sample)
        age = max(now - sample[0].at, 0.0)
        return Backlog(
            place, chunks, round(events * share), round(size * share), age, holder
        )

    async def _sample(self, place: Place) -> list[Stored]:
        return await self._api.batch(
            self._plan.stream,
            self._plan.subject(place),
            1,
            most=SAMPLE,
            max_bytes=SAMPLE_BYTES,
        )
