"""Runs a relay until it is told to stop, and says what it has and what it did."""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import typer

from amplitude_async.amplitude.client import Amplitude
from amplitude_async.cli.relay.access import Gate
from amplitude_async.cli.relay.health import HealthServer
from amplitude_async.cli.relay.signals import Signals
from amplitude_async.cli.stopping import DONE, INCOMPLETE
from amplitude_async.cli.terminal import printable, refusal
from amplitude_async.client.base import BaseClient
from amplitude_async.delivery.stats import Stats
from amplitude_async.exceptions import ConfigurationError
from amplitude_async.fleet.log import Place
from amplitude_async.fleet.relay import Relay
from amplitude_async.mparticle.client import MParticle

__all__ = ["Listening", "clients_of_environment", "logging_to_stderr", "run_relay"]

# The relay's own patience with a vendor, and some for a log that does not answer.
LEAVE_PATIENCE: Final = 15.0
LOOK_INTERVAL: Final = 0.25
# So many are named; a log of a thousand partitions needs no line of a thousand.
MOST_NAMED: Final = 16

_logger = logging.getLogger("amplitude_async.relay")


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the health endpoint is to listen."""

    host: str
    port: int


def clients_of_environment() -> list[BaseClient]:
    """Make a client for each vendor whose key the environment has.

    Raises:
        typer.Exit: with 2 where there is none, or where a variable is wrong.
    """
    found: list[BaseClient] = []
    try:
        if os.environ.get("AMPLITUDE_API_KEY", "").strip():
            found.append(Amplitude.from_env())
        if os.environ.get("MPARTICLE_API_KEY", "").strip():
            found.append(MParticle.from_env())
    except ConfigurationError as error:
        raise refusal(str(error)) from None
    if not found:
        raise refusal(
            "there is no key: set AMPLITUDE_API_KEY, or MPARTICLE_API_KEY and "
            "MPARTICLE_API_SECRET, or all of them"
        )
    return found


@contextlib.contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Write what the SDK has to say, and warnings of others, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    form = "%(asctime)s %(levelname)s %(name)s %(message)s"
    handler.setFormatter(logging.Formatter(form))
    root, own = logging.getLogger(), logging.getLogger("amplitude_async")
    before = own.level
    root.addHandler(handler)
    own.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        own.setLevel(before)


async def run_relay(
    relay: Relay, gate: Gate, *, signals: Signals, listening: Listening | None
) -> int:
    """Deliver until a signal comes, and return the exit code.

    Raises:
        ConfigurationError: the log is not set up, or a setting breaks its promise.
        typer.Exit: with 2 where the health endpoint cannot listen.
    """
    stop = asyncio.Event()
    signals.tell(stop.set)
    async with contextlib.AsyncExitStack() as stack:
        where = ""
        if listening is not None:
            health = HealthServer(relay, gate.log, stop)
            where = f", health on {await _listen(health, listening)}"
            stack.push_async_callback(health.close)
        _say_start(relay, gate, where)
        return await _delivered(relay, gate, stop)


async def _listen(health: HealthServer, listening: Listening) -> str:
    try:
        return await health.start(listening.host, listening.port)
    except OSError as error:
        raise refusal(
            f"--health cannot listen on {listening.host} port {listening.port} "
            f"({error.strerror or error}): choose another port (0 takes any free one)"
        ) from None


async def _delivered(relay: Relay, gate: Gate, stop: asyncio.Event) -> int:
    running = asyncio.create_task(relay.run())
    telling = asyncio.create_task(_tell_places(relay))
    stopping = asyncio.create_task(stop.wait())
    try:
        both: set[asyncio.Task[Any]] = {running, stopping}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            _logger.info("relay %s gives everything back", relay.name)
            # That one after the other goes is no news.
            telling.cancel()
            relay.stop()
            await asyncio.wait({running}, timeout=LEAVE_PATIENCE)
        if not running.done():
            _give_up(relay, gate)
        await running
    finally:
        for task in (telling, stopping):
            task.cancel()
        await asyncio.gather(telling, stopping, return_exceptions=True)
    _say_end(relay.stats)
    if relay.gave_back:
        return DONE
    _say_not_given_back(relay, gate)
    return INCOMPLETE


def _give_up(relay: Relay, gate: Gate) -> None:
    """End although the log does not answer: what waits for it would wait on."""
    _say_end(relay.stats)
    _say_not_given_back(relay, gate)
    logging.shutdown()
    sys.stdout.flush()
    os._exit(INCOMPLETE)


async def _tell_places(relay: Relay) -> None:
    """Say it each time the relay's partitions change."""
    known: list[Place] = []
    while True:
        places = sorted(relay.places)
        if places != known:
            known = places
            _logger.info("relay %s has %s", relay.name, _in_words(places))
        await asyncio.sleep(LOOK_INTERVAL)


def _in_words(places: Sequence[Place]) -> str:
    if not places:
        return "no partition, and stands by"
    named = ", ".join(map(str, places[:MOST_NAMED]))
    more = len(places) - MOST_NAMED
    return f"{named} and {more} more" if more > 0 else named


def _say_start(relay: Relay, gate: Gate, where: str) -> None:
    destinations = " and ".join(client.destination for client in relay.clients)
    _logger.info(
        "relay %s delivers to %s from %s, project %s%s",
        relay.name,
        destinations,
        gate.name,
        gate.log.project,
        where,
    )


def _say_end(stats: dict[str, Stats]) -> None:
    for destination, one in stats.items():
        _logger.info(
            "%s: taken %d = delivered %d + rejected %d + dropped %d + given back %d "
            "+ pending %d",
            destination,
            one.recovered,
            one.delivered,
            one.rejected,
            one.dropped,
            one.given_back,
            one.pending,
        )


def _say_not_given_back(relay: Relay, gate: Gate) -> None:
    typer.echo(
        f"Error: not everything was given back to {gate.name}: it "
        "did not answer in time. Nothing is lost: others have what "
        f"{printable(relay.name)} had when its lease is over",
        err=True,
    )
