"""Each preset, met by a real client: it does what the table in the docs says."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from amplitude_async import Amplitude, DeliveryStatus
from amplitude_async.emulator import Emulator, Fault, FaultScript
from amplitude_async.emulator.presets import PRESETS
from amplitude_async.emulator.script import parse_faults

__all__ = ["default_options"]

DOCS = Path(__file__).parents[2] / "docs" / "emulator.md"
EVENTS = 5
IMPATIENT: dict[str, Any] = {
    "flush_queue_size": EVENTS,
    "flush_interval": 0.005,
    "retry_base_interval": 0.001,
    "retry_max_interval": 0.004,
    "retry_throttled_interval": 0.01,
    "trust_env": False,
}


@dataclass(frozen=True)
class Row:
    """What is changed so that no test waits, and what becomes of five events."""

    changes: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    delivered: int = EVENTS
    rejected: int = 0
    code: int = 200
    statuses: frozenset[int] = frozenset({200})
    duplicates: int = 0
    told: str = ""


TABLE = {
    "outage": Row(statuses=frozenset({503, 200}), told="503: the fault 'outage' fired"),
    "broken": Row(statuses=frozenset({500, 200}), told="500: the fault 'broken' fired"),
    "flaky": Row(statuses=frozenset({503, 200}), options={"flush_queue_size": 1}),
    "slow": Row({"delay": 0.01}),
    "timeout": Row(
        options={"connection_timeout": 0.05},
        statuses=frozenset({0, 200}),
        told="got no answer: the fault 'timeout' fired",
    ),
    "reset": Row(statuses=frozenset({0, 200})),
    "cut": Row(statuses=frozenset({0, 200}), duplicates=EVENTS),
    "throttled": Row(
        statuses=frozenset({429, 200}), told="its user or device is throttled"
    ),
    "rate_limited": Row(
        {"headers": {"Retry-After": "0"}},
        statuses=frozenset({429, 200}),
        told="429: the fault 'rate_limited' fired",
    ),
    "quota": Row(
        delivered=4,
        rejected=1,
        code=429,
        statuses=frozenset({429, 200}),
        told="the daily quota of its user_id is exceeded",
    ),
    "silenced": Row(
        delivered=4,
        rejected=1,
        code=400,
        statuses=frozenset({400, 200}),
        told="its device is silenced",
    ),
    "rejected_event": Row(
        delivered=4,
        rejected=1,
        code=400,
        statuses=frozenset({400, 200}),
        told="event_properties is invalid",
    ),
    "too_large": Row(statuses=frozenset({413, 200}), told="413: "),
    "invalid_key": Row(
        delivered=0, rejected=EVENTS, code=400, statuses=frozenset({400})
    ),
}


@pytest.fixture
def default_options() -> Callable[[], dict[str, Any]]:
    """Return what makes each client impatient."""
    return lambda: dict(IMPATIENT)


def ends(emulator: Emulator) -> Callable[[object], bool]:
    """Return a `when` that is true three times and then clears what has no end."""
    numbers = itertools.count(1)

    def when(_: object) -> bool:
        if next(numbers) == 3:
            emulator.faults.clear()
        return True

    return when


@pytest.mark.parametrize("name", PRESETS)
async def test_a_client_meets_a_preset_as_the_table_says(
    emulator: Emulator, connect: Callable[..., Amplitude], name: str
) -> None:
    """Each event has the outcome that is promised, and is told of where it was not."""
    row = TABLE[name]
    changes = dict(row.changes)
    if name == "outage":
        changes["when"] = ends(emulator)
    emulator.faults.add(Fault.preset(name, **changes))
    client = connect(**row.options)
    handles = [
        await client.track("Paid", user_id=f"user-{n}", device_id=f"phone-{n}")
        for n in range(EVENTS)
    ]
    results = [await handle for handle in handles]

    assert client.stats.balanced
    assert Counter(result.status for result in results) == Counter(
        {DeliveryStatus.DELIVERED: row.delivered, DeliveryStatus.REJECTED: row.rejected}
    )
    rejected = {result.code for result in results if not result.ok}
    assert rejected == ({row.code} if row.rejected else set())
    assert set(emulator.stats.by_status) == row.statuses
    assert len(emulator.events) == row.delivered
    assert emulator.stats.duplicates == row.duplicates
    told = [seen.reason for seen in emulator.events(rejected=True)]
    assert any(row.told in reason for reason in told) or not row.told
    assert {request.fault for request in emulator.requests} <= {None, name}


def test_each_preset_has_its_row_in_the_docs() -> None:
    """And the docs have no other."""
    text = DOCS.read_text(encoding="utf-8")
    rows = re.findall(r'^\| `"(\w+)"` \|', text, re.MULTILINE)
    assert rows == list(PRESETS) == list(TABLE)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("outege", "fault preset is 'outege': did you mean 'outage'? There are outage"),
        ("xyz", "fault preset is 'xyz': use one of outage, "),
        (5, "fault preset is 5: use one of outage, "),
    ],
)
def test_an_unknown_name_says_which_there_are(name: Any, message: str) -> None:
    """And which one was meant."""
    with pytest.raises(ValueError, match=re.escape(message)):
        Fault.preset(name)


def test_presets_are_added_by_name_all_or_none() -> None:
    """A mistake in one of them leaves the script as it was."""
    script = FaultScript()
    script.add("outage", Fault(500), "cut")
    assert [fault.label for fault in script.pending] == ["outage", "status 500", "cut"]
    with pytest.raises(ValueError, match="did you mean 'slow'"):
        script.add("broken", "slwo")
    with pytest.raises(TypeError, match=r'write Fault\(503\), or "outage"'):
        script.add(503)  # type: ignore[arg-type]
    assert len(script.pending) == 3


def test_a_preset_can_be_changed_and_written_as_json() -> None:
    """Its fields are those of any fault."""
    fault = Fault.preset("outage", count=2, name="down")
    assert (fault.status, fault.count, fault.label) == (503, 2, "down")
    (read,) = parse_faults({"preset": "slow", "delay": 0.1})
    assert (read.delay, read.count, read.label) == (0.1, None, "slow")
    for bad in ({"preset": "x"}, {"preset": ["outage"]}, {"preset": "cut", "when": 1}):
        with pytest.raises(ValueError, match="fault"):
            parse_faults(bad)


def test_flaky_counts_for_itself() -> None:
    """Two of them do not share what they count."""
    first, second = Fault.preset("flaky"), Fault.preset("flaky")
    assert first.when is not second.when


async def test_presets_of_amplitudes_lists_leave_mparticle_alone(
    emulator: Emulator,
) -> None:
    """Where a request holds no Amplitude events there is none to name."""
    emulator.faults.add(
        "throttled", "quota", "silenced", "rejected_event", "invalid_key"
    )
    headers = {"Authorization": "Basic a2V5OnNlY3JldA=="}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(
            emulator.mparticle_url + "/events", json={"environment": "production"}
        ) as response,
    ):
        assert response.status == 202
