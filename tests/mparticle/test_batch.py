"""Batches: reading, encoding, filling in, limits, grouping and splitting."""

import json
import string
import time
import uuid
from collections.abc import Callable
from itertools import count, pairwise
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from amplitude_async.encoding import unix_ms
from amplitude_async.mparticle import (
    Batch,
    BatchContext,
    BreadcrumbEvent,
    CCPAConsentState,
    ConsentState,
    CustomEvent,
    DataPlanContext,
    DeviceInformation,
    Environment,
    GDPRConsentState,
    GenericEvent,
    ScreenViewEvent,
    UserIdentities,
    check_limits,
    decode_batch,
    encode_batch,
    group_events,
    truncate_names,
)
from amplitude_async.mparticle.encoder import (
    EncodedBatch,
    encode_stamped,
    new_uuid,
)

__all__: list[str] = []

MS = 1_700_000_000_000
WALL = MS / 1000
SIGNUP = {
    "event_type": "custom_event",
    "data": {"event_name": "signup", "custom_event_type": "other"},
}

# The kinds of values an app's own SDK sends: nulls, zeros for "none", negative ids.
RECEIVED: dict[str, Any] = {
    "source_request_id": "769d83cb",
    "environment": "production",
    "mpid": -600868121729048600,
    "ip": "192.0.2.7",
    "events": [
        {
            "event_type": "session_start",
            "data": {
                "timestamp_unixtime_ms": MS,
                "event_id": -6518616552181726857,
                "source_message_id": None,
                "session_uuid": "84E1B361-A282-4ADF-8A6D-1D31E6DD5A9E",
                "session_start_unixtime_ms": 0,
                "event_start_unixtime_ms": 0,
                "custom_attributes": None,
                "device_current_state": {
                    "battery_level": -1,
                    "cpu": "106",
                    "gps_state": None,
                    "external_disk_space_free_bytes": 0,
                    "device_orientation": "unknown",
                },
                "is_goal_defined": False,
                "lifetime_value_change": 0,
                "event_num": 0,
            },
        },
        {
            "event_type": "user_identity_change",
            "data": {
                "new": {
                    "identity_type": "customer_id",
                    "identity": "123456",
                    "timestamp_unixtime_ms": MS,
                    "created_this_batch": True,
                },
                "old": None,
            },
        },
        {
            "event_type": "crash_report",
            "data": {
                "breadcrumbs": None,
                "severity": "error",
                "message": "Example",
                "ios_image_base_address": 2**64 - 1,
                "exception_handled": False,
            },
        },
        {"event_type": "custom_event", "data": {"event_name": "e", "custom_flags": {}}},
    ],
}


def ids() -> Callable[[], str]:
    """Return a maker of ids that can be told apart."""
    numbers = count(1)
    return lambda: f"id-{next(numbers)}"


def batch_of(*events: Any, **fields: Any) -> Batch:
    """Return a batch of a development environment."""
    return Batch(environment="development", events=list(events), **fields)


def without_nulls(value: Any) -> Any:
    """Return JSON without the keys that are null, but for an identity's `old`."""
    if isinstance(value, dict):
        return {
            key: without_nulls(item)
            for key, item in value.items()
            if item is not None or key == "old"
        }
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def test_a_received_batch_is_read() -> None:
    """What an app's SDK sends is read, and sent again but for its nulls."""
    batch = Batch.model_validate(RECEIVED)
    expected = without_nulls(RECEIVED)
    expected["events"][3]["data"]["custom_event_type"] = "other"

    assert batch.to_wire() == expected


def test_the_environment_is_mandatory() -> None:
    """There is no default: the server's would be production."""
    with pytest.raises(ValidationError, match="environment"):
        Batch.model_validate({})
    with pytest.raises(ValidationError, match="'development' or 'production'"):
        Batch.model_validate({"environment": "unknown"})
    assert Batch(environment=Environment.PRODUCTION).to_wire() == {
        "environment": "production"
    }


def test_an_event_is_wrapped_however_it_got_in() -> None:
    """Constructor, assignment and append: the wire always has the envelope."""
    event = CustomEvent(event_name="signup")
    constructed = batch_of(event)
    assigned = batch_of()
    assigned.events = [event]
    appended = batch_of()
    appended.events.append(event)
    appended_wire = batch_of()
    appended_wire.events.append(SIGNUP)  # type: ignore[arg-type]  # taken all the same

    for batch in (constructed, assigned, appended, appended_wire):
        assert batch.to_wire()["events"] == [SIGNUP]


