"""Delivers what a fleet's producers hand over, from a log to the vendors' servers."""

import asyncio
import contextlib
import os
import platform
import secrets
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Final, Self

from amplitude_async.client.base import BaseClient
from amplitude_async.delivery.clock import Clock, LoopClock
from amplitude_async.delivery.reporting import Reporter, in_words
from amplitude_async.delivery.stats import Stats
from amplitude_async.exceptions import AmplitudeError, ConfigurationError, LogError
from amplitude_async.fleet.asking import NO_ANSWER, asked
from amplitude_async.fleet.desk import Desk
from amplitude_async.fleet.log import DEFAULT_LEASE, Log, Place
from amplitude_async.redaction import Redactor
from amplitude_async.shown import kind_of, shown

__all__ = ["Relay"]

LEAST_LEASE: Final = 0.2
MOST_LEASE: Final = 3_600.0
OPEN_AGAIN: Final = 1.0
OPEN_PATIENCE: Final = 10.0
CLOSE_PATIENCE: Final = 2.0
LOOK_PATIENCE: Final = 1.0
# What was begun is finished within a moment, where the server answers.
LEAVE_PATIENCE: Final = 10.0
# Without a word of the log for so many looks a relay is not ready.
LOOKS_UNTIL_UNREADY: Final = 6


