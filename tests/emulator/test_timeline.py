"""What came when, counted for a chart: exact, and of a bounded size whatever comes."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from amplitude_async.emulator import Emulator
from amplitude_async.emulator.timeline import BARS, Timeline

__all__: list[str] = []

START = 1_790_000_000.0


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class Watched:
    """An emulator with such a clock, and what its page asks for a chart."""

    def __init__(
        self, emulator: Emulator, session: aiohttp.ClientSession, time: Time
    ) -> None:
        self.emulator = emulator
        self.session = session
        self.time = time

    async def send(self, *names: str, key: str = "any") -> None:
        """Send events; one without a name is rejected."""
        events = [{"event_type": name, "user_id": "user-1"} for name in names]
        body = {"api_key": key, "events": events}
        async with self.session.post("/batch", json=body):
            pass

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """Post JSON to one of the page's routes and return the answer."""
        async with self.session.post(f"/_emulator/{path}", json=body) as response:
            assert response.status == 200
            return await response.json()

    async def chart(self, name: str | None = None, status: int = 200) -> Any:
        """Return the answer of the chart's route."""
        query = {} if name is None else {"type": name}
        url = "/_emulator/timeline"
        async with self.session.get(url, params=query) as response:
            assert response.status == status
            assert response.headers["Cache-Control"] == "no-store"
            return await response.json()


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    """Yield an emulator whose clock stands still."""
    time = Time()
    async with (
        Emulator(clock=time) as emulator,
        aiohttp.ClientSession(emulator.url) as session,
    ):
        yield Watched(emulator, session, time)


def total(chart: dict[str, Any]) -> int:
    """Return how many events a chart shows."""
    series = [one["counts"] for one in chart["series"]]
    return sum(map(sum, [*series, chart["others"], chart["rejected"]]))


async def test_events_are_in_the_bar_of_their_second(watched: Watched) -> None:
    """Each type has its own series, and what was rejected another one."""
    await watched.send("Paid", "Paid", "Seen")
    watched.time.now += 3
    await watched.send("Paid")
    await watched.send("")
    chart = await watched.chart()
    assert (chart["step"], chart["last"], chart["now"]) == (1, START + 3, START + 3)
    found = {one["name"]: one["counts"][-4:] for one in chart["series"]}
    assert found == {"Paid": [2, 0, 0, 1], "Seen": [1, 0, 0, 0]}
    assert chart["rejected"][-4:] == [0, 0, 0, 1]
    assert all(len(one["counts"]) == BARS for one in chart["series"])
    assert total(chart) == 5


async def test_nothing_is_an_empty_chart(watched: Watched) -> None:
    """As before the first event, and for a type that nobody has seen."""
    chart = await watched.chart()
    assert (chart["series"], total(chart)) == ([], 0)
    answer = await watched.chart("Paid", status=404)
    assert '"Paid"' in answer["error"]


@pytest.mark.parametrize(
    ("age", "step"),
    [(59, 1), (61, 5), (299, 5), (3_500, 60), (7_200, 300), (86_400, 1800)],
)
async def test_bars_are_longer_the_older_the_first_event_is(
    watched: Watched, age: int, step: int
) -> None:
    """So that all of it fits in, also where nothing new has come."""
    await watched.send("Paid")
    watched.time.now += age
    quiet = await watched.chart()
    await watched.send("Paid")
    chart = await watched.chart()
    assert quiet["step"] == chart["step"] == step
    assert (total(quiet), total(chart)) == (1, 2)
    assert chart["series"][0]["counts"][-1] == 1


async def test_one_type_has_the_same_chart(watched: Watched) -> None:
    """With bars for its own age, and what of it was rejected."""
    await watched.send("Old")
    watched.time.now += 1_000
    await watched.send("Paid", "Paid")
    watched.emulator.faults.add("outage")
    await watched.send("Paid")
    chart = await watched.chart("Paid")
    (series,) = chart["series"]
    assert (chart["step"], series["counts"][-1]) == (1, 2)
    assert (chart["rejected"][-1], sum(chart["others"])) == (1, 0)
    both = await watched.chart()
    assert (both["step"], total(both)) == (30, 4)


