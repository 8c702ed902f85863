"""What we put on the wire beside what the official SDKs put there.

The vectors were recorded from the Go, Python and Node SDKs of Amplitude. Where the
Python and the Node SDK agree, ours sends the same; elsewhere our own choice stands in
`OURS`, and every departure from the two stands in `EXCEPTIONS` with its reason.
"""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from pydantic import ValidationError

from amplitude_async import (
    Amplitude,
    Config,
    DestinationPlugin,
    EnrichmentPlugin,
    Event,
    EventOptions,
    Identify,
    Plugin,
    Revenue,
)

__all__: list[str] = []

Json = dict[str, Any]

VECTORS: list[Json] = json.loads(
    (Path(__file__).parents[1] / "data" / "amplitude_vectors.json").read_text("utf-8")
)
USER = {"user_id": "user-id"}
FILLED_IN = {"insert_id": "<insert_id>", "time": "<time>"}
CLICK = {"event_type": "Button Clicked", **USER, **FILLED_IN}

EXCEPTIONS: dict[str, tuple[str, list[Json]]] = {}
"""Departures from what Python and Node agree on, none so far: reason and events."""


def identified(operations: Json) -> Json:
    """Return the event of an identify call."""
    return {
        "event_type": "$identify",
        **USER,
        **FILLED_IN,
        "user_properties": operations,
    }


def sold(**properties: object) -> Json:
    """Return the event of a revenue call, with properties named without the $."""
    named = {
        key if key == "color" else f"${key}": value for key, value in properties.items()
    }
    return {
        "event_type": "revenue_amount",
        **USER,
        **FILLED_IN,
        "event_properties": named,
    }


PLANNED: Json = {
    "plan": {
        "branch": "main",
        "source": "web",
        "version": "1.0.0",
        "versionId": "a1b2",
    },
    "ingestion_metadata": {"source_name": "ampli", "source_version": "1.0.0"},
}

OURS: dict[str, tuple[str, list[Json]]] = {
    "identify_add_string": ("add() of text raises in the caller's code", []),
    "identify_set_nested_array": (
        "any value with a JSON form is sent as it is",
        [identified({"$set": {"o": [[1, 2], [3]]}})],
    ),
    "plan_config_on_identify": (
        "every kind of event gets the client's plan and ingestion metadata",
        [
            {**identified({"$set": {"a": "1"}}), **PLANNED},
            {
                "event_type": "$groupidentify",
                **FILLED_IN,
                **PLANNED,
                "groups": {"org-id": "15"},
                "group_properties": {"$set": {"a": "1"}},
            },
            {**sold(price=1.5, quantity=1), **PLANNED},
        ],
    ),
    "revenue_only_revenue": (
        "a revenue without a price is an amount; unset keys are left out",
        [sold(revenue=9.99, quantity=1)],
    ),
    "revenue_price_only": (
        "the quantity is 1, unset keys are left out",
        [sold(price=1.5, quantity=1)],
    ),
    "revenue_properties": (
        "properties of the sale are sent beside the reserved keys",
        [sold(price=3.99, quantity=1, color="red")],
    ),
    "revenue_quantity_zero": ("a quantity of 0 raises in the caller's code", []),
    "seed_config_flush_interval_5000": (
        "an interval is seconds, so that nobody sends every 5 microseconds",
        [CLICK, CLICK, CLICK],
    ),
    "seed_identify_empty": ("nothing to change, nothing to send", []),
    "seed_plugin_destination": (
        "each destination gets the event; its id and time are the same in both",
        [CLICK],
    ),
    "seed_plugin_event_id": (
        "the counter starts at 0, which is a value like any other",
        [{**CLICK, "event_id": number} for number in range(3)],
    ),
    "seed_shutdown": ("shutdown sends what waits", [CLICK]),
    "track_event_properties_null": (
        "null inside properties is a value and stays",
        [
            {
                "event_type": "e",
                **USER,
                **FILLED_IN,
                "event_properties": {"n": None, "k": "v"},
            }
        ],
    ),
    "track_price_int": (
        "a whole number is a fine price",
        [{"event_type": "e", **USER, **FILLED_IN, "price": 2}],
    ),
    "track_zero_values": (
        "zero is a value, not an absence",
        [
            {
                "event_type": "e",
                **USER,
                **FILLED_IN,
                "price": 0,
                "quantity": 0,
                "revenue": 0,
                "location_lat": 0,
                "location_lng": 0,
                "event_id": 0,
                "session_id": 0,
            }
        ],
    ),
}
"""Our choice where the official SDKs differ: case to reason and our events."""

RAISES = {"identify_add_string": ValueError, "revenue_quantity_zero": ValidationError}


class Recorder:
    """A server that takes everything and writes it down."""

    def __init__(self) -> None:
        self.url = ""
        self.sent: list[tuple[str, Json]] = []
        self.batches: list[int] = []

    async def receive(self, request: web.Request) -> web.Response:
        """Write a request down, event by event."""
        body = await request.json()
        self.batches.append(len(body["events"]))
        for event in body["events"]:
            self.sent.append((request.path, {**body, "event": event}))
        return web.json_response({"code": 200})

    def lines(self, path: str) -> list[Json]:
        """Return what was sent to a path in the vectors' form."""
        return [
            {
                "path": path,
                "api_key": body["api_key"],
                "options": body.get("options"),
                "event": neutral(body["event"]),
            }
            for sent_to, body in self.sent
            if sent_to == path
        ]


