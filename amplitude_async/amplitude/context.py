"""The built-in ``context`` plugin: library, plan and ingestion metadata."""

from typing import Any

from amplitude_async._version import __version__
from amplitude_async.amplitude.config import Config
from amplitude_async.amplitude.encoder import EventDefaults
from amplitude_async.amplitude.events import Event
from amplitude_async.plugins import BeforePlugin

__all__ = ["LIBRARY", "ContextPlugin", "defaults_of"]

LIBRARY = f"amplitude-async-python/{__version__}"


def defaults_of(config: Config) -> EventDefaults:
    """What an event gets where it says nothing itself."""
    return EventDefaults(LIBRARY, config.plan, config.ingestion_metadata)


class ContextPlugin(BeforePlugin):
    """Fills in what the configuration knows, so that other plugins can read it.

    ``time`` and ``insert_id`` are not its business: the encoder fills them in whether
    or not this plugin is installed, since retries depend on them.
    """

    name = "context"

    def __init__(self, config: Config) -> None:
        self._defaults = defaults_of(config)

    def execute(self, event: Event) -> Any:
        """Fill in the library, the plan and the ingestion metadata."""
        defaults = self._defaults
        if event.library is None:
            event.library = defaults.library
        if event.plan is None and defaults.plan is not None:
            event.plan = defaults.plan
        if event.ingestion_metadata is None and defaults.ingestion_metadata is not None:
            event.ingestion_metadata = defaults.ingestion_metadata
        return event
