"""The pace of a destination, against servers in virtual time."""

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest

from amplitude_async.delivery.deciding.pace import Pace

BATCH, LEAST, CAPACITY = 1000, 200, 20_000
BASE, LONGEST, TIMEOUT = 0.1, 60.0, 10.0

Take = Callable[[float], bool]
"""Whether the server takes a request that starts at this moment."""


def bucket(rate: float, burst: float) -> Take:
    """Take what a token bucket allows."""
    tokens, at = burst, 0.0

    def take(now: float) -> bool:
        nonlocal tokens, at
        tokens, at = min(burst, tokens + (now - at) * rate), now
        if tokens < 1 - 1e-9:
            return False
        tokens -= 1
        return True

    return take


def window(rate: float) -> Take:
    """Take so many in each second of the clock, or one in each 1/rate."""
    length = max(1.0, 1 / rate)
    current, count = -1, 0

    def take(now: float) -> bool:
        nonlocal current, count
        if int(now / length) != current:
            current, count = int(now / length), 0
        count += 1
        return count <= max(1, rate)

    return take


def sliding(rate: float) -> Take:
    """Take so many in whichever second, or one in whichever 1/rate."""
    length = max(1.0, 1 / rate)
    log: deque[float] = deque()

    def take(now: float) -> bool:
        while log and log[0] <= now - length:
            log.popleft()
        if len(log) >= max(1, rate):
            return False
        log.append(now)
        return True

    return take


LIMITS: dict[str, Callable[[float], Take]] = {
    "one token": lambda rate: bucket(rate, 1.0),
    "tokens": lambda rate: bucket(rate, max(1.0, rate)),
    "window": window,
    "sliding": sliding,
}


def then(first: Take, at: float, second: Take) -> Take:
    """Change the server at a moment."""
    return lambda now: (first if now < at else second)(now)


def down(start: float, end: float) -> Take:
    """Refuse everything for a while."""
    return lambda now: not start <= now < end


def stray(at: float) -> Take:
    """Refuse one request, the first at or after a moment."""
    met = False

    def take(now: float) -> bool:
        nonlocal met
        met, refused = now >= at, now >= at and not met
        return not refused

    return take


def everything(_now: float) -> bool:
    """Take whatever comes."""
    return True


@dataclass
class Client:
    """One client: its pace, what waits, what is out and what was taken."""

    pace: Pace
    arrived_at: float = 0.0
    waiting: float = 0.0
    again: list[int] = field(default_factory=list)
    out: int = 0
    out_events: int = 0
    taken: int = 0
    wakes_at: float = math.inf

    @property
    def backlog(self) -> float:
        """Events that wait, those of refused requests included."""
        return self.waiting + sum(self.again)


@dataclass
class Result:
    """What a run came to."""

    clients: list[Client]
    starts: list[tuple[float, bool]] = field(default_factory=list)
    successes: list[float] = field(default_factory=list)
    paces: list[tuple[float, int, float]] = field(default_factory=list)
    backlogs: list[tuple[float, float]] = field(default_factory=list)
    shed: float = 0.0
    doubles: int = 0

    def refused(self, since: float = 0.0) -> float:
        """Give the share of refused requests."""
        answers = [ok for at, ok in self.starts if at >= since]
        return answers.count(False) / max(1, len(answers))

    def rate(self, start: float, end: float) -> float:
        """Give the requests taken a second between two moments."""
        return sum(start <= at < end for at in self.successes) / (end - start)

    def worst(self, start: float, end: float = math.inf) -> float:
        """Give the largest backlog between two moments."""
        return max(size for at, size in self.backlogs if start <= at < end)

    @property
    def jain(self) -> float:
        """Give Jain's index of what was taken of each client."""
        shares = [client.taken for client in self.clients]
        return sum(shares) ** 2 / (len(shares) * sum(x * x for x in shares))


