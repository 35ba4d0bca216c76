"""
The simulated exchanges as servers: three ports, one market, one clock.

``SimExchanges`` runs inside a process that has an event loop; ``serve`` is a process of
its own. Each venue has a port of its own for WebSocket and REST together, and every port
carries ``/sim/status`` and ``/sim/faults``.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from arb_ray.adapters.venues.sim import binance_source, upbit_source
from arb_ray.adapters.venues.sim.binance_server import (
    SPOT_LIMITS,
    USDM_LIMITS,
    BinanceServer,
)
from arb_ray.adapters.venues.sim.clients import Limits
from arb_ray.adapters.venues.sim.coins import top_assets
from arb_ray.adapters.venues.sim.faults import (
    VENUES,
    Fault,
    FaultKind,
    FaultPlan,
    check_fault,
    read_fault,
)
from arb_ray.adapters.venues.sim.market import Market
from arb_ray.adapters.venues.sim.noise import STEP_MS
from arb_ray.adapters.venues.sim.presets import preset_named
from arb_ray.adapters.venues.sim.upbit_server import UPBIT_LIMITS, UpbitServer
from arb_ray.domain.errors import BadConfig, BadInput

PHASES = 5
PHASE_MS = STEP_MS // PHASES
PHASE_NS = PHASE_MS * 1_000_000
BEHIND_PHASES_MAX = PHASES  # a loop that was held up catches up so far and skips the rest
TURN_S = 0.001  # an answer takes several turns of the loop, so a bare yield would not do
URL_BYTES_MAX = 64 * 1024  # 1024 streams named in one address must fit
ORIGIN_NS: Final = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z


class SimConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    What to simulate and where to listen. A port of 0 lets the system choose.

    ``symbols`` are assets (``"BTC"``); ``origin_ns`` belongs to the session and is stored
    with it. ``rate`` scales Binance's bookTickers and all trades (1 is the real rate of
    CALIBRATION F); book changes keep their rate, because staleness is part of the price.
    """

    preset: str = "calibrated"
    seed: int = 1
    symbols: tuple[str, ...] = top_assets(20)
    origin_ns: int = ORIGIN_NS
    rate: float = 0.15
    stress_speed: float = 0.0  # 0: the preset's own
    host: str = "127.0.0.1"
    upbit_port: int = 0
    binance_spot_port: int = 0
    binance_usdm_port: int = 0
    control_token: str = ""
    upbit_limits: Limits = UPBIT_LIMITS
    binance_spot_limits: Limits = SPOT_LIMITS
    binance_usdm_limits: Limits = USDM_LIMITS


class SimUrls(msgspec.Struct, frozen=True):
    """Where the exchanges listen, in the form of the real base addresses."""

    upbit_ws: str  # .../websocket/v1
    upbit_rest: str  # .../v1
    binance_spot_ws: str  # append /ws or /stream
    binance_spot_rest: str  # append /api/v3/...
    binance_usdm_ws: str  # append /public/stream or /market/stream
    binance_usdm_rest: str  # append /fapi/v1/...
    control: str  # append /sim/faults or /sim/status


class Doors:
    """Ports and control endpoint, shared by the simulated and the recorded exchanges."""

    def __init__(self, host: str, ports: tuple[int, int, int], token: str) -> None:
        self._host = host
        self._ports = ports
        self._token = token
        self._runners: list[web.AppRunner] = []

    async def open(
        self,
        routes: tuple[list[web.RouteDef], ...],
        inject: Callable[[Fault], None],
        status: Callable[[], dict[str, Any]],
        is_ready: asyncio.Event | None = None,
    ) -> SimUrls:
        """
        Listen on every venue's port; whoever comes before ``is_ready`` waits at the door.

        Raises:
            BadConfig: A port is occupied.
        """
        bound = []
        for name, venue_routes, port in zip(VENUES, routes, self._ports, strict=True):
            app = web.Application(middlewares=[_wait_for(is_ready)] if is_ready else [])
            app.add_routes(venue_routes)
            app.add_routes(
                [
                    web.post("/sim/faults", self._faults(inject)),
                    web.get("/sim/status", self._status(status)),
                ]
            )
            runner = web.AppRunner(
                app, access_log=None, shutdown_timeout=1.0, max_line_size=URL_BYTES_MAX
            )
            await runner.setup()
            self._runners.append(runner)
            site = web.TCPSite(runner, self._host, port)
            try:
                await site.start()
            except OSError as error:
                await self.close()
                raise BadConfig(
                    f"sim.{name}_port",
                    f"cannot listen on {self._host}:{port} ({error.strerror})",
                    "Free the port, or use 0 to let the system choose.",
                ) from error
            bound.append(f"{self._host}:{runner.addresses[0][1]}")
        upbit, spot, usdm = bound
        return SimUrls(
            upbit_ws=f"ws://{upbit}/websocket/v1",
            upbit_rest=f"http://{upbit}/v1",
            binance_spot_ws=f"ws://{spot}",
            binance_spot_rest=f"http://{spot}",
            binance_usdm_ws=f"ws://{usdm}",
            binance_usdm_rest=f"http://{usdm}",
            control=f"http://{upbit}",
        )

    async def close(self) -> None:
        """Stop listening."""
        for runner in self._runners:
            await runner.cleanup()
        self._runners.clear()

    def _faults(self, inject: Callable[[Fault], None]) -> Any:
        async def handle(request: web.Request) -> web.Response:
            if not self._may_control(request):
                return web.json_response({"error": "not allowed"}, status=403)
            try:
                inject(read_fault(await request.read()))
            except BadInput as error:
                return web.json_response({"error": str(error)}, status=400)
            return web.json_response({"ok": True})

        return handle

    def _status(self, status: Callable[[], dict[str, Any]]) -> Any:
        async def handle(_: web.Request) -> web.Response:
            return web.json_response(status())

        return handle

    def _may_control(self, request: web.Request) -> bool:
        if not _is_from_this_machine(request):
            return False
        return not self._token or request.headers.get("Authorization") == f"Bearer {self._token}"


