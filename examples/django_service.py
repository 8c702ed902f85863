"""A Django service in one file that tracks events from plain and from async views.

It needs ``pip install django uvicorn`` beside this package, or gunicorn. Run it with
AMPLITUDE_API_KEY set: ``python examples/django_service.py``, or from this folder
``uvicorn django_service:asgi`` or ``gunicorn django_service:wsgi``.
"""

import os

import uvicorn
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from amplitude_async.integrations.django import amplitude, with_lifespan

__all__ = ["asgi", "urlpatterns", "wsgi"]


def token_of(request: HttpRequest) -> dict[str, str] | None:
    """Tell who makes a request; leave this out where Django's users sign in."""
    token = request.headers.get("Authorization", "").removeprefix("Bearer ")
    return {"user_id": token} if token else None


settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("DJANGO_SECRET_KEY", "for-this-example-only"),
    INSTALLED_APPS=["amplitude_async.integrations.django.AmplitudeConfig"],
    MIDDLEWARE=["amplitude_async.integrations.django.AmplitudeMiddleware"],
    AMPLITUDE={"identify": token_of, "properties": ["path"]},
)


def pay(_: HttpRequest, order: str) -> JsonResponse:
    """Take a payment in a plain view."""
    amplitude.track("Order Paid", event_properties={"order": order})
    return JsonResponse({"order": order})


async def ship(_: HttpRequest, order: str) -> JsonResponse:
    """Ship an order in an async view."""
    await amplitude.atrack("Order Shipped", event_properties={"order": order})
    return JsonResponse({"order": order})


urlpatterns = [
    path("orders/<str:order>/pay", pay),
    path("orders/<str:order>/ship", ship),
]

asgi = with_lifespan(get_asgi_application())
wsgi = get_wsgi_application()

if __name__ == "__main__":
    uvicorn.run(asgi, port=int(os.environ.get("PORT", "8000")))
