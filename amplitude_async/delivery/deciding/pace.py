"""How fast may a destination be asked: how many requests out, how far apart. Pure.

A destination that takes whatever it is given is never slowed. One that is busy, or
gone, is asked at a pace it seems to stand, found anew all the time: each trouble slows,
each success quickens a little. Growth counts in seconds and the fall in troubles, and
that is what makes several clients of one server share it evenly: whoever asks more
often meets more troubles in the same time.
"""

import math
from collections.abc import Callable

__all__ = ["Pace"]

# Trouble makes the gap so much longer. Less would be refused more often, more would
# leave room unused: now the mean pace is about 9 % below the limit.
EASE = 1.2
# Success near the limit makes the gap shorter by this share a second. A gap eased by
# 1.2 is back after twelve seconds: one request in seven refused at one in two seconds.
PROBE = 0.015
# Success where no limit is known: five in a row double the pace.
SEEK = 1.15
# So far beyond the limit that was known, it is not the limit any more.
OUTGROWN = 1.2
# The first pause after trouble, in gaps. A refusal used nothing up at the server, and
# less than a whole gap finds the room that others left.
PAUSE = 0.3
# A pause of so many gaps was an outage, and says nothing about the pace before it.
OUTAGE = 8.0
# Trouble when an outage seemed to be over: the server is slower than it was. Where a
# limit was known it is not far; where none was, it may be anywhere.
SLOWER, MUCH_SLOWER = 2.0, 4.0
# Where a limit is known, trouble takes half a request out and sixteen successes earn
# one: a server that takes one at a time is seldom tried with two.
NARROW = 0.5
PATIENCE = 16
# A gap of so little of the shortest pause is none: full speed.
NOTHING = 1 / 20
# Senders of one pace must not stay in step; more would spoil an even pace.
JITTER = 0.05
# Pauses vary more: those who were turned away together come back apart.
PAUSE_JITTER = 0.25
# Two to this power is beyond every pause, and no float overflows after a long outage.
_DOUBLINGS = 40


class Pace:
    """The pace of one destination: width (requests out) and gap (between starts)."""

    def __init__(
        self,
        *,
        most: int,
        base: float,
        longest: float,
        timeout: float,
        uniform: Callable[[float, float], float],
    ) -> None:
        self._most = most
        """The width of a destination without trouble."""
        self._pauses = (base, longest)
        """The shortest and the longest pause after trouble."""
        self._timeout = timeout
        """When a request counts as unanswered."""
        self._uniform = uniform
        """Draws the jitter."""
        self.gap = 0.0
        """Seconds between two starts; zero at full speed."""
        self.next_at = -math.inf
        """When the next request may start."""
        self.failures = 0
        """Troubles in a row since the last success."""
        self._wide = float(most)
        """The width without a row of troubles, and the part of one more earned."""
        self._limit = 0.0
        """The gap at which trouble came last; zero while none is known."""
        self._resuming = False
        """The next answer tells whether an outage is over or the server just busy."""
        self._slowed_at = -math.inf
        """When trouble slowed last: requests started before know nothing of it."""
        self._pressed = False
        """Work waited for the pace since it last changed."""

    @property
    def width(self) -> int:
        """How many requests may be out: half as many after each trouble in a row."""
        return max(1, int(self._wide) >> self.failures)

    def may_start(self, now: float, out: int) -> bool:
        """Tell whether one more request may start beside those that are out."""
        return out < self.width and now >= self.next_at

    def press(self) -> None:
        """Work waited: without this nothing grows, for nothing would test it."""
        self._pressed = True

    def hold(self, until: float) -> None:
        """Let nothing start before a moment that the server named."""
        self.next_at = max(self.next_at, until)

    def started(self, now: float) -> None:
        """A request started: the next one keeps its distance."""
        if self.gap:
            self._after(now, self.gap, JITTER)

    def slowed(self, now: float, started_at: float) -> None:
        """The destination was busy, or the request broke.

        Requests that started before the last slowdown know nothing of the pace since:
        their answers, of either kind, change nothing.
        """
        if started_at < self._slowed_at:
            return
        self._slowed_at = now
        self._pressed = False
        self.failures += 1
        if self.failures == 1:
            self._ease()
        self._after(now, self._pause(), PAUSE_JITTER)

    def taken(self, now: float, started_at: float) -> None:
        """The destination took a request."""
        if started_at < self._slowed_at:
            return
        took = now - started_at
        if took > self._timeout / 2:
            # One out more and it might be answered too late, which is a double.
            self._wide = max(1.0, int(self._wide) - 1.0)
            self._pressed = False
        if self.failures:
            self._resume()
            return
        self._resuming = False
        if self._limit and self.gap > self._limit * EASE:
            # This much is known to work: back to it at once.
            self.gap = max(self._limit * EASE, self.gap / 2)
        elif self._pressed:
            self._pressed = False
            self._grow(took)
        if not self.gap and self.next_at <= now:
            self.next_at = -math.inf

    def _after(self, now: float, wait: float, jitter: float) -> None:
        """Let nothing start before a wait is over."""
        drawn = wait * self._uniform(1 - jitter, 1 + jitter)
        self.hold(now + min(drawn, self._pauses[1]))

    def _pause(self) -> float:
        """Tell how long the present row of troubles makes us wait: doubling."""
        base, longest = self._pauses
        doubled = 2.0 ** min(self.failures - 1, _DOUBLINGS)
        # Room for the jitter: at the longest pause, too, clients come back apart.
        most = longest / (1 + PAUSE_JITTER)
        return min(max(base, self.gap * PAUSE) * doubled, most)

    def _ease(self) -> None:
        """Slow down at the first trouble of a row; the others prolong the pause."""
        base, longest = self._pauses
        self._wide = max(1.0, self._wide - NARROW if self._limit else self._wide / 2)
        if not self.gap:
            # Full speed was too fast, which tells nothing about what is not.
            self.gap = base
        elif self._resuming:
            # Not an outage that was over: the server is slower than it was.
            factor = SLOWER if self._limit else MUCH_SLOWER
            self.gap = min(self.gap * factor, longest)
            self._limit = 0.0
        else:
            self._limit = self.gap
            self.gap = min(self.gap * EASE, longest)
        self._resuming = False

    def _resume(self) -> None:
        """Go on after a row of troubles: after an outage, at half the pace before."""
        if self._pause() >= OUTAGE * self.gap:
            self._resuming = True
            self.gap = min(self.gap * 2, self._pauses[1])
        self.failures = 0

    def _grow(self, took: float) -> None:
        """Quicken what holds the work back: the gap or the width."""
        if self._wide < self._most and took >= self.gap * self.width:
            # Twice as many may take twice as long, and half the timeout is too long.
            if took < self._timeout / 4:
                self._wide += 1 / PATIENCE if self._limit else 1.0
            return
        if self.gap * OUTGROWN < self._limit:
            self._limit = 0.0
        self.gap /= 1 + PROBE * self.gap if self._limit else SEEK
        if self.gap < self._pauses[0] * NOTHING:
            self.gap = self._limit = 0.0

    def __repr__(self) -> str:
        """Show the pace in one line."""
        return f"<Pace width={self.width} gap={self.gap:.3f} failures={self.failures}>"