def _wait_for(is_ready: asyncio.Event) -> Any:
    @web.middleware
    async def wait(request: web.Request, handler: Any) -> web.StreamResponse:
        await is_ready.wait()
        if request.transport is None or request.transport.is_closing():
            return web.Response(status=503)  # whoever asked has given up meanwhile
        answer: web.StreamResponse = await handler(request)
        return answer

    return wait


def _is_from_this_machine(request: web.Request) -> bool:
    # On a cluster the exchanges listen at the head's address alone; whoever comes from the very
    # address that it came to is at home too.
    if not request.remote:
        return False
    own = request.transport.get_extra_info("sockname") if request.transport else None
    return request.remote == (own or ("",))[0] or ipaddress.ip_address(request.remote).is_loopback


class SimExchanges:
    """Upbit, Binance spot and Binance USD-M over one simulated market."""

    def __init__(self, config: SimConfig, clock_ns: Callable[[], int] = time.time_ns) -> None:
        preset = preset_named(config.preset)
        if config.stress_speed > 0:
            stress = msgspec.structs.replace(preset.stress, speed=config.stress_speed)
            preset = msgspec.structs.replace(preset, stress=stress)
        self.config = config
        self.market = Market(preset, config.seed, config.symbols, config.origin_ns)
        self.plan = FaultPlan()
        self._clock_ns = clock_ns
        self._upbit = upbit_source.MarketSource(self.market, self.plan, clock_ns, config.rate)
        self._spot = binance_source.MarketSource(
            self.market, self.plan, clock_ns, is_perp=False, rate=config.rate
        )
        self._usdm = binance_source.MarketSource(
            self.market, self.plan, clock_ns, is_perp=True, rate=config.rate
        )
        self.upbit = UpbitServer(self._upbit, self.plan, config.upbit_limits)
        self.spot = BinanceServer(self._spot, self.plan, config.binance_spot_limits)
        self.usdm = BinanceServer(self._usdm, self.plan, config.binance_usdm_limits)
        ports = (config.upbit_port, config.binance_spot_port, config.binance_usdm_port)
        self._doors = Doors(config.host, ports, config.control_token)
        self._loop: asyncio.Task[None] | None = None
        self._is_drawn = asyncio.Event()
        self._chores: set[asyncio.Task[None]] = set()
        self.skipped_phases = 0
        self.urls: SimUrls | None = None

    async def start(self) -> SimUrls:
        """
        Listen and begin to trade.

        Raises:
            BadConfig: A port is occupied.
        """
        routes = (self.upbit.routes(), self.spot.routes(), self.usdm.routes())
        self.urls = await self._doors.open(routes, self.inject, self.status, self._is_drawn)
        self._loop = asyncio.create_task(self._run(), name="simulated exchanges")
        return self.urls

    async def stop(self) -> None:
        """Close every connection and every port."""
        for task in (self._loop, *self._chores):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        for server in (self.upbit, self.spot, self.usdm):
            for client in list(server.clients):
                client.abort()
        await self._doors.close()

    async def failed(self) -> None:
        """Wait until the market's loop ends, which only a bug makes it do, and raise that."""
        assert self._loop is not None, "start first"
        await self._loop

    def inject(self, fault: Fault) -> None:
        """
        Break something.

        Raises:
            BadInput: The fault is impossible, or too many are in force.
        """
        check_fault(fault)
        if fault.symbol and fault.symbol not in (*self.market.coins, "USDT"):
            raise BadInput("fault.symbol", f"{fault.symbol!r} is not simulated", "Give an asset.")
        now_ns = self._clock_ns()
        self.plan.add(fault, now_ns)
        step = self.market.step_at(now_ns)
        if fault.kind is FaultKind.STRESS:
            self.market.start_panic(step, fault.speed)
        elif fault.kind is FaultKind.PREMIUM:
            end = step + max(1, round(fault.duration_s * 1_000 / STEP_MS))
            self.market.force_premium(fault.symbol, step, end, fault.bps)
        elif fault.kind is FaultKind.DISCONNECT:
            chore = asyncio.create_task(self._disconnect(fault))
            self._chores.add(chore)
            chore.add_done_callback(self._chores.discard)
        elif fault.kind is FaultKind.SLOW_CONSUMER:
            for _, server in self._servers(fault.venue):
                for client in server.clients:
                    client.delay_s = fault.delay_ms / 1_000

    def status(self) -> dict[str, Any]:
        """Return what runs: preset, load, connections, faults in force."""
        return {
            "preset": self.market.preset.name,
            "is_realistic": self.market.preset.is_realistic,
            "label": self.market.preset.label,
            "seed": self.market.seed,
            "origin_ns": self.market.origin_ns,
            "symbols": list(self.market.coins),
            "skipped_phases": self.skipped_phases,
            "faults": self.plan.listed(),
            "faults_injected": self.plan.injected,
            "venues": {
                name: {
                    "clients": len(server.clients),
                    "streams": len(list(server.topics)),
                    **msgspec.to_builtins(server.counters),
                }
                for name, server in self._servers("")
            },
        }

    def _servers(self, venue: str) -> list[tuple[str, UpbitServer | BinanceServer]]:
        every: list[tuple[str, UpbitServer | BinanceServer]] = [
            ("upbit", self.upbit),
            ("binance_spot", self.spot),
            ("binance_usdm", self.usdm),
        ]
        return [(name, server) for name, server in every if venue in ("", name)]

    async def _disconnect(self, fault: Fault) -> None:
        for _, server in self._servers(fault.venue):
            for client in list(server.clients):
                if not fault.planned:
                    client.abort()
                elif isinstance(server, BinanceServer):
                    await server.say_goodbye(client)
                else:
                    await client.close(1000)

    async def _draw(self) -> None:
        """Draw every coin's day, 10 ms each, so that no request holds the loop up for all."""
        for asset in self.market.coins:
            self.market.upbit_mid(asset, self.market.step_at(self._clock_ns()))
            await asyncio.sleep(TURN_S)
        self._is_drawn.set()

    async def _run(self) -> None:
        await self._draw()
        origin = self.market.origin_ns
        last = (self._clock_ns() - origin) // PHASE_NS
        checked_s = 0.0
        while True:
            now = (self._clock_ns() - origin) // PHASE_NS
            if now <= last:
                behind_ns = origin + (last + 1) * PHASE_NS - self._clock_ns()
                await asyncio.sleep(min(behind_ns / 1e9, 1.0))
                continue
            if now - last > BEHIND_PHASES_MAX:
                self.skipped_phases += now - last - BEHIND_PHASES_MAX
                last = now - BEHIND_PHASES_MAX
            for at in range(last + 1, now + 1):
                await self._phase(*divmod(at, PHASES))
                # A loop that is behind answers requests all the same.
                await asyncio.sleep(TURN_S)
            last = now
            loop_s = asyncio.get_running_loop().time()
            if loop_s - checked_s >= 1.0:
                checked_s = loop_s
                for _, server in self._servers(""):
                    await server.keep_alive(loop_s)
            await asyncio.sleep(0)

    async def _phase(self, step: int, phase: int) -> None:
        if self.plan:
            self.plan.expire(self._clock_ns())
        await self._upbit.tick(self.upbit, step, phase * PHASE_MS, PHASE_MS)
        await self._spot.tick(self.spot, step, phase, PHASES)
        await self._usdm.tick(self.usdm, step, phase, PHASES)
        await self._flush_late()

    async def _flush_late(self) -> None:
        for name, server in self._servers(""):
            slow = self.plan.active(FaultKind.SLOW_CONSUMER, name, "")
            for client in list(server.clients):
                if not client.delay_s:
                    continue
                await client.flush_late()
                if slow is None:
                    # The fault is over: like a real exchange, cut the peer that lags behind.
                    client.counters.dropped_slow += 1
                    client.abort()


async def serve(config: SimConfig) -> None:
    """
    Run the simulated exchanges until SIGINT or SIGTERM; prints their addresses as one line.

    Raises:
        BadConfig: A port is occupied, or the preset or a symbol is unknown.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    exchanges = SimExchanges(config)
    urls = await exchanges.start()
    sys.stdout.write(msgspec.json.encode(urls).decode() + "\n")
    sys.stdout.flush()
    waits = [asyncio.create_task(stopping.wait()), asyncio.create_task(exchanges.failed())]
    done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    await exchanges.stop()
    for task in done:
        task.result()
