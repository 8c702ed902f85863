"""Analytics for asyncio services: Amplitude and mParticle, nothing lost in silence."""

from amplitude_async._version import __version__
from amplitude_async.amplitude.bound import bind, bindings, bound
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
from amplitude_async.config import Overflow
from amplitude_async.delivery.deciding.health import Health
from amplitude_async.delivery.handle import Delivery
from amplitude_async.delivery.observing import Answered, Observer
from amplitude_async.delivery.outcome import DeliveryResult, DeliveryStatus, DropReason
from amplitude_async.delivery.stats import Stats
from amplitude_async.exceptions import (
    AmplitudeError,
    ClientClosedError,
    ConfigurationError,
    QueueFullError,
)
from amplitude_async.plugins import (
    BeforePlugin,
    DestinationPlugin,
    EnrichmentPlugin,
    Plugin,
    PluginType,
)

__all__ = [
    "Amplitude",
    "AmplitudeError",
    "Answered",
    "BeforePlugin",
    "ClientClosedError",
    "Config",
    "ConfigurationError",
    "Delivery",
    "DeliveryResult",
    "DeliveryStatus",
    "DestinationPlugin",
    "DropReason",
    "EnrichmentPlugin",
    "Event",
    "EventOptions",
    "Health",
    "Identify",
    "IngestionMetadata",
    "Observer",
    "Overflow",
    "Plan",
    "Plugin",
    "PluginType",
    "QueueFullError",
    "Revenue",
    "ServerZone",
    "Stats",
    "TypedEvent",
    "__version__",
    "bind",
    "bindings",
    "bound",
]
