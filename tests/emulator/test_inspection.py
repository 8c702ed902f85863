"""What a page looks up beside the feed, over real sockets."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from amplitude_async.emulator import Emulator, Fault, inspection
from amplitude_async.emulator.bell import Bell
from amplitude_async.emulator.book import Book
from amplitude_async.emulator.judgement import Judgement
from amplitude_async.emulator.ledger import Ledger
from amplitude_async.emulator.overview import Overview
from amplitude_async.emulator.records import ReceivedRequest
from amplitude_async.emulator.script import FaultScript
from amplitude_async.emulator.waiting import Waiters

__all__: list[str] = []

KEY = {"Authorization": "Basic a2V5OnNlY3JldA=="}


class Page:
    """Asks as the page does."""

    def __init__(self, emulator: Emulator, session: aiohttp.ClientSession) -> None:
        self.emulator = emulator
        self._session = session

    async def get(self, path: str, status: int = 200) -> Any:
        """Return the JSON answer of one of the page's routes."""
        url = URL(f"{self.emulator.url}/_emulator/{path}", encoded="%" in path)
        async with self._session.get(url) as response:
            assert response.headers["Cache-Control"] == "no-store"
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert (response.status, response.content_type) == (
                status,
                "application/json",
            )
            return await response.json()

    async def post(self, path: str, body: Any = None, status: int = 200) -> Any:
        """Post JSON and return the answer."""
        sent = {} if body is None else body
        async with self._session.post(f"/_emulator/{path}", json=sent) as response:
            assert response.status == status
            return await response.json()

    async def send(self, *events: dict[str, Any]) -> int:
        """Send Amplitude events in one request; returns the status."""
        body = {"api_key": "top-secret", "events": list(events)}
        async with self._session.post("/2/httpapi", json=body) as response:
            return response.status

    async def send_batch(self, batch: dict[str, Any]) -> None:
        """Send an mParticle batch."""
        path = "/v2/events"
        async with self._session.post(path, json=batch, headers=KEY) as response:
            assert response.status == 202


@pytest.fixture
async def page(emulator: Emulator) -> AsyncIterator[Page]:
    """Yield what a page can ask."""
    async with aiohttp.ClientSession(emulator.url) as session:
        yield Page(emulator, session)


def event(name: str, user: str | None = "user-1", **fields: Any) -> dict[str, Any]:
    """Return an event."""
    own = {} if user is None else {"user_id": user}
    return {"event_type": name, **own, **fields}


# Entries ---------------------------------------------------------------------


async def test_entries_come_newest_first_and_in_pages(page: Page) -> None:
    """Each page says where the next one begins."""
    await page.send(*(event(f"e{n}") for n in range(1, 6)))
    first = await page.get("entries?limit=2")
    then = await page.get(f"entries?limit=2&before={first['searched_to']}")
    rest = await page.get(f"entries?limit=9&before={then['searched_to']}")
    names = [[one["name"] for one in part["entries"]] for part in (first, then, rest)]
    assert names == [["e5", "e4"], ["e3", "e2"], ["e1"]]
    assert (first["oldest"], rest["searched_to"]) == (1, 1)
    assert (await page.get("entries?before=1"))["entries"] == []


async def test_no_entries_are_no_trouble(page: Page) -> None:
    """As before the first event."""
    answer = await page.get("entries")
    assert (answer["entries"], answer["oldest"]) == ([], 0)


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("type:paid", ["Paid"]),
        ("rejected", [""]),
        ("-rejected", ["Seen", "Paid"]),
        ("deep:4", ["Paid"]),
        ("prop.deep:4 user:user-1", ["Paid"]),
        ("user:user-2", ["Seen"]),
        ("nothing", []),
    ],
)
async def test_a_filter_sees_all_of_an_event(
    page: Page, typed: str, names: list[str]
) -> None:
    """More than the three properties that a row shows."""
    properties = {"a": 1, "b": 2, "c": 3, "deep": 4}
    await page.send(event("Paid", event_properties=properties))
    await page.send(event("Seen", "user-2"))
    await page.send(event(""))
    answer = await page.get(f"entries?q={typed}")
    assert [one["name"] for one in answer["entries"]] == names
    assert answer["searched_to"] == 1


