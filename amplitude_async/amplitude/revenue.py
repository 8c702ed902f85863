"""Revenue events.

The keys are those of the official SDKs: ``$`` before the name, inside the event
properties of an event of type ``revenue_amount``.
"""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Unpack

from pydantic import Field

from amplitude_async.amplitude.events import REVENUE, Event, EventFields, add_properties
from amplitude_async.amplitude.fields import Finite, WireModel
from amplitude_async.shown import shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

__all__ = ["Revenue"]

# Attribute to reserved key, in the order of the official SDKs.
_RESERVED: Final = (
    ("product_id", "$productId"),
    ("quantity", "$quantity"),
    ("price", "$price"),
    ("revenue_type", "$revenueType"),
    ("currency", "$currency"),
    ("receipt", "$receipt"),
    ("receipt_sig", "$receiptSig"),
    ("revenue", "$revenue"),
)


class Revenue(WireModel):
    """One sale or refund: give `price` or `revenue`, or both."""

    if TYPE_CHECKING:

        def __init__(  # noqa: PLR0913  # the fields, for type checkers
            self,
            price: float | Decimal | None = None,
            quantity: int = 1,
            product_id: str | None = None,
            *,
            revenue_type: str | None = None,
            currency: str | None = None,
            receipt: str | None = None,
            receipt_sig: str | None = None,
            revenue: float | Decimal | None = None,
            properties: Mapping[str, Any] | None = None,
        ) -> None: ...

    _by_place: ClassVar = ("price", "quantity", "product_id")

    price: Finite | None = None
    """Price of one item; negative for a refund."""

    quantity: Annotated[int, Field(strict=True, ge=1)] = 1
    """Number of items."""

    product_id: str | None = None
    """Identifier of the product."""

    revenue_type: str | None = None
    """Kind of revenue, for example ``tax`` or ``refund``."""

    currency: str | None = None
    """Currency as three capital letters, ISO 4217."""

    receipt: str | None = None
    """Receipt of the purchase, for verification."""

    receipt_sig: str | None = None
    """Signature of the receipt."""

    revenue: Finite | None = None
    """Revenue; `price` times `quantity` where absent."""

    properties: dict[Any, Any] | None = None
    """Further event properties. The reserved ``$`` keys win over these."""

    @property
    def problem(self) -> str | None:
        """Why this cannot be sent, or None."""
        if self.price is None and self.revenue is None:
            return "a Revenue without amount: give price or revenue"
        given: object = self.properties
        # A copy made with `model_copy(update=...)` is validated by nobody.
        if given is not None and not isinstance(given, dict):
            return f"properties={shown(given)} of the Revenue: give a dict"
        return None

    @property
    def is_valid(self) -> bool:
        """Whether there is an amount."""
        return self.problem is None

    def event_properties(self) -> dict[str, Any]:
        """Give the properties of the event: a new dict without unset keys."""
        reserved = ((key, getattr(self, name)) for name, key in _RESERVED)
        return {
            **(self.properties or {}),
            **{key: value for key, value in reserved if value is not None},
        }

    def to_event(self, **fields: Unpack[EventFields]) -> Event:
        """Make the event to send.

        Args:
            **fields: Further fields; ``event_properties`` are added to the revenue's
                own, which win.
        """
        add_properties(fields, self.event_properties())
        return Event(event_type=REVENUE, **fields)