def test_what_is_no_event_is_refused() -> None:
    """An append cannot be checked, so encoding checks it."""
    batch = batch_of()
    batch.events.append("signup")  # type: ignore[arg-type]  # that is the point

    with pytest.raises(ValidationError, match="event_type"):
        encode_batch(batch)
    with pytest.raises(ValidationError, match="event_type"):
        batch_of({"event_name": "signup"})


def test_an_unknown_event_type_becomes_a_generic_event() -> None:
    """Events of tomorrow are read as they are."""
    batch = Batch.model_validate(
        {
            "environment": "development",
            "events": [{"event_type": "hologram", "data": {"a": 1}}],
        }
    )

    assert batch.events == [GenericEvent(event_type="hologram", data={"a": 1})]


def test_null_attributes_are_sent() -> None:
    """None is a value of an attribute, not its absence."""
    batch = batch_of(user_attributes={"a": None, "b": False, "c": "", "d": [1, None]})

    assert batch.to_wire()["user_attributes"] == {
        "a": None,
        "b": False,
        "c": "",
        "d": [1, None],
    }


@pytest.mark.parametrize("value", [{"a": 1}, [[1]], float("nan"), [float("inf")]])
def test_user_attributes_are_scalars_or_lists(value: object) -> None:
    """Objects, nested lists and NaN are refused, by the name of the attribute."""
    with pytest.raises(ValidationError, match="plan"):
        batch_of(user_attributes={"plan": value})


def test_an_attribute_is_kept_or_forgotten() -> None:
    """The same attribute in both lists is the caller's mistake."""
    with pytest.raises(ValidationError, match=r"\['a'\] in user_attributes"):
        batch_of(user_attributes={"a": 1}, deleted_user_attributes=["a", "b"])


def test_an_mpid_may_be_text() -> None:
    """Decimal text becomes just that integer; 64 bits and no more."""
    batch = batch_of(mpid="600868121729048600")

    assert b'"mpid":600868121729048600' in encode_batch(batch)
    assert batch_of(mpid=-(2**63)).to_wire()["mpid"] == -(2**63)
    for mpid in (2**63, str(2**63), "12a", 1.5, True):
        with pytest.raises(ValidationError, match="64-bit"):
            batch_of(mpid=mpid)


def test_customerid_is_read_and_customer_id_sent() -> None:
    """The key of the old SDKs is taken, the key of the documents goes out."""
    batch = batch_of(user_identities={"customerid": 42, "other": UUID(int=1)})

    assert batch.to_wire()["user_identities"] == {
        "customer_id": "42",
        "other": "00000000-0000-0000-0000-000000000001",
    }
    assert UserIdentities.model_validate({"customer_id": "42"}).customer_id == "42"


def test_an_empty_identity_is_refused() -> None:
    """The empty text would make one user of all those without an id."""
    with pytest.raises(ValidationError, match="leave it out"):
        UserIdentities(customer_id="")


def test_keys_of_the_server_are_not_sent_unasked() -> None:
    """What the server owns is absent, unless set on purpose."""
    owned = {"schema_version", "batch_id", "timestamp_unixtime_ms", "source_info"}
    encoded = encode_stamped(batch_of(CustomEvent(event_name="e")), wall=WALL)

    assert owned.isdisjoint(json.loads(encoded.body))
    assert batch_of(batch_id=-1, schema_version=2).to_wire() == {
        "environment": "development",
        "batch_id": -1,
        "schema_version": 2,
    }


def test_a_refusal_is_sent() -> None:
    """GDPR: a decision against is on the wire, with the time it was made."""
    before = unix_ms(time.time())
    refusal = GDPRConsentState(consented=False)
    batch = batch_of(consent_state=ConsentState(gdpr={"ads": refusal}))

    assert before <= refusal.timestamp_unixtime_ms <= unix_ms(time.time())
    assert batch.to_wire()["consent_state"] == {
        "gdpr": {
            "ads": {
                "consented": False,
                "timestamp_unixtime_ms": refusal.timestamp_unixtime_ms,
            }
        }
    }


def test_opting_out_is_consented() -> None:
    """CCPA: the helpers know which way round it is, and the purpose is fixed."""
    state = ConsentState(ccpa=CCPAConsentState.opted_out(timestamp_unixtime_ms=MS))

    assert batch_of(consent_state=state).to_wire()["consent_state"] == {
        "ccpa": {"data_sale_opt_out": {"consented": True, "timestamp_unixtime_ms": MS}}
    }
    assert CCPAConsentState.not_opted_out().consented is False
    with pytest.raises(ValidationError, match="data_sale_opt_out"):
        ConsentState(ccpa={"ads": CCPAConsentState.opted_out()})


