"""How well a destination is, and how fast it may be asked. Pure."""

import math
import random
from collections.abc import Callable
from enum import StrEnum

from amplitude_async.config import DeliveryConfig

__all__ = ["Health", "HealthState", "TokenBucket"]

FAILURES_TO_FAIL = 3
REFUSAL_PROBE_INTERVAL = 60.0
# A bisection of 2,000 events meets eleven bare refusals in a row at the most; a server
# that goes on after that is not objecting to one event.
FRUITLESS_ANSWERS = 12
# Full jitter may draw zero; no answer of a server may make a hot loop.
JITTER_FLOOR = 0.1
# Tokens come in fractions: a whole one may be short of this much.
_ROUNDING = 1e-9


class HealthState(StrEnum):
    """What the last answers say about a destination."""

    HEALTHY = "healthy"
    FAILING = "failing"
    """It does not answer well: one request at a time, carrying one event."""
    REFUSED = "refused"
    """It refuses us (key, URL, method): one probe a minute."""


class Health:
    """The state of a destination and the moment before which it is left alone."""

    def __init__(
        self, config: DeliveryConfig, uniform: Callable[[float, float], float]
    ) -> None:
        self._config = config
        self._uniform = uniform
        self._fruitless = 0
        self.state = HealthState.HEALTHY
        self.failures = 0
        self.not_before = -math.inf
        self.refusal_code = 0
        self.refusal_message = ""

    @classmethod
    def seeded(cls, config: DeliveryConfig, rng: random.Random) -> "Health":
        """Build a state that draws its jitter from a given generator."""
        return cls(config, rng.uniform)

    def backoff(self, failures: int) -> float:
        """Draw the wait after so many failures: full jitter with a floor above zero."""
        ceiling = self._config.backoff_ceiling(failures)
        return self._uniform(ceiling * JITTER_FLOOR, ceiling)

    def succeeded(self) -> None:
        """A 2xx came: all is well."""
        self.state = HealthState.HEALTHY
        self.failures = 0
        self._fruitless = 0
        self.not_before = -math.inf

    def failed(self, now: float, wait: float | None) -> None:
        """A request failed; ``wait`` is what the server asked for, if it did."""
        self.failures += 1
        well = self.state is HealthState.HEALTHY and wait is None
        if well and self.failures < FAILURES_TO_FAIL:
            return
        self.state = HealthState.FAILING
        pause = self.backoff(max(self.failures - FAILURES_TO_FAIL + 1, 1))
        self.not_before = now + max(pause, wait or 0.0)

    def paused(self, now: float, wait: float | None) -> None:
        """The server wants everything slower."""
        self.failures += 1
        self.state = HealthState.FAILING
        asked = self._config.retry_throttled_interval if wait is None else wait
        # Whoever keeps saying "at once" is asked ever more rarely.
        self.not_before = now + max(asked, self.backoff(self.failures))

    def fruitless(self, now: float) -> None:
        """A request was turned down as a whole, though nothing is known to be wrong."""
        self._fruitless += 1
        if self._fruitless > FRUITLESS_ANSWERS:
            wait = self.backoff(self._fruitless - FRUITLESS_ANSWERS)
            self.not_before = max(self.not_before, now + wait)

    def refused(self, now: float, code: int, message: str) -> None:
        """The server refuses us, whatever we send."""
        self.state = HealthState.REFUSED
        self.refusal_code = code
        self.refusal_message = message
        self.not_before = now + REFUSAL_PROBE_INTERVAL


class TokenBucket:
    """A client-side limit of events per second with a burst of one second."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._burst = max(rate, 1.0) if rate is not None else math.inf
        self._tokens = self._burst
        self._updated = -math.inf

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
