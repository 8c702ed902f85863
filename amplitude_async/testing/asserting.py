"""What a test asserts of captured events, with messages that say what there is."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from amplitude_async.delivery.outcome import QUIET_REASONS
from amplitude_async.testing.captured import Captured
from amplitude_async.testing.failure import (
    tell_of_failures,
    tell_of_some,
    why_nothing_fits,
)
from amplitude_async.testing.wanted import (
    Wanted,
    wanted_event,
    wanted_group,
    wanted_identify,
    wanted_revenue,
)

__all__ = ["Assertions"]


class Assertions:
    """The assertions of ``CapturedEvents``.

    ``expected`` names what an event must have: a field of ``Event`` by its name, and
    by any other name an event property. A mapping fits one that has more keys; anything
    else is compared by ``==``, so that ``unittest.mock.ANY`` and dirty-equals work.
    """

    @abstractmethod
    def __iter__(self) -> Iterator[Captured]: ...

    @property
    @abstractmethod
    def rejected(self) -> list[Captured]:
        """The events that were found bad."""

    @property
    @abstractmethod
    def dropped(self) -> list[Captured]:
        """The events that were given up."""

    @abstractmethod
    def named(self, name: str) -> list[Captured]:
        """Give the events of a name."""

    def assert_tracked(
        self,
        name: str,
        /,
        *,
        times: int | None = None,
        destination: str | None = None,
        **expected: Any,
    ) -> Captured:
        """Find an event, or fail and show the nearest ones.

        Args:
            name: the event type, or the name of mParticle's custom event or screen.
            times: how many must fit; at least one where it is None. An event that went
                to several destinations counts once.
            destination: look at one destination only.
            **expected: fields and event properties.

        Returns:
            The first event that fits; of several destinations' Amplitude's own.
        """
        __tracebackhide__ = True
        return self._one(wanted_event(name, destination, expected), times)

    def assert_not_tracked(
        self, name: str, /, *, destination: str | None = None, **expected: Any
    ) -> None:
        """Fail where an event was tracked that has what is expected."""
        __tracebackhide__ = True
        wanted = wanted_event(name, destination, expected)
        found, count = self._fitting(wanted)
        if found:
            often = "" if count == 1 else f" {count} times"
            headline = f"{wanted.text} was tracked{often}, and should not be:"
            raise AssertionError(tell_of_some(headline, found))

    def assert_revenue(
        self,
        amount: Any,
        /,
        *,
        times: int | None = None,
        destination: str | None = None,
        **expected: Any,
    ) -> Captured:
        """Find an event with an amount of money, or fail and show the nearest ones.

        The amount is ``$revenue``, or ``$price`` times ``$quantity``, or what the
        event's own fields of these names say; for mParticle the total of a commerce
        event, negative for a refund.

        Args:
            amount: compared with a tolerance of one in a billion.
            times: as for ``assert_tracked``.
            destination: likewise.
            **expected: likewise; names of a ``Revenue``'s fields mean these.
        """
        __tracebackhide__ = True
        return self._one(wanted_revenue(amount, destination, expected), times)

    def assert_identified(  # noqa: PLR0913 - the operations of Identify
        self,
        user_id: Any = None,
        /,
        *,
        device_id: Any = None,
        times: int | None = None,
        set: Mapping[str, Any] | None = None,  # noqa: A002 - its name in Identify
        set_once: Mapping[str, Any] | None = None,
        add: Mapping[str, Any] | None = None,
        append: Mapping[str, Any] | None = None,
        prepend: Mapping[str, Any] | None = None,
        pre_insert: Mapping[str, Any] | None = None,
        post_insert: Mapping[str, Any] | None = None,
        remove: Mapping[str, Any] | None = None,
        unset: str | Sequence[str] | None = None,
        clear_all: bool = False,
    ) -> Captured:
        """Find an identify that does at least these operations, or fail.

        An mParticle batch that sets or deletes user attributes is one as well.
        """
        __tracebackhide__ = True
        operations = _given(
            set=set,
            set_once=set_once,
            add=add,
            append=append,
            prepend=prepend,
            pre_insert=pre_insert,
            post_insert=post_insert,
            remove=remove,
            unset=unset,
            clear_all=clear_all or None,
        )
        return self._one(wanted_identify(user_id, device_id, operations), times)

    def assert_group_identified(  # noqa: PLR0913 - the operations of Identify
        self,
        group_type: str,
        group_name: Any,
        /,
        *,
        times: int | None = None,
        set: Mapping[str, Any] | None = None,  # noqa: A002 - its name in Identify
        set_once: Mapping[str, Any] | None = None,
        add: Mapping[str, Any] | None = None,
        append: Mapping[str, Any] | None = None,
        prepend: Mapping[str, Any] | None = None,
        pre_insert: Mapping[str, Any] | None = None,
        post_insert: Mapping[str, Any] | None = None,
        remove: Mapping[str, Any] | None = None,
        unset: str | Sequence[str] | None = None,
        clear_all: bool = False,
    ) -> Captured:
        """Find a group_identify that does at least these operations, or fail."""
        __tracebackhide__ = True
        operations = _given(
            set=set,
            set_once=set_once,
            add=add,
            append=append,
            prepend=prepend,
            pre_insert=pre_insert,
            post_insert=post_insert,
            remove=remove,
            unset=unset,
            clear_all=clear_all or None,
        )
        return self._one(wanted_group(group_type, group_name, operations), times)

    def assert_no_rejections(self) -> None:
        """Fail where an event was found bad, or lost though nobody asked for that.

        What ``opt_out``, a plugin or ``purge`` takes out was asked for.
        """
        __tracebackhide__ = True
        lost = [event for event in self.dropped if event.reason not in QUIET_REASONS]
        rejected = self.rejected
        if rejected or lost:
            parts = [
                f"{len(events)} {what}"
                for events, what in ((rejected, "rejected"), (lost, "dropped"))
                if events
            ]
            message = "\n".join(
                (
                    f"{' and '.join(parts)} though nothing should be",
                    *tell_of_failures([*rejected, *lost], most=30),
                )
            )
            raise AssertionError(message)

    # Inside ------------------------------------------------------------------

    def _fitting(self, wanted: Wanted) -> tuple[list[Captured], int]:
        """Find what fits, each at one destination only, and count it."""
        pool = self if wanted.name is None else self.named(wanted.name)
        fitting = [event for event in pool if wanted.fits(event)]
        # Stable: the events of one destination stay in their order.
        fitting.sort(key=lambda event: event.rank)
        tally = wanted.tally()
        found = [event for event in fitting if tally.add(event)]
        return found, tally.total

    def _one(self, wanted: Wanted, times: int | None) -> Captured:
        __tracebackhide__ = True
        if times is not None and times < 1:
            raise ValueError(f"times={times}: use assert_not_tracked for what is not")
        found, count = self._fitting(wanted)
        if not found:
            raise AssertionError(self._why(f"no {wanted.text} was tracked", wanted))
        if times is not None and count != times:
            often = "once" if count == 1 else f"{count} times"
            headline = f"{wanted.text} was tracked {often}, wanted {times}"
            if count < times:
                raise AssertionError(self._why(headline, wanted))
            raise AssertionError(tell_of_some(headline, found))
        return found[0]

    def _why(self, headline: str, wanted: Wanted) -> str:
        failed = [*self.rejected, *self.dropped]
        return why_nothing_fits(headline, wanted, list(self), failed)


def _given(**operations: Any) -> dict[str, Any]:
    return {name: value for name, value in operations.items() if value is not None}
