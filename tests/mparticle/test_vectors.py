"""What the client really sends, beside what the official SDKs really send.

The vectors were recorded from the Go and the Python SDK. Every departure stands in
`REFUSED` or `OURS` with its reason; apart from those, and from the ids and times that
the official SDKs leave to the caller, the requests are the same.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from amplitude_async import ConfigurationError, __version__
from amplitude_async.mparticle import Batch, MParticle

__all__: list[str] = []

Json = dict[str, Any]

VECTORS: list[Json] = json.loads(
    (Path(__file__).parents[1] / "data" / "mparticle_vectors.json").read_text("utf-8")
)
DEVELOPMENT: Json = {"environment": "development"}

REFUSED = {
    "custom_event_all_fields": "its session_uuid is no UUID",
    "custom_event_attribute_list": "attributes are scalars: the Python SDK raises too",
    "screen_view_empty": "a screen view without a name says nothing",
    "seed_consent_gdpr": "its time is in seconds",
    "seed_session_events": "its times are in seconds",
    "user_identity_change": "the schema wants the time of an identity",
}
NO_CREDENTIALS = "no_credentials"
OURS: dict[str, tuple[str, Json]] = {
    "session_start_empty": (
        "no session is not session 0",
        {**DEVELOPMENT, "events": [{"event_type": "session_start", "data": {}}]},
    ),
    "user_attributes_empty": (
        "what the caller set is sent, as by the Python SDK",
        {**DEVELOPMENT, "user_attributes": {}},
    ),
}
# The official SDKs send what the caller filled in; retries need these.
FILLED_IN = ("timestamp_unixtime_ms", "source_message_id")


def given(vector: Json) -> list[Json]:
    """Return the batches of a vector with their events as they are on the wire."""
    (call,) = vector["input"]["calls"]
    batches = call.get("batches") or [call["batch"]]
    return [
        {
            **batch,
            "events": [
                {"event_type": event["type"], "data": event["data"]}
                for event in batch.get("events") or ()
            ],
        }
        for batch in batches
    ]


def without_fillings(sent: Json, asked: Json) -> Json:
    """Take away what the client filled in because the caller had not."""
    batch = {**sent}
    if "source_request_id" not in asked:
        assert batch.pop("source_request_id")
    events = []
    for event, before in zip(batch.get("events", ()), asked["events"], strict=True):
        data = {**event["data"]}
        for name in FILLED_IN:
            if name not in before["data"]:
                assert data.pop(name)
        events.append({**event, "data": data})
    return {**batch, "events": events} if events else batch


async def replay(vector: Json, base_url: str) -> None:
    """Do with our client what was done with the official ones."""
    config = vector["input"]["config"]
    batches = [Batch.model_validate(batch) for batch in given(vector)]
    key, secret = config.get("api_key"), config.get("api_secret")
    async with MParticle(key, secret, base_url=base_url, trust_env=False) as client:
        if vector["input"]["calls"][0]["call"] == "upload_events":
            await client.upload(*batches)
        else:
            await client.upload_many(batches)


@pytest.mark.parametrize(
    "vector",
    [vector for vector in VECTORS if vector["case"] != NO_CREDENTIALS],
    ids=lambda vector: vector["case"],
)
async def test_requests_are_those_of_the_go_sdk(vector: Json, recorder: Any) -> None:
    """Method, path, credentials and JSON are what the Go SDK sends."""
    if vector["case"] in REFUSED:
        with pytest.raises(ValidationError):
            await replay(vector, recorder.url + "/v2")
        assert recorder.requests == []
        return
    await replay(vector, recorder.url + "/v2")

    (request,) = recorder.requests
    official = vector["observed"]["go"]
    assert (request.method, request.path) == (official["method"], official["path"])
    for name in ("Accept", "Authorization", "Content-Type"):
        assert request.headers[name] == official["headers"][name]
    assert request.headers["User-Agent"] == f"amplitude-async/{__version__}"
    body = request.body
    expected = OURS[vector["case"]][1] if vector["case"] in OURS else official["body"]
    if isinstance(body, dict):
        assert without_fillings(body, given(vector)[0]) == expected
    else:
        pairs = zip(body, given(vector), strict=True)
        assert [without_fillings(*pair) for pair in pairs] == expected


def test_without_credentials_nothing_is_sent() -> None:
    """The official SDKs send a request that can only be refused; ours raises."""
    (vector,) = [one for one in VECTORS if one["case"] == NO_CREDENTIALS]
    with pytest.raises(ConfigurationError, match="api_key is missing"):
        MParticle(**vector["input"]["config"])


async def test_the_address_of_both_sdks(virtual: Callable[..., Any]) -> None:
    """Without a URL ours goes where they go."""
    (vector,) = [one for one in VECTORS if one["input"]["config"].get("base_url") == ""]
    client = virtual()
    await client.upload_many(map(Batch.model_validate, given(vector)))

    (request,) = client.network.requests
    assert request.url == "https://s2s.mparticle.com" + vector["observed"]["go"]["path"]


def test_each_departure_is_of_a_case_that_exists() -> None:
    """The tables hold no case that went away."""
    assert {*REFUSED, *OURS} <= {vector["case"] for vector in VECTORS}
