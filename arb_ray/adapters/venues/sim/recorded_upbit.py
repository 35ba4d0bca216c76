"""An Upbit recording behind Upbit's doors: frames verbatim, in the format that is asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import msgspec

from arb_ray.adapters.storage.recordings import RecordedFrame
from arb_ray.adapters.venues.sim.coins import E8, upbit_tick_e8
from arb_ray.adapters.venues.sim.upbit_server import UNITS, UpbitServer
from arb_ray.adapters.venues.sim.upbit_wire import SHORT_KEYS, plain

LONG_KEYS: Final = {
    kind: {short: long for long, short in keys.items()} for kind, keys in SHORT_KEYS.items()
}
_NAMED = re.compile(r'"(?:ty|type)":"(\w+)"[^{\[]*?"(?:cd|code)":"([^"]+)"')
_KEY = re.compile(r'"(\w+)":')
_UNITS = re.compile(r'("(?:obu|orderbook_units)":\[)(.*?)(\])', re.DOTALL)
_STREAM_TYPE = re.compile(r'("(?:st|stream_type)":)"\w+"')
_BID = re.compile(r'"(?:bp|bid_price)":([0-9.E+-]+)')


class RecordedSource:
    """Everything of Upbit in the recordings."""

    def __init__(self, clock_ms: Callable[[], int], subscribed: Callable[[], None]) -> None:
        self._clock_ms = clock_ms
        self._subscribed = subscribed
        self._first: dict[tuple[str, str], str] = {}
        self._last: dict[tuple[str, str], str] = {}

    @property
    def symbols(self) -> tuple[str, ...]:
        """The codes with at least one recorded frame."""
        return tuple(sorted({code for _, code in self._first}))

    def scan(self, frame: RecordedFrame) -> None:
        """Learn codes from a frame before anything is served."""
        if frame.request is None and (named := _NAMED.search(frame.raw)):
            self._first.setdefault((named[1], named[2]), frame.raw)

    async def play(self, server: UpbitServer, frame: RecordedFrame) -> None:
        """Let one frame happen now."""
        if frame.request is not None or not (named := _NAMED.search(frame.raw)):
            return
        kind, code = named[1], named[2]
        self._last[kind, code] = frame.raw
        rendered = {
            key: _as_asked(kind, frame.raw, key[0], is_simple=key[1])
            for key in server.wanted(kind, code)
        }
        await server.publish(kind, code, rendered)

    def now_ms(self) -> int:
        """Return the recording's clock."""
        return self._clock_ms()

    def on_subscribed(self) -> None:
        """Start the recording, if this was what it waited for."""
        self._subscribed()

    def snapshot(self, kind: str, code: str, units: int, *, is_simple: bool) -> str | None:
        """Return the newest frame so far as a snapshot; None before the first."""
        raw = self._last.get((kind, code))
        if raw is None:
            return None
        frame = _as_asked(kind, raw, units, is_simple=is_simple)
        return _STREAM_TYPE.sub(r'\1"SNAPSHOT"', frame)

    def markets(self) -> list[dict[str, Any]]:
        """Return the codes seen."""
        return [
            {
                "market": code,
                "korean_name": code,
                "english_name": code,
                "market_event": {"warning": False, "caution": {}},
            }
            for code in self.symbols
        ]

    def orderbooks(self, codes: list[str], count: int) -> str | None:
        """Return the books at this moment of the recording."""
        return self._rest("orderbook", codes, count)

    def tickers(self, codes: list[str]) -> str | None:
        """Return the tickers at this moment of the recording, if it has any."""
        return self._rest("ticker", codes, 1)

    def tick_sizes(self, codes: list[str]) -> list[dict[str, Any]] | None:
        """Return tick sizes by today's table; other quotes than KRW move in 1e-8."""
        rows = []
        for code in codes:
            raw = self._raw("orderbook", code) or self._raw("trade", code)
            if raw is None:
                return None
            bid = _BID.search(raw)
            tick = "0.00000001"
            if code.startswith("KRW-") and bid:
                tick = plain(upbit_tick_e8(int(Decimal(bid[1]) * E8)))
            rows.append(
                {
                    "market": code,
                    "quote_currency": code.partition("-")[0],
                    "tick_size": tick,
                    "supported_levels": ["0"],
                }
            )
        return rows

    def _raw(self, kind: str, code: str) -> str | None:
        return self._last.get((kind, code)) or self._first.get((kind, code))

    def _rest(self, kind: str, codes: list[str], count: int) -> str | None:
        bodies = []
        for code in codes:
            raw = self._raw(kind, code)
            if raw is None:
                return None
            frame = msgspec.json.decode(_as_asked(kind, raw, count, is_simple=False))
            frame = {"market": frame.pop("code"), **frame}
            for key in ("type", "stream_type"):
                frame.pop(key, None)
            bodies.append(frame)
        return msgspec.json.encode(bodies).decode() if bodies else None


def _as_asked(kind: str, raw: str, units: int, *, is_simple: bool) -> str:
    """Rename keys and cut units; numbers keep the recording's spelling."""
    names = (SHORT_KEYS if is_simple else LONG_KEYS).get(kind, {})
    text = _KEY.sub(lambda found: f'"{names.get(found[1], found[1])}":', raw)
    if kind != "orderbook" or units == max(UNITS):
        return text

    def cut(found: re.Match[str]) -> str:
        rows = found[2].split("},{")
        kept = "},{".join(rows[:units])
        return found[1] + kept + ("" if len(rows) <= units else "}") + found[3]

    return _UNITS.sub(cut, text)
