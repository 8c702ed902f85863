"""Bound fields: into which events they go, who sees them, and who never does."""

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import amplitude_async.binding
from amplitude_async import (
    Amplitude,
    DeliveryStatus,
    Event,
    EventOptions,
    Identify,
    IngestionMetadata,
    Plan,
    Revenue,
    TypedEvent,
    bind,
    bindings,
    bound,
)
from amplitude_async.amplitude.compose import compose
from amplitude_async.amplitude.events import EventFields
from amplitude_async.amplitude.filling import filled_fields
from amplitude_async.binding import Fields, Opened, OpenedRequest, Scope
from amplitude_async.testing import CapturedEvents, capture

__all__: list[str] = []

Connect = Callable[..., Amplitude]

USER = "user-00001"
OTHER = "user-00002"


class Paid(TypedEvent):
    """An event described by a class."""

    total: float


@pytest.fixture
def events() -> Iterator[CapturedEvents]:
    """Yield what every client of a test tracks; nothing is sent."""
    with capture() as events:
        yield events


@pytest.fixture
async def client(events: CapturedEvents, connect: Connect) -> AsyncIterator[Amplitude]:
    """Yield a client whose events are seen as soon as they are tracked."""
    async with connect() as client:
        yield client


# Which fields go into an event -----------------------------------------------


async def test_what_is_bound_goes_into_each_kind_of_event(
    client: Amplitude, events: CapturedEvents
) -> None:
    """An event by name, an Event, a typed one and a sale all take it."""
    with bound(user_id=USER, country="Chile", event_properties={"job": "nightly"}):
        await client.track("Named")
        await client.track(Event("Made"))
        await client.track(Paid(total=9.5))
        await client.revenue(Revenue(revenue=9.5))
        client.track_nowait("At Once")

    assert len(events) == 5
    for event in events:
        assert (event["user_id"], event["country"]) == (USER, "Chile")
        assert event["event_properties"]["job"] == "nightly"


async def test_the_nearer_value_wins(client: Amplitude, events: CapturedEvents) -> None:
    """The call, options, the event, the inner scope, the outer one, the config."""
    event = Event("Paid", city="event", region="event", device_id="event")
    options = EventOptions(city="options", region="options")
    with (
        bound(
            carrier="outer", platform="outer", dma="outer", city="outer", region="outer"
        ),
        bound(platform="inner", region="inner", device_id="inner"),
    ):
        await client.track(event, options, city="call", user_id=USER)

    (sent,) = events
    assert {name: sent[name] for name in ("city", "region", "device_id")} == {
        "city": "call",
        "region": "options",
        "device_id": "event",
    }
    assert (sent["platform"], sent["carrier"], sent["dma"]) == (
        "inner",
        "outer",
        "outer",
    )


async def test_what_is_bound_wins_over_the_configuration(
    connect: Connect, events: CapturedEvents
) -> None:
    """Plan and ingestion metadata of the client fill what nobody else has given."""
    options: dict[str, Any] = {
        "plan": Plan(version="config"),
        "ingestion_metadata": IngestionMetadata(source_name="config"),
    }
    async with connect(**options) as client:
        with bound(plan=Plan(version="bound"), user_id=USER):
            await client.track("Paid")
        (sent,) = events
    assert sent["plan"] == {"version": "bound"}
    assert sent["ingestion_metadata"] == {"source_name": "config"}


async def test_dicts_merge_one_level(client: Amplitude, events: CapturedEvents) -> None:
    """Keys of the call win over the inner scope's, and these over the outer one's."""
    with (
        bound(
            user_id=USER,
            event_properties={"a": "outer", "b": "outer", "c": {"deep": 1}},
            user_properties={"plan": "pro"},
            groups={"company": "c-1"},
        ),
        bound(event_properties={"b": "inner"}, groups={"team": "t-1"}),
    ):
        bind(event_properties={"e": "later"})
        await client.track(
            "Paid",
            event_properties={"c": {"other": 2}, "d": "call"},
            user_properties={"seats": 3},
        )

    (sent,) = events
    assert sent["event_properties"] == {
        "a": "outer",
        "b": "inner",
        "c": {"other": 2},
        "d": "call",
        "e": "later",
    }
    assert sent["user_properties"] == {"plan": "pro", "seats": 3}
    assert sent["groups"] == {"company": "c-1", "team": "t-1"}


