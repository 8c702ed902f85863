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


STRICTER = {
    ("crash_report", "python"): "it goes out as a commerce event there, by mistake",
    ("custom_event_all_fields", "go"): "its session_uuid is no UUID",
    ("custom_event_all_fields", "python"): "its session_uuid is no UUID",
    ("custom_event_attribute_list", "go"): "attributes are scalars",
    ("screen_view_empty", "go"): "a screen view without a name says nothing",
    ("screen_view_empty", "python"): "a screen view without a name says nothing",
    ("seed_consent_gdpr", "go"): "its time is in seconds",
    ("seed_consent_gdpr", "python"): "its time is in seconds",
    ("seed_session_events", "go"): "its times are in seconds",
    ("seed_session_events", "python"): "its times are in seconds",
}
"""What an official SDK sends and ours does not read, with the reason."""

SENT = [
    pytest.param(vector["case"], sdk, body, id=f"{vector['case']}-{sdk}")
    for vector in VECTORS
    for sdk, observed in vector["observed"].items()
    if isinstance((observed or {}).get("body"), (dict, list))
    for body in (
        observed["body"] if isinstance(observed["body"], list) else [observed["body"]]
    )
]


def as_we_send(wire: Json) -> Json:
    """Return a batch without the two things that say nothing and the old spelling."""
    made = {**wire}
    if made.get("events") == []:
        del made["events"]
    if "customerid" in made.get("user_identities", {}):
        identities = {**made["user_identities"]}
        identities["customer_id"] = identities.pop("customerid")
        made["user_identities"] = identities
    if "consent_state" in made:
        consent = {name: one for name, one in made["consent_state"].items() if one}
        made["consent_state"] = consent
    return made


@pytest.mark.parametrize(("case", "sdk", "wire"), SENT)
def test_what_the_official_sdks_send_reads_as_it_is(
    case: str, sdk: str, wire: Json
) -> None:
    """Read and encoded, it is the same JSON; each refusal has its reason."""
    if (case, sdk) in STRICTER:
        with pytest.raises(ValidationError):
            Batch.model_validate(wire)
    else:
        assert Batch.model_validate(wire).to_wire() == as_we_send(wire)


PYTHON_PROFILE: Json = {
    "event_type": "profile",
    "data": {
        "profile_event_type": "login",
        "profile_name": "new",
        "previous_profile_name": "old",
    },
}


def test_a_profile_event_of_the_python_sdk_reads() -> None:
    """That SDK names profiles and has no field for users."""
    wire = {**DEVELOPMENT, "events": [PYTHON_PROFILE]}

    assert Batch.model_validate(wire).to_wire() == wire


def test_each_departure_is_of_a_case_that_exists() -> None:
    """The table holds no case that went away."""
    assert OURS.keys() <= {vector["case"] for vector in VECTORS}
