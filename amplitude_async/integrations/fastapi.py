"""The client in FastAPI applications: a dependency that tests can override."""

from typing import Annotated, Any, TypeAlias

from fastapi import Depends
from fastapi.requests import HTTPConnection

from amplitude_async.amplitude.client import Amplitude
from amplitude_async.exceptions import ConfigurationError

__all__ = ["AmplitudeDep", "get_amplitude"]


async def get_amplitude(connection: HTTPConnection) -> Amplitude:
    """Give the client that ``amplitude_lifespan`` opened for this service.

    Tests put another in its place: ``app.dependency_overrides[get_amplitude] = ...``.

    Raises:
        ConfigurationError: no lifespan opened one; the message says how to.
    """
    state: dict[str, Any] = connection.scope.get("state") or {}
    client = state.get("amplitude")
    if isinstance(client, Amplitude):
        return client
    msg = (
        "there is no client in request.state.amplitude: make the application with "
        "FastAPI(lifespan=amplitude_lifespan()), and in a test enter the client of the "
        "test, `with TestClient(app) as http:`, or override get_amplitude"
    )
    raise ConfigurationError(msg)


AmplitudeDep: TypeAlias = Annotated[Amplitude, Depends(get_amplitude)]
"""A parameter of a handler or a dependency that takes the service's client."""
