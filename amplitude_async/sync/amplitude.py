"""Amplitude without await."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Self, Unpack, cast

from pydantic import SecretStr, ValidationError
from pydantic_core import from_json

from amplitude_async.amplitude.client import Amplitude
from amplitude_async.amplitude.compose import invalid, stand_in
from amplitude_async.amplitude.config import Config, ConfigFields
from amplitude_async.amplitude.encoder import EventDefaults, encode_event
from amplitude_async.amplitude.events import Event, EventFields, EventOptions
from amplitude_async.amplitude.filling import filled_fields
from amplitude_async.amplitude.identify import Identify
from amplitude_async.amplitude.revenue import Revenue
from amplitude_async.amplitude.typed import TypedEvent
from amplitude_async.binding import fields_here, innermost
from amplitude_async.client.destination import Reduced, Refusal, verdict_on
from amplitude_async.client.life import State
from amplitude_async.client.timeline import finish_at_once
from amplitude_async.config import sealed
from amplitude_async.delivery.handle import Delivery
from amplitude_async.delivery.outcome import DeliveryResult, Outcome
from amplitude_async.encoding import ValuePolicy
from amplitude_async.plugins import Plugin
from amplitude_async.redaction import seal
from amplitude_async.storage.base import Record
from amplitude_async.sync.base import SyncClient
from amplitude_async.sync.delivery import SyncDelivery
from amplitude_async.sync.loop import refuse_on_loop, running_loop
from amplitude_async.sync.seat import SeatedClient

__all__ = ["SyncAmplitude"]


class _Frozen(NamedTuple):
    """An event for plugins; nothing of the caller's is in it."""

    event: Event
    insert_id: str
    size: int


class _Settled(NamedTuple):
    """An event whose fate is decided already."""

    event: Event
    insert_id: str
    outcome: Outcome


_Cargo = Record | _Frozen | _Settled