async def test_none_in_a_call_overwrites_nothing(
    client: Amplitude, events: CapturedEvents
) -> None:
    """As with options, a field that is None was not given."""
    with bound(user_id=USER, event_properties={"job": "nightly"}):
        await client.track("Paid", user_id=None, event_properties=None)
    (sent,) = events
    assert (sent.user_id, sent.properties) == (USER, {"job": "nightly"})


async def test_none_takes_a_bound_field_out(
    client: Amplitude, events: CapturedEvents
) -> None:
    """As after a logout; an outer scope's field is hidden until the block ends."""
    with bound(user_id=USER, device_id="device-1"):
        with bound(user_id=None):
            assert bindings() == {"device_id": "device-1"}
            await client.track("Anonymous")
        assert bindings()["user_id"] == USER
        bind(device_id=None)
        assert bindings() == {"user_id": USER}
    (sent,) = events
    assert "user_id" not in sent.wire


async def test_operations_take_no_properties_of_a_request(
    client: Amplitude, events: CapturedEvents
) -> None:
    """An Identify says itself what it changes; a group's takes no user either."""
    with bound(
        user_id=USER,
        device_id="device-1",
        session_id=1_700_000_000_000,
        country="Chile",
        event_properties={"job": "nightly"},
        user_properties={"theme": "dark"},
        groups={"team": "t-1"},
    ):
        await client.identify(Identify().set("plan", "pro"))
        await client.set_group("company", "c-1")
        await client.group_identify("company", "c-1", Identify().set("seats", 3))

    user, group, other = events
    assert user["user_id"] == group["user_id"] == USER
    assert user["user_properties"] == {"$set": {"plan": "pro"}}
    assert group["user_properties"] == {"$set": {"company": "c-1"}}
    assert group["groups"] == {"company": "c-1"}
    assert other["group_properties"] == {"$set": {"seats": 3}}
    assert {"event_properties", "groups"}.isdisjoint(user.wire)
    assert {"user_id", "device_id", "session_id"}.isdisjoint(other.wire)
    assert {e["country"] for e in (user, group, other)} == {"Chile"}


async def test_objects_of_the_caller_stay_as_they_are(client: Amplitude) -> None:
    """Neither an event nor a dict of the caller takes what is bound."""
    event = Event("Paid", event_properties={"total": 9.5})
    before = event.model_copy(deep=True)
    properties = {"total": 9.5}
    outside = {"job": "nightly"}
    with bound(user_id=USER, event_properties=outside):
        outside["job"] = "changed too late"
        assert bindings()["event_properties"] == {"job": "nightly"}
        bindings()["event_properties"]["job"] = "a copy"
        await client.track(event)
        await client.track("Paid", event_properties=properties)
        assert bindings()["event_properties"] == {"job": "nightly"}
    assert event == before
    assert event.model_fields_set == before.model_fields_set
    assert properties == {"total": 9.5}


async def test_plugins_see_what_is_bound(
    connect: Connect, events: CapturedEvents
) -> None:
    """A plugin that scrubs must see all that would go out."""
    seen = []

    def scrub(event: Event) -> Event:
        seen.append((event.user_id, dict(event.event_properties or {})))
        event.event_properties = {}
        return event

    async with connect(plugins=[scrub]) as client:
        with bound(user_id=USER, event_properties={"secret": 1}):
            await client.track("Named")
            await client.track(Event("Made"))
            assert bindings()["event_properties"] == {"secret": 1}
    assert seen == [(USER, {"secret": 1})] * 2
    assert [event.wire["event_properties"] for event in events] == [{}, {}]


