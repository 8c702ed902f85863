"""A log in NATS JetStream: three servers that agree on each chunk.

It needs the extra ``nats``: ``pip install 'amplitude-async[nats]'``.
"""

from amplitude_async.fleet.nats.log import JetStreamLog

__all__ = ["JetStreamLog"]