class _AmplitudeSeat(SeatedClient, Amplitude):
    """The asyncio client behind the hatch.

    Its verbs, run on a thread without a loop, make what is handed over and accept
    nothing: each thing that a verb says is written once, in `Amplitude`.
    """

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._is_bare = False
        self._frozen_policy = ValuePolicy(max_bytes=self._endpoint.max_bytes)

    # On the caller's thread --------------------------------------------------

    async def track(
        self,
        event: Event | TypedEvent | str,
        options: EventOptions | None = None,
        /,
        *,
        via: Any = None,
        **fields: Unpack[EventFields],
    ) -> Delivery:
        """Track an event, or make what is handed over."""
        if running_loop() is None:
            return cast("Delivery", self.cargo_of(event, options, fields))
        return await super().track(event, options, via=via, **fields)

    async def _submit_settled(self, event: Event, outcome: Outcome) -> Delivery:
        if running_loop() is None:
            return cast("Delivery", self._settled(event, outcome))
        return await super()._submit_settled(event, outcome)

    def cargo_of(
        self,
        event: Event | TypedEvent | str,
        options: EventOptions | None,
        fields: EventFields,
    ) -> _Cargo:
        """Encode an event on the caller's thread, as far as that is possible.

        Raises:
            TypeError: an unknown field name or a wrong kind of argument.
        """
        # The commonest call by far: spare it the model where that changes nothing.
        if options is None and type(event) is str and self._is_bare:
            scope = innermost.get()
            bound = None if scope is None else scope.fields
            given = fields if bound is None else filled_fields(event, fields, bound)
            record = self._door.admit_fields(event, given, 0, self._clock.wall())
            if record is not None:
                return record
        made = self._compose(event, options, fields, fields_here())
        if isinstance(made, ValidationError):
            return self._settled(stand_in(event), invalid(made))
        if self._is_bare and not self._opt_out:
            return self._admitted(made)
        return self._frozen(made)

    def _admitted(self, event: Event) -> _Cargo:
        admitted = self._door.admit(event, 0, self._clock.wall())
        if isinstance(admitted, Refusal):
            outcome = verdict_on(admitted, strict=self._config.strict)
            return self._settled(event, outcome)
        if isinstance(admitted, Reduced):
            self._own.lose(admitted.losses)
            return admitted.record
        return admitted

    def _frozen(self, event: Event) -> _Cargo:
        """Copy an event for plugins: what the caller changes later stays outside.

        Its properties are made JSON here, as they would be after the last plugin.
        """
        try:
            body, insert_id, event, losses = encode_event(
                event,
                self._frozen_policy,
                EventDefaults(),
                wall=self._clock.wall(),
                insert_id=lambda: self._door.insert_id(event),
            )
        except ValidationError as error:
            return self._settled(event, invalid(error))
        self._own.lose(sum(loss.count for loss in losses))
        self._door.tell(event.event_type, losses)
        wire = from_json(body)
        own = {name: wire[name] for name in _OF_CALLERS if name in wire}
        own |= {"insert_id": insert_id, "time": wire["time"]}
        if isinstance(event.extra, dict):
            own["extra"] = dict(event.extra)
        return _Frozen(event.model_copy(update=own), insert_id, len(body))

    def _settled(self, event: Event, outcome: Outcome) -> _Settled:
        insert_id = self._door.insert_id(event)
        event = event.model_copy(update={"insert_id": insert_id})
        return _Settled(event, insert_id, outcome)

    # On the loop's thread ----------------------------------------------------

    def offer(self, cargo: _Cargo) -> Delivery | None:
        """Accept without suspending; None where that needs a wait."""
        fast = self._fast
        if fast is None or type(cargo) is not Record:
            return None
        return fast.offer_record(cargo)

    async def accept(self, cargo: _Cargo) -> Delivery:
        """Accept, waiting for room, plugins or storage."""
        if isinstance(cargo, Record):
            return await self._accept_record(cargo)
        if isinstance(cargo, _Settled):
            return await self._submit_settled(cargo.event, cargo.outcome)
        return self._offer(cargo.event) or await self._submit(cargo.event)

    async def _accept_record(self, record: Record) -> Delivery:
        await self.ready()
        stopped = self._stopped()
        if stopped is None:
            return await self._own.accept_record(record)
        return await self._end(self._endpoint.decode(record.body), stopped)

    async def give_up(self, cargo: _Cargo, outcome: Outcome) -> Delivery:
        """Settle an event at once."""
        return await self._end(self._event_of(cargo), outcome)

    def _event_of(self, cargo: _Cargo) -> Event:
        if isinstance(cargo, Record):
            event: Event = self._endpoint.decode(cargo.body)
            return event
        return cargo.event

    def result_of(
        self, cargo: _Cargo, insert_id: str, outcome: Outcome
    ) -> DeliveryResult:
        """Make the result of an event that this process does not have."""
        return DeliveryResult(
            outcome,
            cargo.body if isinstance(cargo, Record) else cargo.event,
            insert_id=insert_id,
            destination=self._own.name,
            decode=self._endpoint.decode,
        )

    def lane_of(self, cargo: _Cargo) -> str | None:
        """Keep the order of each user's events where plugins take their time."""
        if not isinstance(cargo, _Frozen):
            return None
        return f"{cargo.event.user_id} {cargo.event.device_id}"

    # Either thread -----------------------------------------------------------

    def _choose_road(self) -> None:
        super()._choose_road()
        # Before it has started, some plugins may only wait to be set up.
        is_started = self._state is not State.NEW
        self._is_bare = is_started and self._roster.is_bare


