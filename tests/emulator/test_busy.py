"""A busy server: so many requests a second, so many at once, and no to the others."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from amplitude_async.emulator import Emulator, Fault, ReceivedRequest
from amplitude_async.emulator.admission import Admission
from amplitude_async.emulator.script import parse_faults

__all__: list[str] = []

PAYLOAD = {"api_key": "key", "events": [{"event_type": "click", "user_id": "user-1"}]}
# Wall clocks are large numbers: rounding must cost no request there.
NOW = 1.8e9


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a client session."""
    timeout = aiohttp.ClientTimeout(total=5)
    async with aiohttp.ClientSession(timeout=timeout) as open_session:
        yield open_session


async def post(session: aiohttp.ClientSession, url: str) -> aiohttp.ClientResponse:
    """Send one good event and return the answer."""
    async with session.post(url, json=PAYLOAD) as response:
        await response.read()
        return response


async def statuses(
    session: aiohttp.ClientSession, emulator: Emulator, requests: int
) -> list[int]:
    """Send requests one by one and return how they were answered."""
    url = emulator.httpapi_url
    return [(await post(session, url)).status for _ in range(requests)]


# How many ---------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.5, 1, 3, 20])
def test_the_rate_holds_over_time(rate: float) -> None:
    """After a burst of one second, so many a second are let in and no more."""
    admission = Admission(rate, None)
    burst = max(1, int(rate))

    assert [admission.admit(NOW) for _ in range(burst + 2)] == [True] * burst + [
        False,
        False,
    ]
    asked = [NOW + tick / 100 for tick in range(1, 2001)]
    admitted = sum(admission.admit(now) for now in asked)
    assert admitted == 20 * rate


def test_quiet_times_are_saved_up_to_a_burst() -> None:
    """An hour of silence is worth one second."""
    admission = Admission(3, None)

    assert sum(admission.admit(NOW) for _ in range(9)) == 3
    assert sum(admission.admit(NOW + 3600) for _ in range(9)) == 3


def test_no_second_counts_twice() -> None:
    """Who arrived earlier and is read later finds no more room than there is."""
    admission = Admission(1, None)

    assert admission.admit(NOW)
    assert [admission.admit(NOW + at) for at in (0.9, 0.2, 0.9, 0.1)] == [False] * 4
    assert admission.admit(NOW + 1)


def test_who_is_turned_away_takes_no_room() -> None:
    """Neither a place nor a part of the second is used up by a refusal."""
    admission = Admission(2, 1)

    assert admission.admit(NOW)
    assert [admission.admit(NOW) for _ in range(5)] == [False] * 5
    admission.leave()
    assert admission.admit(NOW)
    admission.leave()
    assert not admission.admit(NOW)


# Over a socket ----------------------------------------------------------------


async def test_more_requests_than_the_rate_are_refused(
    session: aiohttp.ClientSession,
) -> None:
    """It takes its rate, refuses the others, and takes again a second later."""
    clock = Clock()
    async with Emulator(clock=clock) as emulator:
        emulator.faults.add(Fault.busy(requests_per_second=2))
        assert await statuses(session, emulator, 4) == [200, 200, 503, 503]
        clock.now += 0.5
        assert await statuses(session, emulator, 2) == [200, 503]
        clock.now += 60
        assert await statuses(session, emulator, 3) == [200, 200, 503]

        assert len(emulator.events) == 5
        assert emulator.stats.by_status == {200: 5, 503: 4}
        assert emulator.stats.faults_fired == 4
        assert {one.fault for one in emulator.requests} == {None, "busy"}
        # It stays so until it is told otherwise.
        emulator.faults.clear()
        assert await statuses(session, emulator, 3) == [200] * 3


async def test_more_requests_at_once_are_refused_at_once(
    session: aiohttp.ClientSession, emulator: Emulator
) -> None:
    """The second is refused while the first is under way, and told when to come."""
    began = asyncio.Event()

    def begin(_: ReceivedRequest) -> bool:
        began.set()
        return True

    busy = Fault.busy(at_once=1, status=429, retry_after=7)
    emulator.faults.add(busy, Fault(delay=math.inf, when=begin))
    first = asyncio.create_task(post(session, emulator.httpapi_url))
    await began.wait()

    second = await post(session, emulator.httpapi_url)

    assert (second.status, second.headers["Retry-After"]) == (429, "7")
    assert not first.done()
    assert emulator.faults.pending == (busy,)
    first.cancel()


