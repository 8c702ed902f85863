"""How well a destination is: does it take what we send, and may we ask. Pure."""

import math
from collections.abc import Callable
from enum import StrEnum

from amplitude_async.config import DeliveryConfig
from amplitude_async.delivery.deciding.pace import Pace

__all__ = ["Condition", "Health", "TokenBucket"]

FAILURES_TO_FAIL = 3
REFUSAL_PROBE_INTERVAL = 60.0
# A bisection of 2,000 events meets eleven bare refusals in a row at the most; a server
# that goes on after that is not objecting to one event.
FRUITLESS_ANSWERS = 12
# Full jitter may draw zero; no answer of a server may make a hot loop.
JITTER_FLOOR = 0.1
# Tokens come in fractions: a whole one may be short of this much.
# However many share a rate, an event goes at some time.
_LEAST_RATE = 0.001
_ROUNDING = 1e-9


class Health(StrEnum):
    """What the last answers say about a destination."""

    HEALTHY = "healthy"
    FAILING = "failing"
    """It has taken nothing for a while: one request at a time."""
    REFUSED = "refused"
    """It refuses us (key, URL, method): one probe a minute."""


class Condition:
    """The state of a destination and the moment before which it is left alone."""

    def __init__(
        self, config: DeliveryConfig, uniform: Callable[[float, float], float]
    ) -> None:
        self._config = config
        self._uniform = uniform
        self._fruitless = 0
        self._rest_until = -math.inf
        self.pace = Pace(
            most=config.max_in_flight,
            base=config.retry_base_interval,
            longest=config.retry_max_interval,
            timeout=config.connection_timeout,
            uniform=uniform,
        )
        """How many requests may be out, and how far apart they start."""
        self.state = Health.HEALTHY
        self.taken = 0
        """Requests that the destination took, in all."""
        self.broken = False
        """The last trouble was a request that broke: some event may be at fault."""
        self.failing_since: float | None = None
        """When the first request failed after the last that was taken."""
        self.refusal_code = 0
        self.refusal_message = ""

    def backoff(self, failures: int) -> float:
        """Draw the wait after so many failures: full jitter with a floor above zero."""
        ceiling = self._config.backoff_ceiling(failures)
        return self._uniform(ceiling * JITTER_FLOOR, ceiling)

    @property
    def not_before(self) -> float:
        """When the next request may start."""
        return max(self._rest_until, self.pace.next_at)

    @property
    def places(self) -> int:
        """How many requests may be out at once."""
        return self.pace.width if self.state is Health.HEALTHY else 1

    @property
    def probes(self) -> bool:
        """True while requests carry one event each, of different identities in turn."""
        failing = self.state is Health.FAILING and self.broken
        return failing or self.state is Health.REFUSED

    def may_ask(self, now: float, out: int) -> bool:
        """Say whether one more request may start now, with so many out."""
        return now >= self.not_before and out < self.places

    def takes_nothing(self, now: float, longer_than: float) -> bool:
        """Say whether nothing has been taken for longer than so many seconds."""
        since = self.failing_since
        return since is not None and now - since > longer_than

    def succeeded(self, now: float, started_at: float) -> None:
        """A request was taken: all is well."""
        self.state = Health.HEALTHY
        self.taken += 1
        self.broken = False
        self.failing_since = None
        self._fruitless = 0
        self._rest_until = -math.inf
        self.pace.taken(now, started_at)

    def slowed(self, now: float, started_at: float, *, broken: bool) -> None:
        """A request was not taken, by a server that is busy or not at all."""
        self.broken = broken
        if self.failing_since is None:
            self.failing_since = now
        self.pace.slowed(now, started_at)
        # Who refused us and now does not answer has another trouble than our key.
        refused = self.state is Health.REFUSED
        if refused or self.pace.failures >= FAILURES_TO_FAIL:
            self.state = Health.FAILING

    def hold(self, until: float) -> None:
        """Leave the destination alone, as it asks."""
        self.pace.hold(until)

    def fruitless(self, now: float) -> None:
        """A request was turned down as a whole, though nothing is known to be wrong."""
        self._fruitless += 1
        if self._fruitless > FRUITLESS_ANSWERS:
            wait = self.backoff(self._fruitless - FRUITLESS_ANSWERS)
            self._rest_until = max(self._rest_until, now + wait)

    def refused(self, now: float, code: int, message: str) -> None:
        """The server refuses us, whatever we send."""
        self.state = Health.REFUSED
        self.refusal_code = code
        self.refusal_message = message
        self._rest_until = now + REFUSAL_PROBE_INTERVAL


class TokenBucket:
    """A client-side limit of events per second with a burst of one second."""

    def __init__(self, rate: float | None) -> None:
        self._whole = rate
        self._rate = rate
        self._burst = max(rate, 1.0) if rate is not None else math.inf
        self._tokens = self._burst
        self._updated = -math.inf

    def share(self, part: float, now: float) -> None:
        """Keep to a part of the rate: others who send to the same have the rest."""
        if self._whole is not None:
            self.available(now)
            self._rate = max(self._whole * part, _LEAST_RATE)
            self._burst = max(self._rate, 1.0)
            self._tokens = min(self._tokens, self._burst)

    def available(self, now: float) -> float:
        """Count the events that may go now."""
        if self._rate is None:
            return math.inf
        if now > self._updated:
            gained = (now - self._updated) * self._rate
            self._tokens = min(self._burst, self._tokens + gained)
            self._updated = now
        return self._tokens

    def spend(self, events: int) -> None:
        """Take so many events out of the bucket."""
        if self._rate is not None:
            self._tokens -= events

    def next_at(self, now: float) -> float:
        """Say when one event may go."""
        if self._rate is None:
            return now
        missing = 1.0 - self.available(now)
        return now if missing <= _ROUNDING else now + missing / self._rate
