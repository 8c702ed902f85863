"""What a newcomer writes from habit: it works, or the error says what to write."""

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from amplitude_async import AmplitudeError, ClientClosedError
from amplitude_async.emulator import Emulator
from amplitude_async.mparticle import (
    Batch,
    BatchError,
    BreadcrumbEvent,
    CustomEvent,
    FirstRunEvent,
    MParticle,
    MParticleClosedError,
    MParticleError,
    NetworkPerformanceEvent,
    ProfileEvent,
    ScreenViewEvent,
    SessionEndEvent,
)
from amplitude_async.mparticle.encoder import encode_stamped, new_uuid

__all__: list[str] = []

Connect = Callable[..., MParticle]
Make = Callable[..., Batch]
MS = 1_772_323_200_000
LARGE = {f"a{number}": "x" * 4_000 for number in range(5)}


# Models ----------------------------------------------------------------------


def test_an_event_by_its_name_alone() -> None:
    """The first fields of mParticle's Python SDK may go without their names."""
    custom: Any = CustomEvent
    screen: Any = ScreenViewEvent
    assert custom("Paid") == CustomEvent(event_name="Paid")
    assert custom("Paid", "media", session_id=1) == CustomEvent(
        event_name="Paid", custom_event_type="media", session_id=1
    )
    assert screen("Home") == ScreenViewEvent(screen_name="Home")


@pytest.mark.parametrize(
    ("kind", "values", "remedy"),
    [
        (BreadcrumbEvent, ["a"], r"by name: BreadcrumbEvent\(label=\.\.\.\)"),
        (FirstRunEvent, ["a"], r"FirstRunEvent\(name=\.\.\.\)"),
        (
            CustomEvent,
            ["a", "b", "c"],
            r"CustomEvent\(event_name=\.\.\., custom_event_type=\.\.\.\)",
        ),
    ],
)
def test_other_fields_have_names(kind: Any, values: list[str], remedy: str) -> None:
    """A field without its name is refused with the line that should stand there."""
    with pytest.raises(TypeError, match=remedy):
        kind(*values)


def test_no_field_is_given_twice() -> None:
    """A field with and without its name is refused, and named."""
    custom: Any = CustomEvent
    with pytest.raises(TypeError, match="event_name is given twice"):
        custom("a", event_name="b")


def test_dicts_for_models() -> None:
    """A dict stands for the model of a field."""
    batch: Any = Batch(
        environment="development",
        user_identities={"customer_id": "c-1"},
        device_info={"brand": "b"},
        context={"data_plan": {"plan_id": "p"}},
        consent_state={"gdpr": {}},
        application_info={"application_version": "1"},
    )
    batch.user_identities = {"email": "a@b.c"}
    assert batch.user_identities.email == "a@b.c"
    assert batch.to_wire()["device_info"] == {"brand": "b"}


@pytest.mark.parametrize("length", [1_772_323_200, MS, timedelta(days=20.8)])
def test_a_point_in_time_is_no_duration(length: Any) -> None:
    """Seconds of today read as a length would be a session of twenty days."""
    for make in (
        lambda: SessionEndEvent(session_duration_ms=length),
        lambda: NetworkPerformanceEvent(url="/", response_code=0, time_elapsed=length),
    ):
        with pytest.raises(ValidationError, match="not a point in time"):
            make()
    assert SessionEndEvent(session_duration_ms=timedelta(days=11)).to_wire()


def test_a_profile_as_each_sdk_has_it() -> None:
    """With both users, as in Go, or with names and no user, as in Python."""
    named = ProfileEvent(profile_event_type="login", profile_name="a")
    assert named.to_wire()["data"] == {
        "profile_event_type": "login",
        "profile_name": "a",
    }
    named.previous_mpid = 1
    with pytest.raises(ValueError, match="one of previous_mpid and current_mpid"):
        named.to_wire()
    named.current_mpid = "2"
    assert named.to_wire()["data"]["current_mpid"] == 2


async def test_half_a_profile_is_refused(
    connect: Connect, emulator: Emulator, make_batch: Make
) -> None:
    """It does not go out, because a bulk request would swallow it."""
    half = ProfileEvent(profile_event_type="login", current_mpid=1)
    async with connect() as client:
        with pytest.raises(BatchError, match="previous_mpid"):
            await client.upload(make_batch(events=[half]))
        result = await (await client.send(make_batch(events=[half])))
    assert "previous_mpid" in result.message
    assert emulator.requests == []


# Verbs -----------------------------------------------------------------------