def neutral(event: Json) -> Json:
    """Replace what differs each time, and leave out what names the library."""
    event = dict(event)
    assert event.pop("library").startswith("amplitude-async-python/")
    assert isinstance(event["time"], int)
    event["time"] = "<time>"
    if re.fullmatch(r"[0-9a-f]{20}-[0-9a-f]+", event["insert_id"]):
        event["insert_id"] = "<insert_id>"
    return event


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    """Yield a running recorder."""
    made = Recorder()
    app = web.Application()
    app.router.add_post("/{path:.*}", made.receive)
    async with TestServer(app) as server:
        made.url = str(server.make_url("")).rstrip("/")
        yield made


# --- The neutral language of the vectors ---


class EventIdCounter(EnrichmentPlugin):
    """Numbers the events from 0."""

    name = "event_id_counter"

    def __init__(self) -> None:
        self.count = 0

    def execute(self, event: Event) -> Event:
        """Give the event the next number."""
        event.event_id, self.count = self.count, self.count + 1
        return event


class DropAll(EnrichmentPlugin):
    """Lets nothing pass."""

    name = "drop_all"

    def execute(self, _event: Event) -> None:
        """Drop the event."""


class PostTo(DestinationPlugin):
    """Posts each event to a server of its own."""

    name = "post_to"

    def __init__(self, url: str) -> None:
        self.url = url

    async def execute(self, event: Event) -> None:
        """Post the event."""
        sent = event.model_dump(by_alias=True, exclude_none=True)
        body = {"key": "secret", "api_key": None, "events": [sent]}
        async with ClientSession() as session, session.post(self.url, json=body):
            pass


def plugin_of(call: Json, recorder: Recorder) -> Plugin:
    """Make the plugin a call asks for."""
    if call["plugin"] == "post_to":
        return PostTo(recorder.url + call["path"])
    kinds: dict[str, type[Plugin]] = {
        "event_id_counter": EventIdCounter,
        "drop_all": DropAll,
    }
    return kinds[call["plugin"]]()


def identify_of(call: Json) -> Identify:
    """Build an Identify from its operations."""
    identify = Identify()
    for operation, *arguments in call["identify"]:
        getattr(identify, operation)(*arguments)
    return identify


def options_of(call: Json) -> EventOptions:
    """Build the options of a call."""
    return EventOptions(**call.get("options", {}))


async def perform(client: Amplitude, call: Json, recorder: Recorder) -> None:
    """Make one call of the neutral language."""
    match call["call"]:
        case "track":
            await client.track(Event(**call["event"]), options_of(call))
        case "identify":
            await client.identify(identify_of(call), options_of(call))
        case "group_identify":
            await client.group_identify(
                call["group_type"],
                call["group_name"],
                identify_of(call),
                options_of(call),
            )
        case "set_group":
            await client.set_group(
                call["group_type"], call["group_name"], options_of(call)
            )
        case "revenue":
            await client.revenue(Revenue(**call["revenue"]), options_of(call))
        case "add_plugin":
            await client.add(plugin_of(call, recorder))
        case "remove_plugin":
            await client.remove(call["plugin"])
        case "flush":
            await client.flush()
        case "shutdown":
            await client.shutdown()
        case other:
            # Waiting for a clock tests the clock: only flush sends.
            assert other == "sleep"


def config_of(given: Json, recorder: Recorder) -> Config:
    """Translate the configuration of a vector."""
    options = {k: v for k, v in given.items() if k != "flush_interval_ns"}
    if "flush_interval_ns" in given:
        options["flush_interval"] = given["flush_interval_ns"] / 1e9
    options["server_url"] = recorder.url + options.get("server_url", "/2/httpapi")
    return Config(**options)


def expected_of(vector: Json) -> list[Json]:
    """Return the lines that we should send."""
    case = vector["case"]
    if case not in OURS and case not in EXCEPTIONS:
        lines: list[Json] = vector["expected"]
        return lines
    _, events = EXCEPTIONS.get(case) or OURS[case]
    return [
        {
            "path": "/2/httpapi",
            "api_key": vector["input"]["config"]["api_key"],
            "options": None,
            "event": event,
        }
        for event in events
    ]


@pytest.mark.parametrize(
    "vector", VECTORS, ids=[str(vector["case"]) for vector in VECTORS]
)
async def test_vector(vector: Json, recorder: Recorder) -> None:
    """Each recorded call sends what Python and Node agree on, or our choice."""
    case, given = vector["case"], vector["input"]
    if case == "url_eu":
        # The SDK is to choose the address itself: nothing may be sent there.
        url = Config(api_key="key", server_zone=given["config"]["server_zone"]).url
        assert url == "https://api.eu.amplitude.com" + vector["expected"][0]["path"]
        return
    config = config_of(given["config"], recorder)
    async with Amplitude(config=config) as client:
        if case in RAISES:
            with pytest.raises(RAISES[case]):
                await perform(client, given["calls"][0], recorder)
        else:
            for call in given["calls"]:
                await perform(client, call, recorder)
        stats = client.stats

    assert stats.balanced
    path = given["config"].get("server_url", "/2/httpapi")
    assert recorder.lines(path) == expected_of(vector)
    if case == "seed_plugin_destination":
        (_, custom), (_, own) = sorted(recorder.sent, key=lambda one: one[0] == path)
        assert custom["key"] == "secret"
        assert custom["event"] == own["event"]


def test_every_vector_is_decided() -> None:
    """No choice of ours is without a vector, and no exception without a reason."""
    agreed = {vector["case"] for vector in VECTORS if "expected" in vector}
    differing = {vector["case"] for vector in VECTORS} - agreed
    assert OURS.keys() == differing
    assert EXCEPTIONS.keys() <= agreed
    assert all(reason for reason, _ in (*OURS.values(), *EXCEPTIONS.values()))
