"""What a command must find in its environment to send to an emulator."""

from collections.abc import Mapping
from typing import Final

from amplitude_async.emulator import Emulator

__all__ = ["opted_out", "variables_for"]

# Where none is set: the emulator takes any.
_PLACEHOLDERS: Final[Mapping[str, str]] = {
    "AMPLITUDE_API_KEY": "any-key-for-the-emulator",
    "MPARTICLE_API_KEY": "any-key-for-the-emulator",
    "MPARTICLE_API_SECRET": "any-secret-for-the-emulator",
}
_LOCAL: Final = "127.0.0.1"
_TRUE: Final = frozenset({"1", "true", "t", "yes", "y", "on"})


def variables_for(emulator: Emulator, own: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a command that sends to an emulator.

    Args:
        emulator: it listens.
        own: the environment of this process.
    """
    found = dict(own)
    for name, placeholder in _PLACEHOLDERS.items():
        if not found.get(name, "").strip():
            found[name] = placeholder
    found["AMPLITUDE_SERVER_URL"] = emulator.httpapi_url
    found["AMPLITUDE_INSPECT"] = emulator.url
    found["MPARTICLE_BASE_URL"] = emulator.mparticle_url
    # A proxy that is named there has no business on loopback.
    for name in ("no_proxy", "NO_PROXY"):
        known = found.get(name, "")
        if known != "*" and _LOCAL not in known.split(","):
            found[name] = ",".join(filter(None, (known, _LOCAL)))
    return found


def opted_out(own: Mapping[str, str]) -> bool:
    """Say whether the environment tells clients to send nothing."""
    return own.get("AMPLITUDE_OPT_OUT", "").strip().lower() in _TRUE
