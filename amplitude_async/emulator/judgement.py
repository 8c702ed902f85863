"""The words every vendor's judge speaks: an arrival goes in, a judgement comes out."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from .rates import RateMeter

__all__ = ["Api", "Arrival", "JsonObject", "Judgement", "Vendor"]

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request whose body was read and, where compressed, decoded."""

    path: str
    """Path without the query."""

    received_at: float
    """Seconds since the epoch, on the emulator's clock."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Request headers; they may hold credentials."""

    body: bytes | None = field(default=b"", repr=False)
    """The decoded body, None when its Content-Encoding could not be undone."""

    too_large: bool = False
    """Whether reading stopped because the body was past the limit of the path."""

    note: str = ""
    """Why the body was not read to its end, or not decoded."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the vendor answers to one arrival, and what it would keep of it."""

    status: int
    """HTTP status of the answer."""

    body: JsonObject | None
    """JSON body of the answer, None for an empty one."""

    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of the answer that only this vendor sends."""

    unit: Literal["event", "batch"] = "event"
    """What the vendor takes and counts: Amplitude events, mParticle batches."""

    events: tuple[JsonObject, ...] = field(default=(), repr=False)
    """The units as they were sent, as far as they are JSON objects."""

    accepted: tuple[JsonObject, ...] = field(default=(), repr=False)
    """The units the vendor would store; empty when the request is refused."""

    keys: tuple[Hashable, ...] = field(default=(), repr=False)
    """Deduplication key of each accepted unit, None where it has none."""

    unfit: int = 0
    """Units dropped in silence because they break a rule."""

    too_young: int = 0
    """Units dropped in silence because they are no historical ones."""

    api_key_ok: bool = False
    """Whether the request carried a key this emulator knows."""

    options: JsonObject = field(default_factory=dict)
    """The request's own options."""

    client_upload_time: str | None = None
    """The client's clock at the upload, as it was sent."""

    note: str = ""
    """Why it was refused, or taken in part, in words the vendor would not send."""

    problems: Mapping[int, str] = field(default_factory=dict, repr=False)
    """What is wrong with single units, by their index in `events`."""


class Api(Protocol):
    """One vendor's ingestion API, without sockets, clock or memory."""

    def body_limit(self, path: str) -> int | None:
        """Return the most bytes a decoded body may have, None for a foreign path."""

    @staticmethod
    def error_body(status: int, phrase: str) -> JsonObject:
        """Return the body of an error that a fault makes up."""

    def judge(self, arrival: Arrival) -> Judgement:
        """Return what the vendor answers to this request taken by itself."""

    def judge_rate(
        self, judgement: Judgement, meter: RateMeter, now: float
    ) -> Judgement:
        """Return the judgement, or a throttling one if an identity is too fast."""


@dataclass(frozen=True, slots=True)
class Vendor:
    """One vendor's API and the speed it allows."""

    api: Api
    """The judge of its paths."""

    meter: RateMeter | None = None
    """Refuses who sends too fast, None to let them."""
