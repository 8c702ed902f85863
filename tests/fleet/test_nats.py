"""JetStream keeps what a log promises, on real servers."""

# ruff: noqa: ASYNC110 - no event of ours tells what happens on a server

import asyncio
import contextlib
import gc
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats
import pytest

from amplitude_async.exceptions import (
    ConfigurationError,
    LogError,
    LogFullError,
    LogRefusedError,
)
from amplitude_async.fleet.log import Claim, Log
from amplitude_async.fleet.nats import JetStreamLog
from amplitude_async.fleet.nats.claim import JetStreamClaim
from amplitude_async.testing.log_contract import (
    PLACE,
    LogContract,
    collect,
    ids_of,
    make_chunk,
    project_of,
)
from tests.fleet.nats_cluster import (
    MEBIBYTE,
    Cluster,
    jetstream,
    nats_cluster,
    nats_server,
    running_cluster,
)
from tests.fleet.real_servers import project_name
from tests.fleet.scene import until
from tests.fleet.syncs import counted_syncs

__all__ = [
    "jetstream",
    "nats_cluster",
    "nats_server",
    "project_name",
    "running_cluster",
]

PASSWORD = "correct-horse-battery"
MUCH = 64 * MEBIBYTE
LEASE = 1.0
LONG = 60.0
PATIENCE = 30.0

Make = Callable[..., JetStreamLog]


class TestJetStreamLog(LogContract):
    """On one server."""

    secrets = (PASSWORD,)

    @pytest.fixture(autouse=True)
    def _servers(self, nats_server: Cluster) -> None:
        self.server = nats_server

    def make(self, directory: Path) -> Log:
        """Make a log whose server asks for no password, and is told one."""
        return JetStreamLog(
            self.server.url.replace("nats://", f"nats://relay:{PASSWORD}@"),
            project=project_of(directory),
            replicas=1,
            max_bytes=64 * MEBIBYTE,
            dead_max_bytes=8 * MEBIBYTE,
        )

    async def discard(self, log: Log) -> None:
        """Remove its streams: what they may take is reserved on the disk."""
        client = await nats.connect(self.server.url)
        for kind in ("", "_DEAD", "_HELD"):
            await client.jetstream().delete_stream(f"AX_{log.project}{kind}")
        await client.close()


async def ask(server: Cluster, subject: str, body: Any = None) -> dict[str, Any]:
    """Ask JetStream something that our log does not ask."""
    client = await nats.connect(server.url)
    data = b"" if body is None else json.dumps(body).encode()
    answer = await client.request(f"$JS.API.{subject}", data, timeout=5)
    await client.close()
    found: dict[str, Any] = json.loads(answer.data)
    return found


async def change(server: Cluster, stream: str, **settings: Any) -> None:
    """Change settings of a stream, as an operator might."""
    config = (await ask(server, f"STREAM.INFO.{stream}"))["config"]
    answer = await ask(server, f"STREAM.UPDATE.{stream}", {**config, **settings})
    assert "error" not in answer


def path_of(log: Log) -> str:
    """Name stream and consumer of the place, as JetStream's subjects do."""
    return f"AX_{log.project}.amplitude_0"


async def pull(
    client: Any, log: Log, inbox: str, *, expires: float, pin: str = ""
) -> None:
    """Ask the consumer for one message, as a client would that knows nothing of us."""
    request = {
        "batch": 1,
        "expires": int(expires * 1e9),
        "group": "relay",
        "id": pin,
    }
    subject = f"$JS.API.CONSUMER.MSG.NEXT.{path_of(log)}"
    await client.publish(subject, json.dumps(request).encode(), reply=inbox)


async def unpin(server: Cluster, log: Log) -> None:
    """Take the pin from whoever has it."""
    await ask(server, f"CONSUMER.UNPIN.{path_of(log)}", {"group": "relay"})


async def plain_read(server: Cluster, log: JetStreamLog) -> bytes | None:
    """Read one message, or None, as a client would that knows nothing of us."""
    await unpin(server, log)
    client = await nats.connect(server.url)
    inbox = client.new_inbox()
    plain = await client.subscribe(inbox)
    await pull(client, log, inbox, expires=0.5)
    answer = await plain.next_msg(PATIENCE)
    await client.close()
    # Its end without a message has a status: 408, or 423 for a foreign pin.
    return None if (answer.headers or {}).get("Status") else answer.data


