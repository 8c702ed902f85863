"""Making the streams and consumers of a project, and checking those that are there."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from amplitude_async.exceptions import (
    ConfigurationError,
    LogFullError,
    LogUnreachableError,
)
from amplitude_async.fleet.log import Place
from amplitude_async.fleet.nats.api import LIMIT, Api, ApiError
from amplitude_async.fleet.nats.plan import Plan, check, differences
from amplitude_async.fleet.nats.wire import Wire
from amplitude_async.fleet.project import check_fixed
from amplitude_async.shown import shown

__all__ = ["Keeper"]

OLDEST_SERVER: Final = (2, 15)
NAME_IN_USE: Final = 10058
NO_JETSTREAM: Final = (10039, 10076)
CONSUMERS_AT_ONCE: Final = 8
# Asked for what needs a leader, right after servers came up.
SETUP_LIMIT: Final = 15.0
BRIEF: Final = 1.0


class Keeper:
    """Knows what has to be there for one project.

    Args:
        wire: the connection.
        plan: what it has to be like.
    """

    def __init__(self, wire: Wire, plan: Plan) -> None:
        self._wire = wire
        self._api = Api(wire)
        self._plan = plan

    async def check_server(self) -> None:
        """Refuse a server that is too old, or has no JetStream.

        Raises:
            ConfigurationError: setting, value and remedy are named.
        """
        client = await self._wire.connect()
        version = client.connected_server_version
        if (version.major, version.minor) < OLDEST_SERVER:
            msg = (
                f"the NATS server has version {self._wire.server.get('version')}, and "
                "2.15 is the oldest that works: upgrade it"
            )
            raise ConfigurationError(msg)
        enabled = self._wire.server.get("jetstream")
        try:
            # Another server of the cluster may have it, and answer for this one.
            await self._api.call("INFO", limit=LIMIT if enabled else BRIEF)
        except ApiError as error:
            if error.code in NO_JETSTREAM:
                raise ConfigurationError(_DISABLED) from None
            raise
        except LogUnreachableError:
            if not enabled:
                raise ConfigurationError(_DISABLED) from None
            raise

    async def check(self) -> tuple[int, int]:
        """Check every setting of streams and consumers.

        Returns:
            How many partitions there are, and how many replicas.

        Raises:
            ConfigurationError: the project is not set up, or a setting is wrong.
        """
        await self.check_server()
        found = await self._config(self._plan.stream)
        if found is None:
            msg = (
                f"project {shown(self._plan.project)} is not set up (no stream "
                f"{self._plan.stream}): run `amplitude-async relay setup`"
            )
            raise ConfigurationError(msg)
        partitions = self._plan.partitions_of(found)
        for wanted in self._plan.streams(partitions):
            name = wanted["name"]
            config = found if name == self._plan.stream else await self._config(name)
            if config is None:
                msg = f"there is no stream {name}: run `amplitude-async relay setup`"
                raise ConfigurationError(msg)
            check(wanted, config, f"stream {name}")
        for config in await self._consumers():
            place = self._place_of(config)
            if place is not None:
                wanted = self._plan.consumer_settings(place)
                check(
                    wanted, config, f"consumer {config['name']} of {self._plan.stream}"
                )
        return partitions, int(found["num_replicas"])

    async def setup(self, partitions: int | None) -> list[str]:
        """Make what is missing, and change what can be changed."""
        await self.check_server()
        done: list[str] = []
        found = await self._config(self._plan.stream)
        if found is None:
            await self._create(self._plan.streams(partitions or 1)[0], done)
            # Somebody else may have been faster, with another number.
            found = await self._config(self._plan.stream) or {}
        known = self._plan.partitions_of(found)
        check_fixed(self._plan.project, partitions, known)
        for wanted in self._plan.streams(known):
            await self._settle_stream(wanted, done)
        places = self._plan.known_places(known)
        existing = {config["name"] for config in await self._consumers()}
        gate = asyncio.Semaphore(CONSUMERS_AT_ONCE)

        async def make(place: Place) -> None:
            async with gate:
                await self._create_consumer(place)

        missing = [p for p in places if self._plan.consumer(p) not in existing]
        await asyncio.gather(*(make(place) for place in missing))
        done += [f"consumer {self._plan.consumer(place)} made" for place in missing]
        return done

    async def ensure_consumer(self, place: Place) -> None:
        """Make the consumer of a place where it is missing."""
        try:
            await self._api.call(self._consumer_subject("INFO", place))
        except ApiError:
            await self._create_consumer(place)

    def _consumer_subject(self, verb: str, place: Place) -> str:
        return f"CONSUMER.{verb}.{self._plan.stream}.{self._plan.consumer(place)}"

    async def _create_consumer(self, place: Place) -> None:
        settings = self._plan.consumer_settings(place)
        body = {"stream_name": self._plan.stream, "config": settings, "action": ""}
        subject = (
            f"{self._consumer_subject('CREATE', place)}.{self._plan.subject(place)}"
        )
        await self._api.call(subject, body, limit=SETUP_LIMIT)

    async def _settle_stream(self, wanted: Mapping[str, Any], done: list[str]) -> None:
        config = await self._config(wanted["name"])
        if config is None:
            await self._create(wanted, done)
            return
        for name, there, value in list(differences(wanted, config)):
            changed = {**config, name: value}
            try:
                await self._api.call(
                    f"STREAM.UPDATE.{wanted['name']}", changed, limit=SETUP_LIMIT
                )
            except (ApiError, LogFullError) as error:
                msg = (
                    f"stream {wanted['name']} has {name}={shown(there)}, which must be "
                    f"{shown(value)} and cannot be changed: {error}; remove the stream "
                    "when it is empty, or use another project"
                )
                raise ConfigurationError(msg) from None
            config = changed
            done.append(f"stream {wanted['name']}: {name} set to {shown(value)}")

    async def _create(self, wanted: Mapping[str, Any], done: list[str]) -> None:
        name = wanted["name"]
        try:
            await self._api.call(f"STREAM.CREATE.{name}", wanted, limit=SETUP_LIMIT)
        except (ApiError, LogFullError) as error:
            if isinstance(error, ApiError) and error.code == NAME_IN_USE:
                return  # somebody else made it, and it is checked
            msg = (
                f"stream {name} cannot be made with replicas={self._plan.replicas} "
                f"and max_bytes={wanted.get('max_bytes')}: {error}; ask for fewer, or "
                "give the servers more"
            )
            raise ConfigurationError(msg) from None
        done.append(f"stream {name} made")

    async def _config(self, stream: str) -> dict[str, Any] | None:
        answer = await self._api.info(stream)
        return answer["config"] if answer else None

    async def _consumers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            body = {"offset": len(found)}
            answer = await self._api.call(f"CONSUMER.LIST.{self._plan.stream}", body)
            page = answer.get("consumers") or []
            found += [info["config"] for info in page]
            if not page or len(found) >= answer["total"]:
                return found

    def _place_of(self, config: Mapping[str, Any]) -> Place | None:
        """Name the place of a consumer; None for one that is not ours."""
        destination, _, number = str(config.get("name", "")).rpartition("_")
        return Place(destination, int(number)) if number.isdigit() else None


_DISABLED: Final = (
    "jetstream is not enabled on the NATS server: add `jetstream { store_dir: ... }` "
    "to its configuration"
)
