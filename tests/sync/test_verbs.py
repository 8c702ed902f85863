"""The verbs of the asyncio client, without await."""

import asyncio
import contextvars
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from amplitude_async import (
    AmplitudeError,
    ConfigurationError,
    DropReason,
    EnrichmentPlugin,
    Event,
    EventOptions,
    Identify,
    Revenue,
    bound,
)
from amplitude_async.emulator import Emulator
from amplitude_async.sync import SyncAmplitude, SyncMParticle

__all__: list[str] = []

KEY = "canary-0123456789abcdef"
Connect = Callable[..., SyncAmplitude]


def test_every_verb_sends_what_its_asynchronous_twin_does(
    connect: Connect, server: Emulator
) -> None:
    """Types, properties and groups are made by the same code."""
    client = connect()
    handles = [
        client.track("Paid", user_id="user-1", event_properties={"total": 9.5}),
        client.track(Event(event_type="Made", user_id="user-1")),
        client.track("With", EventOptions(user_id="user-1", country="DE")),
        client.identify(Identify().set("plan", "pro"), user_id="user-1"),
        client.group_identify("org", "acme", Identify().set("seats", 3)),
        client.set_group("org", "acme", user_id="user-1"),
        client.revenue(Revenue(revenue=9.5), user_id="user-1"),
    ]

    assert all(handle.result(10).ok for handle in handles)
    assert [event["event_type"] for event in server.events] == [
        *("Paid", "Made", "With", "$identify", "$groupidentify", "$identify"),
        "revenue_amount",
    ]
    assert server.events[0]["event_properties"] == {"total": 9.5}
    assert server.events[4]["group_properties"] == {"$set": {"seats": 3}}
    assert [h.insert_id for h in handles] == [e["insert_id"] for e in server.events]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda c: c.track("e", usr_id="user-1"), "usr_id"),
        (lambda c: c.track(3), "event=3"),
        (lambda c: c.track("e", {"a": 1}), "event_properties="),
        (lambda c: c.identify("plan"), "identify='plan'"),
        (lambda c: c.revenue(3.5), "revenue=3.5"),
        (lambda c: c.set_group("a", "b", groups={"c": "d"}), "groups"),
    ],
)
def test_a_wrong_argument_raises_at_the_call(
    wrong: Callable[[Any], Any], told: str, connect: Connect
) -> None:
    """What no data can cause raises where it is written."""
    client = connect()

    with pytest.raises(TypeError, match=told):
        wrong(client)

    assert client.stats.accepted == 0


@pytest.mark.parametrize(
    "bad",
    [
        lambda c: c.track("e"),
        lambda c: c.track("e", user_id="user-1", time="soon"),
        lambda c: c.track("e", user_id="42"),
        lambda c: c.identify(Identify(), user_id="user-1"),
        lambda c: c.revenue(Revenue(), user_id="user-1"),
    ],
)
def test_a_bad_value_is_rejected_in_words(
    bad: Callable[[Any], Any], connect: Connect
) -> None:
    """Values become a result, as with the asyncio client."""
    client = connect()
    handle = bad(client)

    result = handle.result(10)

    assert (result.status, result.ok) == ("rejected", False) or result.ok
    assert result.insert_id == handle.insert_id
    assert client.stats.accepted == 1


def test_what_the_caller_changes_later_stays_outside(
    connect: Connect, server: Emulator
) -> None:
    """Nested objects are read before the verb returns, with plugins and without."""
    seen = []

    def look(event: Event) -> Event:
        seen.append(event.event_properties)
        return event

    for client in (connect(), connect(plugins=[look])):
        inner: dict[str, Any] = {"a": [1], "when": datetime(2026, 1, 2, tzinfo=UTC)}
        made = Event(event_type="e", user_id="user-1", event_properties={"in": inner})
        client.track("e", user_id="user-1", event_properties={"in": inner})
        client.track(made)
        inner["a"].append(2)
        inner["b"] = 3
        client.flush()

    expected = {"in": {"a": [1], "when": "2026-01-02T00:00:00+00:00"}}
    assert [event["event_properties"] for event in server.events] == [expected] * 4
    assert seen == [expected] * 2


def test_bound_fields_are_those_of_the_calling_thread(
    connect: Connect, server: Emulator
) -> None:
    """An event takes what is bound where it is tracked."""
    client = connect()

    def request(user: str) -> None:
        with bound(user_id=user, event_properties={"path": "/"}):
            client.track("Seen")
            client.track(Event(event_type="Made"))

    for user in ("user-1", "user-2"):
        contextvars.Context().run(request, user)
    client.flush()

    found = [(e["user_id"], e["event_properties"]) for e in server.events]
    assert found == [
        (user, {"path": "/"}) for user in ("user-1", "user-1", "user-2", "user-2")
    ]


async def test_on_a_loop_the_asynchronous_client_is_named(emulator: Emulator) -> None:
    """A verb on the thread of a running loop raises and says what to use."""
    client = SyncAmplitude("key", server_url=emulator.httpapi_url)
    for verb in (
        lambda: client.track("e", user_id="user-1"),
        lambda: client.identify(Identify().set("a", 1), user_id="user-1"),
        client.flush,
        client.shutdown,
        client.start,
        client.purge,
    ):
        with pytest.raises(AmplitudeError, match="use Amplitude there, and await"):
            verb()
    delivery = await asyncio.to_thread(client.track, "e", user_id="user-1")
    with pytest.raises(AmplitudeError, match="use Amplitude there"):
        delivery.result()

    assert (await asyncio.to_thread(delivery.result, 10)).ok
    assert delivery.result().ok  # waits for nothing
    await asyncio.to_thread(client.shutdown)