VALUES = {
    "user_id": st.sampled_from([USER, OTHER, None]),
    "device_id": st.sampled_from(["device-1", "device-2"]),
    "ip": st.just("10.0.0.1"),
    "time": st.just(1_700_000_000_123),
    "session_id": st.sampled_from([0, 10**12]),
    "price": st.sampled_from([0.0, -9.5, 1e300]),
    "product_id": st.just("p-1"),
    "groups": st.sampled_from([{}, {"a": "g"}, {"a": "h", "b": "g"}]),
    "event_properties": st.sampled_from([{}, {"a": 1}, {"a": 2, "b": 3}, {"c": 4}]),
    "user_properties": st.sampled_from([{}, {"a": ""}, {"a": "x", "b": "y"}]),
}
ANY_FIELDS = st.fixed_dictionaries({}, optional=VALUES)


@given(
    fields=ANY_FIELDS,
    inside=ANY_FIELDS,
    event_type=st.sampled_from(["Paid", "$identify", "$groupidentify"]),
)
def test_all_roads_fill_alike(
    fields: dict[str, Any], inside: dict[str, Any], event_type: str
) -> None:
    """By name or by Event: what comes out is what the rule of merging says."""
    inside.pop("time", None)
    taken = Fields({name: value for name, value in inside.items() if value is not None})
    wanted = dict(taken)
    if event_type != "Paid":
        for name in ("event_properties", "user_properties", "groups"):
            wanted.pop(name, None)
    if event_type == "$groupidentify":
        for name in ("user_id", "device_id", "session_id"):
            wanted.pop(name, None)
    for name, value in fields.items():
        if isinstance(value, dict) and name in wanted:
            wanted[name] = {**wanted[name], **value}
        elif value is not None:
            wanted[name] = value
    expected = Event(event_type, **wanted).to_wire()

    filled = filled_fields(event_type, fields, taken)
    by_short_road = {name: value for name, value in filled.items() if value is not None}
    if fields.get("user_id", "") is not None:
        assert Event(event_type, **by_short_road).to_wire() == expected
    assert (
        compose(event_type, None, cast("EventFields", fields), taken).to_wire()
        == expected
    )
    made = Event(event_type, **fields)
    assert compose(made, None, EventFields(), taken).to_wire() == expected


FEW: dict[str, st.SearchStrategy[Any]] = {
    "user_id": st.sampled_from([USER, OTHER, None]),
    "groups": st.sampled_from([{"a": "g"}, {"a": "h"}, {"b": "g"}, None]),
}
FEW_FIELDS = st.fixed_dictionaries({}, optional=FEW)


@given(
    opened=st.tuples(FEW_FIELDS, FEW_FIELDS),
    put=st.lists(st.tuples(st.integers(0, 1), FEW_FIELDS, st.booleans()), max_size=6),
)
def test_binding_is_the_same_in_whatever_order_one_looks(
    opened: tuple[dict[str, Any], dict[str, Any]],
    put: list[tuple[int, dict[str, Any], bool]],
) -> None:
    """What each of two scopes binds is laid over what it has, and then over the outer.

    Whether somebody looked between two of them changes nothing.
    """
    own = [dict(fields) for fields in opened]
    with Opened(opened[0]) as outer, Opened(opened[1]) as inner:
        for place, fields, looks in put:
            own[place] = _laid(own[place], fields)
            (outer, inner)[place].put(fields)
            if looks:
                assert inner.fields == _bound(_laid(_bound(own[0]), own[1]))
        assert outer.fields == _bound(own[0])
        assert inner.fields == _bound(_laid(_bound(own[0]), own[1]))
        assert set(inner.fields.merging) == {"groups"} & inner.fields.keys()


