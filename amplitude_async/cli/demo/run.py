"""The demo: a real purchase log through a web service into a local Amplitude."""

import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from amplitude_async import Amplitude
from amplitude_async.amplitude.config import ConfigFields
from amplitude_async.cli.demo.busy import busy_faults, busy_report
from amplitude_async.cli.demo.chaos import CHAOS_OPTIONS, chaos_faults
from amplitude_async.cli.demo.purchase_service import PurchaseService
from amplitude_async.cli.demo.purchases import Purchase
from amplitude_async.cli.demo.replay import Replay, replay
from amplitude_async.cli.demo.report import Report
from amplitude_async.cli.demo.second_vendor import accounts_of_batches, second_vendor
from amplitude_async.cli.demo.stage import Stage
from amplitude_async.cli.demo.totals import Accounts
from amplitude_async.emulator import Emulator

__all__ = ["demo_options", "run_demo", "running"]

_SHUTDOWN_TIMEOUT = 30.0


def demo_options(server_url: str) -> ConfigFields:
    """Return the options of a client that sends to a server on this machine."""
    return {
        "server_url": server_url,
        "shutdown_timeout": _SHUTDOWN_TIMEOUT,
        # A proxy named in the environment has no business on loopback.
        "trust_env": False,
    }


async def running(
    stack: AsyncExitStack, emulator: Emulator | None, purchases: Sequence[Purchase]
) -> Emulator:
    """Return the emulator that runs, or one that ends with the stack."""
    if emulator is not None:
        return emulator
    # Room for twice as many as expected, so that doubled events would be seen.
    return await stack.enter_async_context(Emulator(keep=2 * len(purchases)))


async def run_demo(
    purchases: Sequence[Purchase],
    advance: Callable[[], None] = lambda: None,
    *,
    chaos: bool = False,
    busy: bool = False,
    mparticle: bool = False,
    emulator: Emulator | None = None,
    stage: Stage | None = None,
) -> Report:
    """Replay the purchases and compare what arrived with what was sent.

    Args:
        purchases: the log.
        advance: called after each purchase posted.
        chaos: let the server fail in every way it can be lived with.
        busy: let the server take a few requests a second and refuse the others.
        mparticle: feed mParticle's side of the server as well.
        emulator: one that runs, and has room for the log; else one is started.
        stage: where a person looks on.
    """
    began = time.perf_counter()
    stage = stage or Stage()
    async with AsyncExitStack() as stack:
        emulator = await running(stack, emulator, purchases)
        options = demo_options(emulator.httpapi_url)
        if busy:
            emulator.faults.add(*busy_faults())
        if chaos:
            emulator.faults.add(*chaos_faults(purchases))
            options.update(CHAOS_OPTIONS)
        plugins = []
        if mparticle:
            weather = CHAOS_OPTIONS if chaos else {}
            url, room = emulator.mparticle_url, len(purchases)
            plugins.append(second_vendor(url, weather, room=room))
        stage.act(f"a local Amplitude starts ({emulator.url}), and a web service.")
        client = Amplitude("demo-key", plugins=plugins, **options)
        replayed, served = await _play(client, purchases, advance, stage)
        stage.act("what arrived is compared with the log.")
        return Report(
            seconds=time.perf_counter() - began,
            replay=replayed,
            served=served,
            stats=client.stats,
            log=Accounts.of_log(purchases),
            server=Accounts.of_events(emulator.events),
            trouble=emulator.stats if chaos else None,
            busy=busy_report(emulator.stats) if busy else None,
            mparticle=accounts_of_batches(emulator.batches) if mparticle else None,
        )


async def _play(
    client: Amplitude,
    purchases: Sequence[Purchase],
    advance: Callable[[], None],
    stage: Stage,
) -> tuple[Replay, int]:
    """Post all purchases, and let the service end; return how that went."""

    def counters() -> dict[str, int]:
        stats = client.stats
        return {
            "tracked": stats.accepted,
            "delivered": stats.delivered,
            "requests": stats.requests,
            "retries": stats.retries,
        }

    def step() -> None:
        advance()
        stage.step()

    async with stage.lit(), client:
        async with PurchaseService(client) as service:
            customers = len({one.customer for one in purchases})
            stage.act(
                f"{len(purchases):,} purchases of {customers:,} customers are posted "
                "to the service, which tracks each."
            )
            stage.watch(counters)
            replayed = await replay(purchases, service.url, step)
        stage.act("the service stops, and delivers what still waits.")
        stage.watch(counters)
    return replayed, service.served
