"""JetStream keeps what a log promises, on real servers."""

from collections.abc import Callable
from pathlib import Path

import nats
import pytest

from amplitude_async.exceptions import ConfigurationError
from amplitude_async.fleet.log import Log, Place
from amplitude_async.fleet.nats import JetStreamLog
from amplitude_async.testing.log_contract import LogContract, project_of
from tests.fleet.nats_cluster import (
    MEBIBYTE,
    Cluster,
    jetstream,
    nats_cluster,
    nats_server,
    project_name,
    running_cluster,
)

__all__ = [
    "jetstream",
    "nats_cluster",
    "nats_server",
    "project_name",
    "running_cluster",
]

PLACE = Place("amplitude", 0)
PASSWORD = "correct-horse-battery"

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