def test_empty_consent_is_not_sent() -> None:
    """Empty maps are left out, and so is a state without decisions."""
    assert ConsentState(gdpr={}, ccpa={}).is_empty
    assert batch_of(consent_state={"gdpr": {}, "ccpa": {}}).to_wire() == {
        "environment": "development"
    }


def test_a_plan_without_a_version_has_none() -> None:
    """The newest version is meant where none is given."""
    context = BatchContext(data_plan=DataPlanContext(plan_id="plan"))

    assert batch_of(context=context).to_wire()["context"] == {
        "data_plan": {"plan_id": "plan"}
    }


@pytest.mark.parametrize(
    ("fields", "tied"),
    [
        ({}, None),
        ({"user_identities": {}}, None),
        ({"device_info": {"brand": "b"}}, None),
        ({"user_identities": {"email": "a@b.c"}}, "a@b.c"),
        ({"mpid": 0}, "0"),
        ({"mp_deviceid": UUID(int=1)}, str(UUID(int=1))),
        ({"device_info": DeviceInformation(ios_idfv=UUID(int=1))}, str(UUID(int=1))),
        ({"partner_identities": {"partner": "p"}}, "p"),
    ],
)
def test_a_batch_knows_whether_it_is_anyones(
    fields: dict[str, Any], tied: str | None
) -> None:
    """Without an identity the server cannot tie a batch to a profile."""
    assert batch_of(**fields).identity == tied
    assert batch_of(**fields).has_identity is (tied is not None)


# --- Filling in ---


def test_stamping_fills_in_what_is_absent() -> None:
    """Ids and times are filled in once, and the caller's batch is not changed."""
    own = CustomEvent(
        event_name="own", timestamp_unixtime_ms=MS - 5, source_message_id="mine"
    )
    batch = batch_of(
        CustomEvent(event_name="e"), own, GenericEvent(event_type="x", data={})
    )
    before = batch.model_copy(deep=True)

    encoded = encode_stamped(batch, wall=WALL, new_id=ids())
    first, second, third = json.loads(encoded.body)["events"]

    assert batch == before
    assert decode_batch(encoded.body).source_request_id == "id-3"
    assert first["data"] == {
        "timestamp_unixtime_ms": MS,
        "source_message_id": "id-1",
        "event_name": "e",
        "custom_event_type": "other",
    }
    assert second == own.to_wire()
    assert third["data"] == {
        "timestamp_unixtime_ms": MS,
        "source_message_id": "id-2",
    }


def test_a_retry_has_the_same_ids_and_times() -> None:
    """Stamping again changes nothing, so a retry is the same to the byte."""
    first = encode_stamped(batch_of(CustomEvent(event_name="e")), wall=WALL)
    again = encode_stamped(decode_batch(first.body), wall=WALL + 9)
    once_more = encode_stamped(decode_batch(again.body), wall=WALL + 18)

    assert json.loads(again.body) == json.loads(first.body)
    assert once_more.body == again.body


def test_reading_invents_nothing() -> None:
    """A batch that was read has only what was sent."""
    batch = Batch.model_validate({"environment": "development", "events": [SIGNUP]})

    assert batch.source_request_id is None
    assert batch.events[0].timestamp_unixtime_ms is None
    assert batch.events[0].source_message_id is None