class SyncAmplitude(SyncClient[_AmplitudeSeat]):
    """Sends events to Amplitude from threads and scripts, without await.

    ``with SyncAmplitude("key") as client:`` starts and shuts down. Without it the first
    verb starts the client, and the interpreter's exit drains it. The constructor does
    no I/O and starts no thread. Any thread may call it, but none that runs an event
    loop: there is `Amplitude` for that.

    Args:
        api_key: the project's API key; it may be absent while ``opt_out`` is true. A
            ``Config`` that holds the key may stand in its place.
        config: options in one object; keyword options override them.
        plugins: set up in this order when the client starts; they run on the loop's
            thread, and must not block it.
        options: fields of ``Config``. The callback is called on the loop's thread.

    Raises:
        ConfigurationError: an option is wrong; field, value and remedy are named.
    """

    def __init__(
        self,
        api_key: str | SecretStr | Config | None = None,
        config: Config | None = None,
        *,
        plugins: Iterable[Plugin | Callable[[Any], Any]] = (),
        **options: Unpack[ConfigFields],
    ) -> None:
        # No local variable may hold a key in plain: see `redaction`.
        given = sealed(Config, options)
        del options
        if not isinstance(api_key, Config):
            api_key = seal(api_key)
        super().__init__(_AmplitudeSeat(api_key, config, plugins=plugins, **given))

    @classmethod
    def from_env(
        cls,
        *,
        api_key: str | SecretStr | None = None,
        plugins: Iterable[Plugin | Callable[[Any], Any]] = (),
        **options: Unpack[ConfigFields],
    ) -> Self:
        """Read ``AMPLITUDE_API_KEY`` and the other ``AMPLITUDE_*`` options.

        The arguments are those of the constructor; they win over variables.

        Raises:
            ConfigurationError: a variable or option is wrong.
        """
        given = sealed(Config, options)
        del options
        if api_key is not None:
            given["api_key"] = api_key = seal(api_key)
        made = cls.__new__(cls)
        SyncClient.__init__(made, _AmplitudeSeat.from_env(plugins=plugins, **given))
        return made

    @property
    def config(self) -> Config:
        """The frozen configuration."""
        return self._seat.config

    # Verbs -------------------------------------------------------------------

    def track(
        self,
        event: Event | TypedEvent | str,
        options: EventOptions | None = None,
        /,
        **fields: Unpack[EventFields],
    ) -> SyncDelivery:
        """Track an event.

        Hands it to the loop's thread and returns. The caller alone waits where there is
        no room (up to ``overflow_timeout``), for a durable storage, and with
        ``strict``; never for the network.

        Args:
            event: an Event, a TypedEvent or an event type.
            options: fields for this event; they win over the event's own.
            fields: fields for this event; they win over ``options``.

        Raises:
            TypeError: an unknown field name or a wrong kind of argument.
            QueueFullError: no room, and the policy is Overflow.RAISE.
            AmplitudeError: an event loop runs on this thread.
        """
        if running_loop() is not None:
            refuse_on_loop(type(self).__name__)
        hatch = self._hatch
        if hatch is None or hatch.inherited or not hatch.started:
            hatch = self._way_in()
        cargo = self._seat.cargo_of(event, options, fields)
        if type(cargo) is Record:
            return hatch.hand_over(cargo, cargo.insert_id, len(cargo.body))
        return self._hand_over(cargo)

    def identify(
        self,
        identify: Identify,
        options: EventOptions | None = None,
        /,
        **fields: Unpack[EventFields],
    ) -> SyncDelivery:
        """Change user properties.

        Raises:
            TypeError: an unknown field name or a wrong kind of argument.
        """
        self._way_in()
        return self._made(self._seat.identify(identify, options, **fields))

    def group_identify(
        self,
        group_type: str,
        group_name: str | Sequence[str],
        identify: Identify,
        options: EventOptions | None = None,
        /,
        **fields: Unpack[EventFields],
    ) -> SyncDelivery:
        """Change the properties of a group; needs no user or device id.

        Raises:
            TypeError: an unknown field name or a wrong kind of argument.
        """
        self._way_in()
        return self._made(
            self._seat.group_identify(
                group_type, group_name, identify, options, **fields
            )
        )

    def set_group(
        self,
        group_type: str,
        group_name: str | Sequence[str],
        options: EventOptions | None = None,
        /,
        **fields: Unpack[EventFields],
    ) -> SyncDelivery:
        """Put a user into a group, or into several of one type.

        Raises:
            TypeError: an unknown field name or a wrong kind of argument.
        """
        self._way_in()
        return self._made(
            self._seat.set_group(group_type, group_name, options, **fields)
        )

    def revenue(
        self,
        revenue: Revenue,
        options: EventOptions | None = None,
        /,
        **fields: Unpack[EventFields],
    ) -> SyncDelivery:
        """Track a sale or a refund.

        Raises:
            TypeError: an unknown field name or a wrong kind of argument.
        """
        self._way_in()
        return self._made(self._seat.revenue(revenue, options, **fields))

    def _made(self, verb: Any) -> SyncDelivery:
        cargo: _Cargo = finish_at_once(verb)
        return self._hand_over(cargo)

    def _hand_over(self, cargo: _Cargo) -> SyncDelivery:
        size = 0
        if isinstance(cargo, Record):
            size = len(cargo.body)
        elif isinstance(cargo, _Frozen):
            size = cargo.size
        return self._way_in().hand_over(cargo, cargo.insert_id, size)


_OF_CALLERS = ("event_properties", "user_properties", "group_properties", "groups")