def test_plugins_run_for_each_event_in_order(
    connect: Connect, server: Emulator
) -> None:
    """A plugin may await; the order of a user's events stays."""

    class Slow(EnrichmentPlugin):
        """Waits for each event, for the later ones less."""

        name = "slow"

        async def execute(self, event: Event) -> Event | None:
            number = (event.event_properties or {})["n"]
            await asyncio.sleep(0.01 / (number + 1))
            return None if number == 3 else event

    client = connect(plugins=[Slow()])
    handles = [
        client.track("e", user_id=f"user-{n % 2}", event_properties={"n": n})
        for n in range(8)
    ]
    stats = client.stats

    assert (stats.accepted, stats.balanced) == (8, True)
    results = [handle.result(10) for handle in handles]
    assert results[3].reason is DropReason.PLUGIN
    for user in ("user-0", "user-1"):
        sent = [
            e["event_properties"]["n"] for e in server.events if e["user_id"] == user
        ]
        assert sent == sorted(sent)


def test_plugins_come_and_go(connect: Connect, server: Emulator) -> None:
    """``add`` and ``remove`` take effect for the events after them."""

    def mark(event: Event) -> Event:
        return event.model_copy(update={"country": "DE"})

    client = connect()
    client.track("before", user_id="user-1")
    assert client.add(mark) is client
    client.track("between", user_id="user-1")
    client.flush()
    client.remove("mark")
    client.track("after", user_id="user-1")
    client.flush()

    assert [event.get("country") for event in server.events] == [None, "DE", None]
    with pytest.raises(ValueError, match="no plugin named"):
        client.remove("mark")


def test_a_setup_that_raises_is_told_to_the_first_caller(connect: Connect) -> None:
    """As with the asyncio client: the verb that starts raises, and accepts nothing."""

    class Broken(EnrichmentPlugin):
        """Cannot be set up."""

        name = "broken"

        async def setup(self, _: Any) -> None:
            raise LookupError("no database")

    client = connect(plugins=[Broken()])

    with pytest.raises(LookupError, match="no database"):
        client.track("e", user_id="user-1")
    with pytest.raises(LookupError, match="no database"), client:
        pass
    assert client.stats.accepted == 0


def test_opt_out_purge_and_settings(connect: Connect, server: Emulator) -> None:
    """The rest of the asyncio client's members are here too."""
    client = connect(flush_interval=3600.0)
    client.track("first", user_id="user-1").result(10)
    waiting = client.track("waits", user_id="user-1")

    assert client.config.flush_interval == 3600.0
    assert client.purge("user-1") == 1
    assert waiting.result(1).reason is DropReason.PURGED
    client.opt_out = True
    assert client.track("out", user_id="user-1").result(1).reason is DropReason.OPT_OUT
    assert client.opt_out
    client.opt_out = False
    assert client.track("in", user_id="user-1").result(10).ok
    assert "secret" not in repr(client)


def test_the_environment_configures(
    monkeypatch: pytest.MonkeyPatch, server: Emulator
) -> None:
    """``from_env`` reads what the asyncio client reads."""
    monkeypatch.setenv("AMPLITUDE_API_KEY", "key")
    monkeypatch.setenv("AMPLITUDE_SERVER_URL", server.httpapi_url)

    with SyncAmplitude.from_env(trust_env=False) as client:
        assert client.track("e", user_id="user-1").result(10).ok
    monkeypatch.delenv("AMPLITUDE_API_KEY")
    with pytest.raises(ConfigurationError, match="api_key is missing"):
        SyncAmplitude.from_env()


@pytest.mark.parametrize(
    "make",
    [
        lambda: SyncAmplitude(KEY, flush_queue_size=-1, headers={"X-Key": KEY}),
        lambda: SyncAmplitude.from_env(api_key=KEY, flush_queue_size=-1),
        lambda: SyncMParticle(KEY, KEY, flush_queue_size=-1, headers={"X-Key": KEY}),
        lambda: SyncMParticle.from_env(api_key=KEY, flush_queue_size=-1),
    ],
)
def test_no_traceback_shows_a_key(make: Callable[[], Any]) -> None:
    """Not even that of a wrong option, with the local variables of each frame."""
    with pytest.raises(ConfigurationError, match="flush_queue_size") as caught:
        make()

    frames = traceback.walk_tb(caught.value.__traceback__)
    ours = [f for f, _ in frames if "amplitude_async" in f.f_globals["__name__"]]
    assert len(ours) > 2
    assert [f for f in ours if KEY in repr(f.f_locals)] == []


def test_opting_out_wins_over_a_bad_value(connect: Connect) -> None:
    """Nobody looks at an event that nobody wants, strictly or not."""
    client = connect(opt_out=True, strict=True)

    assert client.track("e", user_id="42").result(1).reason is DropReason.OPT_OUT
