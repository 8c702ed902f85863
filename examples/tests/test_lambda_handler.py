"""The test of lambda_handler.py: the handler is called as Lambda calls it.

Run it with ``python -m pytest examples/tests/test_lambda_handler.py``.
"""

from amplitude_async.testing import CapturedEvents

__all__: list[str] = []


def test_pay(amplitude_events: CapturedEvents) -> None:
    """Who pays is on the event."""
    # Here, where no key is needed: the module makes its client when it is imported.
    from examples.lambda_handler import handler  # noqa: PLC0415

    handler({"user_id": "user-1", "order": "7"}, None)

    amplitude_events.assert_tracked("Order Paid", user_id="user-1", order="7", times=1)
