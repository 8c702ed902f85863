"""Bad values, opt-out and late verbs: results, not exceptions, unless asked for."""

import logging
from collections.abc import Awaitable, Callable
from types import MappingProxyType
from typing import Any, cast

import pytest
from pydantic import ValidationError

from amplitude_async import (
    Amplitude,
    ClientClosedError,
    ConfigurationError,
    Delivery,
    DeliveryStatus,
    DropReason,
    Event,
    Identify,
    QueueFullError,
    Revenue,
    TypedEvent,
)
from amplitude_async.emulator import Emulator, Fault
from tests.conftest import Endless

__all__: list[str] = []

Connect = Callable[..., Amplitude]


NO_AMOUNT = Revenue(product_id="p")

BAD_VALUES: dict[
    str, tuple[Callable[[Any], Awaitable[Delivery]], tuple[str, ...], type[Exception]]
] = {
    "short id": (
        lambda client: client.track("e", user_id="42"),
        ("user_id '42'", "min_id_length=2"),
        ValueError,
    ),
    "short device": (
        lambda client: client.track("e", device_id="d"),
        ("device_id 'd'", "min_id_length=1"),
        ValueError,
    ),
    "no id": (
        lambda client: client.track("e"),
        ("user_id and device_id are missing", "pass one"),
        ValueError,
    ),
    "empty id": (
        lambda client: client.track("e", user_id=""),
        ("user_id and device_id are missing", "pass one"),
        ValueError,
    ),
    "refused id": (
        lambda client: client.track("e", user_id="Anonymous"),
        ("user_id='Anonymous'", "use a real id"),
        ValueError,
    ),
    "refused device": (
        lambda client: client.track("e", user_id="user-1", device_id="unknown"),
        ("device_id='unknown'", "use a real id"),
        ValueError,
    ),
    "no type": (
        lambda client: client.track("  ", user_id="user-1"),
        ("event_type is empty", "name the event"),
        ValueError,
    ),
    "id list": (
        lambda client: client.track(
            Event(event_type="e", user_id="user-1"), user_id=["u"]
        ),
        ("user_id=['u']", "str()"),
        ValidationError,
    ),
    "time": (
        lambda client: client.track("e", user_id="user-1", time="now"),
        ("time='now'", "milliseconds"),
        ValidationError,
    ),
    "groups": (
        lambda client: client.set_group("org", None, user_id="user-1"),
        ("groups.org=None", "a group name should be text"),
        ValidationError,
    ),
    "too large": (
        lambda client: client.track(
            "e", user_id="user-1", event_properties={"a": "x" * 1_000_000}
        ),
        ("bytes", "use_batch=True"),
        ValueError,
    ),
    "empty identify": (
        lambda client: client.identify(Identify(), user_id="user-1"),
        ("identify is empty", ".set("),
        ValueError,
    ),
    "empty group identify": (
        lambda client: client.group_identify("org", "15", Identify()),
        ("identify is empty", ".set("),
        ValueError,
    ),
    "no amount": (
        lambda client: client.revenue(NO_AMOUNT, user_id="user-1"),
        ("Revenue without amount", "give price or revenue"),
        ValueError,
    ),
}


