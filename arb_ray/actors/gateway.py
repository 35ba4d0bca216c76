"""
The gateway: HTTP for people and probes.

``/health`` says whether the system works now, ``/ready`` whether it has ever become complete.
Missing data is unhealthy: an answer that cannot be had counts as a bad one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from arb_ray.actors.hosting import Loops
from arb_ray.domain.errors import ArbError
from arb_ray.engine.health import Health, judge


class Gateway:
    """Serve health, readiness and status on one port."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        ask_supervisor: Callable[[str], Awaitable[Any]],
        log: Any,
        loops: Loops | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._ask_supervisor = ask_supervisor
        self._log = log
        self._loops = loops or Loops()
        self._runner: web.AppRunner | None = None

    def start(self) -> None:
        """Start serving."""
        self._loops.start("http", self._run())

    async def _run(self) -> None:
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/status", self._status)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        self._log.info("gateway_serving", host=self._host, port=self._port)
        await asyncio.Event().wait()

    async def status(self) -> dict[str, Any]:
        """Return where the gateway listens."""
        return {"ready": self._runner is not None, "host": self._host, "port": self._port}

    async def stop(self) -> None:
        """Stop serving."""
        await self._loops.stop()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _judge(self) -> Health:
        try:
            return judge(await self._ask_supervisor("status"))
        except ArbError as error:
            return Health(healthy=False, ready=False, problems=(f"supervisor: {error}",))

    async def _health(self, _: web.Request) -> web.Response:
        health = await self._judge()
        body = {"healthy": health.healthy, "problems": list(health.problems)}
        return web.json_response(body, status=200 if health.healthy else 503)

    async def _ready(self, _: web.Request) -> web.Response:
        health = await self._judge()
        body = {"ready": health.ready, "problems": list(health.problems)}
        return web.json_response(body, status=200 if health.ready else 503)

    async def _status(self, _: web.Request) -> web.Response:
        try:
            status = await self._ask_supervisor("status")
            return web.json_response(body=msgspec.json.encode(status))
        except ArbError as error:
            return web.json_response({"error": str(error)}, status=503)