def _laid(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay fields over others, as the rule says it and no faster."""
    laid = {**below, **above}
    if below.get("groups") and above.get("groups"):
        laid["groups"] = {**below["groups"], **above["groups"]}
    return laid


def _bound(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def test_what_a_scope_was_opened_with_is_not_changed_from_outside() -> None:
    """The dict that was given may be used for something else."""
    given = {"user_id": USER}
    with Opened(given):
        given["user_id"] = OTHER
        assert bindings() == {"user_id": USER}


def test_a_scope_opened_alone_sees_nothing_around_it() -> None:
    """Such is a job, which may run where it was sent from; its end leaves no trace."""
    with Opened({"user_id": USER}):
        with Opened({"device_id": "device-1"}, alone=True) as scope:
            bind(country="Chile")
            assert bindings() == {"device_id": "device-1", "country": "Chile"}
        assert bindings() == {"user_id": USER}
        assert scope.fields["country"] == "Chile"


def test_a_scope_can_be_entered_again() -> None:
    """A stream goes on in the scope of its request, wherever it is read."""
    with Opened({"user_id": USER}) as scope:
        pass
    with scope.entered():
        bind(country="Chile")
    assert bindings() == {}
    assert scope.fields == {"user_id": USER, "country": "Chile"}


# Bad input -------------------------------------------------------------------


def test_a_name_that_is_no_field_is_refused_at_once() -> None:
    """With a hint at the one that was meant, and nothing is bound."""
    with pytest.raises(TypeError, match="user_id"):
        bind(user_ids=USER)  # type: ignore[call-arg]  # that is what is tested
    with pytest.raises(TypeError, match="event_type"):
        bound(event_type="Paid")  # type: ignore[call-arg]  # as above
    assert bindings() == {}


@pytest.mark.parametrize("name", ["time", "insert_id"])
def test_what_makes_an_event_the_one_it_is_cannot_be_bound(name: str) -> None:
    """Two events with one insert_id would be one to the server."""
    fields: Any = {name: 1_700_000_000_000}
    with pytest.raises(TypeError, match=f"{name} cannot be bound"):
        bind(**fields)
    with pytest.raises(TypeError, match=f"{name} cannot be bound"):
        bound(**fields)


@pytest.mark.parametrize("kind", ["name", "event"])
async def test_a_bad_bound_id_rejects_the_event(client: Amplitude, kind: str) -> None:
    """The message names field and value; the verb does not raise."""
    with bound(user_id=object()):  # type: ignore[arg-type]  # that is what is tested
        delivery = await client.track("Paid" if kind == "name" else Event("Paid"))
        result = await delivery
    assert result.status is DeliveryStatus.REJECTED
    assert "user_id" in result.message


@pytest.mark.parametrize("kind", ["name", "event"])
async def test_an_event_goes_without_other_bad_bound_values(
    client: Amplitude, events: CapturedEvents, kind: str
) -> None:
    """As without a scope: the value is lost and counted, the event is sent."""
    wrong: Any = {"quantity": "many", "price": "high", "country": "Chile"}
    with bound(user_id=USER, **wrong):
        await client.track("Paid" if kind == "name" else Event("Paid"))
    (sent,) = events
    assert sent["country"] == "Chile"
    assert {"quantity", "price"}.isdisjoint(sent.wire)
    assert client.stats.losses == 2


async def test_a_strict_client_raises_for_bad_bound_values(connect: Connect) -> None:
    """As it does for the values of a call."""
    wrong: Any = {"quantity": "many"}
    async with connect(strict=True) as client:
        with bound(user_id=USER, **wrong), pytest.raises(ValueError, match="quantity"):
            await client.track("Paid")


# Who sees what is bound ------------------------------------------------------


def test_nothing_is_left_behind_a_block() -> None:
    """Whatever the block does and however it is left."""

    def work() -> None:
        with bound(user_id=USER):
            bind(device_id="device-1")
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert bindings() == {}


async def test_the_request_sees_what_its_parts_bind() -> None:
    """A coroutine, a child task and a function in a thread bind for all of it."""

    async def dependency() -> None:
        bind(user_id=USER)

    with Opened():
        await dependency()
        await asyncio.create_task(asyncio.to_thread(bind, device_id="device-1"))
        await asyncio.create_task(_bind_in_task(country="Chile"))
        assert bindings() == {
            "user_id": USER,
            "device_id": "device-1",
            "country": "Chile",
        }


async def _bind_in_task(**fields: Any) -> None:
    bind(**fields)


async def test_a_task_keeps_its_scope_after_the_end_of_the_request(
    client: Amplitude, events: CapturedEvents
) -> None:
    """A task that a handler leaves behind still tracks for the same user."""
    go_on = asyncio.Event()

    async def mail() -> None:
        await go_on.wait()
        await client.track("Mailed")

    with Opened():
        bind(user_id=USER)
        left = asyncio.create_task(mail())
    go_on.set()
    await left
    events.assert_tracked("Mailed", user_id=USER, times=1)


async def test_an_inner_block_sees_what_is_bound_outside_meanwhile() -> None:
    """A task beside it belongs to the same request."""
    with Opened():
        outside = contextvars.copy_context()
        with bound(user_id=USER):
            outside.run(bind, country="Chile")
            assert bindings() == {"user_id": USER, "country": "Chile"}
        assert bindings() == {"country": "Chile"}


async def test_requests_that_run_at_once_never_meet(
    client: Amplitude, events: CapturedEvents
) -> None:
    """A thousand interleaved, each with parts in tasks and threads."""

    async def request(number: int) -> None:
        with Opened({"event_properties": {"number": number}}):
            await asyncio.sleep(0)
            if number % 50:
                bind(user_id=f"user-{number:05d}")
            else:
                await asyncio.to_thread(bind, user_id=f"user-{number:05d}")
            await asyncio.sleep(0)
            await client.track("In Handler")
            await asyncio.create_task(_track(client, "In Task"))

    await asyncio.gather(*map(request, range(1000)))
    assert len(events) == 2000
    for event in events:
        number = event["event_properties"]["number"]
        assert event["user_id"] == f"user-{number:05d}"


async def _track(client: Amplitude, event_type: str) -> None:
    await asyncio.sleep(0)
    await client.track(event_type)


async def test_without_a_scope_a_task_binds_for_itself_alone() -> None:
    """A handler without a middleware must not name its user for the one beside it."""
    bind(country="Chile")
    try:
        first = asyncio.create_task(_bind_in_task(user_id=USER))
        await first
        assert bindings() == {"country": "Chile"}
        bind(city="Lima")
        assert bindings() == {"country": "Chile", "city": "Lima"}
    finally:
        bind(country=None, city=None)
    assert bindings() == {}


async def test_many_binds_without_a_scope_make_no_chain() -> None:
    """A task may bind for as long as it lives."""
    for number in range(10_000):
        bind(user_id=f"user-{number}")
    assert bindings() == {"user_id": "user-9999"}
    bind(user_id=None)


def test_a_block_around_a_server_is_not_bound_by_its_requests() -> None:
    """What lies around all requests takes nothing from any of them."""

    async def serve() -> None:
        await asyncio.create_task(_bind_in_task(user_id=USER))
        assert bindings() == {"platform": "Server"}

    with bound(platform="Server"):
        asyncio.run(serve())
        bind(country="Chile")
        assert bindings() == {"platform": "Server", "country": "Chile"}


def test_a_block_around_a_server_is_not_bound_by_its_threads() -> None:
    """A plain dependency runs in a pool: its user is not everybody's."""

    async def serve() -> None:
        await asyncio.to_thread(bind, user_id=USER)
        asyncio.get_running_loop().call_soon(lambda: bind(device_id="device-1"))
        await asyncio.sleep(0)
        assert bindings() == {"platform": "Server"}

    with bound(platform="Server"):
        asyncio.run(serve())
        assert bindings() == {"platform": "Server"}


async def test_a_block_in_a_block_may_be_entered_without_end() -> None:
    """A job that starts its next run from within its own block lives for long."""
    last: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    tasks = set()

    async def run(number: int) -> None:
        await asyncio.sleep(0)  # a task that starts at once would run within its maker
        with bound(event_properties={"run": number}):
            if number == 3000:
                last.set_result(bindings())
                return
            task = asyncio.create_task(run(number + 1))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    with bound(user_id=USER):
        await run(0)
    assert await last == {"user_id": USER, "event_properties": {"run": 3000}}
    gc.collect()
    scopes = [one for one in gc.get_objects() if type(one) is Scope]
    assert len(scopes) < 200


async def test_a_request_lies_in_no_other() -> None:
    """Servers may start one in the context that another has left, or is still in."""
    with (
        bound(platform="Server"),
        OpenedRequest({}, {"user_id": USER}, owns_context=True),
    ):
        bind(device_id="device-1")
        with bound(country="Chile"), OpenedRequest({}, owns_context=True):
            assert bindings() == {"platform": "Server"}
            bind(user_id=OTHER)
        assert bindings()["user_id"] == USER


async def test_middlewares_of_one_request_lie_in_each_other() -> None:
    """What the outer one bound is of the same request."""
    request: dict[str, Any] = {}
    with (
        OpenedRequest(request, {"user_id": USER}, owns_context=True),
        bound(city="Lima"),
    ):
        with OpenedRequest(request, {"device_id": "d-1"}, owns_context=True):
            expected = {"user_id": USER, "city": "Lima", "device_id": "d-1"}
            assert bindings() == expected
        assert bindings() == {"user_id": USER, "city": "Lima"}


@pytest.mark.parametrize("owns_context", [True, False])
async def test_what_has_no_scope_is_the_requests_if_the_context_is(
    owns_context: bool,
) -> None:
    """Else it may be what an earlier request of the same thread has left there."""

    def request() -> dict[str, Any]:
        bind(country="Chile")
        with OpenedRequest({}, owns_context=owns_context):
            return bindings()

    found = contextvars.Context().run(request)
    assert found == ({"country": "Chile"} if owns_context else {})


def test_a_request_of_a_thread_sees_what_its_tasks_bind() -> None:
    """Such is an async view under a threaded server: it has a loop of its own."""
    with Opened():
        asyncio.run(_bind_in_task(user_id=USER))
        assert bindings() == {"user_id": USER}


def test_a_scope_left_in_another_context_ends_everywhere() -> None:
    """A generator may be entered in one thread and left in another, as some are."""

    @contextmanager
    def dependency() -> Iterator[None]:
        with bound(user_id=USER):
            yield

    here, there = contextvars.copy_context(), contextvars.copy_context()
    made = dependency()
    here.run(made.__enter__)
    assert here.run(bindings) == {"user_id": USER}
    inner = contextvars.Context()
    there.run(made.__exit__, None, None, None)
    assert here.run(bindings) == inner.run(bindings) == {}
    here.run(bind, country="Chile")
    assert here.run(bindings) == {"country": "Chile"}


def test_a_block_can_be_entered_once_at_a_time() -> None:
    """The second would take the first one's way out."""
    block = bound(user_id=USER)
    with block, pytest.raises(RuntimeError, match="open"):
        block.__enter__()
    with pytest.raises(RuntimeError, match="not open"):
        block.__exit__(None, None, None)
    with block:
        assert bindings() == {"user_id": USER}


def test_threads_that_bind_at_once_lose_nothing() -> None:
    """Functions in a thread pool may bind for one request at the same time."""

    def put(context: contextvars.Context, number: int) -> None:
        for part in range(50):
            properties = {f"{number}-{part}": part}
            context.run(bind, event_properties=properties)

    with Opened():
        threads = [
            threading.Thread(target=put, args=(contextvars.copy_context(), number))
            for number in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(bindings()["event_properties"]) == 400


async def test_a_waiting_event_holds_no_scope(client: Amplitude) -> None:
    """What a request bound goes with the request, however long its events wait."""
    opened = Opened({"user_id": USER})
    with opened as scope:
        seen = _Seen()
        scope.put({"extra": {"of the request": seen}})
        watched = weakref.ref(seen)
        del scope, seen
        await client.track("Paid")
    del opened
    gc.collect()
    assert watched() is None


class _Seen:
    """Something that can be watched."""


def test_a_scope_shows_no_value() -> None:
    """Ids belong in no repr, which may be logged."""
    with Opened({"user_id": USER}) as scope:
        assert USER not in repr(scope)
    assert amplitude_async.binding.fields_here() is None
