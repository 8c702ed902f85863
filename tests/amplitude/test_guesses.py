"""What people write from other pages and from habit: it works, or the refusal helps."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar, Self, cast

import pytest
from pydantic import BaseModel, Field, ValidationError, model_validator

from amplitude_async import (
    Amplitude,
    AmplitudeError,
    Config,
    ConfigurationError,
    EnrichmentPlugin,
    Event,
    EventOptions,
    Identify,
    Overflow,
    Plan,
    Plugin,
    PluginType,
    Revenue,
    TypedEvent,
)
from amplitude_async.testing import RecordingAmplitude, capture
from amplitude_async.wire import WireModel

__all__: list[str] = []

KEY = "0123456789abcdef-secret"
ANY_EVENT: Any = Event


def three_arguments(event: object, code: object, message: object) -> None:
    """Take what the official SDK's callback takes."""


# --- Positions ---


def test_a_configuration_takes_the_key_by_place() -> None:
    """As in the official SDKs; the rest goes by name."""
    config = Config(KEY, flush_queue_size=5)

    assert config == Config(api_key=KEY, flush_queue_size=5)
    with pytest.raises(TypeError, match="the api_key once, and the rest by name"):
        cast("Any", Config)(KEY, 5)
    with pytest.raises(TypeError, match="the api_key once") as caught:
        cast("Any", Config)(KEY, api_key="other")
    assert KEY not in str(caught.value)


def test_a_client_takes_a_configuration_by_place() -> None:
    """In the place of the key, or after it."""
    assert Amplitude(Config(KEY)).config == Config(KEY)
    config = Config(flush_interval=5)
    assert Amplitude(KEY, config).config == Config(KEY, flush_interval=5)
    with pytest.raises(TypeError, match="pass one Config"):
        Amplitude(config, config)


def test_the_key_may_come_with_the_client() -> None:
    """Shared options need no key; what sends does, and says so."""
    shared = Config(flush_interval=5)

    assert Amplitude(KEY, config=shared).config.flush_interval == 5.0
    with pytest.raises(ConfigurationError, match="api_key is missing: pass"):
        Amplitude(config=shared)


def test_models_take_what_is_said_first_by_place() -> None:
    """The type of an event, and price, quantity and product of a sale."""
    assert Event("x", user_id="u") == Event(event_type="x", user_id="u")
    sale = Revenue(3.99, 3, "sku")
    assert sale == Revenue(price=3.99, quantity=3, product_id="sku")


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (
            lambda: ANY_EVENT("x", "user-1"),
            "Event takes event_type by place and the rest",
        ),
        (lambda: ANY_EVENT("x", event_type="y"), "event_type twice"),
        (lambda: ANY_EVENT({"event_type": "x"}), "Event(**...)"),
        (lambda: cast("Any", EventOptions)("user-1"), "EventOptions(user_id=...)"),
        (lambda: cast("Any", Plan)("main"), "Plan(branch=...)"),
    ],
)
def test_other_places_are_refused_in_words(call: Any, hint: str) -> None:
    """The message shows the call that works."""
    with pytest.raises(TypeError, match=re.escape(hint)):
        call()


# --- Options ---


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"flush_interval": 5000}, "flush_interval=5000.* milliseconds; write 5$"),
        ({"connection_timeout": 10000}, "looks like milliseconds; write 10$"),
        ({"shutdown_timeout": 5000.0}, "milliseconds; write 5$"),
        ({"retry_max_interval": timedelta(hours=2)}, "more than an hour"),
        ({"max_event_age": 86_400_000}, "more than a year.* write 86400$"),
        ({"callback": three_arguments}, "callback=.*result.event, result.code"),
        ({"callback": lambda: None}, "called with one argument"),
        ({"headers": {"X-Team": "a\r\nX-Evil: b"}}, "'X-Team' holds a line end"),
        ({"headers": {"X-Team\n": "a"}}, "use letters, digits and hyphens"),
        ({"headers": {"": "a"}}, "no header name"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], hint: str) -> None:
    """They are refused when they are set, with the likely meaning."""
    with pytest.raises(ConfigurationError, match=hint):
        Config(KEY, **options)


def test_options_at_the_edge_of_what_can_be_meant() -> None:
    """An hour, a callback with defaults, a class as callback and plain headers."""

    class Heard:
        def __init__(self, result: object, more: int = 0) -> None:
            self.result = (result, more)

    Config(KEY, flush_interval=3600, callback=Heard, headers={"X-Team": "blue\tsky"})
    Config(KEY, callback=print, max_event_age=timedelta(days=30))
    Config(KEY, callback=lambda *everything: everything)


@pytest.mark.parametrize("text", ["DROP_OLDEST", "drop_oldest", " Drop_Oldest "])
def test_the_overflow_policy_in_any_case(text: str) -> None:
    """As for the zone."""
    assert Config(KEY, overflow=cast("Any", text)).overflow is Overflow.DROP_OLDEST


