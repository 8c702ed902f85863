"""Events: flat in Python, wrapped on the wire, strict about their values."""

import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from amplitude_async.mparticle import (
    ApplicationStateTransitionEvent,
    BaseEvent,
    Batch,
    BreadcrumbEvent,
    CommerceEvent,
    CrashReportEvent,
    CustomEvent,
    CustomEventType,
    DeviceCurrentState,
    DeviceInformation,
    FirstRunEvent,
    GenericEvent,
    GeoLocation,
    NetworkPerformanceEvent,
    OptOutEvent,
    PreAttributionEvent,
    ProductAction,
    ProfileEvent,
    PushMessageEvent,
    PushReactionEvent,
    PushRegistrationEvent,
    ScreenViewEvent,
    SessionEndEvent,
    SessionStartEvent,
    UninstallEvent,
    UserAttributeChangeEvent,
    UserIdentityChangeEvent,
)

__all__: list[str] = []

MS = 1_700_000_000_000
IDENTITY = {"identity_type": "email", "identity": "a@b.c", "timestamp_unixtime_ms": MS}

NEEDED: list[tuple[type[BaseEvent], dict[str, Any]]] = [
    (CustomEvent, {"event_name": "signup"}),
    (CommerceEvent, {"product_action": ProductAction(action="purchase")}),
    (ScreenViewEvent, {"screen_name": "Home"}),
    (SessionStartEvent, {}),
    (SessionEndEvent, {"session_duration_ms": 1}),
    (CrashReportEvent, {"severity": "error", "message": "boom"}),
    (OptOutEvent, {"is_opted_out": True}),
    (FirstRunEvent, {}),
    (
        ApplicationStateTransitionEvent,
        {"application_transition_type": "application_exit"},
    ),
    (
        PushMessageEvent,
        {
            "push_message_token": "t",
            "push_message_type": "sent",
            "push_notification_payload": "{}",
        },
    ),
    (PushRegistrationEvent, {"registered": True, "registration_token": "t"}),
    (NetworkPerformanceEvent, {"url": "/", "response_code": 200}),
    (BreadcrumbEvent, {"label": "here"}),
    (
        ProfileEvent,
        {"previous_mpid": 1, "current_mpid": -2, "profile_event_type": "login"},
    ),
    (UserAttributeChangeEvent, {"user_attribute_name": "plan"}),
    (UserIdentityChangeEvent, {"new": IDENTITY}),
    (UninstallEvent, {}),
]
each_event = pytest.mark.parametrize(
    ("model", "needed"), NEEDED, ids=[model.__name__ for model, _ in NEEDED]
)


def refused(model: type[BaseEvent], **fields: object) -> str:
    """Return the message with which a model refuses fields."""
    with pytest.raises(ValidationError) as caught:
        model(**fields)
    return str(caught.value)


def data_of(event: BaseEvent) -> dict[str, Any]:
    """Return the data of an event as on the wire."""
    data: dict[str, Any] = event.to_wire()["data"]
    return data


@each_event
def test_an_event_has_a_type_nobody_can_change(
    model: type[BaseEvent], needed: dict[str, Any]
) -> None:
    """Each class sets its own event type: neither argument nor assignment moves it."""
    event = model(**needed)

    assert event.to_wire()["event_type"] == model.model_fields["event_type"].default
    assert "event_type" in refused(model, **needed, event_type="other_type")
    with pytest.raises(ValidationError, match="frozen"):
        event.event_type = "other_type"


@each_event
def test_both_forms_are_read(model: type[BaseEvent], needed: dict[str, Any]) -> None:
    """An event comes back equal from its wire form and from its Python form."""
    event = model(**needed, session_id=-5, custom_attributes={"a": None})

    assert model.model_validate(event.to_wire()) == event
    assert model.model_validate(event.model_dump()) == event
    assert Batch.model_validate(
        {"environment": "development", "events": [event.to_wire(), event.model_dump()]}
    ).events == [event, event]


