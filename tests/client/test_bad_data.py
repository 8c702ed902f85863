"""Data never raises: what an event can do without is left out, and the rest is told."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import pytest
from pydantic import (
    ConfigDict,
    Field,
    ValidationError,
    computed_field,
    field_serializer,
    model_serializer,
)

from amplitude_async import (
    Amplitude,
    Delivery,
    DeliveryStatus,
    DestinationPlugin,
    Event,
    EventOptions,
    Identify,
    Revenue,
    TypedEvent,
)
from amplitude_async.emulator import Emulator

__all__: list[str] = []

Connect = Callable[..., Amplitude]
Call = Callable[[Any], Awaitable[Delivery]]

MOMENT = 1_700_000_000_000


class Raising(Event):
    """An event of the host's with a field that is computed, and cannot be."""

    @computed_field
    def score(self) -> int:
        """Divide."""
        return 1 // 0


class Refusing(Event):
    """An event whose serializer of a field raises."""

    @field_serializer("user_id")
    def _write(self, value: str | None) -> str:
        raise asyncio.CancelledError(value)


class NoObject(Event):
    """An event whose serializer gives text."""

    @model_serializer
    def _write(self) -> str:
        return "text"


class Holding(Event):
    """An event that holds an object."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    thing: object = Field(default_factory=object)


class Measured(TypedEvent):
    """A typed event with a field that is computed, and cannot be."""

    total: int = 1

    @computed_field
    def mean(self) -> float:
        """Divide."""
        return self.total / 0


class Hidden(TypedEvent):
    """A typed event whose serializer of a field raises."""

    total: int = 1

    @field_serializer("total")
    def _write(self, _value: int) -> int:
        raise LookupError("no such total")


class Flat(TypedEvent):
    """A typed event whose serializer gives a list."""

    total: int = 1

    @model_serializer
    def _write(self) -> list[int]:
        return [self.total]


class Unprintable:
    """An object that cannot even be shown."""

    def __repr__(self) -> str:
        """Raise."""
        raise OSError("no repr")


EVENT = Event(event_type="e", user_id="user-1")
BAD_LIST = cast("Any", [1])
CASES: dict[str, tuple[Call, str]] = {
    "computed field": (
        lambda client: client.track(Raising(event_type="e", user_id="user-1")),
        "score='ZeroDivisionError",
    ),
    "field serializer": (
        lambda client: client.track(Refusing(event_type="e", user_id="user-1")),
        "user_id='user-1': cannot be sent",
    ),
    "no object": (
        lambda client: client.track(NoObject(event_type="e", user_id="user-1")),
        "NoObject=.*let it return a dict",
    ),
    "an object": (
        lambda client: client.track(Holding(event_type="e", user_id="user-1")),
        "thing=<object.*make it text, a number, a list or a dict",
    ),
    "computed property": (
        lambda client: client.track(Measured(), user_id="user-1"),
        "mean='ZeroDivisionError",
    ),
    "property serializer": (
        lambda client: client.track(Hidden(), user_id="user-1"),
        "total=1: cannot be sent .*no such total",
    ),
    "no properties": (
        lambda client: client.track(Flat(), user_id="user-1"),
        "Flat=Flat.*let it return a dict",
    ),
    "list with a typed event": (
        lambda client: client.track(
            type("Fine", (TypedEvent,), {})(),
            user_id="user-1",
            event_properties=BAD_LIST,
        ),
        r"event_properties=\[1\]: .*dictionary",
    ),
    "list with revenue": (
        lambda client: client.revenue(
            Revenue(price=1), user_id="user-1", event_properties=BAD_LIST
        ),
        r"event_properties=\[1\]: .*dictionary",
    ),
    "list by name": (
        lambda client: client.track("e", user_id="user-1", event_properties=BAD_LIST),
        r"event_properties=\[1\]: .*dictionary",
    ),
    "seconds": (
        lambda client: client.track("e", user_id="user-1", time=1_700_000_000),
        r"time=1700000000: .*int\(seconds \* 1000\)",
    ),
    "set_group": (
        lambda client: client.set_group("org", cast("Any", 1.5), user_id="user-1"),
        r"groups.org=1.5: a group name should be text",
    ),
    "no repr": (
        lambda client: client.track("e", user_id=cast("Any", Unprintable())),
        "user_id=<Unprintable.*: an id should be text",
    ),
    "copied list": (
        lambda client: client.track(EVENT.model_copy(update={"event_properties": [1]})),
        r"event_properties=\[1\]: .*dictionary",
    ),
    "copied time": (
        lambda client: client.track(EVENT.model_copy(update={"time": "2024-01-01"})),
        "time='2024-01-01': should be whole milliseconds",
    ),
    "copied type": (
        lambda client: client.track(EVENT.model_copy(update={"event_type": 5})),
        "event_type=5: Input should be a valid string",
    ),
    "no type": (
        lambda client: client.track(EVENT.model_copy(update={"event_type": None})),
        "event_type=None: Input should be a valid string",
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_what_cannot_be_sent_is_rejected(
    name: str, connect: Connect, emulator: Emulator
) -> None:
    """The result names field, value and remedy, and the next event goes as ever."""
    call, hint = CASES[name]
    async with connect() as client:
        result = await (await call(client))
        assert (await (await client.track(EVENT))).ok
        assert client.stats.balanced

    assert result.status is DeliveryStatus.REJECTED
    assert re.search(hint, result.message), result.message
    assert len(emulator.events) == 1


@pytest.mark.parametrize("name", CASES)
async def test_strict_raises_for_the_same(name: str, connect: Connect) -> None:
    """A ValueError that names the field, and nothing is accepted."""
    call, hint = CASES[name]
    async with connect(strict=True) as client:
        with pytest.raises(ValueError, match=hint.split("=")[0]):
            await call(client)
        assert client.stats.accepted == 0


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "list": ({"event_properties": [1]}, r"event_properties=\[1\]"),
    "time": ({"time": "2024-01-01T00:00:00Z"}, "time='2024-01-01T00:00:00Z'"),
    "id": ({"user_id": ["u"]}, r"user_id=\['u'\]"),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_what_a_plugin_returns_is_validated(
    name: str, connect: Connect, emulator: Emulator
) -> None:
    """A copy that was not validated when it was made is when it is encoded."""
    changes, hint = CHANGES[name]

    def change(event: Event) -> Event:
        return event.model_copy(update=changes)

    async with connect(plugins=[change]) as client:
        result = await (await client.track("e", user_id="user-1"))

    assert result.status is DeliveryStatus.REJECTED
    assert re.search(hint, result.message), result.message
    assert emulator.requests == []


async def test_what_validation_can_convert_is_converted(
    connect: Connect, emulator: Emulator
) -> None:
    """An id that is a number, and names of groups: as where the event is built."""

    def change(event: Event) -> Event:
        groups = {"org": 15, "team": ["a", 2]}
        return event.model_copy(update={"user_id": 12345, "groups": groups})

    async with connect(plugins=[change]) as client:
        assert (await (await client.track("e", user_id="user-1"))).ok

    [event] = emulator.events
    assert event["user_id"] == "12345"
    assert event["groups"] == {"org": "15", "team": ["a", "2"]}


@pytest.mark.parametrize("road", ["fields", "event", "plugin", "nowait"])
async def test_a_bad_optional_field_does_not_cost_the_event(
    road: str, connect: Connect, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """Numbers become text; what is of no use is left out, told and counted."""
    bad: dict[str, Any] = {
        "os_version": 17,
        "location_lat": float("nan"),
        "carrier": ["a"],
        "productId": {"sku": 1},
        "quantity": 10**400,
        "plan": {"version": 3},
        "groups": {"org": None, "team": "a"},
        "session_id": "yesterday",
    }
    made = Event(event_type="e", user_id="user-1", time=MOMENT)
    named = {("product_id" if n == "productId" else n): v for n, v in bad.items()}
    plugins = [lambda event: event.model_copy(update=named)]
    async with connect(plugins=plugins if road == "plugin" else ()) as client:
        if road == "fields":
            delivery = await client.track("e", user_id="user-1", **bad)
        elif road == "event":
            delivery = await client.track(made.model_copy(update=named))
        elif road == "plugin":
            delivery = await client.track(made)
        else:
            delivery = client.track_nowait(made, **bad)
        assert (await delivery).ok
        assert client.stats.losses == 6
        assert client.stats.balanced

    [event] = emulator.events
    assert event["os_version"] == "17"
    assert event["plan"] == {"version": "3"}
    assert event["groups"] == {"team": "a"}
    left_out = {"location_lat", "carrier", "productId", "quantity", "session_id"}
    assert left_out.isdisjoint(event)
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    told = "\n".join(warned)
    for path in ("location_lat", "carrier", "product_id", "session_id", "groups.org"):
        assert f"lost {path}: " in told or len(warned) == 5


async def test_strict_raises_for_a_bad_optional_field(connect: Connect) -> None:
    """Strict means that nothing is left out."""
    copied = EVENT.model_copy(update={"carrier": ["a"]})
    nan = {"a": float("nan")}
    async with connect(strict=True, truncate_strings=3) as client:
        with pytest.raises(ValidationError, match="location_lat"):
            await client.track("e", user_id="user-1", location_lat=float("nan"))
        with pytest.raises(ValueError, match="carrier: should be text"):
            await client.track(copied)
        with pytest.raises(ValueError, match=r"event_properties\.a: NaN"):
            await client.track("e", user_id="user-1", event_properties=nan)
        assert client.stats.accepted == 0
        # What is cut was asked for.
        cut = {"a": "blue sky"}
        await client.track("e", user_id="user-1", event_properties=cut)
        assert (client.stats.accepted, client.stats.losses) == (1, 1)


async def test_each_path_has_its_own_warning(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """A key that is lost is told once a minute, whatever else is; within bounds."""
    async with connect() as client:
        for key in ("a", "b", "a"):
            properties: Mapping[str, Any] = {"list": [{key: float("nan")}, 1]}
            await client.track("e", user_id="user-1", event_properties=properties)
        for number in range(300):
            properties = {f"k{number}": float("nan")}
            await client.track("e", user_id="user-1", event_properties=properties)
        assert client.stats.losses == 303

    told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len([line for line in told if "list[0].a" in line]) == 1
    assert "[lost event_properties.list[].b x1]" in "\n".join(told)
    assert 90 < len(told) < 110


async def test_losses_are_counted_where_they_happen(connect: Connect) -> None:
    """Each destination counts those of its own events."""

    class Sink(DestinationPlugin):
        name = "sink"

        def execute(self, event: Event) -> None:
            """Take it."""

    async with connect(plugins=[Sink()]) as client:
        bad = {"a": float("nan")}
        await client.track("e", user_id="user-1", event_properties=bad)
        stats = await client.flush()

    assert (stats.losses, stats.destinations["sink"].losses) == (1, 1)
    assert stats.destinations["sink"].balanced


async def test_an_empty_id_is_none(connect: Connect, emulator: Emulator) -> None:
    """It is sent by no verb, beside a usable one and by group_identify, too."""
    identify = Identify().set("a", 1)
    empty = Event.model_construct(event_type="e", user_id="", device_id="device-1")
    async with connect() as client:
        await client.track("e", user_id="user-1", device_id="")
        await client.track("e", user_id="", device_id="device-1")
        await client.track(EVENT, EventOptions(device_id=""))
        await client.track(empty)
        await client.group_identify("org", "15", identify, user_id="", device_id="")

    ids = [{"user_id", "device_id"} & event.keys() for event in emulator.events]
    assert ids == [{"user_id"}, {"device_id"}, {"user_id"}, {"device_id"}, set()]
    assert "" not in [event.get("user_id") for event in emulator.events]


async def test_a_serializer_of_ones_own_decides_which_keys_there_are(
    connect: Connect, emulator: Emulator
) -> None:
    """No key stands twice, whatever it writes itself."""

    class Own(Event):
        @model_serializer
        def _write(self) -> dict[str, Any]:
            ids = {"user_id": self.user_id, "insert_id": "mine"}
            return {"event_type": "Own", "time": MOMENT, **ids}

    async with connect() as client:
        delivery = await client.track(Own(event_type="e", user_id="user-1"))
        assert (await delivery).ok
        assert delivery.insert_id == "mine"

    [event] = emulator.events
    assert (event["time"], event["insert_id"]) == (MOMENT, "mine")
    assert event["library"].startswith("amplitude-async")


async def test_a_group_of_an_event_that_is_no_name(
    connect: Connect, emulator: Emulator
) -> None:
    """It is left out of an event, and costs none of its properties."""
    async with connect() as client:
        groups = cast("Any", 5)
        assert (await (await client.track("e", user_id="user-1", groups=groups))).ok
        changed = Event(event_type="e", user_id="user-1", groups={"org": "15"})
        assert changed.groups is not None
        changed.groups["org"] = cast("Any", 16)
        changed.groups["team"] = cast("Any", 1.5)
        assert (await (await client.track(changed))).ok
        assert client.stats.losses == 2

    first, second = emulator.events
    assert "groups" not in first
    assert second["groups"] == {"org": "16"}
