"""A record that cannot be written harms only itself, and nobody waits for ever."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amplitude_async import Amplitude, Config, Identify
from amplitude_async.delivery.endpoint import Response
from amplitude_async.emulator import Emulator
from amplitude_async.exceptions import UnstorableError
from amplitude_async.mparticle import Batch, CustomEvent, MParticle
from amplitude_async.storage import Record, SQLiteStorage
from amplitude_async.storage.spool.file import SpoolFile
from amplitude_async.testing import FakeClock, ScriptedTransport
from amplitude_async.testing.storage_contract import make_record
from tests.conftest import engine_of

__all__: list[str] = []

SURROGATE = "\udc80"
MUCH = 10**9


def poison(number: int) -> Record:
    """Make a record that SQLite takes no parameter of."""
    return make_record(number)._replace(identity=f"group:{SURROGATE}")


async def opened(directory: Path) -> SQLiteStorage:
    """Open a spool whose ids nobody needs."""
    storage = SQLiteStorage(directory)
    await storage.open("https://example.org/ 0123", lambda _count: 1)
    return storage


@pytest.mark.parametrize(
    "bad",
    [
        poison(2),
        make_record(2)._replace(id=2**63),
        make_record(2)._replace(insert_id=object()),  # type: ignore[arg-type]
        make_record(1),
    ],
    ids=["lone surrogate", "id beyond 64 bits", "no SQLite type", "id that is taken"],
)
async def test_only_the_bad_one_of_a_transaction_fails(
    bad: Record, tmp_path: Path
) -> None:
    """Appends of one transaction are written one by one where it fails as a whole."""
    storage = await opened(tmp_path)
    await storage.append([make_record(1)])
    async with asyncio.timeout(5.0):
        before, failed, after = await asyncio.gather(
            storage.append([make_record(3)]),
            storage.append([bad]),
            storage.append([make_record(4)]),
            return_exceptions=True,
        )

    assert before is None
    assert after is None
    assert isinstance(failed, UnstorableError)
    assert SURROGATE not in str(failed)
    found = await storage.fetch(0, 10, MUCH)
    assert [record.id for record in found] == [1, 3, 4]
    assert await storage.size() == 3  # what was not written takes no room
    await storage.close()


@pytest.mark.parametrize(
    "bad",
    [poison(1), make_record(1)._replace(insert_id=object())],  # type: ignore[arg-type]
    ids=["lone surrogate", "no SQLite type"],
)
@pytest.mark.parametrize("nowait", [False, True])
async def test_one_that_cannot_be_written_is_no_outage(
    bad: Record, tmp_path: Path, caplog: pytest.LogCaptureFixture, *, nowait: bool
) -> None:
    """It goes on in memory and is delivered; those before and after it are durable."""
    clock, storage = FakeClock(), SQLiteStorage(tmp_path)
    transport = ScriptedTransport(then=Response(200), clock=clock)
    config = Config(api_key="key", server_url="http://server.invalid/")
    engine = engine_of(config, transport, clock, storage=storage)
    await engine.start()
    async with asyncio.timeout(5.0):
        for one in (make_record(1), bad, make_record(2)):
            if nowait and one is bad:
                engine.intake.offer_nowait(one)
            else:
                await engine.intake.accept(one)
    assert engine.stats.durable
    assert engine.stats.pending == 3
    assert await storage.size() == 2
    await clock.advance(20.0)
    assert engine.stats.delivered == 3
    await engine.shutdown(1.0)
    assert caplog.text.count("this event is in memory only") == 1


async def test_whatever_a_transaction_raises_ends_every_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where memory runs out, each append hears so; the next one works."""
    storage = await opened(tmp_path)
    with monkeypatch.context() as patched:

        def no_memory(*_: Any) -> None:
            raise MemoryError

        patched.setattr(SpoolFile, "insert", no_memory)
        async with asyncio.timeout(5.0):
            failed = await asyncio.gather(
                *(storage.append([make_record(number)]) for number in range(1, 4)),
                return_exceptions=True,
            )
    assert [str(one).rsplit(": ", 1)[1] for one in failed] == ["MemoryError"] * 3

    await storage.append([make_record(1)])
    assert await storage.size() == 1
    await storage.close()


async def test_a_group_that_is_no_text_is_accepted(
    connect: Callable[..., Amplitude],
) -> None:
    """The body loses the key; the record gets an identity that can be written."""
    async with connect() as client:
        async with asyncio.timeout(5.0):
            for name in (SURROGATE, "acme"):
                await client.group_identify("org", name, Identify().set("plan", "a"))
        assert client.stats.durable
        await client.flush()
        assert client.stats.delivered == 2


async def test_a_batch_that_is_no_text_is_no_poison(
    emulator: Emulator, tmp_path: Path
) -> None:
    """A partner's identity without a UTF-8 form stays out of the spool's columns."""
    storage = SQLiteStorage(tmp_path / "spool")
    async with MParticle(
        "key",
        "secret",
        environment="development",
        base_url=emulator.mparticle_url,
        trust_env=False,
        storage=storage,
    ) as client:
        batch = Batch(
            environment="development",
            partner_identities={"partner": f"u{SURROGATE}"},
            events=[CustomEvent(event_name="signup")],
        )
        async with asyncio.timeout(5.0):
            await client.send(batch)
        assert client.stats.durable
