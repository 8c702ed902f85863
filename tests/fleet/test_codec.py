"""A chunk's form: what goes in comes out, and no bytes do harm."""

import json
import time
import tracemalloc
from zlib import crc32

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from amplitude_async.exceptions import DamagedChunkError, LogError, UnknownSchemaError
from amplitude_async.fleet.codec import chunk_id, decode, encode, partition_of
from amplitude_async.storage.base import Record

__all__: list[str] = []

# Halves of characters too: a host may call its users anything.
texts = st.text(st.characters(), max_size=20)
bodies = st.binary(max_size=60)
times = st.floats(-1e12, 1e12) | st.integers(0, 10**10).map(float)


@st.composite
def records(draw: st.DrawFn) -> Record:
    """Make an event whose identity is its user, its device, or neither."""
    user, device = draw(texts | st.none()), draw(texts | st.none())
    identity = draw(st.sampled_from([user or "", device or "", draw(texts)]))
    number, insert_id = draw(st.integers(0, 2**60)), draw(texts)
    return Record(number, draw(bodies), identity, user, device, insert_id, draw(times))


def framed(index: object, rest: bytes = b"") -> bytes:
    """Make a chunk with a right checksum of whatever index."""
    head = index if isinstance(index, bytes) else json.dumps(index).encode()
    content = len(head).to_bytes(4, "big") + head + rest
    return b"AXC\x01" + crc32(content).to_bytes(4, "big") + content


def sample(count: int) -> list[Record]:
    """Make events of three users."""
    return [
        Record(n + 1, b'{"n":%d}' % n, f"u{n % 3}", f"u{n % 3}", None, f"i{n}", 1e9 + n)
        for n in range(count)
    ]


@given(st.lists(records(), max_size=8))
def test_events_come_out_as_they_went_in(events: list[Record]) -> None:
    """Every field but the number, which the reader gives."""
    found = decode(encode(events))

    assert found == [event._replace(id=0) for event in events]
    assert all(type(event) is Record for event in found)


@given(st.binary(max_size=200))
@example(b"")
@example(b"AXC")
@example(b"AXC\x01")
def test_no_bytes_do_harm(data: bytes) -> None:
    """Whatever is found in a log is read, or refused by name."""
    with pytest.raises((DamagedChunkError, UnknownSchemaError)):
        decode(data)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.floats()
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(texts, inner),
    max_leaves=40,
)


@given(json_values | st.lists(st.lists(json_values, max_size=2), max_size=7), bodies)
@example([[], [], [], [], [], []], b"")
@example([[1], [None], ["u"], [None], ["i"], [0]], b"x")
def test_no_index_does_harm(index: object, rest: bytes) -> None:
    """Also where the checksum is right: it is no signature."""
    try:
        found = decode(framed(index, rest))
    except DamagedChunkError:
        return
    for event in found:
        assert type(event.body) is bytes
        assert type(event.identity) is str
        assert type(event.insert_id) is str
        assert isinstance(event.user_id, str | None)
        assert isinstance(event.device_id, str | None)
        assert event.accepted_at - time.time() < 1e16
    assert b"".join(event.body for event in found) == rest


@given(st.data())
def test_any_damage_is_noticed(data: st.DataObject) -> None:
    """A byte that was changed, bytes that are missing, bytes too many."""
    good = encode(sample(3))
    at = data.draw(st.integers(0, len(good) - 1))
    changed = bytearray(good)
    changed[at] ^= data.draw(st.integers(1, 255))

    for bad in (bytes(changed), good[:at], good + data.draw(st.binary(min_size=1))):
        with pytest.raises(LogError):
            decode(bad)


