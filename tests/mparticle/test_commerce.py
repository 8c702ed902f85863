"""Commerce events: three variants that exclude each other, and money."""

from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from amplitude_async.mparticle import (
    CommerceEvent,
    Product,
    ProductAction,
    ProductActionType,
    ProductImpression,
    Promotion,
    PromotionAction,
    ShoppingCart,
)

__all__: list[str] = []

ACTION = ProductAction(action="purchase", transaction_id="t")
PROMOTION = PromotionAction(action="view", promotions=[Promotion(position="top")])
IMPRESSIONS = [ProductImpression(product_impression_list="found", products=[])]
VARIANTS: dict[str, Any] = {
    "product_action": ACTION,
    "promotion_action": PROMOTION,
    "product_impressions": IMPRESSIONS,
}


@pytest.mark.parametrize("name", VARIANTS)
def test_one_variant_is_right(name: str) -> None:
    """Each of the three makes a commerce event, and comes back from the wire."""
    event = CommerceEvent(**{name: VARIANTS[name]})

    assert event.to_wire()["data"].keys() == {name}
    assert CommerceEvent.model_validate(event.to_wire()) == event


def test_no_variant_is_wrong() -> None:
    """A commerce event that says nothing is refused."""
    with pytest.raises(ValidationError, match="exactly one"):
        CommerceEvent(currency_code="USD")


@pytest.mark.parametrize(
    "names",
    [
        ("product_action", "promotion_action"),
        ("product_action", "product_impressions"),
        ("promotion_action", "product_impressions"),
    ],
)
def test_two_variants_are_wrong(names: tuple[str, str]) -> None:
    """A second variant is refused, at construction and by assignment."""
    first, second = names

    with pytest.raises(ValidationError, match="exactly one"):
        CommerceEvent(**{name: VARIANTS[name] for name in names})
    event = CommerceEvent(**{first: VARIANTS[first]})
    with pytest.raises(ValidationError, match="exactly one"):
        setattr(event, second, VARIANTS[second])
    assert getattr(event, second) is None


def test_the_spelling_is_that_of_the_api() -> None:
    """Adding to and removing from a wish list are spelt differently on the wire."""
    removed = ProductAction(action=ProductActionType.REMOVE_FROM_WISHLIST)
    added = ProductAction(action=ProductActionType.ADD_TO_WISHLIST)

    assert removed.action == "remove_from_wish_list"
    assert added.action == "add_to_wishlist"


def test_money_is_a_number() -> None:
    """A Decimal goes out as a JSON number; ints stay ints and zeros are sent."""
    product = Product(
        price=Decimal("19.99"), quantity=2, total_product_amount=Decimal(0)
    )
    action = ProductAction(action="purchase", products=[product], tax_amount=0)
    event = CommerceEvent(product_action=action)

    assert b'"price":19.99,"quantity":2,' in event.encode_data()
    assert event.to_wire()["data"]["product_action"] == {
        "action": "purchase",
        "products": [{"price": 19.99, "quantity": 2, "total_product_amount": 0}],
        "tax_amount": 0,
    }


@pytest.mark.parametrize("price", ["19.99", True, float("inf"), Decimal("sNaN")])
def test_what_is_no_amount_is_refused(price: object) -> None:
    """Text, bools and what is not finite are no amounts."""
    with pytest.raises(ValidationError, match="price"):
        Product.model_validate({"price": price})


@pytest.mark.parametrize("quantity", [-1, -0.5, Decimal(-1)])
def test_a_quantity_is_not_negative(quantity: object) -> None:
    """What comes back is a refund."""
    with pytest.raises(ValidationError, match="refund"):
        Product.model_validate({"quantity": quantity})


@pytest.mark.parametrize("code", ["US", "dollar", "12$", ""])
def test_a_currency_has_three_letters(code: str) -> None:
    """Anything but three letters is refused, by value and with an example."""
    with pytest.raises(ValidationError, match=r"three letters.*USD"):
        CommerceEvent(product_action=ACTION, currency_code=code)


def test_products_have_text_attributes_only() -> None:
    """The schema wants text there, other than in the attributes of events."""
    with pytest.raises(ValidationError, match="custom_attributes"):
        Product.model_validate({"custom_attributes": {"size": 4}})


def test_a_cart_lists_its_products() -> None:
    """An empty cart is an empty list, never null."""
    event = CommerceEvent(
        product_action=ACTION, shopping_cart=ShoppingCart(products=[])
    )

    assert event.to_wire()["data"]["shopping_cart"] == {"products": []}
