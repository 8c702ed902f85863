"""What tests of code that sends events need: virtual time and a scripted network."""

from amplitude_async.testing.clock import FakeClock
from amplitude_async.testing.recording import RecordingAmplitude
from amplitude_async.testing.shared_clock import SharedClock
from amplitude_async.testing.transport import Answer, ScriptedTransport, SentRequest

__all__ = [
    "Answer",
    "FakeClock",
    "RecordingAmplitude",
    "ScriptedTransport",
    "SentRequest",
    "SharedClock",
]
