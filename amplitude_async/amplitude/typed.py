"""Events described by a class: its fields are the event properties."""

import asyncio
import re
from typing import TYPE_CHECKING, Any, ClassVar, Final, Unpack

from pydantic import BaseModel, ConfigDict, ValidationError

from amplitude_async.amplitude.events import Event, EventFields, add_properties
from amplitude_async.amplitude.leniency import culprit
from amplitude_async.wire import hinted

__all__ = ["TypedEvent"]

_WORD_START: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_+")


class TypedEvent(BaseModel):
    """Base of events described by a class: its fields are the event properties.

    The event type is the class name in words, unless the class gives its own:
    ``class CheckoutCompleted(TypedEvent)`` sends "Checkout Completed". A subclass of
    a class that gives its own sends that one.
    """

    model_config = ConfigDict(extra="forbid")

    event_type: ClassVar[str] = ""
    """The type on the wire; set from the class name where no class gives one."""

    _is_named: ClassVar[bool] = False

    if not TYPE_CHECKING:

        def __init__(self, /, **data: Any) -> None:
            # As pydantic's own, with the hint of the events' models.
            __tracebackhide__ = True
            try:
                self.__pydantic_validator__.validate_python(data, self_instance=self)
            except ValidationError as error:
                raise hinted(error, type(self)) from None

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "event_type" in cls.model_fields:
            raise TypeError(
                f"{cls.__name__}.event_type is a field, so it would be sent as a "
                "property: declare it as event_type: ClassVar[str] = ..."
            )
        for name in ("properties", "to_event"):
            if name in cls.model_fields:
                raise TypeError(
                    f"{cls.__name__}.{name} is a field, and the method of that name "
                    f"makes the event: name it otherwise, with Field(alias='{name}')"
                )
        is_parametrised = cls.__pydantic_generic_metadata__["origin"] is not None
        if "event_type" in cls.__dict__:
            cls._is_named = True
        elif not cls._is_named and not is_parametrised:
            cls.event_type = _WORD_START.sub(" ", cls.__name__).strip()

    def properties(self) -> dict[str, Any]:
        """Give the event properties: the fields under their aliases, None left out.

        Nested values stay Python values; the encoder's policy decides on them.

        Raises:
            pydantic.ValidationError: A serializer of the class raised, or gave no dict.
        """
        try:
            made = self._dump()
        except (Exception, asyncio.CancelledError):  # noqa: BLE001  # code of a subclass
            made = None
        if isinstance(made, dict):
            return made
        raise culprit(self, lambda name: self._dump(include={name}))

    def _dump(self, include: set[str] | None = None) -> Any:
        return self.model_dump(
            mode="python",
            by_alias=True,
            exclude_none=True,
            warnings=False,
            include=include,
        )

    def to_event(self, **fields: Unpack[EventFields]) -> Event:
        """Make the event to send.

        Args:
            **fields: Further fields; ``event_properties`` are added to the class's
                own, which win.

        Raises:
            pydantic.ValidationError: A value is bad.
        """
        add_properties(fields, self.properties())
        return Event(event_type=self.event_type, **fields)
