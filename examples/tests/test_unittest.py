"""A test class: ``capture()`` is what stands behind the fixture.

Run it with ``python -m unittest examples.tests.test_unittest``, or with pytest.
"""

import unittest

from amplitude_async import Amplitude
from amplitude_async.sync import SyncAmplitude
from amplitude_async.testing import capture

__all__: list[str] = []


class TestShop(unittest.TestCase):
    """Synchronous: the capture lasts as long as the test."""

    def test_paid(self) -> None:
        """No key is needed, and nothing is sent."""
        events = self.enterContext(capture())
        with SyncAmplitude.from_env() as client:
            client.track("Paid", user_id="user-1")

        events.assert_tracked("Paid", user_id="user-1", times=1)


class TestAsyncShop(unittest.IsolatedAsyncioTestCase):
    """Asynchronous: the same."""

    async def test_paid(self) -> None:
        """The event is there when ``track`` has returned."""
        async with capture() as events, Amplitude.from_env() as client:
            await client.track("Paid", user_id="user-1")
            events.assert_tracked("Paid", user_id="user-1", times=1)