@each_event
def test_attributes_hold_scalars_only(
    model: type[BaseEvent], needed: dict[str, Any]
) -> None:
    """A list or a dict as an attribute is refused on every kind of event."""
    for value in (["a"], {"a": 1}, ("a",), {"a"}):
        message = refused(model, **needed, custom_attributes={"tags": value})
        assert "'tags'" in message
        assert "join it into text" in message


@each_event
def test_nan_is_refused(model: type[BaseEvent], needed: dict[str, Any]) -> None:
    """NaN and infinity have no JSON form, so they never get in."""
    for value in (float("nan"), float("inf"), Decimal("NaN")):
        assert "custom_attributes" in refused(
            model, **needed, custom_attributes={"a": value}
        )
        with pytest.raises(ValidationError):
            GeoLocation(latitude=value, longitude=0)


def test_a_crash_report_is_one() -> None:
    """The Python SDK sends crash reports as commerce events; we do not."""
    crash = CrashReportEvent(severity="error", message="")

    assert crash.to_wire() == {
        "event_type": "crash_report",
        "data": {"severity": "error", "message": ""},
    }


def test_breadcrumbs_in_a_crash_report_are_wrapped() -> None:
    """A mark inside a report has its envelope, a text stays text."""
    crash = CrashReportEvent(
        severity="error", message="m", breadcrumbs=[BreadcrumbEvent(label="a"), "b"]
    )

    assert data_of(crash)["breadcrumbs"] == [
        {"event_type": "breadcrumb", "data": {"label": "a"}},
        "b",
    ]
    assert CrashReportEvent.model_validate(crash.to_wire()) == crash


def test_false_zero_and_empty_text_are_sent() -> None:
    """What the caller set is on the wire, what nobody set is not."""
    opened = ApplicationStateTransitionEvent(
        application_transition_type="application_initialized",
        is_first_run=False,
        event_num=0,
        launch_referral="",
        location=GeoLocation(latitude=0, longitude=0.0),
    )

    assert data_of(opened) == {
        "application_transition_type": "application_initialized",
        "is_first_run": False,
        "event_num": 0,
        "launch_referral": "",
        "location": {"latitude": 0, "longitude": 0.0},
    }


def test_an_identity_without_a_predecessor_says_null() -> None:
    """The schema wants both keys, so the absent one is an explicit null."""
    change = UserIdentityChangeEvent.model_validate({"new": IDENTITY})
    removal = UserIdentityChangeEvent.model_validate({"old": IDENTITY})

    assert data_of(change) == {"new": IDENTITY, "old": None}
    assert data_of(removal) == {"new": None, "old": IDENTITY}
    assert "at least one" in refused(UserIdentityChangeEvent)


def test_an_attribute_change_says_null() -> None:
    """Value before and after are both sent, null where there is none."""
    change = UserAttributeChangeEvent(user_attribute_name="plan", new=["a", 1, None])

    assert data_of(change) == {
        "user_attribute_name": "plan",
        "new": ["a", 1, None],
        "old": None,
    }
    assert data_of(UserAttributeChangeEvent(user_attribute_name="plan")) == {
        "user_attribute_name": "plan",
        "new": None,
        "old": None,
    }


@pytest.mark.parametrize("event_id", [-(2**63), -1, 0, 2**63 - 1])
def test_64_bit_integers_survive(event_id: int) -> None:
    """Every signed 64-bit id comes back exactly."""
    event = CustomEvent(event_name="e", event_id=event_id, session_id=event_id)
    again = CustomEvent.model_validate(event.to_wire())

    assert (again.event_id, again.session_id) == (event_id, event_id)


@pytest.mark.parametrize("event_id", [2**63, -(2**63) - 1, "7", 7.0, True])
def test_what_is_no_64_bit_integer_is_refused(event_id: object) -> None:
    """A bigger integer, text, a float and a bool are no ids."""
    assert "event_id" in refused(CustomEvent, event_name="e", event_id=event_id)


