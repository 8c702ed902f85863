"""Each refusal of Amplitude's has a note that tells why, and repeats no value."""

from __future__ import annotations

import json

import aiohttp
import pytest

from amplitude_async.emulator import Emulator

__all__: list[str] = []

GOOD = {"event_type": "click", "user_id": "user-1"}


@pytest.mark.parametrize(
    ("events", "note"),
    [
        ([GOOD, {**GOOD, "event_type": ""}], "event 1: event_type is missing or empty"),
        ([{**GOOD, "event_type": 5}], "event 0: event_type must be text, not a number"),
        (
            [{**GOOD, "time": "secret"}],
            "event 0: time must be whole milliseconds since 1970, not text",
        ),
        ([{**GOOD, "insert_id": []}], "event 0: insert_id must be text, not an array"),
        ([{"event_type": "a"}], "event 0: user_id is missing, and so is device_id"),
        (
            [{"event_type": "a", "user_id": "four"}],
            (
                "event 0: user_id has 4 characters and needs 5: lower "
                "options.min_id_length"
            ),
        ),
        (
            [{**GOOD, "device_id": ""}],
            "event 0: device_id is empty, which Amplitude forbids: leave it out",
        ),
        (
            [{**GOOD, "user_id": "", "device_id": "phone"}],
            "event 0: user_id is empty, which Amplitude forbids: leave it out",
        ),
        (
            [{"event_type": "$groupidentify", "user_id": "", "groups": {"a": "b"}}],
            "event 0: user_id is empty, which Amplitude forbids: leave it out",
        ),
        (
            [{**GOOD, "user_id": "unknown"}, {}, {"event_type": "a"}],
            (
                "event 0: user_id is a word that Amplitude forbids as an id, such as "
                "unknown or 0; 2 more are refused"
            ),
        ),
        ([GOOD, 1], "1 of the events are no JSON objects"),
        ([], "events is missing or empty"),
    ],
)
async def test_a_refused_request_says_why(
    emulator: Emulator, events: list[object], note: str
) -> None:
    """The record has the words that the vendor would not send."""
    sent = {"api_key": "key", "events": events}
    async with (
        aiohttp.ClientSession() as session,
        session.post(emulator.httpapi_url, json=sent) as response,
    ):
        assert response.status == 400
    (request,) = emulator.requests
    assert request.note == note
    assert emulator.events == []


@pytest.mark.parametrize(
    ("data", "encoding", "note"),
    [
        (b"", "identity", "Missing request body"),
        (b"{", "identity", "body is no JSON: "),
        (b"[1]", "identity", "body must be a JSON object"),
        (b"{}", "identity", "api_key is missing or empty"),
        (b"{}", "br", "Content-Encoding is 'br': use gzip or none"),
        (b"{}", "gzip", "body is no gzip, or a broken one"),
        (b'{"api_key": "other"}', "identity", "api_key is none of those"),
        (b" " * 1_000_001, "identity", "body has more than 1,000,000 bytes"),
        (
            json.dumps({"api_key": "key", "events": [GOOD] * 3}).encode(),
            "identity",
            "1 ids sent more than 2 events a second, up to 3",
        ),
    ],
)
async def test_a_request_refused_as_a_whole_says_why(
    data: bytes, encoding: str, note: str
) -> None:
    """Where no event is at fault, either."""
    headers = {"Content-Encoding": encoding}
    async with (
        Emulator(api_keys=["key"], eps_threshold=2) as emulator,
        aiohttp.ClientSession() as session,
        session.post(emulator.httpapi_url, data=data, headers=headers) as response,
    ):
        assert response.status in (400, 413, 429)
        assert emulator.requests[0].note.startswith(note)
        assert "other" not in emulator.requests[0].note