@dataclass
class World:
    """A server, its clients, and the queue of what happens next."""

    take: Take = everything
    events_per_second: float = 1000.0
    clients: int = 1
    most: int = 4
    latency: float = 0.02
    refusal: float = 0.005
    at_once: bool = False
    growing: float = 0.0
    retry_after: float = 0.0
    seed: int = 1

    def run(self, seconds: float) -> Result:
        """Play so many seconds."""
        self.random = random.Random(self.seed)
        self.order = itertools.count()
        self.agenda: list[tuple[float, int, Callable[[float], None]]] = []
        self.busy = 0
        self.result = Result([Client(self.pace()) for _ in range(self.clients)])
        for client in self.result.clients:
            self.wake(self.random.uniform(0.1, 0.2), client)
        while self.agenda and self.agenda[0][0] <= seconds:
            now, _, happens = heapq.heappop(self.agenda)
            happens(now)
        return self.result

    def pace(self) -> Pace:
        """Make the pace of one client."""
        return Pace(
            most=self.most,
            base=BASE,
            longest=LONGEST,
            timeout=TIMEOUT,
            uniform=self.random.uniform,
        )

    def at(self, when: float, happens: Callable[[float], None]) -> None:
        """Put something on the agenda."""
        heapq.heappush(self.agenda, (when, next(self.order), happens))

    def wake(self, when: float, client: Client) -> None:
        """Have a client look again at a moment."""
        if when != client.wakes_at:
            client.wakes_at = when
            self.at(when, partial(self.woken, client))

    def woken(self, client: Client, now: float) -> None:
        """Look again, unless another moment was chosen since."""
        if now == client.wakes_at:
            client.wakes_at = math.inf
            self.turn(client, now)

    def arrive(self, client: Client, now: float) -> None:
        """Let the events of the time since the last look arrive."""
        room = CAPACITY - sum(client.again) - client.out_events
        new = client.waiting + self.events_per_second * (now - client.arrived_at)
        self.result.shed += max(0.0, new - room)
        client.waiting, client.arrived_at = min(new, room), now
        self.result.backlogs.append((now, client.backlog))

    def turn(self, client: Client, now: float) -> None:
        """Start what may start, and say when to look again."""
        self.arrive(client, now)
        pace = client.pace
        while client.again or client.waiting >= LEAST:
            if not pace.may_start(now, client.out):
                pace.press()
                if client.out < pace.width:
                    self.wake(max(pace.next_at, now + 1e-9), client)
                return
            if client.again:
                size = client.again.pop(0)
            else:
                slots = 1 if pace.gap else max(1, pace.width - client.out)
                size = min(BATCH, max(LEAST, int(client.waiting / slots)))
                client.waiting -= size
            self.send(client, size, now)
        missing = (LEAST - client.waiting) / self.events_per_second
        self.wake(now + missing + 1e-6, client)

    def send(self, client: Client, size: int, now: float) -> None:
        """Start a request, and decide when and how it is answered."""
        client.pace.started(now)
        client.out += 1
        client.out_events += size
        ok = self.take(now) and not (self.at_once and self.busy)
        lasts = self.latency if ok else self.refusal
        if self.growing:
            lasts = self.growing * client.out
        lasts *= self.random.uniform(0.9, 1.1)
        if lasts > TIMEOUT:
            # The server took it all the same, and will be sent it again.
            ok, lasts = False, TIMEOUT
            self.result.doubles += 1
        if self.at_once and ok:
            self.busy += 1
            self.at(now + lasts - 1e-6, self.free)
        self.result.starts.append((now, ok))
        self.at(now + lasts, partial(self.answer, client, size, ok, now))

    def free(self, _now: float) -> None:
        """Finish with one request."""
        self.busy -= 1

    def answer(
        self, client: Client, size: int, ok: bool, started_at: float, now: float
    ) -> None:
        """Hand an answer to its client."""
        pace = client.pace
        client.out -= 1
        client.out_events -= size
        if ok:
            pace.taken(now, started_at)
            client.taken += size
            self.result.successes.append(now)
        else:
            pace.slowed(now, started_at)
            if self.retry_after:
                pace.hold(now + self.retry_after)
            client.again.insert(0, size)
        self.result.paces.append((now, pace.width, pace.gap))
        self.turn(client, now)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("rate", [0.5, 1.0, 2.0, 5.0, 10.0, 20.0])
