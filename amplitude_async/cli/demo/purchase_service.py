"""The demo's web service: takes purchases over HTTP and tracks each as revenue."""

from types import TracebackType
from typing import Self

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from amplitude_async import Amplitude, Revenue
from amplitude_async.cli.demo.purchases import Purchase

__all__ = ["KEY_HEADER", "PURCHASE_JSON", "PurchaseService"]

KEY_HEADER = "Idempotency-Key"
"""Names a purchase, so that a request sent twice makes one event."""

PURCHASE_JSON = TypeAdapter(Purchase)
"""Reads and writes the body of a request; amounts travel as text, to stay exact."""


class PurchaseService:
    """An aiohttp service as its users would write it: one handler, one client.

    Use it as ``async with PurchaseService(client) as service:`` and post to
    ``service.url``.

    Args:
        client: where purchases are tracked; it is not shut down here.
    """

    def __init__(self, client: Amplitude) -> None:
        self.served = 0
        """Purchases answered with 202."""
        self._client = client
        app = web.Application()
        app.router.add_post("/purchases", self._purchase)
        self._runner = web.AppRunner(app, access_log=None)

    async def __aenter__(self) -> Self:
        """Start listening, on loopback and any free port."""
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Where to post purchases."""
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}/purchases"

    async def _purchase(self, request: web.Request) -> web.Response:
        try:
            purchase = PURCHASE_JSON.validate_json(await request.read())
            # Many amounts cannot be divided by the units: no price, the whole sum.
            revenue = Revenue(revenue=purchase.amount, quantity=purchase.units)
        except ValidationError as error:
            problems = error.errors(
                include_url=False, include_context=False, include_input=False
            )
            return web.json_response(
                {"error": "not a purchase", "problems": problems}, status=400
            )
        delivery = await self._client.revenue(
            revenue,
            user_id=purchase.customer,
            time=purchase.time,
            insert_id=request.headers.get(KEY_HEADER),
        )
        self.served += 1
        return web.json_response({"insert_id": delivery.insert_id}, status=202)