def resets_of(claim: Claim) -> int:
    """Tell how often its consumer was reset."""
    assert isinstance(claim, JetStreamClaim)
    return claim.resets


async def consumer_of(server: Cluster, log: JetStreamLog) -> dict[str, Any]:
    """Tell what the consumer of the place says of itself."""
    return await ask(server, f"CONSUMER.INFO.{path_of(log)}")


async def left_in(server: Cluster, log: JetStreamLog) -> int:
    """Count the chunks that are stored."""
    info = await ask(server, f"STREAM.INFO.AX_{log.project}")
    return int(info["state"]["messages"])


async def opened(log: JetStreamLog, partitions: int | None = None) -> JetStreamLog:
    """Set a log up and open it."""
    await log.setup(partitions)
    await log.open()
    return log


async def claimed(log: Log, holder: str, lease: float = LONG) -> Claim:
    """Claim the place as soon as it can be had."""
    async with asyncio.timeout(PATIENCE):
        while (claim := await log.claim(PLACE, holder, lease)) is None:
            await asyncio.sleep(0.02)
    return claim


# Where servers are ------------------------------------------------------------


@pytest.mark.parametrize(
    "servers",
    [
        "",
        [],
        "nats://a,,b",
        "http://a:4222",
        f"nats://u:{PASSWORD}@a:port",
        f"nats://u:{PASSWORD}@/x",
        f"nats://u:{PASSWORD}@a/path",
        f"nats://u:{PASSWORD}@a,tls://b",
    ],
)
def test_an_address_that_is_none_is_refused_early(servers: str | list[str]) -> None:
    """By name, and without the password that may stand in it."""
    with pytest.raises(ConfigurationError, match="servers=") as caught:
        JetStreamLog(servers)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"project": "Web"}, "project="),
        ({"project": ""}, "project="),
        ({"replicas": 2}, "replicas="),
        ({"max_bytes": 1}, "max_bytes="),
        ({"monitoring": "one:8222"}, "monitoring="),
    ],
)
def test_a_setting_that_cannot_be_is_refused_early(
    options: dict[str, Any], named: str
) -> None:
    """By name."""
    with pytest.raises(ConfigurationError, match=named):
        JetStreamLog("nats://one", **options)


def test_servers_are_named_without_a_secret() -> None:
    """The first address speaks for the others; the order of them does not matter."""
    log = JetStreamLog(f"nats://relay:{PASSWORD}@two,one:99", project="web")
    assert log.fingerprint() == "nats://one:99,two:4222/web"
    assert (
        log.fingerprint()
        == JetStreamLog(["two", "one:99"], project="web").fingerprint()
    )


async def test_who_is_not_let_in_hears_of_it(tmp_path: Path) -> None:
    """With a wrong password nothing works, and no text has it."""
    users = f"authorization {{ user: relay, password: {PASSWORD} }}"
    server = Cluster(tmp_path, size=1, extra=users)
    await asyncio.to_thread(server.start)
    address = server.url.replace("nats://", "nats://relay:{}@")
    try:
        wrong = JetStreamLog(address.format("wrong-password"), replicas=1)
        with pytest.raises(LogRefusedError, match="password") as caught:
            await wrong.setup()
        assert "wrong-password" not in str(caught.value)
        right = JetStreamLog(address.format(PASSWORD), replicas=1)
        assert await right.setup()
    finally:
        server.stop()


# Settings ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("", "max_age", 3_600_000_000_000),
        ("", "discard", "old"),
        ("", "duplicate_window", 1_000_000_000),
        ("", "max_bytes", 32 * MEBIBYTE),
        ("_DEAD", "max_bytes", -1),
        ("_DEAD", "max_age", 3_600_000_000_000),
        ("_HELD", "max_msgs_per_subject", 5),
    ],
)
async def test_a_wrong_setting_of_a_stream_is_refused(
    nats_server: Cluster, jetstream: Make, kind: str, name: str, value: Any
) -> None:
    """By name at start, and setup puts it right."""
    log = jetstream()
    await log.setup()
    await change(nats_server, f"AX_{log.project}{kind}", **{name: value})
    with pytest.raises(ConfigurationError, match=rf"{name}=.*relay setup"):
        await log.open()
    assert await log.setup() != []
    await log.open()


