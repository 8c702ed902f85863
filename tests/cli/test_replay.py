"""The demo's parts over real sockets: the service, the replay, and both together."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from amplitude_async import Amplitude
from amplitude_async.cli.demo.purchase_service import PURCHASE_JSON, PurchaseService
from amplitude_async.cli.demo.purchases import Purchase, parse_log
from amplitude_async.cli.demo.replay import replay
from amplitude_async.cli.demo.run import run_demo
from amplitude_async.emulator import Emulator

__all__: list[str] = []

PURCHASES = parse_log(
    "00004 1 19970101 2 29.33\n00021 2 19970101 3 63.34\n00004 1 19970118 1 0.00",
    "log",
)
GOOD = PURCHASE_JSON.dump_python(PURCHASES[0], mode="json")


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[Amplitude]:
    """Yield a client that sends to the emulator."""
    async with Amplitude("key", server_url=emulator.httpapi_url) as running:
        yield running


async def test_a_purchase_is_tracked_as_revenue(
    client: Amplitude, emulator: Emulator
) -> None:
    """The whole sum is the revenue; day, units and customer go along."""
    async with PurchaseService(client) as service, aiohttp.ClientSession() as session:
        async with session.post(service.url, json=GOOD) as response:
            answer = await response.json()
        assert response.status == 202
    await client.flush()

    (event,) = emulator.events
    assert event["insert_id"] == answer["insert_id"]
    assert (event["user_id"], event["time"]) == ("00004", 852076800000)
    assert event["event_properties"] == {"$quantity": 2, "$revenue": 29.33}
    assert service.served == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({**GOOD, "units": 0}, "quantity"),
        ({**GOOD, "amount": "much"}, "amount"),
        ({**GOOD, "amount": "NaN"}, "amount"),
        ({**GOOD, "day": "1997-02-31"}, "day"),
        ({}, "customer"),
    ],
)
async def test_what_is_no_purchase_is_refused(
    client: Amplitude, body: dict[str, Any], field: str
) -> None:
    """A bad request gets a 400 that names the field, and nothing is tracked."""
    async with (
        PurchaseService(client) as service,
        aiohttp.ClientSession() as session,
        session.post(service.url, json=body) as response,
    ):
        answer = await response.json()

    assert response.status == 400
    assert field in {problem["loc"][0] for problem in answer["problems"]}
    assert (service.served, client.stats.accepted) == (0, 0)


async def test_a_customer_is_never_overtaken_by_itself() -> None:
    """Customers are posted side by side, each one's purchases one by one."""
    active: set[str] = set()
    together: list[int] = []
    overtaken: list[str] = []
    both_there = asyncio.Event()

    async def take(request: web.Request) -> web.Response:
        customer = (await request.json())["customer"]
        overtaken.extend({customer} & active)
        active.add(customer)
        together.append(len(active))
        if len(active) == 2:
            both_there.set()
        await both_there.wait()
        active.discard(customer)
        return web.Response(status=202)

    app = web.Application()
    app.router.add_post("/", take)
    advanced: list[None] = []
    async with TestServer(app) as server:
        url = str(server.make_url("/"))
        result = await replay(PURCHASES, url, lambda: advanced.append(None))

    assert (result.answered, result.failed, len(advanced)) == (3, 0, 3)
    assert max(together) == 2
    assert overtaken == []


async def test_a_failing_service_is_counted() -> None:
    """An error status is a failure, the first is kept, and the replay goes on."""

    async def fail(_: web.Request) -> web.Response:
        return web.Response(status=500)

    app = web.Application()
    app.router.add_post("/", fail)
    async with TestServer(app) as server:
        result = await replay(PURCHASES, str(server.make_url("/")), lambda: None)

    assert (result.answered, result.failed) == (0, 3)
    assert result.first_failure == "the service answered 500"


async def test_a_service_that_is_gone_is_counted(unused_tcp_port: int) -> None:
    """A refused connection is a failure like any other."""
    url = f"http://127.0.0.1:{unused_tcp_port}/"

    result = await replay(PURCHASES[:1], url, lambda: None)

    assert result.failed == 1
    assert str(result.first_failure).startswith("no answer from the service")


async def test_a_small_demo_agrees() -> None:
    """Every purchase posted is found at the server."""
    report = await run_demo(PURCHASES)

    assert report.problems() == []
    assert report.server.totals() == report.log.totals()


async def test_a_refused_customer_is_a_problem() -> None:
    """A purchase that the client rejects fails the demo, and the reason is told."""
    refused = Purchase("unknown", PURCHASES[0].day, 1, PURCHASES[0].amount)

    report = await run_demo([*PURCHASES, refused])

    assert not report.ok
    assert "purchases delivered: 3, in the log: 4" in report.problems()
    assert "'unknown'" in report.problems()[-1]
