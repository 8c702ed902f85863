"""What a shop's day looks like, for tests and pictures: sent by the real client."""

import random
from collections.abc import Callable

import aiohttp

from amplitude_async import Amplitude, Identify, Revenue
from amplitude_async.emulator import Emulator

__all__ = ["HOSTILE", "flood", "morning", "reject", "send_batch", "shop"]

KEY = {"Authorization": "Basic a2V5OnNlY3JldA=="}
HOSTILE = [
    "<script>window.hacked = 1</script>",
    "<img src=x onerror=window.hacked=1>",
    '"><svg onload=window.hacked=1>',
    "javascript:window.hacked=1",
    "invoice\u202egpj.exe",
    "bell\x07 and \x1b[31mred",
    "\u05d0\u05d9\u05e8\u05d5\u05e2",
    "\ud83d lone",
    "A" * 10_240,
]


async def shop(emulator: Emulator, customers: int = 4) -> None:
    """Have some customers look, buy, change and leave."""
    async with Amplitude("test-key", server_url=emulator.httpapi_url) as client:
        for number in range(1, customers + 1):
            user = f"user-{number}"
            await client.identify(
                Identify().set("plan", "pro").set("seats", number).add("logins", 1),
                user_id=user,
            )
            await client.set_group("company", "Acme", user_id=user)
            await client.track(
                "Page Viewed",
                user_id=user,
                event_properties={"path": "/pricing", "ms": 120 + number},
            )
            await client.track(
                "Search",
                user_id=user,
                event_properties={
                    "query": "red shoes",
                    "results": "many" if number % 2 else number,
                },
            )
            await client.track(
                "Order Paid",
                user_id=user,
                event_properties={
                    "total": 9.5 * number,
                    "order": f"o-{number}",
                    "items": [{"sku": "s-1", "quantity": 2}, {"sku": "s-7"}],
                },
            )
            await client.revenue(
                Revenue(revenue=9.5 * number, product_id="shoes"), user_id=user
            )
            await client.flush()


async def morning(emulator: Emulator, go_on: Callable[[float], None]) -> None:
    """Have customers come and go for almost an hour.

    Args:
        emulator: where they come.
        go_on: lets so many seconds pass on its clock.
    """
    draw = random.Random(16)
    names = ["Page Viewed", "Search", "Order Paid", "Login", "Logout", ""]
    async with aiohttp.ClientSession() as session:
        for minute in range(57):
            busy = 9 + minute // 4 - 3 * (minute % 4) if minute % 15 else 1
            chosen = draw.choices(names, weights=[30, 16, 9, 7, 5, 1], k=busy)
            for name in chosen:
                event = {"event_type": name, "user_id": f"user-{draw.randint(1, 9)}"}
                body = {"api_key": "test-key", "events": [event]}
                await session.post(emulator.httpapi_url, json=body)
            go_on(60.0)


async def reject(emulator: Emulator) -> None:
    """Send what is refused, and one event twice."""
    twice = {
        "event_type": "Order Paid",
        "user_id": "user-2",
        "device_id": "phone-2",
        "insert_id": "paid-o-2",
        "event_properties": {"total": 19.0, "order": "o-2"},
    }
    nobody = {"event_type": "Cart Updated", "event_properties": {"items": 3}}
    late = {**twice, "insert_id": "late", "event_type": "Refund Asked", "time": "now"}
    async with aiohttp.ClientSession() as session:
        for events in ([twice], [twice], [nobody], [late]):
            await session.post(
                emulator.httpapi_url, json={"api_key": "test-key", "events": events}
            )


async def send_batch(emulator: Emulator) -> None:
    """Send a batch as mParticle takes it."""
    batch = {
        "environment": "development",
        "user_identities": {"customer_id": "customer-7"},
        "user_attributes": {"tier": "gold"},
        "events": [
            {
                "event_type": "custom_event",
                "data": {
                    "event_name": "Video Played",
                    "custom_event_type": "media",
                    "custom_attributes": {"title": "Harbour", "seconds": 42},
                },
            }
        ],
    }
    async with aiohttp.ClientSession(headers=KEY) as session:
        await session.post(f"{emulator.url}/v2/events", json=batch)


async def flood(
    emulator: Emulator, events: int, *, batch: int = 1_000, first: int = 0
) -> None:
    """Send so many events as fast as they are taken."""
    end = first + events
    async with aiohttp.ClientSession() as session:
        for start in range(first, end, batch):
            body = {
                "api_key": "test-key",
                "events": [
                    {
                        "event_type": f"Page {number % 7}",
                        "user_id": f"user-{number % 400}",
                        "insert_id": f"flood-{number}",
                        "event_properties": {"number": number, "path": "/"},
                    }
                    for number in range(start, min(start + batch, end))
                ],
            }
            async with session.post(emulator.batch_url, json=body) as response:
                response.raise_for_status()
