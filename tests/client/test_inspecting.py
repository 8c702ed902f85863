"""What a client rejects or drops by itself, told to an emulator on this machine."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from amplitude_async import Amplitude, BeforePlugin, DestinationPlugin, Event
from amplitude_async.client import inspecting
from amplitude_async.emulator import Emulator, Fault, Seen
from amplitude_async.mparticle import Batch, BatchError, CustomEvent, MParticle
from amplitude_async.sync import SyncAmplitude
from tests.conftest import Endless

__all__: list[str] = []


@pytest.fixture
def inspected(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """Give an emulator that every client is to tell."""
    monkeypatch.setenv("AMPLITUDE_INSPECT", emulator.url)
    # A busy machine is slow, and is not what these tests are about.
    monkeypatch.setattr(inspecting, "_LAST_SECONDS", 20.0)
    monkeypatch.setattr(inspecting, "_REQUEST_SECONDS", 20.0)
    return emulator


class Failing(DestinationPlugin):
    """Takes no event."""

    name = "failing"

    def execute(self, event: Event) -> None:  # noqa: ARG002 - the name that is called
        """Raise."""
        msg = "the disk is full"
        raise OSError(msg)


class Dropping(BeforePlugin):
    """Drops every event."""

    name = "dropping"

    def execute(self, event: Event) -> Event | None:  # noqa: ARG002 - the name that is called
        """Drop it."""
        return None


def told(emulator: Emulator) -> list[Seen]:
    """Return what clients have told."""
    return [seen for seen in emulator._book.ledger().log.since(0) if seen.local]  # noqa: SLF001 - no other view of it


async def test_a_rejection_at_the_door_is_told(inspected: Emulator) -> None:
    """The event with its reason, though it never came."""
    async with Amplitude("key", server_url=inspected.httpapi_url) as client:
        await client.track("Paid", user_id="1", event_properties={"total": 9.5})
        await client.track("Seen", user_id="user-1")
    (seen,) = told(inspected)
    assert (seen.name, seen.user_id, seen.verdict) == ("Paid", "1", "rejected")
    assert seen.event["event_properties"] == {"total": 9.5}
    assert "user_id" in seen.reason
    assert abs(seen.received_at - time.time()) < 60
    assert [event["event_type"] for event in inspected.events] == ["Seen"]
    assert (client.stats.accepted, client.stats.rejected) == (2, 1)


async def test_nothing_is_told_without_the_variable(emulator: Emulator) -> None:
    """It is never on by itself."""
    async with Amplitude("key", server_url=emulator.httpapi_url) as client:
        await client.track("Paid", user_id="1")
    assert told(emulator) == []


async def test_drops_are_told(inspected: Emulator) -> None:
    """By a plugin, by opt_out, and after the shutdown had begun."""
    url = inspected.httpapi_url
    async with Amplitude("key", server_url=url, plugins=[Dropping()]) as client:
        await client.track("By a plugin", user_id="user-1")
    async with Amplitude("key", server_url=url, opt_out=True) as client:
        await client.track("By opt_out", user_id="user-1")
    reasons = {seen.name: seen.reason for seen in told(inspected)}
    assert reasons["By a plugin"].startswith("plugin: dropped by plugin 'dropping'")
    assert reasons["By opt_out"].startswith("opt_out:")
    assert {seen.verdict for seen in told(inspected)} == {"dropped"}


async def test_what_a_plain_destination_rejects_is_told(inspected: Emulator) -> None:
    """Beside what the server stored, also where it happens while the client closes."""
    url = inspected.httpapi_url
    async with Amplitude("key", server_url=url, plugins=[Failing()]) as client:
        await client.track("Stored", user_id="user-1")
        await client.track("Refused by the client", user_id="1")
    found = [(seen.name, seen.verdict) for seen in told(inspected)]
    assert sorted(found) == [
        ("Refused by the client", "rejected"),
        ("Stored", "rejected"),
    ]
    (reason,) = (seen.reason for seen in told(inspected) if seen.name == "Stored")
    assert reason.startswith("plugin 'failing' raised OSError")
    assert [event["event_type"] for event in inspected.events] == ["Stored"]


async def test_waiting_events_that_are_given_up_are_told(inspected: Emulator) -> None:
    """Purged ones and those that shutdown leaves, as they would have been sent."""
    inspected.faults.add(Fault(503, count=None))
    async with Amplitude("key", server_url=inspected.httpapi_url) as client:
        await client.track("Purged", user_id="user-1")
        await client.purge()
        await client.track("Left", user_id="user-1")
        await client.shutdown(0.01)
    found = {seen.name: seen for seen in told(inspected)}
    assert found["Purged"].reason.startswith("purged:")
    assert found["Left"].reason.startswith("shutdown:")
    assert found["Left"].event["insert_id"]


async def test_what_a_server_says_is_not_told_again(inspected: Emulator) -> None:
    """The emulator knows it from the request."""
    inspected.faults.add(Fault.invalid_key(count=None))
    async with Amplitude("key", server_url=inspected.httpapi_url) as client:
        result = await (await client.track("Paid", user_id="user-1"))
        assert result.code == 400
        assert told(inspected) == []
        # From now on events end here: the server refuses all of them.
        await client.track("Refused", user_id="user-1")
    assert [seen.name for seen in told(inspected)] == ["Refused"]


async def test_a_batch_is_told_as_it_would_be_sent(inspected: Emulator) -> None:
    """An mParticle client has the same variable."""
    batch = Batch(
        environment="development",
        user_identities={"customer_id": "user-7"},
        events=[CustomEvent(event_name="Paid", custom_event_type="other")],
    )
    client = MParticle("key", "secret", base_url=inspected.mparticle_url, opt_out=True)
    async with client:
        await client.send(batch)
    (seen,) = told(inspected)
    assert (seen.unit, seen.verdict) == ("batch", "dropped")
    assert seen.event["events"][0]["data"]["event_name"] == "Paid"


def made(**fields: Any) -> Batch:
    """Give a batch, with other fields."""
    known: dict[str, Any] = {
        "environment": "development",
        "user_identities": {"customer_id": "user-7"},
        "events": [CustomEvent(event_name="Paid", custom_event_type="other")],
    }
    return Batch(**(known | fields))


async def test_batches_that_an_upload_refuses_are_told(inspected: Emulator) -> None:
    """What raises before anything is sent, by each of the three ways."""
    attributes: dict[str, Any] = {f"a{number}": "x" * 900 for number in range(200)}
    async with MParticle("key", "secret", base_url=inspected.mparticle_url) as client:
        with pytest.raises(BatchError):
            await client.upload(made(user_attributes=attributes))
        with pytest.raises(BatchError):
            await client.upload_many([made(), made(user_attributes=attributes)])
        with pytest.raises(BatchError):
            await client.upload_historical([made()])
        await client.upload(made())
    reasons = [seen.reason for seen in told(inspected)]
    assert len(reasons) == 3
    assert {seen.verdict for seen in told(inspected)} == {"rejected"}
    assert "user_attributes has 200" in reasons[0]
    assert reasons[0] == reasons[1]
    assert "timestamp_unixtime_ms" in reasons[2]
    assert len(inspected.batches) == 1


async def test_uploads_that_nobody_answered_are_told(inspected: Emulator) -> None:
    """Opted out, or given up: those that the server answered are its own to show."""
    url = inspected.mparticle_url
    async with MParticle("key", "secret", base_url=url, opt_out=True) as client:
        await client.upload(made(source_request_id="opted"))
        await client.upload_many([made(source_request_id="opted too")])
    inspected.faults.add("broken")
    async with MParticle("key", "secret", base_url=url, flush_max_retries=0) as client:
        (answered,) = await client.upload_many([made()])
        inspected.faults.add(Fault(hang_up="before", count=None))
        (lost,) = await client.upload_many([made(source_request_id="lost")])
    assert (answered.status, lost.status) == (500, 0)
    found = {seen.event["source_request_id"]: seen.reason for seen in told(inspected)}
    assert list(found) == ["opted", "opted too", "lost"]
    assert found["opted"].startswith("opt_out:")
    assert found["lost"].startswith("retries:")


def test_synchronous_clients_tell_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the loop's thread; the caller's has nothing to do with it."""
    with Emulator() as emulator:
        monkeypatch.setenv("AMPLITUDE_INSPECT", emulator.url)
        with SyncAmplitude("key", server_url=emulator.httpapi_url) as client:
            client.track("Paid", user_id="1")
        assert [seen.name for seen in told(emulator)] == ["Paid"]


