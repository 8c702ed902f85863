"""The log in memory keeps what every log promises, and can be made to fail."""

from pathlib import Path

from amplitude_async.fleet.log import Log
from amplitude_async.fleet.memory import MemoryLog
from amplitude_async.testing.log_contract import LogContract, project_of

__all__: list[str] = []


class Servers:
    """What was made of each directory: handles of one share a store."""

    kind: type[MemoryLog] = MemoryLog

    def __init__(self) -> None:
        self.logs: dict[Path, MemoryLog] = {}

    def make(self, directory: Path) -> MemoryLog:
        """Make another handle."""
        if directory not in self.logs:
            self.logs[directory] = self.kind(project_of(directory), partitions=None)
        return self.logs[directory].handle()


class TestMemoryLog(LogContract):
    """The log in memory."""

    def make(self, directory: Path) -> Log:
        """Make another handle on what the directory stands for."""
        servers = self.__dict__.setdefault("servers", Servers())
        log: MemoryLog = servers.make(directory)
        return log
