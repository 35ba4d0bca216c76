"""
Upbit's WebSocket and REST doors; what they serve comes from a source.

Rules from the protocol sheet, section 3 (Upbit's pages of v1.6.4, and wire observations
of 2026 where they differ: binary frames, idle close at 60 s, silent unknown codes).
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

import msgspec
from aiohttp import WSMsgType, web

from arb_ray.adapters.venues.sim import upbit_wire as wire
from arb_ray.adapters.venues.sim.clients import (
    MESSAGE_BYTES_MAX,
    Budget,
    Client,
    Counters,
    Limits,
    Topics,
)
from arb_ray.adapters.venues.sim.faults import FaultKind, FaultPlan

UPBIT_LIMITS: Final = Limits(messages=((5, 1.0), (100, 60.0)), connects=(5, 1.0), idle_s=60.0)
REST_PER_S = 10  # requests a second and group (market, ticker, orderbook)
UNITS: Final = frozenset({1, 5, 15, 30})
TYPES: Final = frozenset({"orderbook", "trade", "ticker"})
FORMATS: Final = frozenset({"DEFAULT", "SIMPLE", "JSON_LIST", "SIMPLE_LIST"})
CODES_MAX = 2_000  # codes of one request that are remembered


class Subscription(msgspec.Struct, frozen=True):
    """One wanted stream of one code."""

    type: str
    code: str
    units: int
    level: float
    wants_snapshot: bool
    wants_realtime: bool


class UpbitSource(Protocol):
    """What stands behind the doors: the simulated market, or a recording."""

    def now_ms(self) -> int:
        """Return the exchange's clock."""

    def snapshot(self, kind: str, code: str, units: int, *, is_simple: bool) -> str | None:
        """Return the SNAPSHOT frame of a code; None when there is nothing to show."""

    def markets(self) -> list[dict[str, Any]]:
        """Return the rows of market/all with details."""

    def orderbooks(self, codes: list[str], count: int) -> str | None:
        """Return the REST books; None when one market is unknown."""

    def tickers(self, codes: list[str]) -> str | None:
        """Return the REST tickers; None when one market is unknown."""

    def tick_sizes(self, codes: list[str]) -> list[dict[str, Any]] | None:
        """Return the rows of orderbook/instruments; None when one market is unknown."""

    def on_subscribed(self) -> None:
        """Hear of a new subscription."""


