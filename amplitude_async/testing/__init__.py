"""What tests of code that sends events need: captured events, time, a network."""

from amplitude_async.testing.captured import Captured
from amplitude_async.testing.capturing import capture
from amplitude_async.testing.clock import FakeClock
from amplitude_async.testing.events import CapturedEvents
from amplitude_async.testing.masks import PERSONAL, Mask
from amplitude_async.testing.recording import RecordingAmplitude
from amplitude_async.testing.shared_clock import SharedClock
from amplitude_async.testing.transport import Answer, ScriptedTransport, SentRequest

__all__ = [
    "PERSONAL",
    "Answer",
    "Captured",
    "CapturedEvents",
    "FakeClock",
    "Mask",
    "RecordingAmplitude",
    "ScriptedTransport",
    "SentRequest",
    "SharedClock",
    "capture",
]