@pytest.mark.parametrize("limit", LIMITS)
def test_busy(limit: str, rate: float, seed: int) -> None:
    """Four fifths of what it can take pile up nowhere; one in five is refused."""
    seconds = max(120.0, 400 / rate)
    result = World(LIMITS[limit](rate), 800 * rate, seed=seed).run(seconds)
    assert result.refused() <= 0.2
    assert result.refused(since=30) <= 0.2
    assert result.worst(30, 60) < CAPACITY / 2
    assert result.worst(60) < CAPACITY / 4
    # A limit of 20 that is used up at once is silent for a second.
    assert result.shed <= (0 if rate < 20 else 2.5 * 800 * rate)


@pytest.mark.parametrize(
    ("limit", "rate"),
    [
        ("tokens", 5.0),
        ("tokens", 10.0),
        ("tokens", 20.0),
        ("window", 5.0),
        ("window", 20.0),
        ("sliding", 10.0),
        ("sliding", 20.0),
    ],
)
def test_shared(limit: str, rate: float) -> None:
    """Eight clients share one busy server evenly and use it."""
    seconds = 300.0
    result = World(LIMITS[limit](rate), 250 * rate, clients=8).run(seconds)
    assert result.jain >= 0.8
    assert result.rate(0, seconds) >= 0.8 * rate
    assert result.refused() <= 0.25


@pytest.mark.parametrize("limit", ["one token", "sliding"])
@pytest.mark.parametrize("rate", [0.5, 5.0])
def test_shared_without_burst(limit: str, rate: float) -> None:
    """Where no law can have both, it uses about what Erlang's formula gives chance."""
    seconds = 1200.0
    result = World(LIMITS[limit](rate), 250 * rate, clients=8).run(seconds)
    used = result.rate(0, seconds) / rate
    # Each of n places is busy for n/rate: offered load a, carried share below.
    places = int(max(1.0, rate)) if limit == "sliding" else 1
    load = len(result.starts) / seconds * places / rate
    blocked = 1.0
    for n in range(1, places + 1):
        blocked = load * blocked / (n + load * blocked)
    assert used >= 0.8 * load * (1 - blocked) / places


@pytest.mark.parametrize("most", [1, 4, 16])
@pytest.mark.parametrize("latency", [0.02, 0.05, 0.2, 1.0])
def test_at_once(latency: float, most: int) -> None:
    """A server of one request at a time is used, and seldom asked for two."""
    seconds = max(100.0, 200 * latency)
    load = 1000 / latency
    world = World(
        events_per_second=load, latency=latency, most=most, at_once=True, seed=3
    )
    result = world.run(seconds)
    assert result.rate(20, seconds) * latency >= 0.8
    assert result.refused() <= 0.2


@pytest.mark.parametrize("growing", [0.5, 1.0, 2.0, 2.6, 4.0])
def test_doubles(growing: float) -> None:
    """A server that slows down with what is out is not pushed into doubles."""
    result = World(growing=growing).run(600)
    assert result.doubles / len(result.starts) <= 0.05


@pytest.mark.parametrize("refusal", [0.005, TIMEOUT])
@pytest.mark.parametrize("lasts", [6.0, 60.0, 3600.0, 43_200.0])
def test_outage(lasts: float, refusal: float) -> None:
    """After an outage of any length all that waited is out within ten seconds."""
    end = 60 + lasts
    result = World(down(60, end), 2000, refusal=refusal).run(end + 100)
    after = [at for at in result.successes if at > end]
    assert after[0] - end <= LONGEST + 2 * TIMEOUT + 5
    assert after[20] - after[0] <= 10
    if lasts >= 3600:
        probes = sum(60 <= at < end for at, _ in result.starts)
        assert lasts / (LONGEST + TIMEOUT) <= probes <= lasts / 30 + 30


@pytest.mark.parametrize("limit", LIMITS)
def test_faster(limit: str) -> None:
    """A server that became ten times as fast is used within half a minute."""
    take = then(LIMITS[limit](2), 60, LIMITS[limit](20))
    result = World(take, 40_000).run(120)
    assert result.rate(92, 112) >= 0.8 * 20


@pytest.mark.parametrize("limit", LIMITS)
def test_slower(limit: str) -> None:
    """A server that became ten times slower is followed."""
    take = then(LIMITS[limit](20), 60, LIMITS[limit](2))
    result = World(take, 40_000).run(120)
    assert result.rate(70, 120) >= 0.75 * 2
    assert result.refused(since=70) <= 0.2