async def test_rare_types_share_a_series(watched: Watched) -> None:
    """Whoever makes up names makes no series, and nothing grows."""
    await watched.send(*(name for name in "abcdef" for _ in range(2)))
    await watched.send(*(f"made up {number}" for number in range(1_500)))
    chart = await watched.chart()
    assert {one["name"] for one in chart["series"]} == set("abcdef")
    # Also those beyond the types that are counted apart.
    assert (sum(chart["others"]), total(chart)) == (1_500, 1_512)


async def test_copies_are_not_counted_again(watched: Watched) -> None:
    """The list below the chart does not count them either."""
    event = {"event_type": "Paid", "user_id": "user-1", "insert_id": "one"}
    body = {"api_key": "any", "events": [event]}
    for _ in range(2):
        async with watched.session.post("/batch", json=body):
            pass
    assert total(await watched.chart()) == 1


async def test_clear_empties_it_and_undo_brings_it_back(watched: Watched) -> None:
    """At the times at which all of it came."""
    await watched.send("Paid")
    watched.time.now += 10
    token = (await watched.post("clear", {}))["undo"]
    assert total(await watched.chart()) == 0
    await watched.send("Seen")
    await watched.post("undo", {"undo": token})
    found = {
        one["name"]: one["counts"].index(1) for one in (await watched.chart())["series"]
    }
    assert found == {"Paid": BARS - 11, "Seen": BARS - 1}


@pytest.mark.parametrize("told", [1.0, START + 10**9])
async def test_a_client_with_a_wrong_clock_squeezes_nothing(
    watched: Watched, told: float
) -> None:
    """What it tells is shown near the time at which it told."""
    await watched.send("Paid")
    event = {"event_type": "Lost", "user_id": "user-1"}
    report = {"event": event, "state": "dropped", "reason": "full", "at": told}
    await watched.post("local", {"events": [report]})
    chart = await watched.chart()
    assert chart["step"] <= 300
    assert (total(chart), sum(chart["rejected"]), chart["dropped"]) == (2, 1, True)


def test_a_timeline_is_exact_and_bounded() -> None:
    """Whatever order the times come in, within what it remembers."""
    draw = random.Random(1)
    times = [START + draw.uniform(0, 40 * 86_400) for _ in range(3_000)]
    line = Timeline()
    for at in times:
        line.add(at, stored=draw.random() < 0.5)
    last = line.last(max(times))
    stored, rejected = line.bars(line.step, last)
    wanted = [0] * BARS
    for at in times:
        wanted[int(at // line.step) - last + BARS - 1] += 1
    assert [sum(two) for two in zip(stored, rejected, strict=True)] == wanted
    assert line.step == 86_400


def test_what_is_older_than_sixty_days_is_forgotten() -> None:
    """There is no longer interval, and no more than sixty are kept."""
    line = Timeline()
    for day in range(500):
        line.add(START + day * 86_400, stored=True)
        line.add(START, stored=False)
    last = line.last(START + 499 * 86_400)
    stored, rejected = line.bars(line.step, last)
    assert stored == [1] * BARS
    assert sum(rejected) == 0


def test_bars_of_one_timeline_fit_those_of_a_longer_one() -> None:
    """A younger type has shorter intervals, which are added up."""
    long, short = Timeline(), Timeline()
    for age in (0, 4_000):
        long.add(START + age, stored=True)
    for age in (3_990, 4_000, 4_000):
        short.add(START + age, stored=True)
    last = long.last(START + 4_000)
    assert (long.step, short.step) == (300, 1)
    stored, _ = short.bars(long.step, last)
    assert sum(stored) == 3
    assert sum(stored[-2:]) == 3
