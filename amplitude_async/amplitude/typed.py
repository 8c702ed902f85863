"""Events described by a class: its fields are the event properties."""

import re
from typing import Any, ClassVar, Final, Unpack

from pydantic import BaseModel

from amplitude_async.amplitude.events import Event, EventFields

__all__ = ["TypedEvent"]

_WORD_START: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_+")


class TypedEvent(BaseModel):
    """Base of events described by a class: its fields are the event properties.

    The event type is the class name in words, unless the class gives its own:
    ``class CheckoutCompleted(TypedEvent)`` sends "Checkout Completed".
    """

    event_type: ClassVar[str] = ""
    """The type on the wire; set from the class name where a class gives none."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "event_type" in cls.model_fields:
            raise TypeError(
                f"{cls.__name__}.event_type is a field, so it would be sent as a "
                "property: declare it as event_type: ClassVar[str] = ..."
            )
        is_parametrised = cls.__pydantic_generic_metadata__["origin"] is not None
        if "event_type" not in cls.__dict__ and not is_parametrised:
            cls.event_type = _WORD_START.sub(" ", cls.__name__).strip()

    def properties(self) -> dict[str, Any]:
        """Give the event properties: the fields under their aliases, None left out.

        Nested values stay Python values; the encoder's policy decides on them.
        """
        return self.model_dump(
            mode="python", by_alias=True, exclude_none=True, warnings=False
        )

    def to_event(self, **fields: Unpack[EventFields]) -> Event:
        """Make the event to send.

        Args:
            **fields: Further fields; ``event_properties`` are added to the class's
                own, which win.
        """
        given = fields.get("event_properties") or {}
        fields["event_properties"] = {**given, **self.properties()}
        return Event(event_type=self.event_type, **fields)