async def test_more_room_than_asked_for_is_kept(
    nats_server: Cluster, jetstream: Make
) -> None:
    """What an operator gave a full log is neither refused nor taken back."""
    log = await opened(jetstream())
    await change(nats_server, f"AX_{log.project}", max_bytes=128 * MEBIBYTE)
    again = jetstream()
    assert await again.setup() == []
    await again.open()


async def test_a_wrong_setting_of_a_consumer_is_refused(
    nats_server: Cluster, jetstream: Make
) -> None:
    """By name at start."""
    log = jetstream()
    await log.setup()
    config = (await consumer_of(nats_server, log))["config"]
    subject = f"CONSUMER.CREATE.{path_of(log)}.{config['filter_subject']}"
    changed = {**config, "max_deliver": 5}
    body = {"stream_name": f"AX_{log.project}", "config": changed, "action": ""}
    assert "error" not in await ask(nats_server, subject, body)
    with pytest.raises(ConfigurationError, match="max_deliver=5"):
        await log.open()


async def test_more_replicas_than_servers_are_refused(jetstream: Make) -> None:
    """At setup, with a remedy."""
    with pytest.raises(ConfigurationError, match="replicas=3"):
        await jetstream(replicas=3).setup()


async def test_a_server_without_jetstream_is_refused(tmp_path: Path) -> None:
    """By name."""
    server = Cluster(tmp_path, size=1, jetstream=False)
    await asyncio.to_thread(server.start)
    try:
        with pytest.raises(ConfigurationError, match="jetstream"):
            await JetStreamLog(server.url, replicas=1).setup()
    finally:
        server.stop()


async def test_a_log_says_whether_it_syncs(
    nats_server: Cluster, nats_cluster: Cluster, jetstream: Make
) -> None:
    """As far as the servers' monitoring tells."""
    weak = jetstream(monitoring=nats_server.monitoring)
    await weak.setup()
    settings = await weak.open()
    assert not settings.synced
    assert any("sync_interval: always" in words for words in settings.warnings)
    assert any("replicas=1" in words for words in settings.warnings)
    strong = jetstream(
        servers=nats_cluster.url, replicas=3, monitoring=nats_cluster.monitoring
    )
    await strong.setup()
    settings = await strong.open()
    assert settings.synced
    assert not settings.warnings
    blind = jetstream(servers=nats_cluster.url, replicas=3)
    settings = await blind.open()
    assert not settings.synced
    assert any("replicated, not synced" in words for words in settings.warnings)


# Chunks -----------------------------------------------------------------------


async def test_a_full_log_refuses_chunks(jetstream: Make) -> None:
    """By its own error, until there is room again."""
    log = await opened(jetstream(max_bytes=2 * MEBIBYTE))
    data = b"x" * 500_000
    stored = 0
    try:
        for number in range(10):
            await log.publish(make_chunk(number, data=data))
            stored += 1
    except LogFullError as error:
        assert "max_bytes" in str(error)  # noqa: PT017 - how many are stored before it
    assert 0 < stored < 10
    claim = await claimed(log, "relay")
    found = await collect(claim, stored)
    await claim.acknowledge([chunk.position for chunk in found])
    await log.publish(make_chunk(99, data=data))
    assert ids_of(await collect(claim, 1)) == ids_of([make_chunk(99)])


async def test_each_acknowledgement_is_on_two_disks(
    nats_cluster: Cluster, jetstream: Make, tmp_path: Path
) -> None:
    """Of three servers that sync always, a majority has synced at least as often."""
    count = 50
    log = await opened(jetstream(servers=nats_cluster.url, replicas=3))
    with contextlib.ExitStack() as stack:
        found = [
            stack.enter_context(counted_syncs([pid], tmp_path / f"trace{pid}"))
            for pid in nats_cluster.pids
        ]
        for number in range(count):
            await log.publish(make_chunk(number))
    counts = sorted([syncs.count for syncs in found])
    assert len(counts) == 3
    assert counts[1] >= count


async def test_without_a_reset_the_heir_would_begin_in_the_middle(
    nats_server: Cluster, jetstream: Make
) -> None:
    """A plain reader gets what comes after; a claim gets what was not acknowledged."""
    log, heir = await opened(jetstream()), await opened(jetstream())
    chunks = [make_chunk(number) for number in range(4)]
    for chunk in chunks:
        await log.publish(chunk)
    dead = await claimed(log, "dead", LEASE)
    await collect(dead, 4)
    await log.close()
    found = None
    # A server that has not noticed yet that a reader is gone gives it what comes.
    async with asyncio.timeout(PATIENCE):
        while found is None:
            chunks.append(make_chunk(len(chunks)))
            await heir.publish(chunks[-1])
            found = await plain_read(nats_server, heir)
    assert found in [chunk.data for chunk in chunks[4:]]
    claim = await claimed(heir, "heir")
    assert ids_of(await collect(claim, len(chunks))) == ids_of(chunks)


