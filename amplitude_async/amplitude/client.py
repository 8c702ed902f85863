"""The Amplitude client: the verbs a service awaits."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Self, Unpack

import aiohttp
from pydantic import SecretStr, ValidationError

from amplitude_async.amplitude.compose import (
    check_loop_runs,
    compose,
    compose_without,
    copied,
    invalid,
    stand_in,
)
from amplitude_async.amplitude.config import Config, ConfigFields, only_one
from amplitude_async.amplitude.context import ContextPlugin
from amplitude_async.amplitude.door import AmplitudeDoor
from amplitude_async.amplitude.endpoint import AmplitudeEndpoint
from amplitude_async.amplitude.events import (
    Event,
    EventFields,
    EventOptions,
)
from amplitude_async.amplitude.filling import filled_fields
from amplitude_async.amplitude.reserved import ReservedVerbs
from amplitude_async.amplitude.typed import TypedEvent
from amplitude_async.binding import fields_here, innermost
from amplitude_async.config import merge_config, read_environment, sealed
from amplitude_async.delivery.clock import LoopClock
from amplitude_async.delivery.handle import Delivery
from amplitude_async.delivery.reporting import Reporter
from amplitude_async.encoding import Loss
from amplitude_async.plugins import Plugin
from amplitude_async.redaction import seal
from amplitude_async.storage.base import Record

__all__ = ["Amplitude"]

ENVIRONMENT_PREFIX = "AMPLITUDE_"


class Amplitude(ReservedVerbs):
    """Sends events to Amplitude from asyncio services.

    ``async with Amplitude("key") as client:`` starts and shuts down; without it the
    first verb starts the client and ``await client.shutdown()`` ends it. The
    constructor does no I/O and needs no event loop.

    Args:
        api_key: the project's API key; it may be absent while ``opt_out`` is true. A
            ``Config`` that holds the key may stand in its place.
        config: options in one object; keyword options override them.
        session: an ``aiohttp.ClientSession`` to use instead of an own one; it is
            never closed here.
        plugins: set up in this order when the client starts.
        options: fields of ``Config``.

    Raises:
        ConfigurationError: an option is wrong; field, value and remedy are named.
    """

    event_type = Event
    carried_fields = ("library", "plan", "ingestion_metadata")
    _config: Config
    _door: AmplitudeDoor

    def __init__(
        self,
        api_key: str | SecretStr | Config | None = None,
        config: Config | None = None,
        *,
        session: aiohttp.ClientSession | None = None,
        plugins: Iterable[Plugin | Callable[[Any], Any]] = (),
        **options: Unpack[ConfigFields],
    ) -> None:
        # No local variable may hold a key in plain: see `redaction`.
        given = sealed(Config, options)
        del options
        if isinstance(api_key, Config):
            config, api_key = only_one(api_key, config), None
        if api_key is not None:
            given["api_key"] = api_key = seal(api_key)
        merged = merge_config(Config, config, given).handing_over
        merged.check_key()
        endpoint = AmplitudeEndpoint(merged)
        reporter = Reporter(merged.logger, LoopClock(), endpoint.name, merged.redactor)
        room = merged.most_bytes(endpoint.max_bytes - endpoint.frame_bytes)
        door = AmplitudeDoor(merged, room, reporter)
        super().__init__(
            merged,
            endpoint,
            door,
            session=session,
            plugins=plugins,
            implicit=ContextPlugin(merged),
        )

    @classmethod
    def from_env(
        cls,
        *,
        api_key: str | SecretStr | None = None,
        session: aiohttp.ClientSession | None = None,
        plugins: Iterable[Plugin | Callable[[Any], Any]] = (),
        **options: Unpack[ConfigFields],
    ) -> Self:
        """Read ``AMPLITUDE_API_KEY`` and the other ``AMPLITUDE_*`` options.

        The arguments are those of the constructor; they win over variables.

        Raises:
            ConfigurationError: a variable or option is wrong.
        """
        found = read_environment(Config, ENVIRONMENT_PREFIX)
        found |= sealed(Config, options)
        del options
        if api_key is not None:
            found["api_key"] = api_key = seal(api_key)
        return cls(config=Config(**found), session=session, plugins=plugins)

    @property
    def config(self) -> Config:
        """The frozen configuration."""
        return self._config

    # Verbs -------------------------------------------------------------------

    async def track(
        self,
        event: Event | TypedEvent | str,
        options: EventOptions | None = None,
        /,
        *,
        via: Any = None,
        **fields: Unpack[EventFields],
    ) -> Delivery:
        """Track an event.

        Waits for room, async plugins or a durable append; never for the network.

        Args:
            event: an Event, a TypedEvent or an event type.
            options: fields for this event; they win over the event's own.
            via: with ``handover``, a connection to the log's own database: the event
                commits with the caller's transaction, or not at all.
            fields: fields for this event; they win over ``options``.

        Raises:
            TypeError: an unknown field name or a wrong kind of argument.
            QueueFullError: no room, and the policy is Overflow.RAISE.
            ConfigurationError: ``via`` is no connection that the log can use.
            LogError: the log does not take an event ``via`` a connection.
        """
        since = 0.0 if self._confirmation is None else self._clock.now()
        if self._in_one_go <= 0:
            await self._give_turn()
        self._in_one_go -= 1
        # Asked here, as most services bind nothing: a call would be one per event.
        scope = innermost.get()
        bound = None if scope is None else scope.fields
        record = None
        # The commonest call by far: spare it the model where that changes nothing.
        if options is None and type(event) is str and via is None:
            given = fields if bound is None else filled_fields(event, fields, bound)
            record = self._encode_fields(event, given)
        if record is not None:
            own = self._own
            offered = None if self._fast is None else own.offer_record(record)
            delivery = offered or await own.accept_record(record)
        else:
            made = self._compose(event, options, fields, bound)
            if isinstance(made, ValidationError):
                return await self._submit_settled(stand_in(event), invalid(made))
            offered = self._offer(made) if via is None else None
            delivery = offered or await self._submit(made, via=via)
        if delivery.at_door:
            self._in_one_go = 0
        elif self._confirmation is not None:
            await self._confirm(delivery, since)
        return delivery

    def _encode_fields(self, event_type: str, fields: EventFields) -> Record | None:
        """Encode for the short road without an Event; None where one is needed."""
        own = self._fast or self._spooled
        if own is None or asyncio.get_running_loop() is not self._home.loop:
            return None
        wall = self._clock.wall()
        return self._door.admit_fields(event_type, fields, own.next_id, wall)

    def track_nowait(
        self,
        event: Event | TypedEvent | str,
        options: EventOptions | None = None,
        /,
        **fields: Unpack[EventFields],
    ) -> Delivery:
        """Track an event from synchronous code on the loop's thread.

        Never waits: a full queue sheds the event. Promises no durability.

        Raises:
            TypeError: an unknown field name or a wrong kind of argument.
            QueueFullError: no room, and the policy is Overflow.RAISE.
            AmplitudeError: the client was not started, or no loop runs here.
        """
        check_loop_runs()
        made = self._compose(event, options, fields, fields_here())
        if isinstance(made, ValidationError):
            return self._settle(stand_in(event), invalid(made))
        return self._offer(made) or self._submit_nowait(made)

    # Bad values --------------------------------------------------------------

    def _compose(self, event: Any, *given: Any) -> Event | ValidationError:
        """Make the event, without bad values; or give the error that forbids it."""
        try:
            return compose(event, *given)
        except ValidationError:
            if self._config.strict:
                raise
            losses: list[Loss] = []
            try:
                made = compose_without(event, *given, losses=losses)
            except ValidationError as final:
                return final
        self._own.lose(len(losses))
        self._door.tell(made.event_type, losses)
        return made

    # Parts of the base client ------------------------------------------------

    @property
    def _has_key(self) -> bool:
        return self._config.api_key is not None or self._config.handover is not None

    def _in_child(self) -> None:
        self._door.renew_ids()

    def _fill_context(self, *, enabled: bool) -> None:
        self._door.fill_context(enabled=enabled)

    def _copy_event(self, event: Event) -> Event:
        return copied(event)

    def _stamp(self, event: Event) -> Event:
        return self._door.stamped(event, self._clock.wall())
