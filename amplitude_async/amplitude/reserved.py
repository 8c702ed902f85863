"""The verbs whose events have a type of Amplitude's own."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Unpack, cast

from amplitude_async.amplitude.compose import (
    check_field_names,
    check_kind,
    check_own_fields,
)
from amplitude_async.amplitude.events import (
    GROUP_IDENTIFY,
    IDENTIFY,
    REVENUE,
    Event,
    EventFields,
    EventOptions,
    add_properties,
)
from amplitude_async.amplitude.identify import Identify
from amplitude_async.amplitude.revenue import Revenue
from amplitude_async.amplitude.typed import TypedEvent
from amplitude_async.client.base import BaseClient
from amplitude_async.delivery.handle import Delivery
from amplitude_async.delivery.outcome import Outcome

__all__ = ["ReservedVerbs"]


class ReservedVerbs(BaseClient):
    """Each makes an event of a reserved type, and tracks it."""

    @abstractmethod
    async def track(
        self,
        event: Event | TypedEvent | str,
        options: EventOptions | None = None,
        /,
        *,
        via: Any = None,
        **fields: Unpack[EventFields],
    ) -> Delivery:
        """Track an event."""

    async def identify(
        self,
        identify: Identify,
        options: EventOptions | None = None,
        /,
        *,
        via: Any = None,
        **fields: Unpack[EventFields],
    ) -> Delivery:
        """Change user properties.

        Raises:
            TypeError: an unknown field name or a wrong kind of argument.
        """
        check_kind("identify", identify, Identify)
        check_own_fields("identify", fields)
        if identify.is_empty:
            return await self._refuse(IDENTIFY, fields, _EMPTY_IDENTIFY)
        own: EventFields = {"user_properties": identify.properties}
        return await self._send(IDENTIFY, options, fields, own, via=via)

    async def group_identify(
        self,
        group_type: str,
        group_name: str | Sequence[str],
        identify: Identify,
        options: EventOptions | None = None,
        /,
        *,
        via: Any = None,
        **fields: Unpack[EventFields],
    ) -> Delivery:
        """Change the properties of a group; needs no user or device id.

        Raises:
            TypeError: an unknown field name or a wrong kind of argument.
        """
        check_kind("identify", identify, Identify)
        check_own_fields("group_identify", fields, group_type)
        if identify.is_empty:
            return await self._refuse(GROUP_IDENTIFY, fields, _EMPTY_IDENTIFY)
        own: EventFields = {
            "groups": {group_type: group_name},
            "group_properties": identify.properties,
        }
        return await self._send(GROUP_IDENTIFY, options, fields, own, via=via)

    async def set_group(
        self,
        group_type: str,
        group_name: str | Sequence[str],
        options: EventOptions | None = None,
        /,
        *,
        via: Any = None,
        **fields: Unpack[EventFields],
    ) -> Delivery:
        """Put a user into a group, or into several of one type.

        Raises:
            TypeError: an unknown field name or a wrong kind of argument.
        """
        check_own_fields("set_group", fields, group_type)
        own: EventFields = {
            "user_properties": {"$set": {group_type: group_name}},
            "groups": {group_type: group_name},
        }
        return await self._send(IDENTIFY, options, fields, own, via=via)

    async def revenue(
        self,
        revenue: Revenue,
        options: EventOptions | None = None,
        /,
        *,
        via: Any = None,
        **fields: Unpack[EventFields],
    ) -> Delivery:
        """Track a sale or a refund.

        Raises:
            TypeError: an unknown field name or a wrong kind of argument.
        """
        check_kind("revenue", revenue, Revenue)
        if revenue.problem is not None:
            return await self._refuse(REVENUE, fields, revenue.problem)
        add_properties(fields, revenue.event_properties())
        return await self._send(REVENUE, options, fields, {}, via=via)

    async def _send(
        self,
        event_type: str,
        options: EventOptions | None,
        fields: EventFields,
        own: EventFields,
        *,
        via: Any,
    ) -> Delivery:
        """Track an event of a reserved type; the verb's own fields win."""
        fields.update(own)
        return await self.track(event_type, options, via=via, **fields)

    async def _refuse(
        self, event_type: str, fields: EventFields, problem: str
    ) -> Delivery:
        check_field_names(cast("Mapping[str, Any]", fields))
        if self._config.strict:
            raise ValueError(problem)
        outcome = Outcome.rejected(problem)
        return await self._submit_settled(Event(event_type=event_type), outcome)


_EMPTY_IDENTIFY = "identify is empty: chain an operation such as .set('plan', 'pro')"
