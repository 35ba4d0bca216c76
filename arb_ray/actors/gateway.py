"""
The gateway: HTTP for people and probes.

``/health`` says whether the system works now, ``/ready`` whether it is complete. Missing data
is unhealthy: an answer that cannot be had counts as a bad one. ``gateway_actions`` has what an
operator can do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from arb_ray.actors.gateway_actions import BODY_BYTES_MAX, Actions
from arb_ray.actors.hosting import Loops
from arb_ray.actors.supervisor_watch import SupervisorWatch
from arb_ray.domain.errors import ArbError
from arb_ray.engine.health import Health, judge, without_answer


class Gateway:
    """Serve health, readiness, status, metrics and the actions on one port."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        ask_supervisor: Callable[[str], Awaitable[Any]],
        ask_guard: Callable[[str], Awaitable[Any]],
        actions: Actions,
        metrics_page: Callable[[], Awaitable[bytes]],
        log: Any,
        watch: SupervisorWatch | None = None,
        loops: Loops | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._ask_supervisor = ask_supervisor
        self._ask_guard = ask_guard
        self._actions = actions
        self._metrics_page = metrics_page
        self._log = log
        self._watch = watch
        self._loops = loops or Loops()
        self._runner: web.AppRunner | None = None

    def start(self) -> None:
        """Start serving, and watching the supervisor for the case that Persistence cannot."""
        self._loops.start("http", self._run())
        if self._watch is not None:
            self._loops.start("watch", self._watch.run())

    def app(self) -> web.Application:
        """Return the application with every route."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_get("/health", self._health)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/status", self._status)
        app.router.add_get("/metrics", self._metrics)
        self._actions.add_routes(app.router)
        return app

    async def _run(self) -> None:
        self._runner = web.AppRunner(self.app(), access_log=None)
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
            return without_answer(f"supervisor: {error}")

    async def _health(self, _: web.Request) -> web.Response:
        health = await self._judge()
        body = {"healthy": health.healthy, **_sentences(health)}
        return web.json_response(body, status=200 if health.healthy else 503)

    async def _ready(self, _: web.Request) -> web.Response:
        health = await self._judge()
        body = {"ready": health.ready, **_sentences(health)}
        return web.json_response(body, status=200 if health.ready else 503)

    async def _status(self, _: web.Request) -> web.Response:
        try:
            status = await self._ask_supervisor("status")
        except ArbError as error:
            # RiskGuard answers for itself: after a halt, that is what an operator must know.
            health = without_answer(f"supervisor: {error}")
            told = {"error": str(error), "health": health, "risk": await self._risk()}
            return web.json_response(body=msgspec.json.encode(told), status=503)
        told = {**msgspec.structs.asdict(status), "health": judge(status)}
        return web.json_response(body=msgspec.json.encode(told))

    async def _metrics(self, _: web.Request) -> web.Response:
        page = await self._metrics_page()
        return web.Response(body=page, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _risk(self) -> dict[str, Any]:
        try:
            return dict(await self._ask_guard("status"))
        except ArbError as error:
            return {"ready": False, "error": str(error)}


def _sentences(health: Health) -> dict[str, list[str]]:
    return {"problems": list(health.problems), "warnings": list(health.warnings)}
