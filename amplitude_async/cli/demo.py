"""The demo: a real purchase log through a web service into a local Amplitude."""

import time
from collections.abc import Callable, Sequence

from amplitude_async import Amplitude
from amplitude_async.cli.purchase_service import PurchaseService
from amplitude_async.cli.purchases import Purchase
from amplitude_async.cli.replay import replay
from amplitude_async.cli.report import Report
from amplitude_async.cli.totals import Ledger
from amplitude_async.emulator import Emulator

__all__ = ["run_demo"]

_SHUTDOWN_TIMEOUT = 30.0


async def run_demo(
    purchases: Sequence[Purchase], advance: Callable[[], None] = lambda: None
) -> Report:
    """Replay the purchases and compare what arrived with what was sent.

    Args:
        purchases: the log.
        advance: called after each purchase posted.
    """
    began = time.perf_counter()
    # Room for twice as many as expected, so that doubled events would be seen.
    async with Emulator(keep=2 * len(purchases)) as emulator:
        client = Amplitude(
            "demo-key",
            server_url=emulator.httpapi_url,
            shutdown_timeout=_SHUTDOWN_TIMEOUT,
            # A proxy named in the environment has no business on loopback.
            trust_env=False,
        )
        async with client, PurchaseService(client) as service:
            replayed = await replay(purchases, service.url, advance)
        return Report(
            seconds=time.perf_counter() - began,
            replay=replayed,
            served=service.served,
            stats=client.stats,
            log=Ledger.of_log(purchases),
            server=Ledger.of_events(emulator.events),
        )