async def test_one_batch_for_several(
    connect: Connect, emulator: Emulator, make_batch: Make
) -> None:
    """Each verb says what it takes, and which other takes what was given."""
    batch: Any = make_batch()
    async with connect() as client:
        with pytest.raises(TypeError, match=r"pass a list, upload_many\(\[batch\]\)"):
            await client.upload_many(batch)
        with pytest.raises(TypeError, match=r"upload_historical\(\[batch\]\)"):
            await client.upload_historical(batch)
        with pytest.raises(TypeError, match="upload_many takes several"):
            await client.upload([batch])  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="model_validate"):
            await client.send(batch.to_wire())
    assert emulator.requests == []


async def test_every_failure_is_of_one_kind(connect: Connect, make_batch: Make) -> None:
    """`except MParticleError` catches all, and each has a result to look at."""
    async with connect(strict=True) as client:
        with pytest.raises(MParticleError) as broken:
            await client.upload(Batch(environment="development"))
    with pytest.raises(MParticleError) as closed:
        await client.upload(make_batch())

    for raised, kind in ((broken, BatchError), (closed, MParticleClosedError)):
        result = raised.value.result
        assert type(raised.value) is kind
        assert (result.ok, result.status, result.attempts) == (False, 0, 0)
        assert result.message == str(raised.value)
    assert isinstance(closed.value, ClientClosedError)
    assert isinstance(closed.value, AmplitudeError)


# Splitting -------------------------------------------------------------------


async def test_a_large_batch_uploaded_again_is_known(
    connect: Connect, emulator: Emulator, make_batch: Make
) -> None:
    """The parts of a batch with a key have keys of their own, the same each time."""
    events = [
        CustomEvent(event_name=f"e{number}", custom_attributes=LARGE)
        for number in range(20)
    ]
    batch = make_batch(events=events, source_request_id="nightly-7")
    other = make_batch(events=events, source_request_id="nightly-8")
    async with connect() as client:
        first = await client.upload_many([batch])
        again = await client.upload_many([batch])
        await client.send(batch)
        others = await client.upload_many([other])

    keys = [key for one in first for key in one.source_request_ids]
    assert [key for one in again for key in one.source_request_ids] == keys
    assert len(set(keys)) == 4
    assert not {*keys} & {key for one in others for key in one.source_request_ids}
    # The emulator takes no batch of a known key, as the server does.
    assert len(emulator.batches) == 8


def test_parts_that_are_cut_elsewhere_are_others(make_batch: Make) -> None:
    """A part with other events is not taken for one that arrived: nothing is lost."""
    events = [CustomEvent(event_name="e" * 50) for _ in range(20)]
    encoded = encode_stamped(
        make_batch(events=events, source_request_id="k"), wall=MS / 1000
    )
    keys = [
        {part.source_request_id: len(part.events) for part in encoded.split(limit)}
        for limit in (900, 1_200)
    ]
    assert not keys[0].keys() & keys[1].keys()


async def test_a_large_batch_without_events(
    connect: Connect, emulator: Emulator, make_batch: Make
) -> None:
    """It is measured too, and the message is about the user's part."""
    attributes = {f"k{number}": "x" * 4_000 for number in range(40)}
    batch = make_batch(events=[], user_attributes=attributes)
    async with connect() as client:
        for verb in (client.upload, lambda one: client.upload_many([one])):
            with pytest.raises(BatchError, match="send fewer user attributes"):
                await verb(batch)
        result = await (await client.send(batch))
    assert "send fewer user attributes" in result.message
    assert emulator.requests == []


@pytest.mark.parametrize("width", range(3_990, 4_030))
def test_no_part_exceeds_the_limit(width: int, make_batch: Make) -> None:
    """Whatever is filled in counts: no part has a byte more than the server takes."""
    events = [
        CustomEvent(event_name="e", custom_attributes={"a": "x" * width})
        for _ in range(70)
    ]
    encoded = encode_stamped(make_batch(events=events), wall=MS / 1000)
    sizes = [len(part.body) for part in encoded.split(128_000)]
    assert max(sizes) <= 128_000
    assert len(sizes) == 3


# Ids -------------------------------------------------------------------------


def test_no_seed_decides_over_ids() -> None:
    """Two replicas that seed the global generator alike make different ids."""
    before = random.getstate()
    try:
        random.seed(0)
        first = [new_uuid() for _ in range(100)]
        random.seed(0)
        assert not {*first} & {new_uuid() for _ in range(100)}
    finally:
        random.setstate(before)