@pytest.mark.parametrize(
    "value",
    [
        "http://emulator.example:8080",
        "https://127.0.0.1:8080",
        "http://10.0.0.1:8080",
        "http://user:hunter2@127.0.0.1:8080",
        "http://127.0.0.1:8080/path",
        "http://127.0.0.1:8080?token=hunter2",
        "http://127.0.0.1:99999",
        "http://127.0.0.1.example",
        "http://[::1",
        "127.0.0.1:8080",
        "yes",
    ],
)
async def test_only_this_machine_is_told(
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    value: str,
) -> None:
    """Anything else is named in a warning, without what is secret, and not tried."""
    monkeypatch.setenv("AMPLITUDE_INSPECT", value)
    async with Amplitude("key", server_url=emulator.httpapi_url) as client:
        delivery = await client.track("Seen", user_id="user-1")
        assert (await delivery).ok
    (line,) = [one for one in caplog.messages if "AMPLITUDE_INSPECT" in one]
    assert "http://127.0.0.1:8080" in line
    assert "hunter2" not in caplog.text
    assert not client._own.observers.hear_ends  # noqa: SLF001 - nobody else knows


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("http://LOCALHOST:1", "http://localhost:1"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://127.9.9.9", "http://127.9.9.9"),
    ],
)
def test_addresses_of_this_machine_are_taken(value: str, url: str) -> None:
    """By name or by number."""
    assert inspecting._emulator_at(value) == url  # noqa: SLF001 - without a network