async def test_a_stolen_delivery_is_noticed(
    nats_server: Cluster, jetstream: Make
) -> None:
    """Whoever reads beside us costs time, and neither order nor a chunk."""
    log = await opened(jetstream())
    claim = await claimed(log, "relay")
    await log.publish(make_chunk(0))
    assert len(await collect(claim, 1)) == 1
    client = await nats.connect(nats_server.url)
    inbox = client.new_inbox()
    thief = await client.subscribe(inbox)
    await pull(client, log, inbox, expires=20.0)
    await client.flush()
    await unpin(nats_server, log)
    chunks = [make_chunk(number) for number in range(1, 30)]
    for chunk in chunks:
        await log.publish(chunk)
    assert ids_of(await collect(claim, 29)) == ids_of(chunks)
    assert await claim.read(MUCH) == []
    assert thief.delivered <= 1
    await client.close()


async def test_a_claim_that_nobody_keeps_stops_to_read(jetstream: Make) -> None:
    """Once another has the place: what comes is for the other, from the first on."""
    log, heir = await opened(jetstream()), await opened(jetstream())
    dead = await claimed(log, "dead", LEASE)
    claim = await claimed(heir, "heir")
    assert isinstance(dead, JetStreamClaim)
    await until(lambda: dead.ended)
    chunks = [make_chunk(number) for number in range(9)]
    for chunk in chunks:
        await heir.publish(chunk)
    assert ids_of(await collect(claim, 9)) == ids_of(chunks)


async def test_a_pin_that_another_keeps_is_won(
    nats_server: Cluster, jetstream: Make
) -> None:
    """A request of a relay that is no holder any more may be the first in the queue."""
    log = await opened(jetstream())
    client = await nats.connect(nats_server.url)
    inbox = client.new_inbox()

    async def keep(message: Any) -> None:
        if message.headers.get("Status") != "423":
            pin = message.headers["Nats-Pin-Id"]
            await pull(client, log, inbox, expires=30.0, pin=pin)

    await client.subscribe(inbox, cb=keep)
    await pull(client, log, inbox, expires=30.0)
    await client.flush()
    claim = await claimed(log, "relay")
    await until(lambda: resets_of(claim) > 0)
    chunks = [make_chunk(number) for number in range(9)]
    for chunk in chunks:
        await log.publish(chunk)
    assert ids_of(await collect(claim, 9)) == ids_of(chunks)
    assert await claim.read(MUCH) == []
    await client.close()


async def test_what_was_read_is_acknowledged_though_much_is_not(
    nats_server: Cluster, jetstream: Make
) -> None:
    """A consumer that was reset knows an acknowledgement of what it delivered since."""
    log = await opened(jetstream())
    for number in range(14):
        await log.publish(make_chunk(number, data=os.urandom(900_000)))
    claim = await claimed(log, "relay")
    found = await collect(claim, 3, max_bytes=1)
    resets = resets_of(claim)
    async with asyncio.timeout(PATIENCE):
        # It reads ahead as much as it ever does.
        while (await consumer_of(nats_server, log))["num_ack_pending"] < 9:
            await asyncio.sleep(0.02)
    await unpin(nats_server, log)
    await until(lambda: resets_of(claim) > resets)
    async with asyncio.timeout(PATIENCE):
        while (await left_in(nats_server, log)) > 11:
            with contextlib.suppress(LogError):
                await claim.acknowledge([chunk.position for chunk in found])
    rest = [make_chunk(number) for number in range(3, 14)]
    assert ids_of(await collect(claim, 11)) == ids_of(rest)