GOOD = [[1, 1], [None, "d"], ["u", None], [None, "d"], ["i", "j"], [1.0, 2]]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (0, [2, 1]),
        (0, [3, -1]),
        (0, [True, True]),
        (0, [1.0, 1.0]),
        (0, [10**4000, 1]),
        (1, [None, None]),
        (1, [5, "d"]),
        (2, [["u"], None]),
        (3, [None, 3]),
        (4, [None, "j"]),
        (5, [1.0]),
        (5, ["now", 2]),
        (5, [True, 2]),
        (5, [1e300, 2]),
        (5, [float("nan"), 2]),
        (5, [float("inf"), 2]),
        (5, [10**4000, 2]),
        (5, {}),
    ],
)
def test_an_index_that_nobody_wrote_is_damaged(column: int, values: object) -> None:
    """Types, lengths and times are looked at before anything is made of them."""
    index: list[object] = list(GOOD)
    assert len(decode(framed(index, b"ab"))) == 2
    index[column] = values

    with pytest.raises(DamagedChunkError):
        decode(framed(index, b"ab"))


@pytest.mark.parametrize(
    "head",
    [b"[" * 1_000_000, b'{"":' * 300_000, b"9" * 1_000_000, b'"' + b"\\ud800" * 9],
    ids=["lists", "objects", "digits", "unended"],
)
def test_a_deep_or_endless_index_is_damaged(head: bytes) -> None:
    """Nothing runs over, and the memory is in proportion."""
    with pytest.raises(DamagedChunkError):
        decode(framed(head))


def test_sizes_that_are_only_claimed_take_no_memory() -> None:
    """Four thousand million bytes of an index, and bodies of any size."""
    claims = [[2**60], [None], ["u"], [None], ["i"], [1.0]]
    tracemalloc.start()
    try:
        for data in (b"\xff" * 4 + b"[]", framed(claims)[8:]):
            with pytest.raises(DamagedChunkError):
                decode(b"AXC\x01" + crc32(data).to_bytes(4, "big") + data)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_errors_quote_nothing() -> None:
    """They are logged: no id and no body stands in them, nor in what caused them."""
    index = [[6], [None], ["secret-user"], [None], ["i"], [None]]
    for data in (framed(index, b"secret"), framed(b'["secret-user"', b"secret")):
        with pytest.raises(DamagedChunkError) as caught:
            decode(data)
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_a_newer_schema_is_told_from_damage() -> None:
    """The message says what to upgrade."""
    data = bytearray(encode(sample(1)))
    data[3] = 2

    with pytest.raises(UnknownSchemaError, match="upgrade relays before producers"):
        decode(bytes(data))


def test_the_same_cut_has_the_same_name() -> None:
    """Another first event, other events or another client have another one."""
    events = sample(4)

    name = chunk_id("boot", events)
    assert name == chunk_id("boot", list(events))
    assert name.startswith("boot.1.")
    others = [
        chunk_id("boot", events[:3]),
        chunk_id("boot", events[1:]),
        chunk_id("toob", events),
        chunk_id("boot", [events[0]._replace(body=b"{}"), *events[1:]]),
    ]
    assert len({name, *others}) == 5
    assert all(len(one.split(".")[2]) == 16 for one in others)


def test_partitions_are_the_same_for_ever() -> None:
    """Producers of every version agree: these numbers may never change."""
    assert [partition_of(f"user-{n}", 8) for n in range(6)] == [2, 4, 6, 0, 3, 5]
    assert partition_of("anything", 1) == 0


@given(texts, st.integers(1, 1_000))
def test_every_identity_has_a_partition(identity: str, partitions: int) -> None:
    """Also one that is no text, such as half of a character."""
    assert 0 <= partition_of(identity, partitions) < partitions


def test_a_chunk_of_two_thousand_is_small_and_whole() -> None:
    """What stands round the bodies stays below a hundred bytes an event."""
    events = sample(2_000)
    data = encode(events)

    assert len(data) < sum(len(event.body) for event in events) + 100 * len(events)
    assert [event.insert_id for event in decode(data)] == [f"i{n}" for n in range(2000)]
