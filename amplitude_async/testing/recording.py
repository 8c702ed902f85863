"""A client that records events and sends nothing: for tests of code that tracks."""

import json
from collections.abc import Callable, Iterable
from typing import Any, Unpack

import aiohttp
from pydantic import SecretStr

from amplitude_async.amplitude.client import Amplitude
from amplitude_async.amplitude.config import Config, ConfigFields
from amplitude_async.delivery.transport import Transport
from amplitude_async.plugins import Plugin
from amplitude_async.testing.transport import ScriptedTransport

__all__ = ["RecordingAmplitude"]


class RecordingAmplitude(Amplitude):
    """An ``Amplitude`` whose network is a list.

    Everything but the network is real: plugins run, bad events are rejected, results
    come. Look at ``events`` after ``await client.flush()``.

    Args:
        config: as for ``Amplitude``; the key may be left out.
        plugins: as for ``Amplitude``.
        options: fields of ``Config``.
    """

    def __init__(
        self,
        api_key: str | SecretStr | Config | None = None,
        config: Config | None = None,
        *,
        session: aiohttp.ClientSession | None = None,
        plugins: Iterable[Plugin | Callable[[Any], Any]] = (),
        **options: Unpack[ConfigFields],
    ) -> None:
        self._recorder = ScriptedTransport()
        if api_key is None and config is None:
            api_key = "recording"
        super().__init__(api_key, config, session=session, plugins=plugins, **options)

    def _make_transport(self, session: aiohttp.ClientSession | None) -> Transport:
        del session  # nothing goes over it
        return self._recorder

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events that went out, as they look on the wire, in order."""
        return self._recorder.events

    def named(self, event_type: str) -> list[dict[str, Any]]:
        """The events of one type."""
        return [event for event in self.events if event["event_type"] == event_type]

    def clear(self) -> None:
        """Forget what went out so far."""
        self._recorder.requests.clear()

    def assert_tracked(self, event_type: str, **properties: Any) -> dict[str, Any]:
        """Find an event of a type with at least these event properties.

        Returns:
            The first that fits.

        Raises:
            AssertionError: none fits; the message shows what was tracked.
        """
        for event in self.named(event_type):
            given = event.get("event_properties", {})
            if properties.items() <= given.items():
                return event
        tracked = "\n".join(
            f"  {event['event_type']} {json.dumps(event.get('event_properties', {}))}"
            for event in self.events
        )
        wanted = f"{event_type!r} with {properties}" if properties else repr(event_type)
        message = f"no event {wanted} was tracked; tracked were:\n{tracked or '  none'}"
        raise AssertionError(message)