async def test_an_absent_emulator_costs_nothing(
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One line says so, and events go on as ever."""
    async with Emulator() as gone:
        url = gone.url
    monkeypatch.setenv("AMPLITUDE_INSPECT", url)
    async with Amplitude("key", server_url=emulator.httpapi_url) as client:
        for _ in range(3):
            await client.track("Paid", user_id="1")
        delivery = await client.track("Seen", user_id="user-1")
        assert (await delivery).ok
    assert len([one for one in caplog.messages if "was not told" in one]) == 1
    assert (client.stats.rejected, client.stats.delivered) == (3, 1)


async def test_a_stuck_emulator_delays_nobody(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither an event nor, for long, the shutdown."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    monkeypatch.setattr(inspecting, "_LAST_SECONDS", 0.01)
    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("AMPLITUDE_INSPECT", f"http://127.0.0.1:{port}")
    async with asyncio.timeout(5):
        async with Amplitude("key", server_url=emulator.httpapi_url) as client:
            await client.track("Paid", user_id="1")
            assert (await (await client.track("Seen", user_id="user-1"))).ok
    server.close()


async def test_what_is_told_has_bounds(
    inspected: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a flood some are told, and all are counted."""
    monkeypatch.setattr(inspecting, "MOST_NOTES", 10)
    async with Amplitude("key", server_url=inspected.httpapi_url) as client:
        for _ in range(50):
            client.track_nowait("Paid", user_id="1")
    assert len(told(inspected)) == 10
    assert client.stats.rejected == 50


async def test_a_large_event_is_told_in_a_few_words(inspected: Emulator) -> None:
    """Its name and its user, and how large it was."""
    inspected.faults.add(Fault(503, count=None))
    async with Amplitude("key", server_url=inspected.httpapi_url) as client:
        properties = {"long": "x" * 50_000}
        await client.track("Large", user_id="user-1", event_properties=properties)
        await client.purge()
    (seen,) = told(inspected)
    assert seen.user_id == "user-1"
    assert "bytes" in seen.event["not_shown"]


@pytest.mark.parametrize("value", [Endless(), {"a": object()}, float("nan")])
async def test_hostile_values_are_told_as_well_as_they_can(
    inspected: Emulator, value: Any
) -> None:
    """Whatever an event holds, nobody is kept by it."""
    async with Amplitude(
        "key", server_url=inspected.httpapi_url, opt_out=True
    ) as client:
        await client.track(
            "Paid", user_id="user-1", event_properties={"value": value, "fine": 1}
        )
    (seen,) = told(inspected)
    assert seen.name == "Paid"


async def test_the_callback_and_the_account_are_as_ever(inspected: Emulator) -> None:
    """The law holds, and every result comes once."""
    results: list[object] = []
    keep: Callable[[object], None] = results.append
    async with Amplitude(
        "key", server_url=inspected.httpapi_url, callback=keep
    ) as client:
        for user in ("1", "user-1", "2"):
            await client.track("Paid", user_id=user)
    stats = client.stats
    assert len(results) == 3
    assert stats.accepted == stats.delivered + stats.rejected == 3


async def test_a_log_line_names_no_value(
    inspected: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """What is told to the emulator is in no log."""
    caplog.set_level(logging.DEBUG)
    async with Amplitude("key", server_url=inspected.httpapi_url) as client:
        await client.track("Paid", user_id="1", event_properties={"pin": "hunter2"})
    assert told(inspected)
    assert "hunter2" not in caplog.text
