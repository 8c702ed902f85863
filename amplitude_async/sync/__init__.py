"""The same clients for threads and scripts: no await, one event loop behind them all.

``with SyncAmplitude("key") as client:`` has the verbs of ``Amplitude`` without await,
for any thread. One daemon thread per process runs the asyncio clients behind them.
"""

from amplitude_async.sync.amplitude import SyncAmplitude
from amplitude_async.sync.delivery import SyncDelivery
from amplitude_async.sync.mparticle import SyncMParticle

__all__ = ["SyncAmplitude", "SyncDelivery", "SyncMParticle"]