def test_an_aware_datetime_becomes_milliseconds() -> None:
    """Moments are sent as integer milliseconds, whatever the time zone."""
    moment = datetime(2023, 11, 14, 22, 13, 20, 5999, tzinfo=UTC)
    event = CustomEvent(event_name="e", timestamp_unixtime_ms=moment)

    assert data_of(event)["timestamp_unixtime_ms"] == MS + 5
    assert CustomEvent(
        event_name="e", timestamp_unixtime_ms=MS
    ).timestamp_unixtime_ms == (MS)


@pytest.mark.parametrize(
    ("moment", "says"),
    [
        (1_700_000_000, "multiply seconds by 1000"),
        (0, "multiply seconds by 1000"),
        (1_700_000_000_000_000, "more than a day ahead"),
        (datetime(2023, 1, 1), "no time zone"),  # noqa: DTZ001  # that is the point
        (1_700_000_000.5, "whole milliseconds"),
        ("1700000000000", "whole milliseconds"),
        (date(2023, 1, 1), "whole milliseconds"),
        (True, "whole milliseconds"),
    ],
)
def test_what_is_no_moment_is_refused(moment: object, says: str) -> None:
    """Seconds, nanoseconds, naive datetimes and text are refused with the remedy."""
    message = refused(CustomEvent, event_name="e", timestamp_unixtime_ms=moment)

    assert says in message
    assert repr(moment) in message


def test_a_clock_may_be_ahead_a_little() -> None:
    """A device's clock may run up to a day ahead of ours."""
    tomorrow = int(time.time() * 1000) + 80_000_000

    assert CustomEvent(event_name="e", timestamp_unixtime_ms=tomorrow)


def test_zero_stands_for_no_session_start() -> None:
    """The official SDKs send 0 for a start that is not known: it is kept."""
    event = CustomEvent(
        event_name="e", session_start_unixtime_ms=0, event_start_unixtime_ms=0
    )

    assert CustomEvent.model_validate(event.to_wire()) == event
    assert "seconds" in refused(
        CustomEvent, event_name="e", session_start_unixtime_ms=1_700_000_000
    )


def test_a_timedelta_becomes_milliseconds() -> None:
    """Durations may be given as what Python measures them in."""
    ended = SessionEndEvent(session_duration_ms=timedelta(seconds=1.5))
    state = DeviceCurrentState(time_since_start_ms=timedelta(0))

    assert data_of(ended) == {"session_duration_ms": 1500}
    assert state.time_since_start_ms == 0


@pytest.mark.parametrize("duration", [1.5, "1500", -1, timedelta(-1), MS, True])
def test_what_is_no_duration_is_refused(duration: object) -> None:
    """A float, a negative length and a point in time are no durations."""
    assert "milliseconds" in refused(SessionEndEvent, session_duration_ms=duration)


def test_a_uuid_is_sent_with_hyphens() -> None:
    """UUID objects and text without hyphens are normalised, letters keep their case."""
    text = "607258d9-c28b-43ad-95ed-e9593025d5a1"
    for given in (UUID(text), text, text.replace("-", ""), f"{{{text}}}"):
        assert DeviceInformation(ios_advertising_id=given).ios_advertising_id == text
    assert SessionStartEvent(session_uuid=text.upper()).session_uuid == text.upper()


@pytest.mark.parametrize("field", ["ios_idfv", "roku_publisher_id"])
@pytest.mark.parametrize("given", ["anything", "", 7])
def test_what_is_no_uuid_is_refused(field: str, given: object) -> None:
    """Anything else raises, the empty text above all."""
    with pytest.raises(ValidationError, match="should be a UUID"):
        DeviceInformation.model_validate({field: given})


def test_a_custom_event_is_of_an_open_type() -> None:
    """The type is other by default; known values are offered, unknown ones taken."""
    assert CustomEvent(event_name="e").custom_event_type == "other"
    for kind in (*CustomEventType, "invented_tomorrow"):
        event = CustomEvent(event_name="e", custom_event_type=kind)
        assert data_of(event)["custom_event_type"] == str(kind)
        assert type(event.custom_event_type) is str


