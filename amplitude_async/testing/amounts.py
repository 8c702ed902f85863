"""What an event says of money, wherever its vendor has it."""

from decimal import Decimal
from math import isclose, isfinite
from typing import Any, Final

from amplitude_async.testing.captured import MISSING, Captured, Missing

__all__ = ["amount_of", "is_amount", "sale_value"]

_TOLERANCE: Final = 1e-9

# The fields of a Revenue: in event properties, and in a commerce event's action or
# first product.
_RESERVED: Final = {
    "product_id": "$productId",
    "quantity": "$quantity",
    "price": "$price",
    "revenue_type": "$revenueType",
    "currency": "$currency",
    "receipt": "$receipt",
    "receipt_sig": "$receiptSig",
    "revenue": "$revenue",
}
_OF_PRODUCT: Final = {"product_id": "id", "quantity": "quantity", "price": "price"}


def amount_of(captured: Captured) -> float | None:
    """Give the revenue of an event; None where it has none.

    For Amplitude ``$revenue``, or ``$price`` times ``$quantity``, or what the event's
    own fields of these names say; for mParticle the total of a commerce event, negative
    for a refund.
    """
    if captured.batch is not None:
        return _of_commerce(captured.data.get("product_action"))
    properties, wire = captured.properties, captured.wire
    if (stated := _number(properties.get("$revenue"))) is not None:
        return stated
    if (price := _number(properties.get("$price"))) is not None:
        return price * _quantity(properties.get("$quantity"))
    price, stated = _number(wire.get("price")), _number(wire.get("revenue"))
    # Where all three are given the server multiplies.
    if price is not None and (stated is None or "quantity" in wire):
        return price * _quantity(wire.get("quantity"))
    return stated


def is_amount(wanted: object, found: float | None) -> bool:
    """Say whether an amount is the one that is wanted, up to the last digits.

    What is no number decides by its own ``==``, and may raise.
    """
    if found is None:
        return False
    if isinstance(wanted, bool) or not isinstance(wanted, int | float | Decimal):
        return not isinstance(wanted, bool) and bool(wanted == found)
    try:
        return isclose(float(wanted), found, rel_tol=_TOLERANCE)
    except OverflowError:
        return False


def sale_value(captured: Captured, name: str) -> Any:
    """Give a field of the ``Revenue`` that an event was made of, or ``MISSING``."""
    if captured.batch is None:
        return captured.properties.get(_RESERVED.get(name, name), MISSING)
    if name == "currency":
        return captured.data.get("currency_code", MISSING)
    action = captured.data.get("product_action")
    if not isinstance(action, dict):
        return MISSING
    if name == "receipt":
        return action.get("transaction_id", MISSING)
    products = action.get("products")
    first = products[0] if isinstance(products, list) and products else None
    found: Any = MISSING
    if isinstance(first, dict) and name in _OF_PRODUCT:
        found = first.get(_OF_PRODUCT[name], MISSING)
    return found


def _of_commerce(action: object) -> float | None:
    if not isinstance(action, dict):
        return None
    total = _number(action.get("total_amount"))
    total = _of_products(action.get("products")) if total is None else total
    if total is None:
        return None
    return -total if action.get("action") == "refund" else total


def _of_products(products: object) -> float | None:
    """Add up what a sale does not say as a whole."""
    given = products if isinstance(products, list) else []
    amounts = [_of_product(one) for one in given if isinstance(one, dict)]
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None


def _of_product(product: dict[str, Any]) -> float | None:
    total = _number(product.get("total_product_amount"))
    price = _number(product.get("price"))
    if total is not None or price is None:
        return total
    return price * _quantity(product.get("quantity"))


def _quantity(value: object) -> float:
    number = _number(value)
    return 1 if number is None else number


def _number(value: object) -> float | None:
    if isinstance(value, bool | Missing) or not isinstance(value, int | float):
        return None
    try:
        return value if isfinite(value) else None
    except OverflowError:
        return None