@pytest.mark.parametrize("most", [1, 4, 16])
@pytest.mark.parametrize("latency", [0.02, 0.1])
def test_healthy(latency: float, most: int) -> None:
    """A healthy server is never slowed; one stray refusal is forgotten in seconds."""
    load = 1500 * most / latency
    world = World(stray(20), load, latency=latency, most=most, seed=4)
    result = world.run(40)
    slow = [at for at, width, gap in result.paces if gap or width < most]
    assert result.refused()
    assert min(slow) >= 20
    assert max(slow) <= 25
    assert result.clients[0].pace.next_at == -math.inf


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("rate", [0.5, 5.0, 20.0])
def test_light_load(limit: str, rate: float) -> None:
    """A tenth of what it can take is hardly ever refused."""
    result = World(LIMITS[limit](rate), 100 * rate).run(max(120.0, 200 / rate))
    assert result.refused() <= 0.02


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("rate", [0.5, 5.0])
def test_retry_after(limit: str, rate: float) -> None:
    """With Retry-After: 1 nothing starts for a second, and the rest holds too."""
    world = World(LIMITS[limit](rate), 800 * rate, retry_after=1.0)
    result = world.run(max(120.0, 400 / rate))
    for (at, ok), (later, _) in itertools.pairwise(result.starts[10:]):
        assert ok or later - at >= 1
    assert result.refused() <= 0.2
    assert result.worst(60) < CAPACITY


@pytest.mark.parametrize("latency", [0.1, 0.5])
@pytest.mark.parametrize("limit", LIMITS)
def test_slow_answers(limit: str, latency: float) -> None:
    """Answers that take their time do not narrow what a rate needs."""
    world = World(LIMITS[limit](5.0), 4000, latency=latency, most=16)
    result = world.run(300)
    assert result.rate(30, 300) >= 0.97 * 4
    assert result.refused() <= 0.2


def middle(low: float, high: float) -> float:
    """Draw no jitter."""
    return (low + high) / 2


def make(most: int = 4) -> Pace:
    """Make a pace without jitter."""
    return Pace(most=most, base=BASE, longest=LONGEST, timeout=TIMEOUT, uniform=middle)


def test_row_of_troubles() -> None:
    """The pause doubles up to the longest, the width halves down to one."""
    pace, now = make(), 0.0
    pauses, widths = [], []
    for _ in range(2000):
        pace.slowed(now, now)
        pauses.append(pace.next_at - now)
        widths.append(pace.width)
        now = pace.next_at
    assert pauses[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert max(pauses) <= LONGEST
    assert widths[:3] == [1, 1, 1]
    assert pace.failures == 2000
    pace.taken(now, now)
    assert (pace.failures, pace.width) == (0, 2)
    assert pace.gap == pytest.approx(0.2)


def test_old_answers() -> None:
    """Answers to what started before the slowdown neither slow nor quicken."""
    pace = make()
    pace.slowed(10, 9.9)
    before = repr(pace), pace.next_at
    pace.slowed(10.05, 9.95)
    pace.taken(10.06, 9.95)
    assert (repr(pace), pace.next_at) == before


def test_unpressed() -> None:
    """A pace that nothing waited for does not grow; one success grows it once."""
    pace = make()
    pace.slowed(1, 1)
    pace.taken(2, 2)
    gap = pace.gap
    for now in range(3, 50):
        pace.taken(now + 0.01, now)
    assert pace.gap == gap
    pace.press()
    pace.taken(50.01, 50)
    pace.taken(51.01, 51)
    assert pace.gap == pytest.approx(gap / 1.15)


def test_hold() -> None:
    """A hold stands until its time, whatever is taken meanwhile, and never shortens."""
    pace = make()
    pace.hold(100)
    pace.hold(50)
    pace.press()
    pace.taken(60, 59)
    assert not pace.may_start(99.9, 0)
    assert pace.may_start(100, 3)
    assert not pace.may_start(100, 4)


def test_late_answers() -> None:
    """An answer later than half the timeout narrows."""
    pace = make()
    pace.taken(5.1, 0)
    assert pace.width == 3
    pace.press()
    pace.taken(10, 7)
    assert pace.width == 3