@pytest.mark.parametrize("name", BAD_VALUES)
async def test_bad_values_are_rejected(
    name: str,
    connect: Connect,
    emulator: Emulator,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Field, value and remedy are named in the result and in one warning."""
    call, hints, _ = BAD_VALUES[name]
    results: list[Any] = []
    async with connect(callback=results.append) as client:
        first = await call(client)
        second = await call(client)
        assert first.done
        assert (await first).status is DeliveryStatus.REJECTED

    assert emulator.requests == []
    assert [one.status for one in results] == [DeliveryStatus.REJECTED] * 2
    for hint in hints:
        assert hint in (await second).message
    assert ((await first).code, (await first).attempts) == (0, 0)
    warned = [line for line in caplog.records if line.levelno >= logging.WARNING]
    assert [line.levelno for line in warned] == [logging.WARNING]
    # The log names the field; its value is for who has the result.
    line = warned[0].getMessage()
    assert hints[0].split("=")[0].split(" ")[0] in line
    assert (hints[0] in line) == ("'" not in hints[0] and "=" not in hints[0])


@pytest.mark.parametrize("name", BAD_VALUES)
async def test_strict_raises_for_bad_values(name: str, connect: Connect) -> None:
    """With strict=True the same values raise at the call and nothing is accepted."""
    call, hints, kind = BAD_VALUES[name]
    async with connect(strict=True) as client:
        with pytest.raises(kind) as caught:
            await call(client)

        for hint in hints if kind is ValueError else hints[1:]:
            assert hint in str(caught.value)
        assert client.stats.accepted == 0


async def test_an_int_that_is_too_short_as_an_id(connect: Connect) -> None:
    """Id 42 is text of two characters to the server."""
    async with connect() as client:
        result = await (await client.track("e", user_id=42))

    assert result.message.startswith("user_id '42' has 2 characters")


async def test_one_short_id_of_two_is_a_warning(
    connect: Connect, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """The server drops a short id where the other one is usable, and so do we say."""
    async with connect() as client:
        result = await (await client.track("e", user_id="u", device_id="device-1"))

    assert result.ok
    assert "min_id_length=1" in caplog.text
    assert len(emulator.events) == 1


async def test_group_identify_needs_no_id(connect: Connect, emulator: Emulator) -> None:
    """An event about a group goes without a user; a useless id goes along unread."""
    async with connect() as client:
        identify = Identify().set("a", 1)
        assert (await (await client.group_identify("org", "15", identify))).ok

    assert emulator.stats.events_ingested == 1


async def test_a_bad_event_does_not_harm_its_neighbours(
    connect: Connect, emulator: Emulator
) -> None:
    """Of three events one is invalid; the others arrive."""
    async with connect() as client:
        for user in ("user-1", "x", "user-2"):
            await client.track("e", user_id=user)
        stats = await client.flush()

    assert (stats.delivered, stats.rejected) == (2, 1)
    assert [event["user_id"] for event in emulator.events] == ["user-1", "user-2"]


async def test_bad_values_that_track_nowait_gets(connect: Connect) -> None:
    """They are rejected there too, or raise with strict=True."""
    bad = cast("Any", {"user_id": "user-1", "time": "x"})
    async with connect() as client, connect(strict=True) as strict:
        assert "time='x'" in (await client.track_nowait("e", **bad)).message
        assert (await client.track_nowait("e")).status is DeliveryStatus.REJECTED
        with pytest.raises(ValidationError):
            strict.track_nowait("e", **bad)
        with pytest.raises(ValueError, match="pass one of them"):
            strict.track_nowait("e")


async def test_the_rejected_event_can_be_looked_at(connect: Connect) -> None:
    """The result shows the event, or its type where no event could be made."""

    class OrderPaid(TypedEvent):
        total: float

    bad = cast("Any", {"user_id": "user-1", "time": "x"})
    event = Event(event_type="e", event_properties={"a": 1})
    async with connect() as client:
        assert (await (await client.track(event))).event == event
        assert (await (await client.track("f", **bad))).event.event_type == "f"
        assert (await (await client.track(event, **bad))).event == event
        result = await (await client.track(OrderPaid(total=1.0), **bad))
        assert result.event.event_type == "Order Paid"


async def test_lost_properties_are_named(
    connect: Connect, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """A value without JSON form loses its own key, and one line says where it was."""
    properties = {"bad": object(), "deep": {"nan": float("nan"), "ok": None}}
    async with connect() as client:
        await client.track("e", user_id="user-1", event_properties=properties)
        await client.flush()

    assert emulator.events[0]["event_properties"] == {"deep": {"ok": None}}
    assert "event_properties.bad" in caplog.text
    assert "event_properties.deep.nan" in caplog.text


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"event_properties": {"k": {"deep": "x" * 10**8}}}, "k.deep has 100,000,000"),
        (
            {"event_properties": {"k": ["x" * 400_000] * 1_000}},
            "event_properties.k brings",
        ),
        ({"user_properties": {"k": Endless()}}, "user_properties.k makes its field"),
        ({"groups": {"k": "x" * 10**7}}, "groups.k has 10,000,000 characters"),
        ({"user_id": "x" * 10**7}, "user_id has 10,000,000 characters"),
        ({"app_version": "x" * 10**7}, "app_version has 10,000,000 characters"),
    ],
)
async def test_what_no_request_can_hold_is_refused_early(
    fields: dict[str, Any], told: str, connect: Connect
) -> None:
    """The result names field and size; short and long road agree."""
    given = {"user_id": "user-1", **fields}
    async with connect() as client:
        by_name = await (await client.track("e", **given))
        by_event = await (await client.track(Event(event_type="e", **given)))

    assert by_name.status is by_event.status is DeliveryStatus.REJECTED
    assert told in by_name.message
    assert by_event.message == by_name.message
    assert len(by_name.message) < 400


async def test_a_mapping_without_an_end_is_refused(connect: Connect) -> None:
    """Whoever wrote the mapping cannot hold up the loop; one that ends is copied."""
    endless = cast("dict[str, Any]", Endless())
    kept = cast("dict[str, Any]", MappingProxyType({"total": 9}))
    async with connect() as client:
        refused = await client.track("Paid", user_id="user-1", event_properties=endless)
        taken = await client.track("Paid", user_id="user-1", event_properties=kept)

    assert "may hold at most 10,000 properties: give a dict" in (await refused).message
    assert (await taken).event.event_properties == {"total": 9}


async def test_names_of_lost_properties_print(
    connect: Connect, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """Line ends and escapes in a key, a type or a class cannot forge a log line."""
    evil = type("A\nERROR root: forged", (), {"__repr__": None})()
    properties = {"a\nERROR root: forged\x1b[2J": evil, "ok": 10**400}
    async with connect() as client:
        await client.track("e\n\x1b[2J", user_id="user-1", event_properties=properties)
        await client.track("f", user_id="user-1", event_properties={"n": {"m": 1}})

    assert [event["event_properties"] for event in emulator.events] == [
        {},
        {"n": {"m": 1}},
    ]
    assert all(record.getMessage().isprintable() for record in caplog.records)


# --- Opt-out ---


async def test_opt_out_needs_no_key(emulator: Emulator) -> None:
    """Development and CI run without a key; every event is accounted for."""
    results: list[Any] = []
    client = Amplitude(
        opt_out=True, server_url=emulator.httpapi_url, callback=results.append
    )
    async with client:
        result = await (await client.track("e", user_id="user-1"))
        assert client.track_nowait("e").done
        with pytest.raises(ConfigurationError, match="needs an api_key"):
            client.opt_out = False

    assert (result.status, result.reason) == (
        DeliveryStatus.DROPPED,
        DropReason.OPT_OUT,
    )
    assert len(results) == 2
    assert client.stats.balanced
    assert client.stats.dropped_by_reason == {DropReason.OPT_OUT: 2}
    assert emulator.requests == []


async def test_opt_out_stops_intake_and_no_more(
    connect: Connect, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """Set at run time it drops new events, skips plugins and sends what waits."""
    seen: list[str] = []

    def spy(event: Event) -> Event:
        seen.append(event.event_type)
        return event

    async with connect(plugins=[spy]) as client:
        waiting = await client.track("waiting", user_id="user-1")
        client.opt_out = True
        assert client.opt_out
        refused = await client.track("refused", user_id="user-1")
        assert (await refused).reason is DropReason.OPT_OUT
        assert (await client.track_nowait("refused")).reason is DropReason.OPT_OUT
        assert (await waiting).ok
        client.opt_out = False
        assert (await (await client.track("again", user_id="user-1"))).ok

    assert seen == ["waiting", "again"]
    assert [event["event_type"] for event in emulator.events] == ["waiting", "again"]
    assert [line for line in caplog.records if line.levelno >= logging.WARNING] == []


# --- After shutdown ---


async def test_verbs_after_shutdown_are_dropped(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """A late background task does not fail because of us."""
    client = connect()
    async with client:
        pass
    late = [
        await client.track("e", user_id="user-1"),
        await client.identify(Identify().set("a", 1), user_id="user-1"),
        await client.revenue(Revenue(price=1), user_id="user-1"),
        await client.identify(Identify()),
        client.track_nowait("e", user_id="user-1"),
    ]

    assert [(await one).reason for one in late] == [DropReason.CLOSED] * 5
    assert client.stats.dropped_by_reason == {DropReason.CLOSED: 5}
    levels = [r.levelno for r in caplog.records if r.levelno >= logging.WARNING]
    assert levels == [logging.WARNING]


async def test_strict_verbs_after_shutdown_raise(connect: Connect) -> None:
    """With strict=True a verb after shutdown is an error of the host's."""
    client = connect(strict=True)
    async with client:
        pass
    with pytest.raises(ClientClosedError, match="before shutdown"):
        await client.track("e", user_id="user-1")
    with pytest.raises(ClientClosedError):
        client.track_nowait("e", user_id="user-1")
    assert client.stats.accepted == 0


# --- A full queue ---


async def test_a_full_queue_sheds_or_raises(
    connect: Connect, emulator: Emulator
) -> None:
    """Policy DROP_NEWEST settles the event at once, RAISE raises and accepts nothing.

    track_nowait never waits: with WAIT it sheds.
    """
    emulator.faults.add(Fault(delay=float("inf"), count=None))
    small: dict[str, Any] = {"max_storage_capacity": 1, "shutdown_timeout": 0.05}
    async with (
        connect(overflow="drop_newest", **small) as shedding,
        connect(overflow="raise", **small) as raising,
        connect(**small) as waiting,
    ):
        for client in (shedding, raising, waiting):
            await client.track("e", user_id="user-1")
        shed = await shedding.track("e", user_id="user-1")
        with pytest.raises(QueueFullError, match="max_storage_capacity=1"):
            await raising.track("e", user_id="user-1")
        with pytest.raises(QueueFullError):
            raising.track_nowait("e", user_id="user-1")
        shed_now = waiting.track_nowait("e", user_id="user-1")
        assert (await shed).reason is DropReason.OVERFLOW
        assert (await shed_now).reason is DropReason.OVERFLOW
        assert raising.stats.accepted == 1


# --- Purge ---


async def test_purge(connect: Connect, emulator: Emulator) -> None:
    """Waiting events of one user, or of all, are given up; the rest is sent."""
    async with connect() as client:
        handles = [
            await client.track("e", user_id=user)
            for user in ("user-1", "user-2", "user-1", "user-3")
        ]
        assert await client.purge("user-1") == 2
        assert await client.purge("nobody") == 0
        assert [one.done for one in handles] == [True, False, True, False]
        assert (await handles[0]).reason is DropReason.PURGED
        await client.flush()
        await client.track("e", user_id="user-4")
        assert await client.purge() == 1

    assert await client.purge() == 0
    assert [event["user_id"] for event in emulator.events] == ["user-2", "user-3"]