def test_names_are_not_empty() -> None:
    """An event without a name says nothing."""
    assert "event_name" in refused(CustomEvent, event_name="")
    assert "event_name" in refused(CustomEvent)
    assert "screen_name" in refused(ScreenViewEvent, screen_name="")
    assert "label" in refused(BreadcrumbEvent, label="")


def test_attributes_become_json() -> None:
    """What has a faithful scalar form is converted, by the package's own policy."""
    attributes = {
        "none": None,
        "flag": False,
        "zero": 0,
        "price": Decimal("19.99"),
        "uuid": UUID(int=1),
        "kind": CustomEventType.MEDIA,
        "day": date(2024, 2, 29),
    }
    event = CustomEvent(event_name="e", custom_attributes=attributes)

    assert data_of(event)["custom_attributes"] == {
        "none": None,
        "flag": False,
        "zero": 0,
        "price": 19.99,
        "uuid": "00000000-0000-0000-0000-000000000001",
        "kind": "media",
        "day": "2024-02-29",
    }
    assert attributes["price"] == Decimal("19.99")


@pytest.mark.parametrize(
    "attributes",
    [{1: "a"}, {"": "a"}, {"a": object()}, {"a": b"x"}, {"a": "\ud800"}, {"a": 2**63}],
)
def test_attributes_without_a_json_form_are_refused(attributes: object) -> None:
    """What cannot be sent raises where it is made, not when it is sent."""
    assert "custom_attributes" in refused(
        CustomEvent, event_name="e", custom_attributes=attributes
    )


def test_flags_take_any_json() -> None:
    """Custom flags may nest, but hold JSON only; later changes do not reach them."""
    given: dict[str, Any] = {"answer": 42, "list": ["a", {"b": None}]}
    event = ScreenViewEvent(screen_name="Home", custom_flags=given)
    given["list"].append("later")

    assert data_of(event)["custom_flags"] == {"answer": 42, "list": ["a", {"b": None}]}
    assert "custom_flags" in refused(
        ScreenViewEvent, screen_name="Home", custom_flags={"a": [float("nan")]}
    )


def test_assignment_is_checked() -> None:
    """A field is as strict after construction as at it."""
    event = CustomEvent(event_name="e")
    event.timestamp_unixtime_ms = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)

    assert event.timestamp_unixtime_ms == MS
    with pytest.raises(ValidationError, match="join it into text"):
        event.custom_attributes = {"tags": ["a"]}


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (
            ApplicationStateTransitionEvent.install(),
            {
                "application_transition_type": "application_initialized",
                "is_first_run": True,
                "is_upgrade": False,
            },
        ),
        (
            ApplicationStateTransitionEvent.upgrade(),
            {
                "application_transition_type": "application_initialized",
                "is_first_run": False,
                "is_upgrade": True,
            },
        ),
        (
            ApplicationStateTransitionEvent.foreground(),
            {"application_transition_type": "application_foreground"},
        ),
        (
            ApplicationStateTransitionEvent.background(event_num=0),
            {"application_transition_type": "application_background", "event_num": 0},
        ),
        (
            CustomEvent.attribution_install(campaign="spring", publisher="acme"),
            {
                "event_name": "attribution",
                "custom_event_type": "attribution",
                "custom_attributes": {"campaign": "spring", "publisher": "acme"},
            },
        ),
        (
            CustomEvent.attribution_delete(custom_attributes={"why": "fraud"}),
            {
                "event_name": "attribution",
                "custom_event_type": "attribution",
                "custom_attributes": {"why": "fraud", "action": "delete"},
            },
        ),
    ],
)
def test_factories_make_the_usual_events(
    event: BaseEvent, data: dict[str, object]
) -> None:
    """The factories of the Python SDK exist, with the values it sends."""
    assert data_of(event) == data


