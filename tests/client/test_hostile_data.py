"""Values, classes and copies that harm whoever looks at them: no verb raises."""

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, ClassVar, cast

import pytest
from pydantic import ConfigDict

from amplitude_async import Event, Identify, Revenue, TypedEvent
from amplitude_async.mparticle import Batch, CustomEvent, MParticle
from amplitude_async.testing import RecordingAmplitude
from tests.conftest import Endless

__all__: list[str] = []

USER: Any = {"user_id": "user-1"}


class Broken(Mapping[str, int]):
    """Raises whatever is asked."""

    def __getitem__(self, key: str) -> int:
        raise RuntimeError

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError

    def __len__(self) -> int:
        raise RuntimeError


class Spiteful(str):
    """Text whose methods raise."""

    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError

    def strip(self, *_: object) -> str:
        raise RuntimeError


@pytest.mark.parametrize("key", [None, (1, 2), 5, 1.5])
async def test_a_group_type_that_is_no_text_costs_itself(key: object) -> None:
    """Pydantic names such a key by its repr, so that looking for it found nothing."""
    async with RecordingAmplitude() as client:
        groups = cast("Any", {key: "x", "team": "a"})
        await client.track("e", groups=groups, **USER)
        await client.flush()

        assert client.events[0]["groups"] == {"team": "a"}
        assert client.stats.losses == 1


async def test_a_long_group_type_is_told_in_short() -> None:
    """It may have been chosen by somebody else."""
    async with RecordingAmplitude() as client:
        sent = await client.set_group("x" * 100_000, cast("Any", object()), **USER)

        assert sent.result is not None
        assert len(sent.result.message) < 500


@pytest.mark.parametrize(
    "value", [{1: 2}, Broken(), Endless(length=1), {"x" * 99_999: "x"}]
)
@pytest.mark.parametrize("field", ["plan", "ingestion_metadata", "extra", "groups"])
async def test_a_mapping_that_cannot_be_read_costs_its_field(
    field: str, value: object
) -> None:
    """A model is made of it as of keywords, which raised out of the verb."""
    async with RecordingAmplitude() as client:
        for _ in range(2):
            await client.track("e", **USER, **{field: cast("Any", value)})
        await client.flush()

        assert len(client.events) == 2


@pytest.mark.parametrize("properties", [Broken(), Endless(length=1)])
async def test_properties_that_cannot_be_read_reject_a_typed_event(
    properties: Any,
) -> None:
    """They are joined with the class's own, which is where they were read first."""

    class Paid(TypedEvent):
        total: float

    async with RecordingAmplitude() as client:
        sent = await client.track(Paid(total=1), event_properties=properties, **USER)

        assert sent.result is not None
        assert sent.result.message.startswith("event_properties=")


class Numbered(TypedEvent):
    """Names its type by a number."""

    event_type: ClassVar[Any] = 5


class Raising(TypedEvent):
    """Has a method of its own that fails."""

    def properties(self) -> dict[str, Any]:
        raise RuntimeError


class Strange(TypedEvent):
    """Has a method of its own that makes no event."""

    def to_event(self, **_: Any) -> Any:
        return 5


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Numbered(), "event_type=5"),
        (Raising(), "making the event raised RuntimeError"),
        (Strange(), "to_event returned int: return an Event"),
    ],
)
async def test_a_class_that_makes_no_event_is_rejected(
    event: TypedEvent, words: str
) -> None:
    """With words; nothing is raised."""
    async with RecordingAmplitude() as client:
        sent = await client.track(event, **USER)

        assert sent.result is not None
        assert words in sent.result.message


async def test_a_subclass_of_text_with_methods_of_its_own_is_rejected() -> None:
    """As the type of an event whose other values are bad, too."""
    async with RecordingAmplitude() as client:
        await client.track(Spiteful("paid"), time=5, **USER)
        event = Event("x", **USER).model_copy(update={"event_type": Spiteful("paid")})
        sent = await client.track(event)

        assert sent.result is not None
        assert "looking at it raised RuntimeError" in sent.result.message
        assert client.stats.rejected == 2
        assert client.stats.balanced


