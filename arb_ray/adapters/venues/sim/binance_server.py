"""
Binance's WebSocket and REST doors, spot and USD-M; what they serve comes from a source.

Rules from the protocol sheet, sections 1 and 2 (Binance's web-socket-streams and rest-api
pages of 2026-07, and the change notice on routed futures paths of April 2026).
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final, Protocol

import msgspec
from aiohttp import WSMsgType, web

from arb_ray.adapters.venues.sim import binance_wire as wire
from arb_ray.adapters.venues.sim.clients import (
    MESSAGE_BYTES_MAX,
    Budget,
    Client,
    Counters,
    Limits,
    Topics,
)
from arb_ray.adapters.venues.sim.coins import asset_of_symbol
from arb_ray.adapters.venues.sim.faults import FaultKind, FaultPlan

SPOT_LIMITS: Final = Limits(
    messages=((5, 1.0),), connects=(300, 300.0), ping_every_s=20, pong_within_s=60
)
USDM_LIMITS: Final = Limits(
    messages=((10, 1.0),), connects=(300, 300.0), ping_every_s=180, pong_within_s=600
)
SPOT_DEPTH_WEIGHTS: Final = ((100, 5), (500, 25), (1_000, 50), (5_000, 250))
USDM_DEPTH_WEIGHTS: Final = ((50, 2), (100, 5), (500, 10), (1_000, 20))
USDM_DEPTH_LIMITS: Final = frozenset({5, 10, 20, 50, 100, 500, 1_000})
WEIGHT_PER_MINUTE: Final = {"binance_spot": 6_000, "binance_usdm": 2_400}

_PARTIAL = re.compile(r"depth(5|10|20)(@.+)?")
_DIFF = re.compile(r"depth(@.+)?")
_MARKET_CLASS = re.compile(r"aggTrade|markPrice|kline|ticker|miniTicker|forceOrder|contractInfo")


class BinanceSource(Protocol):
    """What stands behind the doors: the simulated market, or a recording."""

    venue: str

    def now_ms(self) -> int:
        """Return the exchange's clock."""

    async def depth(self, symbol: str, limit: int) -> str | None:
        """Return a REST snapshot's body; None for a symbol that is not listed."""

    def exchange_info(self) -> dict[str, Any]:
        """Return the body of exchangeInfo."""

    def premium_index(self) -> list[dict[str, Any]]:
        """Return the rows of premiumIndex (USD-M)."""

    def on_subscribed(self) -> None:
        """Hear of a new subscription."""


def topic_of(stream: str) -> tuple[str, str]:
    """Return (symbol, channel) of a stream name; update speeds are not told apart."""
    symbol, _, channel = stream.partition("@")
    if partial := _PARTIAL.fullmatch(channel):
        return symbol, f"partial{partial[1]}"
    if _DIFF.fullmatch(channel):
        return symbol, "diff"
    if channel.startswith("markPrice"):
        return symbol, "markPrice"
    return symbol, channel


