"""Amplitude: models, configuration and client (HTTP V2 and Batch API)."""

from amplitude_async.amplitude.client import Amplitude
from amplitude_async.amplitude.config import Config, ServerZone
from amplitude_async.amplitude.events import (
    Event,
    EventOptions,
    IngestionMetadata,
    Plan,
)
from amplitude_async.amplitude.identify import Identify
from amplitude_async.amplitude.revenue import Revenue
from amplitude_async.amplitude.typed import TypedEvent

__all__ = [
    "Amplitude",
    "Config",
    "Event",
    "EventOptions",
    "Identify",
    "IngestionMetadata",
    "Plan",
    "Revenue",
    "ServerZone",
    "TypedEvent",
]
