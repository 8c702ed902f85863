"""The ledger keeps what is new, drops what is too much, and counts all."""

from __future__ import annotations

import pytest

from amplitude_async.emulator import ledger as ledger_module
from amplitude_async.emulator.judgement import JsonObject, Judgement
from amplitude_async.emulator.ledger import Ledger
from amplitude_async.emulator.records import ReceivedRequest

WEEK = 7 * 86400.0


def verdict(*names: str | None) -> Judgement:
    """Accept one event per name, which is also its deduplication key."""
    events: tuple[JsonObject, ...] = tuple({"event_type": name} for name in names)
    return Judgement(200, {}, accepted=events, keys=names)


def store(ledger: Ledger, judgement: Judgement, now: float) -> None:
    """Write down a request that was taken as it was judged."""
    ledger.record(ReceivedRequest("/batch", 200, received_at=now), judgement)


def test_duplicate_is_stored_once() -> None:
    """A known key counts as a duplicate, an absent one never does."""
    ledger = Ledger(10, 10)
    store(ledger, verdict("a", "b", "a", None, None), 0.0)
    store(ledger, verdict("b"), 1.0)
    assert [event["event_type"] for event in ledger.events] == ["a", "b", None, None]
    assert ledger.stats.events_ingested == 4
    assert ledger.stats.duplicates == 2


def test_duplicate_is_forgotten_after_seven_days() -> None:
    """The same key is new again once its first copy is a week old."""
    ledger = Ledger(10, 10)
    store(ledger, verdict("a"), 0.0)
    store(ledger, verdict("a"), WEEK - 1)
    assert ledger.stats.duplicates == 1
    store(ledger, verdict("a"), WEEK)
    assert ledger.stats.events_ingested == 2


def test_dedup_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A soak run forgets its oldest keys instead of growing for ever."""
    monkeypatch.setattr(ledger_module, "_DEDUP_KEYS", 2)
    ledger = Ledger(10, 10)
    store(ledger, verdict("a", "b", "c"), 0.0)
    store(ledger, verdict("a", "c"), 0.0)
    assert ledger.stats.duplicates == 1


def test_kept_events_and_requests_are_bounded_but_counted() -> None:
    """The newest are kept, the counters stay exact."""
    ledger = Ledger(3, 2)
    for name in "abcde":
        request = ReceivedRequest("/batch", 200, events=({"n": name},))
        ledger.record(request, verdict(name))
    assert [event["event_type"] for event in ledger.events] == ["c", "d", "e"]
    assert [request.events[0]["n"] for request in ledger.requests] == ["d", "e"]
    assert ledger.stats.requests == ledger.stats.events_received == 5


def test_events_inside_kept_requests_are_bounded() -> None:
    """Many large requests do not keep more events than allowed, the last one stays."""
    ledger = Ledger(3, 100)
    event: JsonObject = {}
    for size in (2, 2, 9):
        ledger.record(ReceivedRequest("/batch", 200, events=(event,) * size))
    assert [len(request.events) for request in ledger.requests] == [9]


@pytest.mark.parametrize(("events", "requests"), [(0, 1), (1, 0)])
def test_bounds_must_be_positive(events: int, requests: int) -> None:
    """Keeping nothing is refused by name."""
    with pytest.raises(ValueError, match="keep"):
        Ledger(events, requests)


def test_repr_of_a_request_shows_no_content() -> None:
    """Headers may hold credentials and events personal data: neither is shown."""
    request = ReceivedRequest(
        "/batch", 200, events=({"a": "secret"},), headers={"Authorization": "secret"}
    )
    assert "secret" not in repr(request)


def test_what_cannot_be_weighed_is_the_heaviest() -> None:
    """An event nested too deep to be written makes room for itself alone."""
    ledger = Ledger(10, 10, keep_bytes=1_000_000)
    deep: JsonObject = {}
    for _ in range(100_000):
        deep = {"in": deep}
    store(ledger, Judgement(200, {}, accepted=(deep, {}), keys=("a", "b")), 0.0)
    assert len(ledger.events) == 1
    assert ledger.stats.events_forgotten == 1
    while deep:  # or the interpreter would follow it down
        deep = deep["in"]


def test_a_long_key_is_remembered_and_not_kept() -> None:
    """It is told from others as well as a short one."""
    ledger = Ledger(10, 10)
    long = "x" * 1_000
    store(ledger, verdict(long, long, long + "y"), 0.0)
    assert ledger.stats.duplicates == 1
