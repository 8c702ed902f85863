"""Commerce events: products, promotions, impressions."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from amplitude_async.mparticle.models.enums import (
    CommerceCustomEventType,
    ProductActionType,
    PromotionActionType,
)
from amplitude_async.mparticle.models.envelope import BaseEvent
from amplitude_async.mparticle.models.fields import (
    CurrencyCode,
    Flag,
    Flags,
    Int64,
    Known,
    Moment,
    Number,
    Quantity,
)
from amplitude_async.wire import WireModel

__all__ = [
    "CommerceEvent",
    "Product",
    "ProductAction",
    "ProductImpression",
    "Promotion",
    "PromotionAction",
    "ShoppingCart",
]

_VARIANTS: Final = ("product_action", "promotion_action", "product_impressions")
_ONE_OF_THEM: Final = (
    "give exactly one of product_action, promotion_action and product_impressions"
)


class Product(WireModel):
    """One product. Give at least `id` and `name`."""

    id: str | None = None
    """Identifier, for example the SKU."""

    name: str | None = None
    """Name."""

    brand: str | None = None
    """Brand."""

    category: str | None = None
    """Category."""

    variant: str | None = None
    """Variant, for example a colour."""

    position: Int64 | None = None
    """Position in a list."""

    price: Number | None = None
    """Price of one."""

    quantity: Quantity | None = None
    """How many; never negative."""

    coupon_code: str | None = None
    """Coupon of this product."""

    added_to_cart_time_ms: Moment | None = None
    """When it was put into the cart."""

    total_product_amount: Number | None = None
    """Price of all of them; 0 is sent."""

    custom_attributes: dict[str, str] | None = None
    """What else is known: text only."""


class ProductAction(WireModel):
    """What the user did with one or more products."""

    action: Annotated[str, Known(ProductActionType)]
    """What was done."""

    products: list[Product] | None = None
    """The products."""

    transaction_id: str | None = None
    """Identifier of the order; expected with a purchase or refund."""

    total_amount: Number | None = None
    """Sum of the order."""

    tax_amount: Number | None = None
    """Tax."""

    shipping_amount: Number | None = None
    """Shipping."""

    coupon_code: str | None = None
    """Coupon of the order."""

    affiliation: str | None = None
    """Shop or affiliate."""

    checkout_step: Int64 | None = None
    """Number of the step."""

    checkout_options: str | None = None
    """What was chosen there."""

    product_action_list: str | None = None
    """List in which the user found the products."""

    product_list_source: str | None = None
    """Where that list came from."""


class ProductImpression(WireModel):
    """A list of products was shown."""

    product_impression_list: str
    """Name of the list."""

    products: list[Product]
    """The products shown."""


class Promotion(WireModel):
    """One promotion of your own, for example a banner."""

    id: str | None = None
    """Identifier."""

    name: str | None = None
    """Name."""

    creative: str | None = None
    """Name of the design."""

    position: str | None = None
    """Where it was shown: text, unlike `Product.position`."""


class PromotionAction(WireModel):
    """Promotions were seen or clicked."""

    action: Annotated[str, Known(PromotionActionType)]
    """What was done."""

    promotions: list[Promotion] | None = None
    """The promotions."""


class ShoppingCart(WireModel):
    """The cart at the time of an event."""

    products: list[Product]
    """What it held."""


class CommerceEvent(BaseEvent):
    """Something was done with products or promotions.

    It comes in three variants: give exactly one of `product_action`,
    `promotion_action` and `product_impressions`.
    """

    event_type: Literal["commerce_event"] = Field(default="commerce_event", frozen=True)
    """Always ``commerce_event``."""

    product_action: ProductAction | None = None
    """What was done with products."""

    promotion_action: PromotionAction | None = None
    """What was done with promotions."""

    product_impressions: list[ProductImpression] | None = None
    """Lists of products that were shown."""

    shopping_cart: ShoppingCart | None = None
    """The cart at that time."""

    currency_code: CurrencyCode | None = None
    """Currency of the amounts, ISO 4217."""

    screen_name: str | None = None
    """Screen on which it happened."""

    is_non_interactive: Flag | None = None
    """True where no user caused it."""

    custom_flags: Flags | None = None
    """Hints for single integrations: any JSON values."""

    event_name: str | None = None
    """Derived by the server. Not for senders."""

    custom_event_type: Annotated[str, Known(CommerceCustomEventType)] | None = None
    """Derived by the server. Not for senders."""

    # Here and not after the model, so that an assignment that raises changes nothing.
    @field_validator(*_VARIANTS)
    @classmethod
    def _one_variant_at_most(cls, variant: Any, info: ValidationInfo) -> Any:
        others = [name for name in _VARIANTS if name != info.field_name]
        given = [name for name in others if info.data.get(name) is not None]
        if variant is not None and given:
            raise ValueError(f"{given[0]} is set already: {_ONE_OF_THEM}")
        # Where all are there it is an assignment, or the last that is read.
        if variant is None and not given and info.data.keys() >= set(others):
            raise ValueError(_ONE_OF_THEM)
        return variant

    @model_validator(mode="after")
    def _one_variant_at_least(self) -> Self:
        if not any(getattr(self, name) is not None for name in _VARIANTS):
            raise ValueError(_ONE_OF_THEM)
        return self