def test_what_an_environment_can_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """None where it is a value, policies in any case; empty says nothing."""
    given = {
        "AMPLITUDE_API_KEY": KEY,
        "AMPLITUDE_COMPRESSION": "none",
        "AMPLITUDE_FLUSH_TIMEOUT": "None",
        "AMPLITUDE_SHUTDOWN_TIMEOUT": "null",
        "AMPLITUDE_OVERFLOW": "DROP_NEWEST",
        "AMPLITUDE_MAX_EVENTS_PER_SECOND": "",
        "AMPLITUDE_PLAN": "",
        "AMPLITUDE_SERVER_URL": "  ",
        "AMPLITUDE_FLUSH_INTERVAL": "",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    config = Amplitude.from_env().config

    assert (config.compression, config.compresses) == (None, False)
    assert (config.flush_timeout, config.shutdown_timeout) == (None, None)
    assert config.overflow is Overflow.DROP_NEWEST
    assert config.model_fields_set == {
        "api_key",
        "compression",
        "flush_timeout",
        "shutdown_timeout",
        "overflow",
    }


def test_the_argument_key_wins_over_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`from_env(api_key=...)` reads the rest; an empty variable is no key."""
    monkeypatch.setenv("AMPLITUDE_API_KEY", "")
    with pytest.raises(ConfigurationError, match="api_key is missing"):
        Amplitude.from_env()
    found = Amplitude.from_env(api_key=KEY).config.api_key
    assert found is not None
    assert found.get_secret_value() == KEY


# --- Names ---


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        ({"properties": {}}, "did you mean 'event_properties'"),
        ({"timestamp": 1}, "did you mean 'time'"),
        ({"traits": {}}, "did you mean 'user_properties'"),
        ({"event_options": {}}, "EventOptions are the argument before the fields"),
        ({"options": {}}, "EventOptions are the argument before the fields"),
        ({"userId": "u"}, "did you mean 'user_id'"),
        ({"event_type": "e"}, "is the first argument"),
    ],
)
async def test_names_from_elsewhere(fields: dict[str, Any], hint: str) -> None:
    """The field that is meant is named, whatever it looks like."""
    async with RecordingAmplitude() as client:
        with pytest.raises(TypeError, match=hint):
            await client.track("e", **fields)
        with pytest.raises(TypeError, match=hint):
            client.track_nowait("e", **fields)


async def test_an_event_is_no_options() -> None:
    """Its type and properties would be lost."""
    async with RecordingAmplitude() as client:
        with pytest.raises(TypeError, match="pass it as the first argument"):
            await client.track("e", Event("other", user_id="user-1"))


async def test_what_a_verb_makes_itself_is_not_overwritten_in_silence() -> None:
    """The message says where it goes; None is no value."""
    identify = Identify().set("a", 1)
    with_user: dict[str, Any] = {"user_id": "user-1", "user_properties": {"b": 2}}
    with_groups: dict[str, Any] = {"user_id": "user-1", "groups": {"org": "2"}}
    async with capture() as events, Amplitude("key") as client:
        with pytest.raises(TypeError, match=r"identify\(\) makes user_properties"):
            await client.identify(identify, **with_user)
        with pytest.raises(TypeError, match=r"set_group\(\) makes groups itself: call"):
            await client.set_group("org", "1", **with_groups)
        with pytest.raises(TypeError, match=r"set_group\(\) makes user_properties"):
            await client.set_group("org", "1", **with_user)
        with pytest.raises(TypeError, match=r"group_identify\(\) makes groups"):
            await client.group_identify("org", "1", identify, **with_groups)
        await client.identify(identify, user_id="user-1", user_properties=None)
    assert [one["user_properties"] for one in events] == [{"$set": {"a": 1}}]


def test_an_identify_takes_operations_only() -> None:
    """They are chained."""
    anything: Any = Identify
    with pytest.raises(TypeError, match=r"chain operations such as Identify\(\)"):
        anything("x")
    with pytest.raises(TypeError, match=r"chain operations such as Identify\(\)"):
        anything(set={"a": 1})


def test_track_nowait_outside_of_a_loop() -> None:
    """The message names what works from there."""
    client = RecordingAmplitude()
    with pytest.raises(AmplitudeError, match="run_coroutine_threadsafe"):
        client.track_nowait("e", user_id="user-1")


# --- Values ---


async def test_operations_whose_values_cannot_be_sent() -> None:
    """What is left is sent; where nothing is, the event is rejected and says why."""
    async with capture() as events, Amplitude("key") as client:
        some = Identify().set("a", float("nan")).set_once("b", 2)
        assert (await (await client.identify(some, user_id="user-1"))).ok
        none = Identify().set("a", float("nan"))
        result = await (await client.identify(none, user_id="user-1"))
        grouped = await (await client.group_identify("org", "15", none))
        assert client.stats.losses == 1

    assert [e["user_properties"] for e in events] == [{"$setOnce": {"b": 2}}]
    assert "user_properties={'$set': {'a': nan}}: nothing that can" in result.message
    assert "group_properties=" in grouped.message


@pytest.mark.parametrize(
    "value", [10**400, float("inf"), Decimal("sNaN"), Decimal("Infinity"), True, "1"]
)
def test_add_takes_finite_numbers(value: Any) -> None:
    """Whatever else it is given, it says so in the same words."""
    with pytest.raises(ValueError, match="value should be a finite number, not"):
        Identify().add("k", value)


def test_models_inside_properties_go_by_their_aliases() -> None:
    """As the fields of a typed event do."""

    class Item(BaseModel):
        sku: str = Field(alias="SKU")

    event = Event("e", event_properties={"item": Item(SKU="a"), "all": [Item(SKU="b")]})

    assert event.to_wire()["event_properties"] == {
        "item": {"SKU": "a"},
        "all": [{"SKU": "b"}],
    }


def test_an_event_as_it_goes_on_the_wire() -> None:
    """Aliases, no fields that are None, JSON values, and nothing of a client's."""
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    event = Event("e", user_id=5, product_id="p", event_properties={"at": moment})

    assert event.to_wire() == {
        "event_type": "e",
        "user_id": "5",
        "productId": "p",
        "event_properties": {"at": "2026-01-02T00:00:00+00:00"},
    }
    with pytest.raises(ValidationError, match="event_properties"):
        event.model_copy(update={"event_properties": [1]}).to_wire()


# --- Typed events ---


def test_a_typed_event_says_which_field_was_meant() -> None:
    """An unknown field is refused, and not lost in silence."""

    class OrderPaid(TypedEvent):
        total: int

    anything: Any = OrderPaid
    with pytest.raises(ValidationError, match="'totall': did you mean 'total'"):
        anything(total=1, totall=2)
    with pytest.raises(ValidationError, match="unknown field 'colour'"):
        anything(total=1, colour="red")

    class Open(TypedEvent, extra="allow"):
        total: int

    more: Any = Open
    assert more(total=1, colour="red").properties() == {"total": 1, "colour": "red"}


@pytest.mark.parametrize("name", ["properties", "to_event"])
@pytest.mark.filterwarnings("ignore:Field name")
def test_a_typed_event_keeps_its_methods(name: str) -> None:
    """A field of that name is refused when the class is made, and an alias helps."""
    with pytest.raises(TypeError, match=rf"Clash.{name} is a field.*alias='{name}'"):
        type("Clash", (TypedEvent,), {"__annotations__": {name: int}})

    class Fine(TypedEvent):
        value: int = Field(alias=name)

    assert Fine(**{name: 1}).properties() == {name: 1}


def test_a_name_that_a_class_gives_itself_is_inherited() -> None:
    """A name made of words is not, and each class may give its own."""

    class Shop(TypedEvent):
        pass

    class LegacyCheckout(Shop):
        event_type: ClassVar[str] = "checkout_v2"

    class ExpressCheckout(LegacyCheckout):
        pass

    class OtherCheckout(ExpressCheckout):
        event_type: ClassVar[str] = "other"

    kinds = (Shop, LegacyCheckout, ExpressCheckout, OtherCheckout)
    names = ["Shop", "checkout_v2", "checkout_v2", "other"]
    assert [kind.event_type for kind in kinds] == names


# --- Plugins ---


async def test_a_plugin_says_its_type_as_the_official_sdk_has_it() -> None:
    """`super().__init__(PluginType.X)` works, where it can be meant."""
    order: list[str] = []

    class Early(Plugin):
        def __init__(self) -> None:
            super().__init__(PluginType.BEFORE)

        def execute(self, event: Event) -> Event:
            order.append("early")
            return event

    class Late(EnrichmentPlugin):
        def __init__(self) -> None:
            super().__init__(PluginType.ENRICHMENT)

        def execute(self, event: Event) -> Event:
            order.append("late")
            return event

    class Wrong(EnrichmentPlugin):
        def __init__(self) -> None:
            super().__init__(PluginType.DESTINATION)

    async with RecordingAmplitude(plugins=[Late(), Early()]) as client:
        await client.track("e", user_id="user-1")

    assert order == ["early", "late"]
    with pytest.raises(TypeError, match="subclass DestinationPlugin"):
        Wrong()


# --- Assignments ---


def test_a_refused_assignment_does_not_stay() -> None:
    """Also where the model as a whole refuses it."""

    class Range(WireModel):
        low: int = 0
        high: int = 1

        @model_validator(mode="after")
        def _ordered(self) -> Self:
            if self.low > self.high:
                raise ValueError("low is above high")
            return self

    span = Range()
    with pytest.raises(ValidationError, match="low is above high"):
        span.low = 5
    assert (span.low, span.model_fields_set) == (0, set())
    span.high = 7
    span.low = 5
    assert (span.low, span.high) == (5, 7)
    event: Any = Event("e", user_id="user-1")
    with pytest.raises(ValidationError, match="int"):
        event.time = 5
    with pytest.raises(ValidationError, match="did you mean 'event_properties'"):
        event.properties = {"a": 1}
    assert event.model_fields_set == {"event_type", "user_id"}
