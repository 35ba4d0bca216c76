"""Made-up statuses for tests of what people see."""

from decimal import Decimal

from arb_ray.app.run_context import RunContext
from arb_ray.domain.ledger import PnlParts
from arb_ray.engine.latency import LatencyHistogram
from arb_ray.engine.status import (
    FeedStatus,
    HostStatus,
    OpportunityLine,
    SymbolRow,
    SystemStatus,
    TradeLine,
)

NOON_NS = 1_767_182_400 * 10**9  # 2025-12-31 12:00:00 UTC
SYMBOLS = [
    "ADA",
    "AVAX",
    "BCH",
    "BTC",
    "DOGE",
    "DOT",
    "ETC",
    "ETH",
    "HBAR",
    "LINK",
    "NEAR",
    "PEPE",
    "SAND",
    "SHIB",
    "SOL",
    "SUI",
    "TRX",
    "USDC",
    "XLM",
    "XRP",
]
PRICES_KRW = dict.fromkeys(SYMBOLS, 2_345.0) | {
    "BTC": 145_230_000.0,
    "ETH": 4_812_000.0,
    "PEPE": 0.0123,
    "SHIB": 0.01812,
}
PARTS = PnlParts(
    spread=Decimal("2.31000000"),
    fx=Decimal("-0.01000000"),
    fees=Decimal("-1.50000000"),
    slippage=Decimal("-0.22000000"),
    funding=Decimal(0),
)


def context(**changes):
    said = {
        "session_id": "s-20251231-120000-7f3a",
        "env": "dev",
        "source": "sim",
        "preset": "lively",
        "seed": 7,
        "symbols": tuple(SYMBOLS),
        "venues": ("upbit", "binance_spot"),
        "duration_s": 60.0,
    }
    return RunContext(**(said | changes))


def symbol_row(symbol, **changes):
    price_krw = PRICES_KRW.get(symbol, 1_000.0)
    said = {
        "symbol": symbol,
        "bid_a_krw": price_krw,
        "ask_a_krw": price_krw * 1.0003,
        "bid_b_usdt": price_krw / 1_465,
        "ask_b_usdt": price_krw / 1_465 * 1.0001,
        "premium_bps": 3.2,
        "gross_bps": -4.1,
        "net_bps": -39.6,
        "direction": "long_b_short_a",
        "refusal": "no_edge",
        "age_a_ms": 38.0,
        "age_b_ms": 12.0,
    }
    return SymbolRow(**(said | changes))


def opportunity(at_ns=NOON_NS, **changes):
    said = {
        "at_ns": at_ns,
        "symbol": "XRP",
        "direction": "long_b_short_a",
        "notional_usdt": 498.7,
        "gross_bps": 71.4,
        "entry_fees_bps": 15.0,
        "exit_fees_bps": 15.0,
        "exit_spread_bps": 4.4,
        "slippage_bps": 2.0,
        "exit_premium_bps": 0.0,
        "funding_bps": 0.0,
        "buffer_bps": 1.0,
        "net_bps": 34.0,
        "outcome": "signalled",
    }
    return OpportunityLine(**(said | changes))


def closed_trade(at_ns=NOON_NS, **changes):
    said = {
        "at_ns": at_ns,
        "trade_id": "dev:XRP:12",
        "symbol": "XRP",
        "what": "closed",
        "direction": "long_b_short_a",
        "qty": Decimal("235.40"),
        "notional_usdt": Decimal("498.71234"),
        "realized_usdt": PARTS.total,
        "parts": PARTS,
        "reason": "take_profit",
        "held_ms": 12_340,
    }
    return TradeLine(**(said | changes))


def opened_trade(at_ns=NOON_NS, **changes):
    return closed_trade(
        at_ns, what="opened", realized_usdt=None, parts=None, reason="", held_ms=0, **changes
    )


def host(symbols, *, lines=10, trades_closed=3, **changes):
    histogram = LatencyHistogram()
    for duration_ns in (200_000, 400_000, 900_000, 5_000_000):
        histogram.add(duration_ns, 1_000)
    rows = [symbol_row(symbol) for symbol in symbols]
    if rows:
        rows[0] = symbol_row(
            symbols[0],
            phase="holding",
            mark_usdt=Decimal("-0.42"),
            realized_usdt=Decimal("1.73"),
            trades_closed=3,
            net_bps=21.5,
            gross_bps=57.0,
            refusal="busy",
        )
    said = {
        "ready": True,
        "why": "",
        "symbols": list(symbols),
        "live": list(symbols),
        "decisions": 17_000,
        "received": 17_400,
        "conflated": 400,
        "opportunities": 6,
        "refusals": {"no_edge": 16_500, "warming_up": 30, "edge_gone": 2},
        "trades_opened": 4,
        "trades_closed": trades_closed,
        "open_positions": 1,
        "realized_usdt": PARTS.total * trades_closed,
        "fees_usdt": Decimal("1.5") * trades_closed,
        "parts": PnlParts(
            *(getattr(PARTS, name) * trades_closed for name in PnlParts.__struct_fields__)
        ),
        "latency_counts": histogram.sparse(),
        "latency_max_ns": histogram.max_ns,
        "rows": rows,
        "recent_opportunities": [
            opportunity(NOON_NS + at * 10**9, symbol=symbols[at % len(symbols)])
            for at in range(lines if symbols else 0)
        ],
        "recent_trades": [
            (opened_trade if at % 2 else closed_trade)(
                NOON_NS + at * 10**9, symbol=symbols[at % len(symbols)]
            )
            for at in range(lines if symbols else 0)
        ],
    }
    return HostStatus(**(said | changes))


def feed(venue, **changes):
    said = {
        "ready": True,
        "why": "",
        "venue": venue,
        "connected": True,
        "routes": "abcd",
        "frames": 12_345,
        "book_updates": 11_980,
        "sent": 9_000,
        "conflated": 120,
    }
    return FeedStatus(**(said | changes))


def risk(**changes):
    """As ``RiskGuard.status`` tells it: plain data with money as text."""
    said = {
        "state": "active",
        "reason": "",
        "epoch": 3,
        "flatten": [],
        "flatten_all": False,
        "day": "2025-12-31",
        "realized_usdt": "1.73",
        "daily_loss_usdt": "12.5",
        "reserved_usdt": "30",
        "daily_limit_usdt": "200",
        "open_trades": 2,
        "at_ns": NOON_NS,
        "ready": True,
        "refusals": {},
        "loops": ("guard",),
    }
    return said | changes


def persistence(**changes):
    said = {
        "snapshots_written": 340,
        "snapshots_dropped": 0,
        "spooled": 0,
        "buffered": 3,
        "postgres": "up",
        "redis": "up",
        "redis_ms": 0.2,
    }
    return said | changes


def status(symbols=tuple(SYMBOLS), **changes):
    middle = (len(symbols) + 1) // 2
    groups = [group for group in (symbols[:middle], symbols[middle:]) if group]
    hosts = {f"host:{index:03d}@v": host(list(group)) for index, group in enumerate(groups)}
    said = {
        "session_id": "s-20251231-120000-7f3a",
        "topology": "t",
        "draining": False,
        "wanted": [],
        "hosts": hosts,
        "feeds": {
            "feed:upbit@v": feed("upbit"),
            "feed:binance_spot@v": feed("binance_spot", frames=20_000, book_updates=19_500),
        },
        "risk": risk(),
        "persistence": persistence(),
        "source": {"ready": True},
        "gateway": {"ready": True},
        "missing": [],
        "age_s": 0.3,
    }
    return SystemStatus(**(said | changes))