# --- Limits ---


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (batch_of(CustomEvent(event_name="x" * 257)), "events[0].event_name has 257"),
        (batch_of(ScreenViewEvent(screen_name="x" * 257)), "screen_name has 257"),
        (
            batch_of(CustomEvent(event_name="e", custom_attributes={"k" * 257: 1})),
            "the name 'kkk",
        ),
    ],
)
def test_long_names_are_refused_or_cut(batch: Batch, says: str) -> None:
    """A name that is too long is a problem, or is cut as the server would."""
    (problem,) = check_limits(batch, "error")
    cut = truncate_names(batch)

    assert says in problem
    assert "the limit is 256" in problem
    assert check_limits(batch, "truncate") == check_limits(batch, "off") == []
    assert check_limits(cut, "error") == []
    assert len(check_limits(batch, "error")) == 1


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (
            batch_of(CustomEvent(event_name="e", custom_attributes={"a": "x" * 4097})),
            "events[0].custom_attributes['a'] has 4097",
        ),
        (
            batch_of(
                BreadcrumbEvent(
                    label="l", custom_attributes={str(n): n for n in range(101)}
                )
            ),
            "has 101 attributes",
        ),
        (batch_of(user_attributes={str(n): n for n in range(101)}), "101 attributes"),
        (batch_of(user_attributes={"a": "x" * 4097}), "user_attributes['a'] has 4097"),
        (batch_of(user_attributes={"k" * 257: 1}), "has 257 characters"),
        (batch_of(user_attributes={"a": [1] * 1001}), "has 1001 entries"),
        (batch_of(user_attributes={"a": ["x" * 513]}), "['a'][0] has 513"),
        (
            batch_of(
                {
                    "event_type": "push_message",
                    "push_message_token": "t",
                    "push_message_type": "action",
                    "push_notification_payload": "{}",
                    "action_identifier": "x" * 101,
                }
            ),
            "action_identifier has 101",
        ),
    ],
)
def test_what_can_fail_a_request_is_a_problem(batch: Batch, says: str) -> None:
    """Values and counts beyond the limits are named, and cutting names cures none."""
    for mode in ("error", "truncate"):
        (problem,) = check_limits(batch, mode)
        assert says in problem
    assert check_limits(batch, "off") == []
    assert truncate_names(batch) is batch


def test_at_the_limits_all_is_well() -> None:
    """What just fits is no problem, and generic events have no limits of their own."""
    batch = batch_of(
        CustomEvent(
            event_name="x" * 256,
            custom_attributes={"k" * 256: "v" * 4096}
            | {str(number): number for number in range(99)},
        ),
        GenericEvent(event_type="hologram", data={"event_name": "x" * 999}),
        user_attributes={"k" * 256: ["x" * 512] * 1000},
    )

    assert check_limits(batch) == []
    assert truncate_names(batch) is batch


# --- Grouping and splitting ---


def test_events_are_grouped_by_user() -> None:
    """One batch for each user, users and events in the order they came."""
    names = ["a1", "b1", "a2"]
    first, second, third = (CustomEvent(event_name=name) for name in names)
    batches = group_events(
        [
            ({"customer_id": 1}, first),
            (UserIdentities(customer_id="2"), second),
            (UserIdentities(customer_id="1"), third),
        ],
        environment="development",
        context={"data_plan": {"plan_id": "plan"}},
    )

    assert [batch.user_identities for batch in batches] == [
        UserIdentities(customer_id="1"),
        UserIdentities(customer_id="2"),
    ]
    assert [batch.events for batch in batches] == [[first, third], [second]]
    assert all(batch.context is not None for batch in batches)
    assert group_events([], environment="production") == []


def test_a_batch_that_fits_is_not_split() -> None:
    """Where nothing has to be done, nothing is."""
    batch = batch_of(CustomEvent(event_name="e"), source_request_id="r")
    encoded = encode_stamped(batch, wall=WALL)

    assert encoded.split(len(encoded.body)) == [encoded]
    assert encoded.split(128_000)[0] is encoded


def test_a_big_batch_is_split_by_its_events() -> None:
    """Each part has the same user and an id of its own, and no part is too big."""
    events = [CustomEvent(event_name="é" * (1 + n % 7)) for n in range(50)]
    batch = batch_of(*events, user_identities={"email": "a@b.c"}, batch_id=7, mpid=3)
    encoded = encode_stamped(batch, wall=WALL)
    split = encoded.split(600)
    parts = [decode_batch(part.body) for part in split]

    assert [event for part in split for event in part.events] == encoded.events
    sent = [event for part in split for event in json.loads(part.body)["events"]]
    assert [one["data"]["event_name"] for one in sent] == [
        event.event_name for event in events
    ]
    assert all(len(part.body) <= 600 for part in split)
    assert {part.mpid for part in parts} == {3}
    assert {part.batch_id for part in parts} == {None}
    request_ids = {part.source_request_id for part in parts}
    assert len(request_ids) == len(parts) > 1
    assert None not in request_ids
    assert batch.events == events


@given(
    sizes=st.lists(st.integers(min_value=1, max_value=60), min_size=1, max_size=40),
    limit=st.integers(min_value=330, max_value=900),
)
def test_no_part_is_ever_too_big(sizes: list[int], limit: int) -> None:
    """Whatever the sizes: no event is lost, and each part is as full as can be."""
    batch = batch_of(*(CustomEvent(event_name="x" * size) for size in sizes))
    # Short ids leave as much room as events without any would.
    encoded = encode_stamped(batch, wall=WALL, new_id=lambda: "i")
    parts = encoded.split(limit)

    assert [event for part in parts for event in part.events] == encoded.events
    assert all(len(part.body) <= limit for part in parts)
    for part, following in pairwise(parts):
        key = part.source_request_id
        fuller = EncodedBatch(part.head, [*part.events, following.events[0]], key)
        assert len(fuller.body) > limit