async def test_a_field_that_was_deleted_is_absent() -> None:
    """As in a scrubber that writes ``del event.user_properties``."""

    def scrub(event: Event) -> Event:
        del event.user_properties
        del event.ip
        return event

    async with RecordingAmplitude(plugins=[scrub]) as client:
        given = {"a": 1}
        sent = await client.track("e", user_properties=given, ip="1.2.3.4", **USER)
        assert (await sent).ok

        assert "user_properties" not in client.events[0]
        assert "ip" not in client.events[0]


class Frozen(Event):
    """Takes no assignment."""

    model_config = ConfigDict(frozen=True)


@pytest.mark.parametrize(
    "answer",
    [
        lambda: Frozen(event_type="mine", user_id="user-1"),
        lambda: Event.__new__(Event),
        lambda: Event.model_construct(event_type=cast("Any", []), user_id="user-1"),
    ],
)
async def test_whatever_a_plugin_returns_no_verb_raises(
    answer: Callable[[], Event],
) -> None:
    """What the client knows is laid into it after the plugin's own fence."""
    async with RecordingAmplitude(plugins=[lambda _event: answer()]) as client:
        await client.track("e", **USER)
        client.track_nowait("e", **USER)
        stats = await client.flush()

        assert stats.accepted == 2
        assert stats.balanced


async def test_an_operation_that_is_too_large_is_told_as_such() -> None:
    """And not as a serializer that gives no object."""
    async with RecordingAmplitude() as client:
        sent = await client.identify(Identify().set("a", "x" * 1_100_000), **USER)

        assert sent.result is not None
        assert "user_properties.$set.a has 1,100,000 characters" in sent.result.message


async def test_a_group_type_that_can_be_no_key_is_refused_in_words() -> None:
    """Not as `unhashable type`."""
    async with RecordingAmplitude() as client:
        with pytest.raises(TypeError, match="once for each type"):
            await client.set_group(cast("Any", ["org"]), "15", **USER)


async def test_digits_of_a_decimal_count() -> None:
    """All of them are read, although a float keeps seventeen: that took 1.2 s."""
    number = Decimal("0." + "1" * 100_000)
    async with RecordingAmplitude() as client:
        sent = await client.track("e", event_properties={"a": [number] * 1_000}, **USER)

        assert sent.result is not None
        assert "brings the field to more than" in sent.result.message


class Open(Event):
    """Takes fields that it does not declare."""

    model_config = ConfigDict(extra="allow")


async def test_a_field_that_no_class_declares_is_named() -> None:
    """Where it cannot be written as JSON; the rest of the event is not told."""
    async with RecordingAmplitude() as client:
        sent = await client.track(cast("Any", Open)("e", **USER, tenant=object()))

        assert sent.result is not None
        assert sent.result.message.startswith("tenant=<object")
        assert "user-1" not in sent.result.message


async def test_a_revenue_that_nobody_validated_is_rejected() -> None:
    """It raised that an int is no mapping."""
    async with RecordingAmplitude() as client:
        copy = Revenue(price=3).model_copy(update={"properties": 5})
        sent = await client.revenue(copy, **USER)

        assert sent.result is not None
        assert "properties=5 of the Revenue: give a dict" in sent.result.message


# --- mParticle ---


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source_request_id": 5}, "source_request_id=5 should be text"),
        ({"mp_deviceid": 5}, "mp_deviceid=5 should be text"),
        ({"user_attributes": "x"}, "looking at it raised AttributeError"),
    ],
)
async def test_a_copy_that_nobody_validated_is_rejected(
    changes: dict[str, Any], words: str
) -> None:
    """An id that is no text stopped the queue of all batches after a 400."""
    batch = Batch(
        environment="development",
        user_identities={"customer_id": "user-1"},
        events=[CustomEvent(event_name="Paid")],
    )
    client = MParticle("key", "secret", base_url="http://127.0.0.1:9")
    sent = await client.send(batch.model_copy(update=changes))

    assert sent.result is not None
    assert words in sent.result.message
    await client.shutdown(0)
