"""What people write from other pages and from habit: it works, or the refusal helps."""

import re
from datetime import timedelta
from typing import Any, cast

import pytest

from amplitude_async import (
    Amplitude,
    Config,
    ConfigurationError,
    Event,
    EventOptions,
    Overflow,
    Plan,
    Revenue,
)

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
