"""Events that commit with a transaction of the caller's."""

from collections.abc import Callable
from typing import Any

import pytest

from amplitude_async import (
    Amplitude,
    DeliveryStatus,
    DestinationPlugin,
    Event,
    Identify,
    Plugin,
    PluginType,
)
from amplitude_async.exceptions import ConfigurationError, LogError, LogRefusedError
from amplitude_async.fleet.codec import decode, partition_of
from amplitude_async.fleet.log import Chunk
from amplitude_async.fleet.memory import MemoryLog
from amplitude_async.mparticle import MParticle, MParticleDestination
from tests.fleet.scene import contents, names_in

__all__: list[str] = []

Account = Callable[..., Any]


class Connection:
    """A connection to the log's own database: what it holds is not there yet."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []


class DatabaseLog(MemoryLog):
    """A log in a database, so to speak."""

    error: LogError | None = None

    async def publish_in(self, connection: Any, chunk: Chunk) -> None:
        """Put a chunk into a transaction."""
        await self.reach()
        if not isinstance(connection, Connection):
            msg = f"via={type(connection).__name__} is no connection of this database"
            raise ConfigurationError(msg)
        if self.error is not None:
            raise self.error
        connection.chunks.append(chunk)

    async def commit(self, connection: Connection) -> None:
        """Let what is in a transaction be there."""
        for chunk in connection.chunks:
            await self.publish(chunk)
        connection.chunks.clear()


async def test_what_commits_is_handed_over(accounted: Account) -> None:
    """With the transaction, or not at all; in the partition of its identity."""
    log = DatabaseLog(partitions=4)
    client = accounted(Amplitude(handover=log))
    connection = Connection()
    for number in range(5):
        delivery = await client.track(
            f"E{number}", user_id=f"user-{number}", via=connection
        )
        assert (await delivery).status is DeliveryStatus.HANDED_OVER
    assert await names_in(log) == []
    for chunk in connection.chunks:
        [record] = decode(chunk.data)
        assert chunk.place.partition == partition_of(record.identity, 4)
    await log.commit(connection)
    assert sorted(await names_in(log)) == [f"E{number}" for number in range(5)]
    assert client.stats.handed_over == client.stats.accepted == 5


async def test_no_two_events_share_an_id(accounted: Account) -> None:
    """Two clients, and the same event twice: each of them is in the log."""
    log = DatabaseLog()
    connection = Connection()
    for _ in range(2):
        client = accounted(Amplitude(handover=log))
        for _ in range(3):
            await client.track("E", user_id="user-1", insert_id="same", via=connection)
    await log.commit(connection)
    assert len(await names_in(log)) == 6


async def test_every_verb_takes_a_connection(accounted: Account) -> None:
    """Identify as well as track."""
    log = DatabaseLog()
    client = accounted(Amplitude(handover=log))
    connection = Connection()
    await client.identify(Identify().set("a", 1), user_id="user-1", via=connection)
    await client.set_group("org", "acme", user_id="user-1", via=connection)
    assert len(connection.chunks) == 2


async def test_plugins_see_it(accounted: Account) -> None:
    """The road is the same but for its end; what a plugin drops is not in it."""

    class Filter(Plugin):
        plugin_type = PluginType.ENRICHMENT
        name = "filter"

        async def execute(self, event: Event) -> Event | None:
            return None if event.event_type == "secret" else event

    log = DatabaseLog()
    client = accounted(Amplitude(handover=log, plugins=[Filter()]))
    connection = Connection()
    dropped = await client.track("secret", user_id="user-1", via=connection)
    await client.track("open", user_id="user-1", via=connection)
    assert (await dropped).status is DeliveryStatus.DROPPED
    assert len(connection.chunks) == 1


async def test_a_log_that_does_not_take_it_raises(accounted: Account) -> None:
    """The caller's transaction is the caller's matter; nothing was accepted."""
    log = DatabaseLog()
    client = accounted(Amplitude(handover=log))
    log.error = LogRefusedError("no right")
    with pytest.raises(LogRefusedError):
        await client.track("E", user_id="user-1", via=Connection())
    assert client.stats.accepted == 0
    log.error = None
    await client.track("E", user_id="user-1", via=Connection())
    assert client.stats.handed_over == 1


async def test_what_is_no_connection_is_named(accounted: Account) -> None:
    """Value and remedy."""
    client = accounted(Amplitude(handover=DatabaseLog()))
    with pytest.raises(ConfigurationError, match="via=str"):
        await client.track("E", user_id="user-1", via="postgresql://")


async def test_a_log_that_is_no_database_says_so(accounted: Account) -> None:
    """It names the one that is."""
    client = accounted(Amplitude(handover=MemoryLog()))
    with pytest.raises(ConfigurationError, match="PostgresLog"):
        await client.track("E", user_id="user-1", via=Connection())


async def test_a_client_without_a_log_says_so(
    connect: Callable[..., Amplitude],
) -> None:
    """It names the option."""
    client = connect()
    with pytest.raises(ConfigurationError, match="handover="):
        await client.track("E", user_id="user-1", via=Connection())


# Several destinations ---------------------------------------------------------


class Seen(DestinationPlugin):
    """A destination that sends by itself."""

    name = "seen"

    def __init__(self) -> None:
        self.names: list[str] = []

    async def execute(self, event: Event) -> None:
        """Note what came."""
        self.names.append(event.event_type)


async def test_another_destination_that_hands_over_commits_as_well(
    accounted: Account,
) -> None:
    """Or not at all: each vendor's form of the event is in the transaction."""
    log = DatabaseLog()
    mparticle = MParticle(handover=log, environment="development")
    plugins = [MParticleDestination(mparticle)]
    client = accounted(Amplitude(handover=log, plugins=plugins))
    connection = Connection()
    await client.track("E", user_id="user-1", via=connection)
    await client.flush()
    assert await contents(log) == await contents(log, "mparticle") == []
    await log.commit(connection)
    assert await names_in(log) == ["E"]
    [record] = await contents(log, "mparticle")
    assert b'"E"' in record.body
    assert client.stats.destinations["mparticle"].handed_over == 1


async def test_where_a_log_refuses_no_other_destination_has_the_event(
    accounted: Account,
) -> None:
    """A verb that raised has accepted nothing."""
    log, seen = DatabaseLog(), Seen()
    client = accounted(Amplitude(handover=log, plugins=[seen]))
    log.error = LogRefusedError("no right")
    with pytest.raises(LogRefusedError):
        await client.track("E0", user_id="user-1", via=Connection())
    log.error = None
    await client.track("E1", user_id="user-1", via=Connection())
    await client.flush()
    assert seen.names == ["E1"]


async def test_without_the_own_destination_another_log_is_looked_for(
    accounted: Account,
) -> None:
    """There is none: nobody is to believe that the event commits."""
    seen = Seen()
    client = accounted(Amplitude(handover=DatabaseLog(), plugins=[seen]))
    await client.start()
    await client.remove("amplitude")
    with pytest.raises(ConfigurationError, match="via= needs a log"):
        await client.track("E", user_id="user-1", via=Connection())
    await client.flush()
    assert not seen.names
