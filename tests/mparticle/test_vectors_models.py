"""What our models put on the wire beside what the official SDKs put there.

The vectors were recorded from the Go and the Python SDK. Ours sends what the Go SDK
sends, whose keys are those of the documents; every departure stands in `OURS` with its
reason.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from amplitude_async.mparticle import Batch, decode_batch, encode_batch

__all__: list[str] = []

Json = dict[str, Any]

VECTORS: list[Json] = json.loads(
    (Path(__file__).parents[1] / "data" / "mparticle_vectors.json").read_text("utf-8")
)
DEVELOPMENT: Json = {"environment": "development"}
REFUSED: Json = {}

OURS: dict[str, tuple[str, Json]] = {
    "custom_event_all_fields": ("session_uuid is no UUID there", REFUSED),
    "custom_event_attribute_list": (
        "attributes are scalars: the Python SDK raises too",
        REFUSED,
    ),
    "screen_view_empty": ("a screen view without a name says nothing", REFUSED),
    "seed_consent_gdpr": ("its time is in seconds", REFUSED),
    "seed_session_events": ("its times are in seconds", REFUSED),
    "session_start_empty": (
        "no session is not session 0",
        {**DEVELOPMENT, "events": [{"event_type": "session_start", "data": {}}]},
    ),
    "user_attributes_empty": (
        "what the caller set is sent, as by the Python SDK",
        {**DEVELOPMENT, "user_attributes": {}},
    ),
    "user_identity_change": (
        "the schema wants the time of an identity, the Go SDK sends 0",
        REFUSED,
    ),
}


def enveloped(batch: Json) -> Json:
    """Return a batch of a vector with its events as they are on the wire."""
    if "events" not in batch:
        return batch
    events = [
        {"event_type": event["type"], "data": event["data"]}
        for event in batch["events"]
    ]
    return {**batch, "events": events}


def batches_of(vector: Json) -> list[Json]:
    """Return the batches that a vector uploads."""
    (call,) = vector["input"]["calls"]
    given = call["batches"] if "batches" in call else [call["batch"]]
    return [enveloped(batch) for batch in given]


def bodies_of(vector: Json) -> list[Json]:
    """Return what the Go SDK sent, always as a list."""
    body = vector["observed"]["go"]["body"]
    return body if isinstance(body, list) else [body]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["case"])
def test_the_wire_is_that_of_the_go_sdk(vector: Json) -> None:
    """Each recorded batch is read and sent as recorded, or a reason says otherwise."""
    expected = bodies_of(vector)
    if vector["case"] in OURS:
        _, ours = OURS[vector["case"]]
        expected = [ours]

    if expected == [REFUSED]:
        with pytest.raises(ValidationError):
            [Batch.model_validate(batch) for batch in batches_of(vector)]
    else:
        sent = [Batch.model_validate(batch).to_wire() for batch in batches_of(vector)]
        assert sent == expected


@pytest.mark.parametrize(
    "vector",
    [vector for vector in VECTORS if vector["case"] not in OURS],
    ids=lambda vector: vector["case"],
)
def test_what_is_sent_can_be_read(vector: Json) -> None:
    """Encoding and decoding come back to the same batch and the same bytes."""
    for wire in batches_of(vector):
        batch = Batch.model_validate(wire)
        again = decode_batch(encode_batch(batch))

        assert again == batch
        assert encode_batch(again) == encode_batch(batch)


def test_each_departure_is_of_a_case_that_exists() -> None:
    """The table holds no case that went away."""
    assert OURS.keys() <= {vector["case"] for vector in VECTORS}
