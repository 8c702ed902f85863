"""What a person looks up here: entries, users, types and requests, and clears away."""

from __future__ import annotations

import asyncio
import json
import weakref
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Literal

from aiohttp import web

from .book import UNDO_SECONDS, Book
from .browsers import OWN_HEADERS, refuse_other_json
from .control import number_of
from .entries import (
    brief,
    entry,
    event_at,
    json_text,
    request_row,
    short_properties,
)
from .filtering import Filter
from .index import event_keys, listed_id
from .judgement import JsonObject
from .ledger import Ledger
from .overview import Overview
from .reading import UnreadableError, parse, weigh
from .records import ReceivedRequest
from .seen import Seen
from .turns import in_turns
from .users import BatchPortrait, Portrait, batch_keys

__all__ = ["Inspection"]

MOST_SEARCHED = 20_000
MOST_LOCAL = 1_000
_MOST_LISTED = 500
_LONGEST_TEXT = 500
_LONGEST_EVENT = 2_000_000
_LONGEST_WIRE = 20_000
_LONGEST_PROPERTIES = 1_000_000
_LONGEST_REASON = 1_000
_LARGEST = 10**15
_VERDICTS = ("rejected", "dropped")


class Inspection:
    """Answers what the page asks beside the feed.

    Args:
        book: holds the ledger.
        clock: seconds since the epoch.
        send_test: sends one event here, and returns its `insert_id`.
    """

    def __init__(
        self,
        book: Book,
        clock: Callable[[], float],
        send_test: Callable[[], Any],
    ) -> None:
        self._book = book
        self._clock = clock
        self._send_test = send_test
        self._overview = Overview(clock=clock)
        # Weak: what was reset shall not be kept for the sake of its counts.
        self._counted: Callable[[], Ledger | None] = lambda: None
        # One at a time: several would share the loop's time with the requests.
        self._busy = asyncio.Lock()

    def routes(self) -> list[web.RouteDef]:
        """Return the routes to add to the application."""
        self._busy = asyncio.Lock()
        return [
            web.get("/_emulator/entries", self._entries),
            web.get(r"/_emulator/entries/{number:\d{1,15}}", self._entry),
            web.get("/_emulator/users", self._users),
            web.get("/_emulator/users/{name:.+}", self._user),
            web.get("/_emulator/types", self._types),
            web.get("/_emulator/timeline", self._timeline),
            web.get("/_emulator/requests", self._requests),
            web.post("/_emulator/clear", _json_only(self._clear)),
            web.post("/_emulator/undo", _json_only(self._undo)),
            web.post("/_emulator/test-event", _json_only(self._test_event)),
            web.post("/_emulator/local", _json_only(self._local)),
        ]

    # Entries -----------------------------------------------------------------

    async def _entries(self, request: web.Request) -> web.Response:
        try:
            before = number_of(request, "before", 0)
            limit = min(number_of(request, "limit", 200), _MOST_LISTED)
            wanted = Filter(request.query.get("q", ""))
        except ValueError as error:
            return _answer({"error": str(error)}, 400)
        log = self._book.ledger().log
        numbered = _newest_first(log.before(before - 1 if before else None), before)
        found: list[dict[str, Any]] = []
        to = before or self._book.ledger().newest[0] + 1
        async with self._busy:
            async for seen, number in in_turns(islice(numbered, MOST_SEARCHED)):
                if len(found) == limit:
                    break
                to = number
                shown = entry(seen, number)
                known = short_properties(seen, number) if wanted.is_deep else None
                if wanted and not wanted.holds(shown, known):
                    continue
                found.append(shown)
        return _answer(
            {
                "entries": found,
                "oldest": log.oldest,
                "searched_to": to,
                "forgotten": log.forgotten,
            }
        )

    async def _entry(self, request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        ledger = self._book.ledger()
        seen = ledger.log.find(number)
        if seen is None:
            error = f"entry {number} is not kept: it was forgotten, or never came"
            return _answer({"error": error, "oldest": ledger.log.oldest}, 404)
        event = event_at(seen, number)
        row = _request(ledger, seen.request)
        parts = {
            "event": json_text(event, _LONGEST_EVENT),
            "wire": json.dumps(_wire(event)),
            "request": json.dumps(row),
        }
        if seen.unit == "batch":
            parts["batch"] = json_text(seen.event, _LONGEST_EVENT)
        return _joined(entry(seen, number), parts)

    # Users and types ---------------------------------------------------------

    async def _users(self, request: web.Request) -> web.Response:
        text = request.query.get("q", "")[:_LONGEST_TEXT]
        try:
            limit = min(number_of(request, "limit", 100), _MOST_LISTED)
        except ValueError as error:
            return _answer({"error": str(error)}, 400)
        overview = await self._counted_up()
        async with self._busy:
            return _answer(await overview.users(text, limit))

    async def _types(self, _: web.Request) -> web.Response:
        overview = await self._counted_up()
        async with self._busy:
            return _answer({**overview.counts(), "types": await overview.types()})

    async def _timeline(self, request: web.Request) -> web.Response:
        name = request.query.get("type")
        overview = await self._counted_up()
        chart = overview.chart(name)
        if chart is None:
            error = f"no type {brief(name)} is counted: it was forgotten, or never came"
            return _answer({"error": error}, 404)
        return _answer(chart)

    async def _counted_up(self) -> Overview:
        """Count what has come since somebody asked last."""
        async with self._busy:
            return await self._count(self._book.ledger())

    async def _count(self, ledger: Ledger) -> Overview:
        if ledger is not self._counted():
            self._counted = weakref.ref(ledger)
            self._overview = Overview(self._overview.names, self._clock)
        overview = self._overview
        overview.miss(ledger.log.forgotten)
        async for seen in in_turns(ledger.log.since(overview.last)):
            overview.add(seen)
        return overview

    async def _user(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        try:
            before = number_of(request, "before", _LARGEST)
            limit = min(number_of(request, "limit", 200), _MOST_LISTED)
        except ValueError as error:
            return _answer({"error": str(error)}, 400)
        vendor = request.query.get("vendor")
        units = {"amplitude": ("event",), "mparticle": ("batch",)}.get(vendor or "")
        async with self._busy:
            found = await self._of_user(name, units or ("event", "batch"))
            if not found:
                missing = f"nothing of user or device {name[:80]!r} is kept"
                return _answer({"error": missing}, 404)
            return await _described(name, found, before, limit)

    async def _of_user(self, name: str, units: Iterable[str]) -> list[Seen]:
        """Return all of one user, in order; of both vendors only one's."""
        wanted = listed_id(name)
        exact: dict[str, list[Seen]] = {unit: [] for unit in units}
        device: dict[str, list[Seen]] = {unit: [] for unit in units}
        async for seen in in_turns(self._book.ledger().log.since(0)):
            if seen.unit not in exact:
                continue
            keys = (batch_keys if seen.unit == "batch" else event_keys)(seen.event)
            kinds = {kind for kind, own in keys if listed_id(own) == wanted}
            if "user" in kinds:
                exact[seen.unit].append(seen)
            elif kinds:
                device[seen.unit].append(seen)
        # A user is found by its id, or else by one of its devices.
        return next(
            (found for by in (exact, device) for found in by.values() if found), []
        )

    # Requests ----------------------------------------------------------------

    async def _requests(self, request: web.Request) -> web.Response:
        try:
            after = number_of(request, "after", -1)
            before = number_of(request, "before", _LARGEST)
            limit = min(number_of(request, "limit", 100), 10_000)
        except ValueError as error:
            return _answer({"error": str(error)}, 400)
        ledger = self._book.ledger()
        kept, total = ledger.requests, ledger.stats.requests
        if after >= 0:
            # Items older than the kept ones are gone, but they were counted.
            start = max(0, after - (total - len(kept)))
            found = kept[start : start + limit]
        else:
            older = (one for one in reversed(kept) if one.number < before)
            found = list(islice(older, limit))
        rows = [request_row(one) async for one in in_turns(found)]
        return _answer({"requests": rows, "total": total})

    # What changes something --------------------------------------------------

    async def _clear(self, _: web.Request) -> web.Response:
        before = self._book.ledger()
        token = self._book.clear()
        loop = asyncio.get_running_loop()
        loop.call_later(UNDO_SECONDS + 0.1, self._book.let_go)
        async with self._busy:
            # What was known by then is not new afterwards.
            if self._counted() in (None, before):
                await self._count(before)
        return _answer({"undo": token, "seconds": UNDO_SECONDS})

    async def _undo(self, request: web.Request) -> web.Response:
        try:
            document = _document(await request.read())
        except ValueError as error:
            return _answer({"error": str(error)}, 400)
        token = document.get("undo")
        if not isinstance(token, str):
            return _answer({"error": f"undo is {brief(token)}: give its token"}, 400)
        if not self._book.undo(token):
            late = f"nothing to undo: it lasts {UNDO_SECONDS:g} s, for the last clear"
            return _answer({"error": late}, 410)
        ledger = self._book.ledger()
        return _answer({"oldest": ledger.log.oldest, "newest": ledger.newest[0]})

    async def _test_event(self, _: web.Request) -> web.Response:
        before = self._book.ledger().newest[0]
        insert_id, problem = await self._send_test()
        for seen in reversed(self._book.ledger().log.newest(before, MOST_LOCAL)):
            if seen.event.get("insert_id") == insert_id:
                return _answer(entry(seen, seen.number))
        error = f"the event came to nothing: {problem or 'its connection was closed'}"
        return _answer({"error": error}, 502)

    async def _local(self, request: web.Request) -> web.Response:
        try:
            body = await request.read()
            told = _document(body).get("events")
            if not isinstance(told, list) or len(told) > MOST_LOCAL:
                msg = f"events is no list of at most {MOST_LOCAL:,}: send fewer at once"
                raise ValueError(msg)  # noqa: TRY301 - answered as the others
            now = self._clock()
            reports = [_report(one, index, now) for index, one in enumerate(told)]
        except ValueError as error:
            return _answer({"error": str(error)}, 400)
        weight = weigh(body) // max(1, len(reports))
        recorded = self._book.ledger().record_local(reports, weight)
        return _answer({"taken": len(recorded)})


async def _described(
    name: str, found: list[Seen], before: int, limit: int
) -> web.Response:
    """Answer what the events or batches of one user make of it."""
    of_batches = found[-1].unit == "batch"
    amplitude, mparticle = Portrait(), BatchPortrait()
    count = rejected = 0
    async for seen in in_turns(found):
        if seen.verdict == "stored":
            count += seen.last_number - seen.number + 1
            if of_batches:
                mparticle.add(seen.event)
            else:
                amplitude.add(seen)
        elif seen.verdict != "duplicate":
            rejected += 1
    numbered = _newest_first(reversed(found), before)
    timeline = [entry(*one) async for one in in_turns(islice(numbered, limit))]
    held = mparticle.attributes if of_batches else amplitude.properties
    head = {
        "id": name,
        "vendor": "mparticle" if of_batches else "amplitude",
        "groups": {kind: list(names) for kind, names in amplitude.groups.items()},
        "revenue": round(amplitude.revenue, 6),
        "devices": list(islice(amplitude.devices, _MOST_LISTED)),
        "identities": mparticle.identities,
        "events": count,
        "rejected": rejected,
        "timeline": timeline,
    }
    return _joined(head, {"properties": json_text(held.as_dict(), _LONGEST_PROPERTIES)})


def _newest_first(found: Iterable[Seen], before: int) -> Iterator[tuple[Seen, int]]:
    """Return the numbers of all events before one, each with where it is."""
    for seen in found:
        last = min(seen.last_number, before - 1) if before else seen.last_number
        for number in range(last, seen.number - 1, -1):
            yield seen, number


def _request(ledger: Ledger, number: int) -> dict[str, Any] | None:
    found: Iterator[ReceivedRequest] = (
        one for one in ledger.requests if one.number == number
    )
    request = next(found, None)
    return None if request is None else request_row(request)


def _wire(event: JsonObject) -> str | None:
    text = json_text(event, _LONGEST_EVENT)
    return text if len(text) <= _LONGEST_WIRE else None


def _report(told: object, index: int, now: float) -> Seen:
    """Read what a client tells of one event.

    Raises:
        ValueError: it is none; the message says which and what.
    """
    if not isinstance(told, dict) or not isinstance(told.get("event"), dict):
        msg = f'events[{index}] has no event: send {{"event": {{...}}, "state": ...}}'
        raise ValueError(msg)  # noqa: TRY004 - one error for a bad request
    state = told.get("state")
    if state not in _VERDICTS:
        msg = f"events[{index}].state is {brief(state)}: use {' or '.join(_VERDICTS)}"
        raise ValueError(msg)
    reason = told.get("reason")
    verdict: Literal["rejected", "dropped"] = state
    return Seen(
        number=0,
        received_at=_time(told.get("at"), now),
        verdict=verdict,
        reason=reason[:_LONGEST_REASON] if isinstance(reason, str) else "",
        status=0,
        request=0,
        index=index,
        event=told["event"],
        unit="batch" if told.get("vendor") == "mparticle" else "event",
        local=True,
    )


def _time(value: object, now: float) -> float:
    # type() and not isinstance(): true and false are no times.
    if type(value) is not int and type(value) is not float:
        return now
    return float(value) if 0 < value < _LARGEST else now


def _document(body: bytes) -> JsonObject:
    try:
        document = parse(body)
    except UnreadableError as error:
        msg = f"body is no JSON: {error}"
        raise ValueError(msg) from None
    if not isinstance(document, dict):
        msg = "body is no JSON object: send one"
        raise ValueError(msg)  # noqa: TRY004 - one error for a bad request
    return document


_Handler = Callable[[web.Request], Any]


def _json_only(handler: _Handler) -> _Handler:
    """Refuse what a page could post without being asked."""

    async def handle(request: web.Request) -> web.Response:
        refusal = refuse_other_json(request)
        if refusal is not None:
            return refusal
        answer: web.Response = await handler(request)
        return answer

    return handle


def _answer(value: object, status: int = 200) -> web.Response:
    return web.json_response(value, status=status, headers=OWN_HEADERS)


def _joined(head: dict[str, Any], parts: dict[str, str]) -> web.Response:
    """Answer an object, of which some members are JSON already."""
    members = [f"{json.dumps(name)}:{text}" for name, text in parts.items()]
    text = f"{json.dumps(head)[:-1]},{','.join(members)}}}"
    return web.Response(text=text, content_type="application/json", headers=OWN_HEADERS)