class Relay:
    """Reads a log and delivers its events; several share the partitions of one.

    Args:
        log: where producers hand over.
        to: one client for each destination that is to be delivered to. They start with
            the relay and are shut down with it.
        lease: seconds after which others take over what a dead relay had.
        name: names this relay among others; host, process and a random part by default.

    Raises:
        ConfigurationError: an argument is wrong; it is named.
        AmplitudeError: a client was started already.
    """

    def __init__(
        self,
        log: Log,
        to: Iterable[BaseClient],
        *,
        lease: float = DEFAULT_LEASE,
        name: str | None = None,
    ) -> None:
        self._log = _checked_log(log)
        self._clock: Clock = LoopClock()
        clients = _checked_clients(to)
        number = isinstance(lease, int | float) and not isinstance(lease, bool)
        if not number or not LEAST_LEASE <= lease <= MOST_LEASE:
            msg = (
                f"lease={shown(lease)}: give seconds, {LEAST_LEASE:g} to {MOST_LEASE:g}"
            )
            raise ConfigurationError(msg)
        self.name = name or _own_name()
        """Names this relay in the log."""
        config = clients[0].config
        self._reporter = Reporter(config.logger, self._clock, "relay", Redactor())
        self._desks = [
            Desk(
                log,
                client,
                holder=self.name,
                lease=float(lease),
                clock=self._clock,
                reporter=self._reporter,
            )
            for client in clients
        ]
        for desk in self._desks:
            desk.client.feed(desk.feed)
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._entered = False
        self._gave_back = True

    def __repr__(self) -> str:
        return f"<Relay {self.name} {self._log!r}: {len(self.places)} places>"

    # Reading -----------------------------------------------------------------

    @property
    def places(self) -> list[Place]:
        """The partitions that this relay has now."""
        return [place for desk in self._desks for place in desk.places]

    @property
    def stats(self) -> dict[str, Stats]:
        """The account of each destination.

        Of a relay: recovered (taken from the log) = delivered + rejected + dropped +
        given_back + pending.
        """
        return {desk.client.destination: desk.client.stats for desk in self._desks}

    @property
    def clients(self) -> list[BaseClient]:
        """What delivers, as it was given."""
        return [desk.client for desk in self._desks]

    @property
    def ready(self) -> bool:
        """True while the log answers: a relay without a partition stands by."""
        now = self._clock.now()
        return all(
            now - desk.answered_at < LOOKS_UNTIL_UNREADY * max(desk.interval, 1.0)
            for desk in self._desks
        )

    @property
    def gave_back(self) -> bool:
        """False where the log did not answer at the end: leases have to run out."""
        return self._gave_back

    # Running -----------------------------------------------------------------

    async def run(self) -> None:
        """Deliver until ``stop`` is called or the task is cancelled.

        Either way partitions are given back: what was begun is finished, what was not
        is another relay's. A log that does not answer is asked again and again.

        Raises:
            ConfigurationError: the log is not set up, or a setting breaks its promise.
            AmplitudeError: the relay runs already.
        """
        task = self._begin()
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await self._end(task)
            raise

    def _begin(self) -> "asyncio.Task[None]":
        if self._task is not None:
            msg = "this relay runs already, or has run: construct a new one"
            raise AmplitudeError(msg)
        loop = asyncio.get_running_loop()
        # In a task of its own: who gives up waiting does not leave it half done.
        self._task = loop.create_task(self._run(), name="amplitude_async relay")
        return self._task

    async def _end(self, task: "asyncio.Task[None]") -> None:
        """Stop, and wait for the end of it, which comes soon, whoever is impatient."""
        self.stop()
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})

    def stop(self) -> None:
        """Begin to give everything back; ``run`` returns when that is done."""
        self._stopping.set()

    async def __aenter__(self) -> Self:
        self._begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        if self._task is not None:
            try:
                await asyncio.shield(self._task)
            except asyncio.CancelledError:
                await self._end(self._task)
                raise

    async def _run(self) -> None:
        looking: list[asyncio.Task[None]] = []
        try:
            partitions = await self._open()
            if partitions is None:
                return
            for desk in self._desks:
                await desk.client.start()
            looking = [
                asyncio.create_task(desk.run(partitions), name="amplitude_async desk")
                for desk in self._desks
            ]
            await self._stopping.wait()
        finally:
            await self._leave(looking)

    async def _open(self) -> int | None:
        """Open the log, however long that takes; None where the relay stops first."""
        while not self._stopping.is_set():
            try:
                opening = self._log.enter()
                settings = await asked(OPEN_PATIENCE, self._clock, opening)
            except (LogError, OSError) as error:
                self._reporter.warning("log_open", "%s", in_words(error))
                self._gave_back = False
                await self._pause(OPEN_AGAIN)
                continue
            self._entered = self._gave_back = True
            for warning in settings.warnings:
                self._reporter.warning(f"log {warning:.40}", "%s", warning)
            return settings.partitions
        return None

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _leave(self, looking: list["asyncio.Task[None]"]) -> None:
        # Who is cancelled while it claims has a place that nobody gives back.
        for desk in self._desks:
            desk.look_no_more()
        if looking:
            await asyncio.wait(looking, timeout=LOOK_PATIENCE)
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)
        if self._entered:
            leaving = [desk.leave(LEAVE_PATIENCE) for desk in self._desks]
            self._gave_back = all(await asyncio.gather(*leaving))
        for desk in self._desks:
            await desk.client.shutdown(1.0)
        if self._entered:
            self._entered = False
            await self._close_log()

    async def _close_log(self) -> None:
        try:
            await asked(CLOSE_PATIENCE, self._clock, self._log.leave())
        except NO_ANSWER as error:
            self._reporter.warning("log_close", "%s", in_words(error))


def _own_name() -> str:
    host = "".join(c if c.isalnum() else "-" for c in platform.node())[:40] or "host"
    return f"{host}-{os.getpid()}-{secrets.token_hex(4)}"


def _checked_log(log: Any) -> Log:
    if isinstance(log, Log):
        return log
    msg = f"log is a {kind_of(log)}: give a Log, such as PostgresLog(...)"
    raise ConfigurationError(msg)


def _checked_clients(to: Any) -> list[BaseClient]:
    if isinstance(to, BaseClient):
        to = [to]
    clients = list(to) if isinstance(to, Iterable) else []
    wrong = next((one for one in clients if not isinstance(one, BaseClient)), None)
    if wrong is not None or not clients:
        msg = f"to={shown(to)}: give clients, such as [Amplitude('key')]"
        raise ConfigurationError(msg)
    names = [client.destination for client in clients]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        msg = f"to has two clients of {double}: one relay delivers to each once"
        raise ConfigurationError(msg)
    return clients