async def test_several_at_once(
    session: aiohttp.ClientSession, emulator: Emulator
) -> None:
    """So many are under way together, whoever they are."""
    emulator.faults.add(Fault.busy(at_once=2), Fault(delay=0.05, count=None))
    url = emulator.httpapi_url
    answers = await asyncio.gather(*(post(session, url) for _ in range(5)))

    assert sorted(answer.status for answer in answers) == [200, 200, 503, 503, 503]


async def test_a_client_that_hangs_up_leaves_its_place(
    session: aiohttp.ClientSession, emulator: Emulator
) -> None:
    """A place is free again whatever became of the request that had it."""
    emulator.faults.add(Fault.busy(at_once=1), Fault(hang_up="after", count=3))
    for _ in range(3):
        with pytest.raises(aiohttp.ClientConnectionError):
            await post(session, emulator.httpapi_url)

    assert await statuses(session, emulator, 1) == [200]


async def test_the_limits_restrict_any_fault(
    session: aiohttp.ClientSession,
) -> None:
    """What exceeds a limit may also be cut off; the rest is judged as usual."""
    async with Emulator(clock=Clock()) as emulator:
        excess = Fault(requests_per_second=1, hang_up="before", count=None)
        emulator.faults.add(excess)
        assert await statuses(session, emulator, 1) == [200]
        with pytest.raises(aiohttp.ClientConnectionError):
            await post(session, emulator.httpapi_url)


# By JSON and by mistake -------------------------------------------------------


async def test_it_is_armed_by_the_control_route(
    session: aiohttp.ClientSession,
) -> None:
    """JSON says the same as Python, and the listing shows the limits."""
    async with Emulator(clock=Clock()) as emulator:
        control = f"{emulator.url}/_emulator/faults"
        fault = {"kind": "busy", "requests_per_second": 1, "at_once": 3, "status": 429}
        async with session.post(control, json=fault) as response:
            shown = await response.json()
        assert shown == {
            "faults": [
                {
                    "id": 1,
                    "text": "busy: takes 1 requests a second; takes 3 requests at "
                    "once; answers 429, until it is removed",
                    "name": "busy",
                    "left": None,
                    "status": 429,
                    "requests_per_second": 1,
                    "at_once": 3,
                }
            ]
        }
        assert await statuses(session, emulator, 2) == [200, 429]
        async with session.get(control) as response:
            assert await response.json() == shown
        async with session.delete(control) as response:
            assert await response.json() == {"faults": []}
        assert await statuses(session, emulator, 2) == [200, 200]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "fault busy is None: give requests_per_second, at_once or both"),
        ({"requests_per_second": 0}, "requests_per_second is 0: give requests a sec"),
        ({"requests_per_second": -1}, "requests_per_second is -1: "),
        ({"requests_per_second": math.inf}, "requests_per_second is inf: "),
        ({"requests_per_second": math.nan}, "requests_per_second is nan: "),
        ({"requests_per_second": True}, "requests_per_second is True: "),
        ({"requests_per_second": "20"}, "requests_per_second is '20': "),
        ({"at_once": 0}, "at_once is 0: give 1 or more"),
        ({"at_once": 1.5}, "at_once is 1.5: "),
        ({"at_once": True}, "at_once is True: "),
        ({"at_once": 1, "status": 200}, "status is 200: give an error status"),
        ({"at_once": 1, "status": None}, "status is None: give an error status"),
        ({"at_once": 1, "retry_after": 0.5}, "retry_after is 0.5: give whole sec"),
        ({"at_once": 1, "retry_after": -1}, "retry_after is -1: "),
    ],
)
def test_a_bad_limit_is_refused_by_name(fields: dict[str, Any], message: str) -> None:
    """By Python and by JSON the message names field, value and remedy."""
    with pytest.raises(ValueError, match=message):
        Fault.busy(**fields)
    with pytest.raises(ValueError, match=message):
        parse_faults({"kind": "busy", **fields})


def test_an_unknown_limit_is_refused() -> None:
    """A key that means nothing is named, with those that do."""
    with pytest.raises(ValueError, match=r"a busy fault has no key 'count': use at_on"):
        parse_faults({"kind": "busy", "at_once": 1, "count": 3})
