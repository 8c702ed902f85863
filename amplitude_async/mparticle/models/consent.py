"""What the user has agreed to.

The same word means opposite things under the two regulations: ``consented`` is an
agreement under the GDPR and an opt-out from the sale of data under the CCPA.
"""

import time
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field

from amplitude_async.encoding import unix_ms
from amplitude_async.mparticle.models.enums import CCPAPurpose
from amplitude_async.mparticle.models.fields import Flag, Moment
from amplitude_async.wire import WireModel

__all__ = ["CCPAConsentState", "ConsentState", "GDPRConsentState"]


def _now() -> int:
    return unix_ms(time.time())


class _ConsentRecord(WireModel):
    consented: Flag
    """The decision. Always sent: without it the server answers 400."""

    timestamp_unixtime_ms: Moment = Field(default_factory=_now)
    """When the decision was made; absent, the time of construction."""

    document: str | None = None
    """Version of the text that was shown."""

    location: str | None = None
    """Where the decision was made, for example a page."""

    hardware_id: str | None = None
    """Device on which it was made."""

    regulation: str | None = None
    """Name of the regulation; implied by the place of the record."""


class GDPRConsentState(_ConsentRecord):
    """Whether the user agreed to one purpose: ``consented=True`` is yes."""


class CCPAConsentState(_ConsentRecord):
    """Whether the user opted out of sale: ``consented=True`` is opted out.

    `opted_out` and `not_opted_out` say which is which.
    """

    @classmethod
    def opted_out(cls, **fields: Any) -> "CCPAConsentState":
        """Record that the user's data must not be sold."""
        return cls(consented=True, **fields)

    @classmethod
    def not_opted_out(cls, **fields: Any) -> "CCPAConsentState":
        """Record that the user has not opted out of sale, or takes it back."""
        return cls(consented=False, **fields)


def _under_its_purpose(value: object) -> object:
    if isinstance(value, CCPAConsentState):
        return {CCPAPurpose.DATA_SALE_OPT_OUT: value}
    return value


if TYPE_CHECKING:
    _Decisions: TypeAlias = dict[str, GDPRConsentState] | Any
    _DataSale: TypeAlias = dict[CCPAPurpose, CCPAConsentState] | Any
else:
    _Decisions = dict[str, GDPRConsentState] | None
    # Any in the union would let anything through.
    _DataSale = Annotated[
        dict[CCPAPurpose, CCPAConsentState] | None, BeforeValidator(_under_its_purpose)
    ]


class ConsentState(WireModel):
    """The user's decisions, by regulation. Empty maps are not sent."""

    gdpr: _Decisions = None
    """Purpose, as named in the workspace's privacy settings, to decision.

    Purposes may be added one by one: ``state.gdpr["ads"] = GDPRConsentState(...)``.
    """

    ccpa: _DataSale = None
    """The one purpose ``data_sale_opt_out`` to decision; a bare record will do."""

    @property
    def is_empty(self) -> bool:
        """Whether there is no decision at all."""
        return not self.gdpr and not self.ccpa

    @property
    def empty_maps(self) -> set[str]:
        """The regulations under which there is no decision."""
        return {name for name in ("gdpr", "ccpa") if not getattr(self, name)}