def test_an_event_that_fits_nowhere_is_named() -> None:
    """Splitting cannot help where one event or the user's part is too big."""
    small, large = CustomEvent(event_name="small"), CustomEvent(event_name="x" * 900)
    attributes = {"a": "x" * 900}

    with pytest.raises(ValueError, match=r"event 1 has \d+ bytes.*at most 800"):
        encode_stamped(batch_of(small, large), wall=WALL).split(800)
    for events in ((), (small, large)):
        batch = batch_of(*events, user_attributes=attributes)
        with pytest.raises(ValueError, match="without its events"):
            encode_stamped(batch, wall=WALL).split(800)


# --- Round trips ---

texts = st.text(max_size=20)
names = st.text(min_size=1, max_size=20)
int64 = st.integers(min_value=-(2**63), max_value=2**63 - 1)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    int64,
    texts,
    st.floats(allow_nan=False, allow_infinity=False),
)
moments = st.integers(min_value=10**11, max_value=MS)
attributes = st.dictionaries(names, scalars, max_size=4)
json_values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)
    ),
    max_leaves=6,
)
common = st.fixed_dictionaries(
    {},
    optional={
        "timestamp_unixtime_ms": moments,
        "source_message_id": texts,
        "session_id": int64,
        "session_uuid": st.uuids(),
        "custom_attributes": attributes,
        "is_goal_defined": st.booleans(),
    },
)


def with_common(kind: str, **own: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return flat events of a kind with its own and some common fields."""
    return st.builds(
        lambda shared, fields: {"event_type": kind, **shared, **fields},
        common,
        st.fixed_dictionaries(own),
    )


events = st.one_of(
    with_common(
        "custom_event",
        event_name=names,
        custom_event_type=st.sampled_from(["other", "media", "new"]),
        custom_flags=st.none() | st.dictionaries(names, json_values, max_size=2),
    ),
    with_common("screen_view", screen_name=names),
    with_common("session_end", session_duration_ms=st.integers(0, 10**9 - 1)),
    with_common(
        "user_attribute_change",
        user_attribute_name=names,
        old=scalars | st.lists(scalars, max_size=3),
    ),
    with_common("uninstall"),
    st.fixed_dictionaries(
        {
            "event_type": st.text(string.ascii_lowercase, min_size=1, max_size=4),
            "data": st.dictionaries(names, json_values, max_size=3),
        }
    ),
)
batches = st.fixed_dictionaries(
    {"environment": st.sampled_from(list(Environment)), "events": st.lists(events)},
    optional={
        "mpid": int64,
        "user_identities": st.dictionaries(
            st.sampled_from(["customer_id", "email", "other_id_10"]), names
        ),
        "user_attributes": st.dictionaries(
            names, scalars | st.lists(scalars, max_size=3), max_size=3
        ),
        "source_request_id": names,
        "consent_state": st.fixed_dictionaries(
            {
                "gdpr": st.dictionaries(
                    names,
                    st.fixed_dictionaries(
                        {
                            "consented": st.booleans(),
                            "timestamp_unixtime_ms": moments,
                        }
                    ),
                    min_size=1,
                    max_size=2,
                )
            }
        ),
    },
)


@given(batches)
def test_any_batch_comes_back(fields: dict[str, Any]) -> None:
    """Whatever can be constructed is read back equal, from bytes and from Python."""
    batch = Batch.model_validate(fields)
    body = encode_batch(batch)

    assert decode_batch(body) == batch
    assert encode_batch(decode_batch(body)) == body
    assert Batch.model_validate(batch.model_dump()) == batch
    assert json.loads(body) == batch.to_wire()


def test_bytes_that_are_no_batch_are_refused() -> None:
    """Reading what is no JSON, or no batch, raises a ValueError."""
    with pytest.raises(ValueError, match="EOF"):
        decode_batch(b"{")
    with pytest.raises(ValidationError):
        decode_batch(b"[]")


def test_a_new_id_is_a_random_uuid() -> None:
    """Ids are proper UUIDs of version 4, hyphenated, and differ."""
    made = {new_uuid() for _ in range(1_000)}
    assert len(made) == 1_000
    for text in made:
        parsed = uuid.UUID(text)
        assert (parsed.version, parsed.variant) == (4, uuid.RFC_4122)
        assert str(parsed) == text