class UpbitServer:
    """Upbit's sockets and REST."""

    def __init__(self, source: UpbitSource, plan: FaultPlan, limits: Limits) -> None:
        self.source = source
        self.topics = Topics()
        self.counters = Counters()
        self.clients: set[Client] = set()
        self._plan = plan
        self._limits = limits
        self._connects = Budget((limits.connects,))
        self._rest = {
            group: Budget(((REST_PER_S, 1.0),)) for group in ("market", "ticker", "orderbook")
        }

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this venue's host."""
        return [
            web.get("/websocket/v1", self._socket),
            web.get("/v1/market/all", self._market_all),
            web.get("/v1/orderbook", self._orderbook),
            web.get("/v1/orderbook/instruments", self._instruments),
            web.get("/v1/ticker", self._ticker),
        ]

    async def publish(self, kind: str, code: str, rendered: dict[tuple[int, bool], str]) -> None:
        """Send frames by (units, is simple) to the listeners of a code's stream."""
        packed: dict[tuple[int, str], bytes] = {}
        for client, _ in self.topics.listeners((code, kind)):
            one = client.extra["wanted"][kind, code]
            style = client.extra["format"]
            frame = packed.get((one.units, style))
            if frame is None:
                text = rendered[one.units, style.startswith("SIMPLE")]
                frame = packed[one.units, style] = pack(text, style)
            await client.send(frame, WSMsgType.BINARY)

    def wanted(self, kind: str, code: str) -> set[tuple[int, bool]]:
        """Return which (units, is simple) renderings of a stream anybody waits for."""
        return {
            (client.extra["wanted"][kind, code].units, client.extra["format"].startswith("SIMPLE"))
            for client, _ in self.topics.listeners((code, kind))
        }

    async def keep_alive(self, now_s: float) -> None:
        """Send status frames, and cut idle connections. Call it every second."""
        limits = self._limits
        for client in list(self.clients):
            status_s = client.extra.get("status_s")
            if status_s is not None and now_s - status_s >= limits.status_every_s:
                client.extra["status_s"] = now_s
                await client.send_text('{"status":"UP"}')
            elif 0 < limits.idle_s < now_s - max(client.last_in_s, client.last_out_s):
                self.counters.dropped_idle += 1
                client.abort()

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        now = asyncio.get_running_loop().time()
        if not self._connects.take(now):
            self.counters.refused += 1
            return web.Response(status=429, text='{"error":{"name":"too_many_requests"}}')
        ws = web.WebSocketResponse(
            autoping=False, compress=False, max_msg_size=MESSAGE_BYTES_MAX, timeout=1.0
        )
        await ws.prepare(request)
        slow = self._plan.active(FaultKind.SLOW_CONSUMER, "upbit", "")
        client = Client(
            request, ws, self._limits, self.counters, slow.delay_ms / 1_000 if slow else 0.0
        )
        client.extra.update(wanted={}, format="DEFAULT")
        self.clients.add(client)
        self.counters.connections += 1
        try:
            async for message in ws:
                await self._hear(client, message.type, message.data)
                if client.is_gone:
                    break
        finally:
            client.is_gone = True
            self.clients.discard(client)
            self.topics.forget(client)
        return ws

    async def _hear(self, client: Client, kind: WSMsgType, data: Any) -> None:
        now = asyncio.get_running_loop().time()
        client.last_in_s = now
        if kind is WSMsgType.PING:
            await client.pong(data)
        elif kind is WSMsgType.TEXT and data == "PING":
            client.extra["status_s"] = now
            await client.send_text('{"status":"UP"}')
        elif kind in (WSMsgType.TEXT, WSMsgType.BINARY):
            if not client.budget.take(now):
                self.counters.dropped_limits += 1
                await client.close(1008, "Too many requests")
                return
            await self._request(client, data)

    async def _request(self, client: Client, data: str | bytes) -> None:
        try:
            parts = msgspec.json.decode(data)
        except msgspec.DecodeError:
            parts = None
        problem = _problem(parts)
        if not problem and self._plan.refuses("upbit", _assets(parts)):
            problem = ("INVALID_PARAM", "subscription refused")
        if problem:
            self.counters.malformed_requests += 1
            await client.send(wire.error(*problem).encode(), WSMsgType.BINARY)
            await client.close(1000)
            return
        style = next((part["format"] for part in parts if "format" in part), None)
        if any(part.get("method") == "LIST_SUBSCRIPTIONS" for part in parts):
            if style:
                client.extra["format"] = style
            ticket = next(part["ticket"] for part in parts if "ticket" in part)
            await client.send(_listing(client, ticket), WSMsgType.BINARY)
            return
        client.extra["format"] = style or "DEFAULT"
        await self._replace(client, [one for part in parts for one in _subscriptions(part)])

    async def _replace(self, client: Client, wanted: list[Subscription]) -> None:
        """Make ``wanted`` the whole subscription and send the first frames."""
        self.topics.forget(client)
        client.extra["wanted"] = {(one.type, one.code): one for one in wanted[:CODES_MAX]}
        for one in client.extra["wanted"].values():
            # Prices are not grouped here, so another level delivers nothing.
            if one.wants_realtime and one.level == 0:
                self.topics.add((one.code, one.type), client, one.code)
        self.source.on_subscribed()
        style = client.extra["format"]
        for one in list(client.extra["wanted"].values()):
            if not one.wants_snapshot or one.level != 0:
                continue
            frame = self.source.snapshot(
                one.type, one.code, one.units, is_simple=style.startswith("SIMPLE")
            )
            if frame is not None:
                await client.send(pack(frame, style), WSMsgType.BINARY)

    async def _market_all(self, request: web.Request) -> web.Response:
        rows = self.source.markets()
        if request.query.get("is_details", request.query.get("isDetails")) != "true":
            rows = [{k: v for k, v in row.items() if k != "market_event"} for row in rows]
        return self._reply("market", msgspec.json.encode(rows).decode())

    async def _orderbook(self, request: web.Request) -> web.Response:
        count = request.query.get("count", "30")
        units = int(count) if count.isdigit() and 1 <= int(count) <= 30 else 30
        return self._reply("orderbook", self.source.orderbooks(_codes(request), units))

    async def _ticker(self, request: web.Request) -> web.Response:
        return self._reply("ticker", self.source.tickers(_codes(request)))

    async def _instruments(self, request: web.Request) -> web.Response:
        rows = self.source.tick_sizes(_codes(request))
        body = None if rows is None else msgspec.json.encode(rows).decode()
        return self._reply("orderbook", body)

    def _reply(self, group: str, body: str | None) -> web.Response:
        budget = self._rest[group]
        now = asyncio.get_running_loop().time()
        headers = {"Remaining-Req": f"group={group}; min=600; sec={REST_PER_S - 1}"}
        if not budget.take(now):
            self.counters.refused += 1
            headers["Remaining-Req"] = f"group={group}; min=600; sec=0"
            return web.Response(
                status=429,
                text='{"error":{"name":"too_many_requests","message":"Too many requests"}}',
                content_type="application/json",
                headers=headers,
            )
        if body is None:
            return web.Response(
                status=404,
                text='{"error":{"name":404,"message":"Code not found"}}',
                content_type="application/json",
                headers=headers,
            )
        return web.Response(text=body, content_type="application/json", headers=headers)