async def test_the_heir_comes_in_time(jetstream: Make) -> None:
    """Within the lease and a second after the holder's last sign, and not before."""
    log, heir = await opened(jetstream()), await opened(jetstream())
    loop = asyncio.get_running_loop()
    for number in range(3):
        await log.publish(make_chunk(number))
    dead = await claimed(log, "dead", LEASE)
    assert len(await collect(dead, 3)) == 3
    assert await heir.claim(PLACE, "heir", LEASE) is None
    began = loop.time()
    assert await dead.renew()
    renewed = loop.time()
    claim = await claimed(heir, "heir", LEASE)
    assert loop.time() - began >= LEASE
    assert loop.time() - renewed < LEASE + 1
    assert await dead.read(MUCH) == []
    assert not await dead.renew()
    assert len(await collect(claim, 3)) == 3


# Life -------------------------------------------------------------------------


async def test_close_leaves_no_task(jetstream: Make) -> None:
    """Neither of ours nor of the library's, whatever was going on."""
    before = asyncio.all_tasks()
    log = await opened(jetstream())
    await claimed(log, "relay")
    await log.announce("amplitude", "relay", LONG)
    assert asyncio.all_tasks() > before
    await log.close()
    assert asyncio.all_tasks() == before


@pytest.mark.allow_blocking
async def test_a_child_leaves_the_connection_to_its_parent(jetstream: Make) -> None:
    """It forgets it and sends nothing; the parent goes on."""
    log = await opened(jetstream())
    await log.publish(make_chunk(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        log.abandon()
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)  # noqa: ASYNC222 - it ends at once
    await log.publish(make_chunk(2))
    claim = await claimed(log, "relay")
    assert len(await collect(claim, 2)) == 2


# Faults -----------------------------------------------------------------------


class Traffic:
    """Chunks that are published one after another while another reads them."""

    def __init__(self, producer: JetStreamLog, relay: JetStreamLog) -> None:
        self._producer = producer
        self._relay = relay
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()
        self.published: list[str] = []
        self.read: list[str] = []

    async def produce(self) -> None:
        """Publish until stopped, each chunk until it is acknowledged."""
        while not self._stopping.is_set():
            chunk = make_chunk(len(self.published))
            while True:
                try:
                    await self._producer.publish(chunk)
                    break
                except LogError:
                    await asyncio.sleep(0)
            self.published.append(chunk.id)
            await asyncio.sleep(0.002)
        self._stopped.set()

    async def consume(self) -> None:
        """Read, acknowledge and renew until everything was read."""
        claim = await claimed(self._relay, "relay", 20)
        while not (self._stopped.is_set() and len(self.read) >= len(self.published)):
            try:
                assert await claim.renew()
                chunks = await claim.read(MUCH)
                self.read += ids_of(chunks)
                await claim.acknowledge([chunk.position for chunk in chunks])
                await claim.wait(0.2)
            except LogError:
                await asyncio.sleep(0)
        await claim.release()

    async def survives(self, fault: Callable[[], None]) -> None:
        """Check that everything is read once and in order, whatever happens."""
        producing = asyncio.create_task(self.produce())
        consuming = asyncio.create_task(self.consume())
        await self.goes_on()
        await asyncio.to_thread(fault)
        await self.goes_on()
        self._stopping.set()
        await asyncio.wait_for(producing, PATIENCE)
        await asyncio.wait_for(consuming, PATIENCE)
        assert self.read == self.published

    async def goes_on(self) -> None:
        """Wait until as many chunks as a second brings have been read."""
        goal = len(self.read) + 200
        await until(lambda: len(self.read) >= goal)


@pytest.mark.parametrize(
    "fault",
    [
        "leader",
        "all",
        pytest.param("follower", marks=pytest.mark.long),
        pytest.param("paused", marks=pytest.mark.long),
    ],
)
@pytest.mark.timeout(120)
async def test_killed_servers_lose_and_reorder_nothing(
    nats_cluster: Cluster, jetstream: Make, fault: str
) -> None:
    """What was acknowledged is read, once under one claim and in order."""
    options = {"servers": nats_cluster.url, "replicas": 3}
    producer, relay = jetstream(**options), jetstream(**options)
    await opened(producer)
    await opened(relay)

    def happen() -> None:
        leader = nats_cluster.leader_of(f"AX_{producer.project}")
        if fault == "leader":
            nats_cluster.kill(leader)
        elif fault == "follower":
            nats_cluster.kill((leader + 1) % 3)
        elif fault == "paused":
            nats_cluster.pause_until_deposed(leader, f"AX_{producer.project}")
        else:
            nats_cluster.stop()
            nats_cluster.heal()

    await Traffic(producer, relay).survives(happen)
