"""The client in Litestar applications: a plugin that brings all of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Unpack

from litestar import Litestar
from litestar.config.app import AppConfig
from litestar.datastructures import State
from litestar.di import Provide
from litestar.plugins import InitPlugin

from amplitude_async.amplitude.client import Amplitude
from amplitude_async.amplitude.config import Config
from amplitude_async.config import sealed
from amplitude_async.exceptions import ConfigurationError
from amplitude_async.integrations.asgi import (
    AmplitudeMiddleware,
    ClientOptions,
    MiddlewareOptions,
    amplitude_lifespan,
)
from amplitude_async.shown import shown

__all__ = ["AmplitudePlugin", "PluginOptions"]


class PluginOptions(MiddlewareOptions, ClientOptions, total=False):
    """The options of the middleware and of ``Amplitude.from_env``."""


class AmplitudePlugin(InitPlugin):
    """Opens a client with the application and gives it to handlers by name.

    Each request is a scope of bound fields, as with `AmplitudeMiddleware`.

    Args:
        key: the name of the dependency, and of the client in the application's state.
        client: takes the place of ``Amplitude.from_env``; it is started and shut down
            with the application.
        options: those of `AmplitudeMiddleware` and of ``Amplitude.from_env``.

    Raises:
        ConfigurationError: an option is wrong.
    """

    def __init__(
        self,
        *,
        key: str = "amplitude",
        client: Amplitude | None = None,
        **options: Unpack[PluginOptions],
    ) -> None:
        if not (isinstance(key, str) and key.isidentifier()):
            msg = f"key={shown(key)} must be a name that a parameter can have"
            raise ConfigurationError(msg)
        self._key = key
        names = MiddlewareOptions.__annotations__.keys()
        own: dict[str, Any] = {n: v for n, v in options.items() if n in names}
        # No local variable may hold a key in plain: see `redaction`.
        rest = {n: v for n, v in options.items() if n not in names}
        given: Any = sealed(Config, rest)
        del rest
        del options
        # One for all routes, so that what it logs once a minute is one line.
        self._middleware = AmplitudeMiddleware(_nowhere, client=self._find, **own)
        self._lifespan = amplitude_lifespan(client=client, **given)

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add lifespan, dependency and middleware to an application."""
        app_config.lifespan.insert(0, self._open)
        app_config.middleware.insert(0, self._middleware.around)
        # What the application itself has under these names is meant to be there.
        app_config.dependencies.setdefault(self._key, Provide(self._provide))
        app_config.signature_namespace.setdefault("Amplitude", Amplitude)
        return app_config

    @asynccontextmanager
    async def _open(self, app: Litestar) -> AsyncIterator[None]:
        async with self._lifespan(app) as state:
            app.state[self._key] = state["amplitude"]
            yield

    async def _provide(self, state: State) -> Amplitude:
        client = state.get(self._key)
        if isinstance(client, Amplitude):
            return client
        msg = (
            f"there is no client in the state of the application, under {self._key}: "
            "its lifespan has not run, so in a test enter the client of the test, "
            "`with TestClient(app) as http:`"
        )
        raise ConfigurationError(msg)

    def _find(self, scope: Any) -> Amplitude | None:
        found: Amplitude | None = scope["litestar_app"].state.get(self._key)
        return found


async def _nowhere(scope: Any, receive: Any, send: Any) -> None:
    """Stand for the application: Litestar makes one of each route."""
