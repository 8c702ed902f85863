"""Which route a request took, as its author wrote it: ``/orders/{order}``.

Frameworks leave that in the scope of the request, each in its own way, and none of them
is imported for it. Where it cannot be told for sure there is none, as a raw path in its
place would put ids into the names of things.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["template_of"]

_LONGEST: Final = 512
_NAMES: Final = re.compile(r"\{([^{}:]+)")


def template_of(scope: Mapping[str, Any]) -> str | None:
    """Find the template of the route that a finished request took."""
    # Litestar leaves it there, and so may an application of any other framework.
    found = scope.get("path_template")
    if not isinstance(found, str):
        found = _starlette_template(scope)
    return found if found and len(found) <= _LONGEST else None


def _starlette_template(scope: Mapping[str, Any]) -> str | None:
    route = _fastapi_route(scope) or scope.get("route")
    own = _text(route, "path_format")
    if own is None:
        return None
    prefix = _mounted_at(scope)
    if scope.get("endpoint") is getattr(route, "app", scope):
        # The route is itself what was mounted last, and something else answered.
        mounted = _text(route, "path") or ""
        if not prefix.endswith(mounted):
            return None
        prefix = prefix.removesuffix(mounted)
    # A name that no template has stands in the prefix, which shows its value.
    if not scope.get("path_params", {}).keys() <= set(_NAMES.findall(own)):
        return None
    return prefix + own


def _fastapi_route(scope: Mapping[str, Any]) -> object:
    """Find the route as it was included, where the original knows only itself."""
    context = scope.get("fastapi", {}).get("effective_route_context")
    route = scope.get("route")
    if context is None:
        return None
    is_of_it = getattr(context, "original_route", None) is route
    if not is_of_it and _text(route, "path_format") is not None:
        return None
    # Of some kinds of route another is made, with the whole path.
    return getattr(context, "starlette_route", None) or context


def _mounted_at(scope: Mapping[str, Any]) -> str:
    """Find the path that the innermost application was mounted at, in this service."""
    above = scope.get("app_root_path")
    root: str = scope.get("root_path", "")
    return "" if above is None else root.removeprefix(above)


def _text(holder: object, name: str) -> str | None:
    value = getattr(holder, name, None)
    return value if isinstance(value, str) else None