def pack(text: str, style: str) -> bytes:
    """Put a frame into the form of the wanted format: the list formats are arrays."""
    return f"[{text}]".encode() if style.endswith("_LIST") else text.encode()


def _codes(request: web.Request) -> list[str]:
    return [code for code in request.query.get("markets", "").split(",") if code]


def _problem(parts: Any) -> tuple[str, str] | None:
    """Name what is wrong with a request, as the exchange does, or None."""
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        return "WRONG_FORMAT", "Format 이 맞지 않습니다."
    if not any(isinstance(part.get("ticket"), str) and part["ticket"] for part in parts):
        return "NO_TICKET", "티켓이 존재하지 않거나, 유효하지 않습니다."
    if any("format" in part and part["format"] not in FORMATS for part in parts):
        return "WRONG_FORMAT", "Format 이 맞지 않습니다."
    if any(part.get("method") == "LIST_SUBSCRIPTIONS" for part in parts):
        return None
    typed = [part for part in parts if "type" in part]
    if not typed:
        return "NO_TYPE", "타입이 존재하지 않습니다."
    for part in typed:
        if part["type"] not in TYPES:
            return "INVALID_PARAM", f"{str(part['type'])[:40]} 은 지원하지 않는 타입입니다."
        codes = part.get("codes")
        if not isinstance(codes, list) or not codes:
            return "NO_CODES", "코드가 존재하지 않습니다."
        if not isinstance(part.get("level", 0), int | float):
            return "INVALID_PARAM", "level 이 유효하지 않습니다."
    return None


def _assets(parts: list[dict[str, Any]]) -> list[str]:
    wanted = [one.code for part in parts for one in _subscriptions(part)]
    return [code.partition("-")[2] for code in wanted]


def _subscriptions(part: dict[str, Any]) -> list[Subscription]:
    if "type" not in part:
        return []
    # The camelCase spelling of 2021 is still accepted.
    only_snapshot = part.get("is_only_snapshot", part.get("isOnlySnapshot", False))
    only_realtime = part.get("is_only_realtime", part.get("isOnlyRealtime", False))
    found = []
    for code in part["codes"]:
        name, dot, suffix = str(code).partition(".")
        units = int(suffix) if dot and suffix.isdigit() else 30
        found.append(
            Subscription(
                part["type"],
                name,
                units if units in UNITS else 30,
                float(part.get("level") or 0),
                wants_snapshot=not only_realtime,
                wants_realtime=not only_snapshot,
            )
        )
    return found


def _listing(client: Client, ticket: str) -> bytes:
    is_simple = client.extra["format"].startswith("SIMPLE")
    by_type: dict[str, list[str]] = {}
    for one in client.extra["wanted"].values():
        name = f"{one.code}.{one.units}" if one.units != 30 else one.code
        by_type.setdefault(one.type, []).append(name)
    keys = ("ty", "cds", "lv") if is_simple else ("type", "codes", "level")
    rows = [dict(zip(keys, (kind, codes, 0), strict=True)) for kind, codes in by_type.items()]
    names = ("mthd", "rslt", "tckt") if is_simple else ("method", "result", "ticket")
    return msgspec.json.encode(dict(zip(names, ("LIST_SUBSCRIPTIONS", rows, ticket), strict=True)))