async def test_a_search_ends_and_says_where(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for a search through everything; it goes on when asked."""
    monkeypatch.setattr(inspection, "MOST_SEARCHED", 3)
    await page.send(event("wanted"), *(event(f"e{n}") for n in range(4)))
    answer = await page.get("entries?q=wanted")
    assert (answer["entries"], answer["searched_to"]) == ([], 3)
    answer = await page.get("entries?q=wanted&before=3")
    assert [one["name"] for one in answer["entries"]] == ["wanted"]


async def test_what_was_forgotten_is_said() -> None:
    """The oldest go, and the page can tell."""
    async with (
        Emulator(keep=2) as emulator,
        aiohttp.ClientSession(emulator.url) as session,
    ):
        page = Page(emulator, session)
        await page.send(*(event(f"e{n}") for n in range(5)))
        answer = await page.get("entries")
        assert [one["n"] for one in answer["entries"]] == [5, 4]
        assert (answer["oldest"], answer["forgotten"]) == (4, 3)
        missing = await page.get("entries/1", status=404)
        assert "not kept" in missing["error"]


@pytest.mark.parametrize(
    "query", ["limit=x", "before=-1", "q=" + "a" * 501, "q=" + "a+" * 21]
)
async def test_a_bad_query_is_explained(page: Page, query: str) -> None:
    """By name, value and remedy."""
    answer = await page.get(f"entries?{query}", status=400)
    assert answer["error"].startswith(query.partition("=")[0])


async def test_one_entry_has_all_there_is(page: Page) -> None:
    """The event as it was sent, and the request it came in, without its key."""
    sent = event("Paid", event_properties={"total": 9.5, "nested": {"a": [1]}})
    await page.send(sent)
    found = await page.get("entries/1")
    assert found["event"] == sent
    assert json.loads(found["wire"]) == sent
    assert found["state"] == "stored"
    assert (found["request"]["number"], found["request"]["status"]) == (1, 200)
    assert "top-secret" not in str(found)
    assert "headers" not in found["request"]


async def test_a_long_event_is_not_told_twice(page: Page) -> None:
    """Its text is left out where it is long, and an endless name is cut."""
    await page.send(event("x" * 1_000, event_properties={"long": "y" * 30_000}))
    found = await page.get("entries/1")
    assert found["wire"] is None
    assert len(found["name"]) == 200
    assert len(found["preview"][0][1]) < 70
    assert found["event"]["event_properties"]["long"] == "y" * 30_000


async def test_a_payload_of_script_is_text(page: Page) -> None:
    """Whatever is in an event, its answer is ASCII JSON and never anything else."""
    hostile = '</script><img src=x onerror="alert(1)">\u202e\x1b[2J'
    await page.send(event(hostile, event_properties={hostile: hostile}))
    async with page._session.get("/_emulator/entries/1") as response:  # noqa: SLF001 - the raw text
        text = await response.text()
        assert response.content_type == "application/json"
    assert text.isascii()
    assert "\x1b" not in text
    assert json.loads(text)["name"] == hostile


# Users -----------------------------------------------------------------------


async def test_users_are_listed_newest_first(page: Page) -> None:
    """With what there is to say of each in a line."""
    await page.send(
        event("Seen", "user-1", device_id="phone"),
        event("Paid", "user-1", device_id="laptop", revenue=9.5),
        event("Seen", "user-2"),
        event("Seen", None, device_id="alone-1"),
    )
    await page.send(event("", "user-2"))
    answer = await page.get("users")
    assert answer["total"] == 3
    rows = {one["id"]: one for one in answer["users"]}
    assert list(rows) == ["user-2", "alone-1", "user-1"]
    assert rows["user-1"] | {"last_at": 0} == {
        "id": "user-1",
        "vendor": "amplitude",
        "devices": ["phone", "laptop"],
        "events": 2,
        "rejected": 0,
        "revenue": 9.5,
        "last_at": 0,
        "last_name": "Paid",
    }
    assert (rows["user-2"]["events"], rows["user-2"]["rejected"]) == (1, 1)
    found = await page.get("users?q=LAPTOP&limit=1")
    assert [one["id"] for one in found["users"]] == ["user-1"]


async def test_a_user_is_as_after_all_operations(page: Page) -> None:
    """Properties, groups, revenue and devices, and what they did, newest first."""
    await page.send(
        event("$identify", user_properties={"$set": {"plan": "free"}}),
        event("$identify", user_properties={"$add": {"visits": 2}}),
        event("$identify", groups={"company": "Acme"}, user_properties={"$set": {}}),
        event("Paid", revenue=9.5, device_id="phone"),
        event("Other", "user-2"),
    )
    user = await page.get("users/user-1")
    assert user["properties"] == {"plan": "free", "visits": 2}
    assert user["groups"] == {"company": ["Acme"]}
    assert (user["revenue"], user["devices"], user["events"]) == (9.5, ["phone"], 4)
    names = [one["name"] for one in user["timeline"]]
    assert names == ["Paid", "$identify", "$identify", "$identify"]
    older = await page.get("users/user-1?before=3&limit=1")
    assert [one["n"] for one in older["timeline"]] == [2]
    by_device = await page.get("users/phone")
    assert by_device["revenue"] == 9.5
    assert "nobody" in (await page.get("users/nobody", status=404))["error"]


@pytest.mark.parametrize("name", ["a/b", "über ?&#", "%2F..", "..", "a b"])
async def test_any_id_can_be_looked_up(page: Page, name: str) -> None:
    """Whatever characters it is made of."""
    await page.send(event("Paid", f"user {name}"))
    found = await page.get(f"users/{quote(f'user {name}', safe='')}")
    assert found["id"] == f"user {name}"


async def test_an_mparticle_user_is_there_as_well(page: Page) -> None:
    """By any identity, with its attributes after all batches."""
    for plan in ("free", "paid"):
        await page.send_batch(
            {
                "environment": "development",
                "user_identities": {"customer_id": "customer-1", "email": "a@b.c"},
                "user_attributes": {"plan": plan},
                "events": [
                    {
                        "event_type": "custom_event",
                        "data": {"event_name": "Paid", "custom_event_type": "other"},
                    }
                ],
            }
        )
    listed = await page.get("users")
    assert [(one["id"], one["events"]) for one in listed["users"]] == [
        ("customer-1", 2)
    ]
    user = await page.get("users/a@b.c")
    assert (user["vendor"], user["properties"]) == ("mparticle", {"plan": "paid"})
    assert user["identities"]["customer_id"] == "customer-1"
    assert [one["name"] for one in user["timeline"]] == ["Paid", "Paid"]


# Types -----------------------------------------------------------------------


async def test_types_tell_of_their_properties(page: Page) -> None:
    """Values of differing kinds show, and what was rejected is counted apart."""
    for total in (9.5, "nine"):
        await page.send(event("Paid", event_properties={"total": total, "gift": True}))
    await page.send(event("Paid", "x"))
    (paid,) = (await page.get("types"))["types"]
    assert (paid["name"], paid["count"], paid["rejected"]) == ("Paid", 3, 1)
    assert paid["new"]
    assert paid["first_at"] <= paid["last_at"]
    assert paid["properties"] == [
        {"name": "total", "kinds": ["number", "text"], "example": "9.5", "count": 2},
        {"name": "gift", "kinds": ["true or false"], "example": "true", "count": 2},
    ]


async def test_a_type_is_new_that_came_after_the_clear(page: Page) -> None:
    """What was known before is known still."""
    await page.send(event("Old"))
    await page.post("clear")
    await page.send(event("Old"), event("New"))
    found = (await page.get("types"))["types"]
    assert {one["name"]: one["new"] for one in found} == {"Old": False, "New": True}


async def test_what_was_reset_is_not_kept_for_its_counts(page: Page) -> None:
    """It may be hundreds of megabytes."""
    await page.send(event("Paid"))
    await page.get("types")
    gone = weakref.ref(page.emulator._book.ledger())  # noqa: SLF001 - to see it go
    page.emulator.reset()
    gc.collect()
    assert gone() is None
    assert (await page.get("types"))["types"] == []


async def test_counts_go_on_where_they_were(page: Page) -> None:
    """Nothing is counted twice, however often somebody asks."""
    for count in (1, 2, 3):
        await page.send(event("Paid"))
        (paid,) = (await page.get("types"))["types"]
        (user,) = (await page.get("users"))["users"]
        assert (paid["count"], user["events"]) == (count, count)


async def test_an_overview_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of users it forgets the quietest, of types and properties it takes no more."""
    for name, most in (("USERS", 2), ("TYPES", 2), ("PROPERTIES", 1)):
        monkeypatch.setattr(f"amplitude_async.emulator.overview._MOST_{name}", most)
    ledger, overview = Ledger(10, 10), Overview()
    events = tuple(
        event(f"e{n}", f"user-{n}", event_properties={"a": 1, "b": 2}) for n in range(4)
    )
    judgement = Judgement(200, {}, events=events, accepted=events, keys=(None,) * 4)
    ledger.record(ReceivedRequest("/batch", 200, events=events), judgement)
    for seen in ledger.log.since(0):
        overview.add(seen)
    users, types = await overview.users("", 9), await overview.types()
    assert [one["id"] for one in users["users"]] == ["user-3", "user-2"]
    assert users["forgotten"] == 2
    assert [one["name"] for one in types] == ["e0", "e1"]
    assert overview.counts() == {"missed": 0, "left_out": 2}
    assert len(types[0]["properties"]) == 1


# Requests --------------------------------------------------------------------


async def test_requests_come_newest_first(page: Page) -> None:
    """With fault and reason, and in pages."""
    await page.send(event("Paid"))
    page.emulator.faults.add(Fault(503))
    await page.send(event("Paid"))
    await page.send()
    listed = await page.get("requests")
    assert [one["number"] for one in listed["requests"]] == [3, 2, 1]
    newest, failed, first = listed["requests"]
    assert (newest["status"], failed["fault"]) == (400, "status 503")
    assert "events" in newest["note"]
    assert first["status"] == 200
    older = await page.get("requests?before=3&limit=1")
    assert older["requests"] == [failed]
    assert "top-secret" not in str(listed)


# Clear and undo --------------------------------------------------------------


async def test_a_clear_can_be_undone(page: Page) -> None:
    """What was there comes back before what came since, with its counters."""
    await page.send(event("before"))
    token = (await page.post("clear"))["undo"]
    for path, key in (
        ("entries", "entries"),
        ("users", "users"),
        ("types", "types"),
        ("requests", "requests"),
    ):
        assert (await page.get(path))[key] == []
    assert page.emulator.events == []
    assert page.emulator.stats.requests == 0
    await page.send(event("after"))
    answer = await page.post("undo", {"undo": token})
    assert answer == {"oldest": 1, "newest": 2}
    entries = (await page.get("entries"))["entries"]
    assert [(one["n"], one["name"]) for one in entries] == [(2, "after"), (1, "before")]
    assert [one["number"] for one in (await page.get("requests"))["requests"]] == [2, 1]
    assert [one["event_type"] for one in page.emulator.events] == ["before", "after"]
    assert page.emulator.stats.events_ingested == 2
    assert page.emulator.user("user-1").events[0]["event_type"] == "before"
    again = await page.post("undo", {"undo": token}, status=410)
    assert "nothing to undo" in again["error"]


@pytest.mark.parametrize("body", [{}, {"undo": 5}, [], {"undo": None}])
async def test_an_undo_needs_its_token(page: Page, body: Any) -> None:
    """Another page's clear is not undone by chance."""
    await page.post("clear")
    assert "error" in await page.post("undo", body, status=400)


def test_an_undo_lasts_a_minute() -> None:
    """Then all of it is forgotten for good."""
    now = 0.0
    waiting = Waiters()

    def ledger(**options: Any) -> Ledger:
        return Ledger(10, 10, waiting=waiting, **options)

    book = Book(
        ledger,
        waiting=waiting,
        faults=FaultScript(),
        vendors=(),
        bell=Bell(),
        now=lambda: now,
    )
    early = book.clear()
    now = 59.0
    assert book.undo(early)
    late = book.clear()
    now = 120.0
    assert not book.undo(late)


async def test_a_clear_leaves_faults_armed(page: Page) -> None:
    """Who clears the list did not mean the outage that is being shown."""
    page.emulator.faults.add(Fault(503, count=2))
    await page.post("clear")
    assert len(page.emulator.faults.pending) == 1


async def test_bounds_hold_after_an_undo() -> None:
    """What comes back takes no more room than there is."""
    async with (
        Emulator(keep=3) as emulator,
        aiohttp.ClientSession(emulator.url) as session,
    ):
        page = Page(emulator, session)
        await page.send(*(event(f"e{n}") for n in range(3)))
        token = (await page.post("clear"))["undo"]
        await page.send(event("e3"), event("e4"))
        await page.post("undo", {"undo": token})
        names = [one["event_type"] for one in emulator.events]
        assert names == ["e2", "e3", "e4"]
        assert emulator.stats.events_forgotten == 2


# Test events -----------------------------------------------------------------


async def test_a_test_event_comes_in_by_the_door(page: Page) -> None:
    """It is judged, stored and told like any other."""
    answer = await page.post("test-event")
    assert (answer["state"], answer["user"], answer["request"]) == (
        "stored",
        "test-user",
        1,
    )
    assert (await page.get(f"entries/{answer['n']}"))["name"] == answer["name"]
    assert len(page.emulator.events) == 1


async def test_a_test_event_meets_faults(page: Page) -> None:
    """So a person sees what an armed fault does."""
    page.emulator.faults.add(Fault(503))
    answer = await page.post("test-event")
    assert answer["state"] == "rejected"
    assert "503" in answer["reason"]
    page.emulator.faults.add("reset")
    assert "error" in await page.post("test-event", status=502)


async def test_a_test_event_has_a_key_that_is_taken() -> None:
    """Also where only some are."""
    async with (
        Emulator(api_keys={"only-this"}) as emulator,
        aiohttp.ClientSession(emulator.url) as session,
    ):
        answer = await Page(emulator, session).post("test-event")
        assert answer["state"] == "stored"
        assert "only-this" not in str(answer)


# What clients tell -----------------------------------------------------------


async def test_clients_tell_what_never_came(page: Page) -> None:
    """It is shown as theirs, and counted apart from what arrived."""
    told = [
        {"event": event("Paid", "1"), "state": "rejected", "reason": "too short"},
        {"event": event("Seen"), "state": "dropped", "at": 1.5e9, "reason": "plugin"},
        {
            "event": {"events": [], "user_identities": {"email": "a@b.c"}},
            "state": "dropped",
            "vendor": "mparticle",
        },
    ]
    assert await page.post("local", {"events": told}) == {"taken": 3}
    batch, seen, paid = (await page.get("entries"))["entries"]
    assert (paid["name"], paid["state"], paid["reason"]) == (
        "Paid",
        "rejected",
        "too short",
    )
    assert (paid["local"], paid["request"]) == (True, None)
    assert (seen["state"], seen["at"]) == ("dropped", 1.5e9)
    assert (batch["vendor"], batch["user"]) == ("mparticle", "a@b.c")
    stats = page.emulator.stats
    assert (stats.local_rejected, stats.local_dropped) == (1, 2)
    assert (stats.events_received, stats.events_rejected, stats.requests) == (0, 0, 0)
    assert page.emulator.events(rejected=True) == []
    assert (await page.get("entries?q=is:local"))["entries"] == [batch, seen, paid]


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"events": {}},
        {"events": [5]},
        {"events": [{"event": 5, "state": "rejected"}]},
        {"events": [{"event": {}, "state": "stored"}]},
        {"events": [{"event": {}, "state": ["rejected"]}]},
        {"events": [{"event": {}, "state": "rejected"}] * 1_001},
    ],
)
async def test_what_is_no_report_is_refused(page: Page, body: Any) -> None:
    """Nothing of it is kept, and the answer says why."""
    assert (await page.post("local", body, status=400))["error"]
    assert (await page.get("entries"))["entries"] == []


