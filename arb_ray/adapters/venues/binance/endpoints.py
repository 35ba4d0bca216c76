"""
Where Binance spot and USD-M futures are, and what they allow there.

Spot: binance-spot-api-docs of 2026-07-21. USD-M: developers.binance.com pages of 2026-10 and
"Important WebSocket Change Notice": since 2026-04-23 streams are split by class, and a stream
on the wrong path is silent.
"""

from __future__ import annotations

import msgspec

from arb_ray.domain.instrument import Venue


class Limits(msgspec.Struct, frozen=True):
    """What one market allows; connections live 24 h at most in both."""

    messages_per_s: int  # that we send on one connection, pings and pongs counted
    rest_weight_per_min: int
    snapshot_levels: tuple[int, ...]  # limits that the depth request takes
    snapshot_weights: tuple[int, ...]  # the weight of each of them


class Endpoints(msgspec.Struct, frozen=True):
    """One market's addresses. ``market_path`` is "" where all streams share one path."""

    ws_base: str
    public_path: str
    market_path: str
    rest_base: str
    depth_path: str
    exchange_info_path: str
    exchange_info_weight: int
    limits: Limits


SPOT = Endpoints(
    ws_base="wss://stream.binance.com:9443",
    public_path="/stream",
    market_path="",
    rest_base="https://api.binance.com",
    depth_path="/api/v3/depth",
    exchange_info_path="/api/v3/exchangeInfo",
    exchange_info_weight=20,
    # 6000 a minute stands as an example in the docs; exchangeInfo's rateLimits tell the truth.
    limits=Limits(5, 6_000, (100, 500, 1_000, 5_000), (5, 25, 50, 250)),
)

USDM = Endpoints(
    ws_base="wss://fstream.binance.com",
    public_path="/public/stream",
    market_path="/market/stream",
    rest_base="https://fapi.binance.com",
    depth_path="/fapi/v1/depth",
    exchange_info_path="/fapi/v1/exchangeInfo",
    exchange_info_weight=1,
    limits=Limits(10, 2_400, (50, 100, 500, 1_000), (2, 5, 10, 20)),
)

ROTATE_AFTER_S = 23 * 3_600.0
"""An hour before the venue would end the connection, at 24 h."""

PING_INTERVAL_S = 15.0
"""The server pings every 20 s (spot) or 3 min (USD-M); our pings prove life sooner."""

STREAMS_PER_CONNECTION_MAX = 1_024
CONNECTS_PER_5_MIN = 300  # per IP address


def endpoints_of(venue: Venue) -> Endpoints:
    """Return the addresses of one of Binance's two markets."""
    assert venue in {Venue.BINANCE_SPOT, Venue.BINANCE_USDM}, venue
    return SPOT if venue is Venue.BINANCE_SPOT else USDM


def snapshot_request(venue: Venue, levels: int) -> tuple[int, int]:
    """Return the smallest ``limit`` that covers ``levels``, and its weight."""
    limits = endpoints_of(venue).limits
    choices = list(zip(limits.snapshot_levels, limits.snapshot_weights, strict=True))
    return next(((limit, weight) for limit, weight in choices if limit >= levels), choices[-1])