def test_common_fields_are_enough_for_some() -> None:
    """First run and uninstall have no fields of their own."""
    assert FirstRunEvent().to_wire() == {"event_type": "first_run", "data": {}}
    assert UninstallEvent(timestamp_unixtime_ms=MS).to_wire() == {
        "event_type": "uninstall",
        "data": {"timestamp_unixtime_ms": MS},
    }


def test_an_event_of_tomorrow_can_be_sent() -> None:
    """A generic event carries any type without a class, its data as it is."""
    made = GenericEvent(event_type="hologram", data={"a": None, "b": [1]})
    reaction = GenericEvent(event_type="push_reaction", data={"a": 1})

    assert made.to_wire() == {"event_type": "hologram", "data": {"a": None, "b": [1]}}
    assert reaction.to_wire() == PushReactionEvent(data={"a": 1}).to_wire()
    assert PreAttributionEvent(data={}).to_wire()["event_type"] == "pre_attribution"


def test_a_generic_event_is_no_way_round_the_checks() -> None:
    """A type that has a class is refused, and so is what is no JSON."""
    with pytest.raises(ValidationError, match="class of its own"):
        GenericEvent(event_type="custom_event", data={})
    with pytest.raises(ValidationError, match="data"):
        GenericEvent(event_type="hologram", data={"a": float("inf")})


def test_a_text_field_called_data_is_no_envelope() -> None:
    """Network performance has a field `data` of its own."""
    event = NetworkPerformanceEvent(url="/", response_code=0, data="YQ==")

    assert data_of(event) == {"url": "/", "response_code": 0, "data": "YQ=="}
    assert NetworkPerformanceEvent.model_validate(event.to_wire()) == event


def test_register_keeps_its_name_on_the_wire() -> None:
    """The attribute is called `registered`; both names can be given."""
    event = PushRegistrationEvent(registered=False, registration_token="t")
    same = PushRegistrationEvent.model_validate(
        {"register": False, "registration_token": "t"}
    )

    assert event == same
    assert data_of(event) == {"register": False, "registration_token": "t"}


def test_a_push_behaviour_is_a_name_or_a_mask() -> None:
    """The documents have a bit mask, the schema has names: both are taken."""
    needed = dict(NEEDED)[PushMessageEvent]

    for behavior in (5, "Read"):
        event = PushMessageEvent(**needed, push_message_behavior=behavior)
        assert data_of(event)["push_message_behavior"] == behavior


def test_a_lifetime_value_change_is_a_flag_or_an_amount() -> None:
    """The SDKs have a bool, the schema a number: each stays what it is."""
    for change in (True, 0, 1.5):
        event = CustomEvent(event_name="e", lifetime_value_change=change)
        sent = data_of(event)["lifetime_value_change"]
        assert sent == change
        assert type(sent) is type(change)


def test_a_generic_event_tells_time_and_id_from_its_data() -> None:
    """What other events have as fields is read from the data, where it is usable."""
    told = GenericEvent(
        event_type="hologram",
        data={"timestamp_unixtime_ms": MS, "source_message_id": "m"},
    )
    untold = GenericEvent(
        event_type="hologram",
        data={"timestamp_unixtime_ms": "soon", "source_message_id": 7},
    )

    assert (told.timestamp_unixtime_ms, told.source_message_id) == (MS, "m")
    assert (untold.timestamp_unixtime_ms, untold.source_message_id) == (None, None)


def test_a_class_reads_its_data_without_a_type() -> None:
    """The class is the type, so an envelope may lack it."""
    event = ScreenViewEvent.model_validate({"data": {"screen_name": "Home"}})

    assert event == ScreenViewEvent(screen_name="Home")


@pytest.mark.parametrize("attributes", ["a", ["a"], 7])
def test_attributes_are_a_dict(attributes: object) -> None:
    """Anything but a dict is refused with its value."""
    message = refused(CustomEvent, event_name="e", custom_attributes=attributes)

    assert "should be a dict of name to value" in message
