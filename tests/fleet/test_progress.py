"""A holder tells the next which events of chunks are decided, and no more."""

import json
import time
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplitude_async.fleet.batch import Batch
from amplitude_async.fleet.log import Place, StoredChunk
from amplitude_async.fleet.progress import Progress
from tests.fleet.scene import make_record

__all__: list[str] = []

PLACE = Place("amplitude", 0)
OTHER = Place("amplitude", 1)


def batch_of(name: str, events: int, decided: int = 0, *, first: int = 1) -> Batch:
    """Make a chunk in hand of which the first few are decided."""
    records = [make_record(first + n) for n in range(events)]
    chunk = StoredChunk(first, name, b"", 0.0)
    batch = Batch(PLACE, chunk, first=first, records=records, indexes=range(events))
    for record in records[:decided]:
        del batch.left[record.id]
    return batch


@given(
    st.dictionaries(st.text(max_size=20), st.sets(st.integers(0, 3_000)), max_size=20)
)
def test_the_next_one_knows_what_was_written(known: dict[str, set[int]]) -> None:
    """Whatever chunks are called, and whichever of their events are decided."""
    one, two = Progress(), Progress()
    for name, indexes in known.items():
        one.note(PLACE, name, indexes)
    one.note(OTHER, "foreign", [1])
    two.read(PLACE, one.write(PLACE, []))
    for name, indexes in known.items():
        assert set(two.of(PLACE, name)) == indexes
    assert not two.of(PLACE, "foreign")
    assert not two.of(OTHER, "foreign")


def test_what_is_in_hand_counts_with_what_was_known() -> None:
    """A chunk that came again has events that this holder decided as well."""
    progress, heir = Progress(), Progress()
    progress.note(PLACE, "c.1", [7])
    batches = [batch_of("c.1", 5, 2), batch_of("c.2", 5, first=6)]
    heir.read(PLACE, progress.write(PLACE, batches))
    assert set(heir.of(PLACE, "c.1")) == {0, 1, 7}
    assert not heir.of(PLACE, "c.2")


def test_where_nothing_is_known_nothing_is_written() -> None:
    """A place whose chunks are decided as a whole costs no bytes."""
    progress = Progress()
    progress.note(PLACE, "c.1", [1])
    progress.forget(PLACE, "c.1")
    progress.forget(PLACE, "c.1")
    assert progress.write(PLACE, [batch_of("c.2", 3)]) == b""
    progress.read(PLACE, b"")
    assert repr(progress) == "<Progress of 0 chunks>"


def test_chunks_that_did_not_come_again_are_forgotten() -> None:
    """Others have decided them."""
    progress = Progress()
    for name in ("c.1", "c.2"):
        progress.note(PLACE, name, [0])
    progress.keep_only(PLACE, {"c.2"})
    assert (set(progress.of(PLACE, "c.1")), set(progress.of(PLACE, "c.2"))) == (
        set(),
        {0},
    )


def test_it_stays_small() -> None:
    """Of very many chunks the oldest are told, in bytes that any log takes."""
    progress = Progress()
    batches = [batch_of(f"{n:050}", 2, 1, first=2 * n + 1) for n in range(30_000)]
    written = progress.write(PLACE, batches)
    assert len(written) < 64 * 1024
    progress.read(PLACE, written)
    assert set(progress.of(PLACE, f"{0:050}")) == {0}


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense",
        zlib.compress(b"nonsense"),
        zlib.compress(b"[" * 100_000),
        zlib.compress(b"[]"),
        zlib.compress(b'{"format":2,"chunks":{}}'),
        zlib.compress(b'{"format":1,"chunks":[]}'),
        zlib.compress(b'{"format":1,"chunks":{"c":"xyz"}}'),
        zlib.compress(b'{"format":1,"chunks":{"c":null}}'),
        zlib.compress(
            json.dumps({"format": 1, "chunks": {"c": "f" * 99_999}}).encode()
        ),
        zlib.compress(b" " * (1 << 24) + b"{}"),
        zlib.compress(b'{"format":1,"chunks":{"c":"1"}}')[:-9],
    ],
)
def test_nonsense_is_refused(data: bytes) -> None:
    """In bounded time and memory, with words."""
    with pytest.raises(ValueError, match=r"\w"):
        Progress().read(PLACE, data)


def test_large_numbers_are_read_in_a_moment() -> None:
    """Whoever wrote them: the loop has other things to do."""
    chunks = {str(n): "f" * 16_000 for n in range(60)}
    data = zlib.compress(json.dumps({"format": 1, "chunks": chunks}).encode())
    progress = Progress()
    began = time.process_time()
    progress.read(PLACE, data)
    assert time.process_time() - began < 4.0
    assert len(progress.of(PLACE, "59")) == 64_000
