"""Tests of delivery: the service, the client and a server that may fail.

Run them with ``python -m pytest examples/tests``.
"""

from fastapi.testclient import TestClient

from amplitude_async.emulator import Emulator
from amplitude_async.sync import SyncAmplitude
from amplitude_async.testing import SharedClock
from examples.orders_service import app, token_of

__all__: list[str] = []

AUTH = {"Authorization": f"Bearer {token_of('user-1')}"}


def test_what_the_server_makes_of_it(amplitude_emulator: Emulator) -> None:
    """The end of the service delivers what waits, and the server counts the revenue."""
    with TestClient(app) as http:
        http.post("/orders/o-1?total=9.5", headers=AUTH)

    assert amplitude_emulator.user("user-1").revenue == 9.5


def test_an_outage(amplitude_emulator: Emulator, amplitude_clock: SharedClock) -> None:
    """An hour without a server costs no event anything but time, and the test none."""
    amplitude_emulator.faults.add("outage")
    with SyncAmplitude.from_env() as client:
        client.track("Order Paid", user_id="user-1")
        amplitude_clock.advance_sync(3600)
        assert client.stats.pending == 1

        amplitude_emulator.faults.clear()
        while client.stats.pending:
            amplitude_clock.advance_sync(1)
        assert client.stats.delivered == 1