class BinanceServer:
    """One Binance market's sockets and REST."""

    def __init__(self, source: BinanceSource, plan: FaultPlan, limits: Limits) -> None:
        self.source = source
        self.topics = Topics()
        self.counters = Counters()
        self.clients: set[Client] = set()
        self._plan = plan
        self._limits = limits
        self._connects = Budget((limits.connects,))
        self._is_usdm = source.venue == "binance_usdm"
        self._weight = (-1, 0)  # (minute, used)

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this venue's host."""
        if not self._is_usdm:
            return [
                web.get("/ws", self._spot_socket),
                web.get("/ws/{streams:.+}", self._spot_socket),
                web.get("/stream", self._spot_socket),
                web.get("/api/v3/ping", self._ping),
                web.get("/api/v3/time", self._time),
                web.get("/api/v3/exchangeInfo", self._exchange_info),
                web.get("/api/v3/depth", self._depth),
            ]
        sockets = [
            web.get(f"{prefix}/{tail}", self._usdm_socket)
            for prefix in ("", "/public", "/market")
            for tail in ("ws", "ws/{streams:.+}", "stream")
        ]
        return [
            *sockets,
            web.get("/fapi/v1/ping", self._ping),
            web.get("/fapi/v1/time", self._time),
            web.get("/fapi/v1/exchangeInfo", self._exchange_info),
            web.get("/fapi/v1/depth", self._depth),
            web.get("/fapi/v1/premiumIndex", self._premium_index),
            web.get("/fapi/v1/fundingInfo", self._funding_info),
        ]

    async def publish(self, topic: tuple[str, str], payload: str) -> None:
        """Send a payload to everybody who listens to ``topic``, rendered once per name."""
        bare = b""
        enveloped: dict[str, bytes] = {}
        for client, name in self.topics.listeners(topic):
            if client.is_combined:
                frame = enveloped.get(name)
                if frame is None:
                    frame = enveloped[name] = wire.enveloped(name, payload)
            else:
                frame = bare = bare or payload.encode()
            await client.send(frame, WSMsgType.TEXT)

    async def keep_alive(self, now_s: float) -> None:
        """Ping, and end connections that are silent or too old. Call it every second."""
        limits = self._limits
        for client in list(self.clients):
            if now_s - client.connected_s > limits.lifetime_s:
                await self.say_goodbye(client)
            elif (
                client.pinged_s > client.ponged_s
                and now_s - client.ponged_s > limits.ping_every_s + limits.pong_within_s
            ):
                self.counters.dropped_idle += 1
                client.abort()
            elif 0 < limits.ping_every_s <= now_s - client.pinged_s:
                await client.ping(str(self.source.now_ms()).encode())

    async def say_goodbye(self, client: Client) -> None:
        """Announce a planned close, then close (rule since 2026-05-08)."""
        event = f'{{"e":"serverShutdown","E":{self.source.now_ms()}}}'
        if client.is_combined:
            event = f'{{"stream":"!serverShutdown","data":{event}}}'
        await client.send_text(event)
        await client.close(1001, "server shutdown")

    async def _spot_socket(self, request: web.Request) -> web.StreamResponse:
        return await self._socket(request, "")

    async def _usdm_socket(self, request: web.Request) -> web.StreamResponse:
        # The unrouted paths were retired on 2026-04-23 and carry at most the public class.
        stream_class = "market" if request.path.startswith("/market") else "public"
        return await self._socket(request, stream_class)

    async def _socket(self, request: web.Request, stream_class: str) -> web.StreamResponse:
        if not self._connects.take(asyncio.get_running_loop().time()):
            self.counters.refused += 1
            return web.Response(status=429, text="Too many connection attempts")
        ws = web.WebSocketResponse(
            autoping=False, compress=False, max_msg_size=MESSAGE_BYTES_MAX, timeout=1.0
        )
        await ws.prepare(request)
        slow = self._plan.active(FaultKind.SLOW_CONSUMER, self.source.venue, "")
        client = Client(
            request, ws, self._limits, self.counters, slow.delay_ms / 1_000 if slow else 0.0
        )
        client.stream_class = stream_class
        client.is_combined = request.path.endswith("/stream")
        self.clients.add(client)
        self.counters.connections += 1
        named = request.query.get("streams") or request.match_info.get("streams") or ""
        self._subscribe(client, [name for name in named.split("/") if name])
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
        if not client.budget.take(now):
            self.counters.dropped_limits += 1
            await client.close(1008, "Too many requests")
        elif kind is WSMsgType.PING:
            await client.pong(data)
        elif kind is WSMsgType.PONG:
            client.ponged_s = now
        elif kind is WSMsgType.TEXT:
            await self._control(client, data)

    async def _control(self, client: Client, text: str) -> None:
        try:
            request = msgspec.json.decode(text)
        except msgspec.DecodeError:
            self.counters.malformed_requests += 1
            await client.send_text('{"code":3,"msg":"Invalid JSON: expected value at line 1"}')
            return
        if not isinstance(request, dict):
            self.counters.malformed_requests += 1
            await client.send_text('{"code":2,"msg":"Invalid request: request must be an object"}')
            return
        code, result = self._answer(client, request)
        reply: dict[str, Any]
        if code is None:
            reply = {"result": result, "id": request.get("id")}
        else:
            reply = {"code": code, "msg": result}
            if "id" in request:
                reply["id"] = request["id"]
            self.counters.refused += 1
        await client.send_text(msgspec.json.encode(reply).decode())

    def _answer(self, client: Client, request: dict[str, Any]) -> tuple[int | None, Any]:
        """Return an error code and message, or None and the result."""
        method, params = request.get("method"), request.get("params", [])
        if method == "LIST_SUBSCRIPTIONS":
            return None, list(client.streams)
        if method == "GET_PROPERTY":
            return (None, client.is_combined) if params == ["combined"] else _UNKNOWN_PROPERTY
        if method == "SET_PROPERTY":
            if not isinstance(params, list) or len(params) != 2 or params[0] != "combined":
                return _UNKNOWN_PROPERTY
            if not isinstance(params[1], bool):
                return 1, "Invalid value type: expected Boolean"
            client.is_combined = params[1]
            return None, None
        if method not in ("SUBSCRIBE", "UNSUBSCRIBE"):
            return 2, f"Invalid request: unknown variant `{method}`, expected one of `SUBSCRIBE`"
        if not isinstance(params, list) or not all(isinstance(name, str) for name in params):
            return 2, "Invalid request: params must be an array of strings"
        if method == "UNSUBSCRIBE":
            for name in params:
                client.streams.pop(name, None)
                self.topics.remove(topic_of(name), client, name)
            return None, None
        assets = [asset_of_symbol(topic_of(name)[0]) for name in params]
        if self._plan.refuses(self.source.venue, assets):
            return 2, "Invalid request: subscription refused"
        if len(client.streams | dict.fromkeys(params)) > self._limits.streams_max:
            return 2, "Invalid request: too many streams"
        self._subscribe(client, params)
        return None, None

    def _subscribe(self, client: Client, names: list[str]) -> None:
        for name in names[: self._limits.streams_max]:
            client.streams[name] = None
            symbol, channel = topic_of(name)
            wanted = "market" if _MARKET_CLASS.match(channel) else "public"
            # A stream of the other class, or of an unknown symbol, is accepted and silent.
            if client.stream_class in ("", wanted):
                self.topics.add((symbol, channel), client, name)
        if names:
            self.source.on_subscribed()

    async def _ping(self, _: web.Request) -> web.Response:
        return self._reply(b"{}", 1)

    async def _time(self, _: web.Request) -> web.Response:
        return self._reply(f'{{"serverTime":{self.source.now_ms()}}}'.encode(), 1)

    async def _exchange_info(self, _: web.Request) -> web.Response:
        return self._reply(msgspec.json.encode(self.source.exchange_info()), 20)

    async def _premium_index(self, request: web.Request) -> web.Response:
        rows = self.source.premium_index()
        symbol = request.query.get("symbol")
        if symbol is None:
            return self._reply(msgspec.json.encode(rows), 10)
        for row in rows:
            if row["symbol"] == symbol:
                return self._reply(msgspec.json.encode(row), 1)
        return _refusal(-1121, "Invalid symbol.")

    async def _funding_info(self, _: web.Request) -> web.Response:
        # Only symbols whose cap or interval was adjusted are listed; none is here.
        return self._reply(b"[]", 1)

    async def _depth(self, request: web.Request) -> web.Response:
        symbol = request.query.get("symbol", "")
        text = request.query.get("limit", "500" if self._is_usdm else "100")
        if not symbol:
            return _refusal(-1102, "Mandatory parameter 'symbol' was not sent.")
        limit = int(text) if text.isdigit() else 0
        if limit < 1 or (self._is_usdm and limit not in USDM_DEPTH_LIMITS):
            return _refusal(-4021 if self._is_usdm else -1100, f"{text} is not valid depth limit")
        body = await self.source.depth(symbol, min(limit, 5_000))
        if body is None:
            return _refusal(-1121, "Invalid symbol.")
        weights = USDM_DEPTH_WEIGHTS if self._is_usdm else SPOT_DEPTH_WEIGHTS
        weight = next((w for bound, w in weights if limit <= bound), weights[-1][1])
        return self._reply(body.encode(), weight)

    def _reply(self, body: bytes, weight: int) -> web.Response:
        minute = self.source.now_ms() // 60_000
        used = weight + (self._weight[1] if self._weight[0] == minute else 0)
        self._weight = (minute, used)
        headers = {"X-MBX-USED-WEIGHT-1M": str(used)}
        if used > WEIGHT_PER_MINUTE[self.source.venue]:
            headers["Retry-After"] = "60"
            self.counters.refused += 1
            return web.Response(
                status=429,
                text='{"code":-1003,"msg":"Too much request weight used."}',
                content_type="application/json",
                headers=headers,
            )
        return web.Response(body=body, content_type="application/json", headers=headers)


_UNKNOWN_PROPERTY: Final = (0, "Unknown property")


def _refusal(code: int, message: str) -> web.Response:
    body = msgspec.json.encode({"code": code, "msg": message})
    return web.Response(status=400, body=body, content_type="application/json")
