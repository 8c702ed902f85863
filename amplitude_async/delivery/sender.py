"""Puts groups on the wire, each in a task of its own, and brings the answers."""

import asyncio
import contextvars
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from amplitude_async.delivery.answer import describe_fault
from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.deciding.group import Group
from amplitude_async.delivery.endpoint import (
    Accept,
    Broken,
    Endpoint,
    Response,
    Sort,
    Verdict,
)
from amplitude_async.delivery.interception import HELD_BACK
from amplitude_async.delivery.observing import Answered, Observers
from amplitude_async.delivery.outcome import Settlement
from amplitude_async.delivery.reporting import Reporter
from amplitude_async.delivery.stats import Counters
from amplitude_async.delivery.tasks import is_theirs, spawn
from amplitude_async.delivery.transport import GZIP_THRESHOLD, Transport, gzip_body
from amplitude_async.redaction import Body, without_ids
from amplitude_async.storage.base import Record

__all__ = ["Courier", "Post", "Sender"]

GZIP_HEADER = {"Content-Encoding": "gzip"}


class Post:
    """Compresses a body where that pays, counts it and puts it on the wire.

    Args:
        observers: hear of each request.
        clock: says how long each took.
        reporter: is told of what a transport raises that should raise nothing; None:
            the response alone says it.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        timeout: float,
        compress: bool,
        observers: Observers,
        clock: Clock,
        counters: Counters | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        self._transport = transport
        self._timeout = timeout
        self._compress = compress
        self._observers = observers
        self._clock = clock
        self._counters = counters
        self._reporter = reporter

    async def send(
        self, url: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[Response, int]:
        """Post a body; whatever goes wrong below is a response without an answer.

        Returns:
            The answer, and how many bytes went out.
        """
        if self._compress and len(body) > GZIP_THRESHOLD:
            body = Body(await gzip_body(body))
            headers = {**headers, **GZIP_HEADER}
        if self._counters is not None:
            self._counters.request(len(body))
        if not self._observers:
            return await self._put(url, body, headers), len(body)
        started = self._clock.now()
        entered = self._observers.enter()
        try:
            response = await self._put(url, body, headers)
        finally:
            self._observers.leave(entered)
        took = self._clock.now() - started
        # An answer that broke off in the middle is none.
        status = 0 if response.error is not None else response.status
        self._observers.answered(Answered(status, took, len(body)))
        return response, len(body)

    async def _put(self, url: str, body: bytes, headers: Mapping[str, str]) -> Response:
        """Put a body on the wire; what a transport raises is no answer."""
        loop = asyncio.get_running_loop()
        try:
            return await self._transport.send(url, body, headers, self._timeout)
        except BaseException as fault:
            if not loop.is_running():
                # Collected after its loop was closed: what failed is its cleaning up.
                raise GeneratorExit from None
            if not is_theirs(fault):
                raise
            response = Response(0, error=f"sending failed: {describe_fault(fault)}")
            if self._reporter is not None:
                self._reporter.error("transport", "%s", response.error, traceback=fault)
            return response


class Courier(Protocol):
    """Carries the events of a request away, and brings what is answered."""

    async def carry(self, records: Sequence[Record]) -> tuple[Response, int]:
        """Carry events away; returns the answer, and how many bytes went out."""


class Sender:
    """The requests under way: a task and a group for each.

    Args:
        courier: carries the events of a group away.
        may_send: says whether events are still ours to send, at the last moment.
        decide: says what a verdict on a group decides, inside its task.
        settle: writes that down.
        lost: is told of a group whose task ended without one, and of the fault; None
            where somebody cancelled it.
        is_here: says whether this is the process that these requests belong to.
    """

    def __init__(  # noqa: PLR0913 - whom it asks and tells, by keyword
        self,
        endpoint: Endpoint,
        courier: Courier,
        *,
        clock: Clock,
        reporter: Reporter,
        may_send: Callable[[Sequence[Record]], bool],
        decide: Callable[[Group, Verdict], list[Settlement]],
        settle: Callable[[Verdict, list[Settlement]], None],
        lost: Callable[[Group, BaseException | None], None],
        is_here: Callable[[], bool],
    ) -> None:
        self._endpoint = endpoint
        self._courier = courier
        self._clock = clock
        self._reporter = reporter
        self._may_send = may_send
        self._decide = decide
        self._settle = settle
        self._lost = lost
        self._is_here = is_here
        self._tasks: dict[asyncio.Task[None], Group] = {}
        self._going: set[asyncio.Task[None]] = set()
        self._stopped = False

    def start(self, group: Group) -> None:
        """Send the next piece of a group."""
        task = spawn(self._send(group), f"{self._endpoint.name} request")
        self._tasks[task] = group
        task.add_done_callback(self._ended, context=contextvars.Context())

    async def _send(self, group: Group) -> None:
        clock, records = self._clock, group.piece
        if not self._may_send(records):
            return  # somebody else has them by now: they go back, and then away
        started = clock.now()
        response, size = await self._courier.carry(records)
        if self._stopped or not self._is_here():
            return  # the shutdown has settled these events, or the parent does
        if response.error == HELD_BACK:
            return  # nobody is to blame: they go back to where they waited
        verdict = self._interpret(response, records)
        took, kind = clock.now() - started, type(verdict).__name__.lower()
        self._reporter.debug(
            "upload of %d events, %d bytes: %s %s in %.0f ms",
            len(records),
            size,
            response.status or "no answer",
            kind,
            took * 1000,
            numbers={
                "events": len(records),
                "bytes": size,
                "status": response.status,
                "verdict": kind,
                "duration": took,
            },
        )
        settled = self._decide(group, verdict)
        # From here on the group may be out again, with another task.
        if task := asyncio.current_task():
            self._tasks.pop(task, None)
        self._settle(verdict, settled)

    def _interpret(self, response: Response, records: Sequence[Record]) -> Verdict:
        """Say what an answer means; one that is beyond us broke the request."""
        try:
            verdict = self._endpoint.interpret(response, records, self._clock.wall())
            return _anonymous(verdict, records)
        except Exception as fault:  # noqa: BLE001 - a fault of ours, logged
            message = f"HTTP {response.status} not understood: {describe_fault(fault)}"
            self._reporter.error("answer", "%s", message, traceback=fault)
            return Broken(response.status, message)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        group = self._tasks.pop(task, None)
        if group is not None and self._is_here():
            self._lost(group, None if task.cancelled() else task.exception())

    def abandon(self) -> list[Group]:
        """Give up the requests of another process or of a closed loop."""
        groups = list(self._tasks.values())
        self._tasks.clear()
        return groups

    def halt(self) -> list[Group]:
        """Cancel every request, for good; returns the groups that were out."""
        self._stopped = True
        self._going.update(self._tasks)
        for task in self._tasks:
            task.cancel()
        return self.abandon()

    async def gone(self, timeout: float) -> None:
        """Wait for the end of the requests that were cancelled."""
        tasks = self._going - {asyncio.current_task()}
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)

    def __repr__(self) -> str:
        return f"<Sender {len(self._tasks)} out>"


def _anonymous(verdict: Verdict, records: Sequence[Record]) -> Verdict:
    """Take the ids of a request's events out of what the server said of them.

    It is logged, and which event it means the result knows anyway.
    """
    if isinstance(verdict, Accept):
        return verdict
    ids = {
        i for r in records for i in (r.user_id, r.device_id, r.identity, r.insert_id)
    }
    if isinstance(verdict, Sort):
        # One text stands for many events.
        texts = {t: without_ids(t, ids) for t in set(verdict.rejected.values())}
        rejected = {index: texts[t] for index, t in verdict.rejected.items()}
        verdict = replace(verdict, rejected=rejected)
    return replace(verdict, message=without_ids(verdict.message, ids))
