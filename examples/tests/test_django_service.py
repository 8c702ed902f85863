"""The test of django_service.py, with Django's own test client.

Run it with ``python -m pytest examples/tests/test_django_service.py``.
"""

from django.test import Client

from amplitude_async.testing import CapturedEvents

__all__: list[str] = []


def test_pay(amplitude_events: CapturedEvents) -> None:
    """Who pays is on the event: the middleware has it from the token."""
    # Here, where no key is needed: the module makes its handlers, and they the client.
    import examples.django_service  # noqa: F401, PLC0415

    http = Client(SERVER_NAME="localhost", HTTP_AUTHORIZATION="Bearer user-1")
    http.get("/orders/7/pay")

    amplitude_events.assert_tracked("Order Paid", user_id="user-1", order="7", times=1)
