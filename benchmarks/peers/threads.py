"""One SDK, called from many threads at once; prints its figures as one line of JSON.

Run as ``threads.py NAME URL THREADS EVENTS`` in the environment of the SDK.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from course import EVENT_TYPE, properties

__all__: list[str] = []

Track = Callable[[str, dict[str, Any]], Any]
WARM_UP = 200
ROOMY = 400_000


def ours_sync(url: str) -> tuple[Track, Callable[[], Any]]:
    """Use amplitude_async, from synchronous code."""
    from amplitude_async.sync import SyncAmplitude  # noqa: PLC0415

    client = SyncAmplitude("bench", server_url=f"{url}/2/httpapi", trust_env=False)

    def track(user: str, values: dict[str, Any]) -> None:
        client.track(EVENT_TYPE, user_id=user, event_properties=values)

    return track, lambda: client.flush(None)


def amplitude(url: str) -> tuple[Track, Callable[[], Any]]:
    """Use amplitude-analytics."""
    from amplitude import Amplitude, BaseEvent, Config  # noqa: PLC0415
    from amplitude.constants import EventLogLevel  # noqa: PLC0415

    level = EventLogLevel.NONE
    config = Config(server_url=f"{url}/2/httpapi", event_log_level=level)
    client = Amplitude("bench", config)

    def track(user: str, values: dict[str, Any]) -> None:
        client.track(BaseEvent(EVENT_TYPE, user_id=user, event_properties=values))

    def finish() -> None:
        client.flush()
        client.shutdown()

    return track, finish


def segment(url: str) -> tuple[Track, Callable[[], Any]]:
    """Use segment-analytics-python."""
    from segment.analytics.client import Client  # noqa: PLC0415

    client = Client("bench", host=url, max_queue_size=ROOMY)

    def track(user: str, values: dict[str, Any]) -> None:
        client.track(user, EVENT_TYPE, values)

    return track, client.flush


def posthog(url: str) -> tuple[Track, Callable[[], Any]]:
    """Use posthog."""
    from posthog import Posthog  # noqa: PLC0415

    client = Posthog("bench", host=url, max_queue_size=ROOMY)

    def track(user: str, values: dict[str, Any]) -> None:
        client.capture(EVENT_TYPE, distinct_id=user, properties=values)

    return track, lambda: client.flush(timeout_seconds=None)


PEERS = {f.__name__: f for f in (ours_sync, amplitude, segment, posthog)}


def main() -> None:
    """Track from all threads at once, and tell what that cost each call."""
    name, url, threads, events = *sys.argv[1:3], *map(int, sys.argv[3:5])
    track, finish = PEERS[name](url)
    for number in range(WARM_UP):
        track("user-000000", properties(number))
    time.sleep(0.5)
    gate, walls, costs = threading.Barrier(threads), [], []

    def work(index: int) -> None:
        user, spent, clock = f"user-{index:06d}", [0] * events, time.perf_counter_ns
        given = [properties(WARM_UP + index * events + n) for n in range(events)]
        gate.wait()
        began = time.thread_time_ns()
        for number in range(events):
            before = clock()
            track(user, given[number])
            spent[number] = clock() - before
        costs.append((time.thread_time_ns() - began) / events / 1_000)
        walls.extend(spent)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    finish()
    walls.sort()
    import urllib.request  # noqa: PLC0415 - not before the clocks have stopped

    with urllib.request.urlopen(f"{url}/__totals") as answer:  # noqa: S310
        arrived = json.load(answer)["distinct"]
    with urllib.request.urlopen(f"{url}/__reset"):  # noqa: S310
        pass
    figures = {
        "p50": walls[len(walls) // 2] / 1_000,
        "p99": walls[len(walls) * 99 // 100] / 1_000,
        "p999": walls[len(walls) * 999 // 1_000] / 1_000,
        "cpu": sum(costs) / len(costs),
        "lost": WARM_UP + threads * events - arrived,
    }
    print(json.dumps(figures), flush=True)
    os._exit(0)


main()