@pytest.mark.parametrize("at", [True, "now", -1, 1e300, int("9" * 400), None])
async def test_a_time_that_is_none_is_now(page: Page, at: object) -> None:
    """A clock of somebody's puts nothing in the wrong place."""
    await page.post("local", {"events": [{"event": {}, "state": "dropped", "at": at}]})
    (told,) = (await page.get("entries"))["entries"]
    assert 1.7e9 < told["at"] < 1e11


@pytest.mark.parametrize("path", ["clear", "undo", "test-event", "local"])
async def test_only_json_changes_anything(page: Page, path: str) -> None:
    """No page may post what it can post unasked."""
    async with page._session.post(  # noqa: SLF001 - the raw text
        f"/_emulator/{path}", data=b"{}", headers={"Content-Type": "text/plain"}
    ) as response:
        assert response.status == 415
    foreign = {"Origin": "https://elsewhere.example"}
    async with page._session.post(  # noqa: SLF001 - as above
        f"/_emulator/{path}", json={}, headers=foreign
    ) as response:
        assert response.status == 403


async def test_several_may_look_at_once(page: Page) -> None:
    """Long work is done one after the other, and all get their answer."""
    await page.send(*(event(f"e{n}", f"user-{n:03}") for n in range(900)))
    asked = [page.get("types"), page.get("users"), page.get("entries?q=absent:1")] * 3
    answers = await asyncio.gather(*asked)
    assert [len(one["types"]) for one in answers[::3]] == [900] * 3
    assert [one["total"] for one in answers[1::3]] == [900] * 3
