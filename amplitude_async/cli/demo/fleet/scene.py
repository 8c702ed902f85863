"""A whole fleet on one machine, and what is compared at its end."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from amplitude_async.cli.demo.fleet.log_servers import LogServers, servers
from amplitude_async.cli.demo.fleet.parties import ProducerParty, RelayParty
from amplitude_async.emulator import Emulator
from amplitude_async.fleet.addresses import log_at

__all__ = ["Comparison", "Scene"]

POLL: Final = 0.05
KEPT: Final = 2_000_000
KEPT_BYTES: Final = 4 * 1024**3


@dataclass(frozen=True)
class Comparison:
    """What the log has confirmed, beside what arrived."""

    confirmed: int
    """Events of which a verb said that the log has them."""
    arrived: int
    """Events at the server, each counted once."""
    lost: int
    """Confirmed events that did not arrive."""
    reordered: int
    """Events that came after a later one of their user."""
    doubled: int
    """Events that were sent again, under the same insert id."""
    troubles: list[str] = field(default_factory=list)
    """What else is wrong: an account that does not add up, a process that failed."""

    @property
    def ok(self) -> bool:
        """True where nothing was lost or out of order, and each account adds up."""
        return not (self.lost or self.reordered or self.troubles)


class Scene:
    """Servers of a log, a local Amplitude, producers and relays.

    Args:
        kind: of log: ``"postgres"`` or ``"nats"``.
        folder: an empty one.
        partitions: of the log.
        lease: of the relays, in seconds.
    """

    def __init__(
        self, kind: str, folder: Path, *, partitions: int = 4, lease: float = 2.0
    ) -> None:
        self.servers: LogServers = servers(kind, folder)
        self.emulator = Emulator(keep=KEPT, keep_bytes=KEPT_BYTES)
        self.relays: list[RelayParty] = []
        self.producers: list[ProducerParty] = []
        self.project = "demo"
        self.folder = folder
        self._partitions = partitions
        self._lease = lease
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self.servers.start()
            self._stack.push_async_callback(self.servers.stop)
            await self._stack.enter_async_context(self.emulator)
            await self._set_up()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for party in (*self.producers, *self.relays):
            if party.runs:
                party.process.kill()
                await party.end()
        await self._stack.aclose()

    async def _set_up(self) -> None:
        log = log_at(self.servers.address, project=self.project)
        try:
            async with asyncio.timeout(60.0):
                await log.setup(self._partitions)
        finally:
            await log.close()

    async def add_relay(self, **options: str) -> RelayParty:
        """Start one more relay; options are environment variables of its client."""
        relay = RelayParty(self.folder / f"relay{len(self.relays)}.log")
        await relay.start(
            address=self.servers.address,
            project=self.project,
            server_url=self.emulator.httpapi_url,
            lease=self._lease,
            options=options,
        )
        self.relays.append(relay)
        return relay

    async def add_producer(
        self, users: int = 8, *, spooled: bool = False, confirm: float = 1.0
    ) -> ProducerParty:
        """Start one more producer; its verbs wait so many seconds for the log."""
        name = f"p{len(self.producers)}"
        producer = ProducerParty(name, self.folder / f"{name}.log")
        await producer.start(
            address=self.servers.address,
            project=self.project,
            users=users,
            confirm=confirm,
            spool=self.folder / f"{name}-spool" if spooled else None,
        )
        self.producers.append(producer)
        return producer

    @property
    def confirmed(self) -> int:
        """Events that the log has confirmed so far."""
        return sum(len(producer.confirmed) for producer in self.producers)

    @property
    def arrived(self) -> int:
        """Events that the server has."""
        return self.emulator.stats.events_ingested

    async def until(self, is_so: Callable[[], bool], limit: float) -> bool:
        """Wait until something is so, but not for ever; returns whether it is."""
        end = time.monotonic() + limit
        while not is_so():
            if time.monotonic() > end:
                return False
            await asyncio.sleep(POLL)
        return True

    async def go_on(self, events: int, limit: float) -> None:
        """Wait until so many more events were confirmed, and so many more arrived."""
        confirmed, arrived = self.confirmed + events, self.arrived + events
        await self.until(lambda: self.confirmed >= confirmed, limit)
        await self.until(lambda: self.arrived >= arrived, limit)

    async def settle(self, limit: float = 60.0) -> None:
        """End the producers, and wait until all that they handed over has arrived."""
        await asyncio.gather(*(p.end() for p in self.producers if p.runs))
        await self.until(lambda: not self._missing(), limit)

    def _missing(self) -> set[str]:
        confirmed = {key for p in self.producers for key in p.confirmed}
        return confirmed - {event["insert_id"] for event in self.emulator.events}

    async def compare(self) -> Comparison:
        """End the relays and compare."""
        await asyncio.gather(*(r.end() for r in self.relays if r.runs))
        return Comparison(
            confirmed=self.confirmed,
            arrived=self.arrived,
            lost=len(self._missing()),
            reordered=_reordered(self.emulator.events),
            doubled=self.emulator.stats.duplicates,
            troubles=self._troubles(),
        )

    def _troubles(self) -> list[str]:
        found = [
            f"producer {producer.name}: {producer.account}"
            for producer in self.producers
            if producer.account.startswith("unbalanced")
        ]
        for party in (*self.producers, *self.relays):
            words = party.words
            if "Traceback" in words:
                found.append(words[words.index("Traceback") :][:2000])
        return found


def _reordered(events: Any) -> int:
    """Count events that came after a later one of their user."""
    newest: dict[str, int] = {}
    count = 0
    for event in events:
        user, number = event["user_id"], event["event_properties"]["n"]
        count += number < newest.get(user, -1)
        newest[user] = max(number, newest.get(user, -1))
    return count
