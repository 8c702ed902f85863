"""What streams and consumers must be like, and what is wrong with those that are not.

Each setting that is not the server's default is here because something was lost or
disordered without it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from amplitude_async.exceptions import ConfigurationError
from amplitude_async.fleet.log import Place
from amplitude_async.shown import shown

__all__ = [
    "GROUP",
    "KNOWN_DESTINATIONS",
    "MAX_ACK_PENDING",
    "NANOSECONDS",
    "Plan",
    "check",
    "differences",
    "seconds",
]

NANOSECONDS: Final = 1_000_000_000
GROUP: Final = "relay"
KNOWN_DESTINATIONS: Final = ("amplitude", "mparticle")
PARTITIONS_KEY: Final = "amplitude-async-partitions"
SCHEMA_KEY: Final = "amplitude-async-schema"
SCHEMA: Final = "1"
DUPLICATE_WINDOW: Final = 120
ACK_WAIT: Final = 30
PRIORITY_TIMEOUT: Final = 10
MAX_ACK_PENDING: Final = 2_000
# Digits of a hash: a key may have characters that no subject has.
LETTER_NAME: Final = 32

# What an operator may have given more of, and nobody takes back.
_AT_LEAST: Final = ("max_bytes", "num_replicas")
# An unset field of an answer means the same as these.
_EMPTY: Final[tuple[Any, ...]] = (None, 0, "", False, -1, [], {})


def seconds(number: float) -> int:
    """Write a duration as the server does, in nanoseconds."""
    return int(number * NANOSECONDS)


@dataclass(frozen=True, slots=True)
class Plan:
    """Names and settings of one project."""

    project: str
    replicas: int
    max_bytes: int
    dead_max_bytes: int

    @property
    def stream(self) -> str:
        """Chunks."""
        return f"AX_{self.project}"

    @property
    def dead(self) -> str:
        """Dead letters."""
        return f"AX_{self.project}_DEAD"

    @property
    def held(self) -> str:
        """Who has which place, and who lives."""
        return f"AX_{self.project}_HELD"

    def subject(self, place: Place) -> str:
        """Where chunks of a place are published."""
        return f"ax.{self.project}.{place.destination}.{place.partition}"

    def place(self, subject: str) -> Place:
        """Read the place out of a subject of chunks or of leases."""
        *_, destination, partition = subject.split(".")
        return Place(destination, int(partition))

    def consumer(self, place: Place) -> str:
        """Name the consumer of a place."""
        return f"{place.destination}_{place.partition}"

    def lease_subject(self, place: Place) -> str:
        """Where the lease of a place is kept."""
        return f"ax_held.{self.project}.lease.{place.destination}.{place.partition}"

    @property
    def lease_subjects(self) -> str:
        """Where the leases of all places are kept."""
        return f"ax_held.{self.project}.lease.>"

    def progress_subject(self, place: Place) -> str:
        """Where a place's holder leaves word for the next."""
        return f"ax_held.{self.project}.progress.{place.destination}.{place.partition}"

    def relay_subject(self, destination: str, holder: str) -> str:
        """Where it is kept that a relay lives; any holder's name makes a legal one."""
        name = holder.encode().hex()
        return f"ax_held.{self.project}.relay.{destination}.{name}"

    def relay_subjects(self, destination: str) -> str:
        """Where it is kept which relays of a destination live."""
        return f"ax_held.{self.project}.relay.{destination}.*"

    def letter_subject(self, place: Place, key: str) -> str:
        """Where the dead letter of a key is kept; any key makes a legal one."""
        name = sha256(key.encode()).hexdigest()[:LETTER_NAME]
        return f"ax_dead.{self.project}.{place.destination}.{place.partition}.{name}"

    @property
    def letter_subjects(self) -> str:
        """Where all dead letters are kept."""
        return f"ax_dead.{self.project}.>"

    def streams(self, partitions: int) -> list[dict[str, Any]]:
        """Give the settings of all streams: chunks, dead letters, and who has what."""
        shared: dict[str, Any] = {
            "storage": "file",
            "num_replicas": self.replicas,
            "max_age": 0,
            "max_msgs": -1,
            "discard": "new",
            "allow_direct": True,
        }
        own = (self._of_chunks(partitions), self._of_letters(), self._of_holders())
        return [{**shared, **settings} for settings in own]

    def _of_chunks(self, partitions: int) -> dict[str, Any]:
        return {
            "name": self.stream,
            "subjects": [f"ax.{self.project}.*.*"],
            "retention": "workqueue",
            "max_bytes": self.max_bytes,
            "duplicate_window": seconds(DUPLICATE_WINDOW),
            "deny_purge": True,
            "metadata": {PARTITIONS_KEY: str(partitions), SCHEMA_KEY: SCHEMA},
        }

    def _of_letters(self) -> dict[str, Any]:
        return {
            "name": self.dead,
            "subjects": [self.letter_subjects],
            "retention": "limits",
            "max_bytes": self.dead_max_bytes,
        }

    def _of_holders(self) -> dict[str, Any]:
        return {
            "name": self.held,
            "subjects": [f"ax_held.{self.project}.>"],
            "retention": "limits",
            "max_msgs_per_subject": 1,
            # A subject's newest entry takes the place of the one before.
            "discard": "old",
        }

    def consumer_settings(self, place: Place) -> dict[str, Any]:
        """Give the settings of the consumer of a place."""
        name = self.consumer(place)
        return {
            "name": name,
            "durable_name": name,
            "filter_subject": self.subject(place),
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": seconds(ACK_WAIT),
            "max_deliver": -1,
            "max_ack_pending": MAX_ACK_PENDING,
            "priority_groups": [GROUP],
            "priority_policy": "pinned_client",
            "priority_timeout": seconds(PRIORITY_TIMEOUT),
        }

    def known_places(self, partitions: int) -> list[Place]:
        """Name the places whose consumers are made at setup."""
        return [
            Place(destination, number)
            for destination in KNOWN_DESTINATIONS
            for number in range(partitions)
        ]

    def partitions_of(self, config: Mapping[str, Any]) -> int:
        """Read the number of partitions out of a stream's settings.

        Raises:
            ConfigurationError: somebody else made that stream, or a later version.
        """
        metadata = config.get("metadata") or {}
        schema = metadata.get(SCHEMA_KEY)
        if schema != SCHEMA:
            msg = (
                f"stream {self.stream} has {SCHEMA_KEY}={shown(schema)} in its "
                f"metadata, and this version needs {shown(SCHEMA)}: use the version "
                "that set it up, or another project"
            )
            raise ConfigurationError(msg)
        return int(metadata[PARTITIONS_KEY])


def differences(
    wanted: Mapping[str, Any], found: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Name each setting that is not as it should be: its name, what is, what should."""
    for name, value in wanted.items():
        there = found.get(name)
        if name == "metadata":
            there = {key: (there or {}).get(key) for key in value}
        if name in _AT_LEAST and value != -1 and (there or 0) >= value:
            continue
        if there != value and not (there in _EMPTY and value in _EMPTY):
            yield name, there, value


def check(wanted: Mapping[str, Any], found: Mapping[str, Any], what: str) -> None:
    """Refuse settings that break the promise.

    Raises:
        ConfigurationError: setting, value and remedy are named.
    """
    for name, there, value in differences(wanted, found):
        msg = (
            f"{what} has {name}={_in_words(name, there)}, which must be "
            f"{_in_words(name, value)}: run `amplitude-async relay setup`, or set it so"
        )
        raise ConfigurationError(msg)


def _in_words(name: str, value: Any) -> str:
    if isinstance(value, int) and ("wait" in name or "window" in name or "age" in name):
        return f"{value / NANOSECONDS:g}s"
    return repr(value)
