"""Binance's REST replies that arb_ray needs; parsing is in ``rules`` and ``codec``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from arb_ray.adapters.venues.binance import rules
from arb_ray.adapters.venues.binance.endpoints import endpoints_of, snapshot_request
from arb_ray.domain.instrument import Venue, VenueSymbol
from arb_ray.engine.market_event import MarketListing

WEIGHT_GROUP = "weight"
"""Binance counts all requests of one IP address by weight a minute."""


class Rest(Protocol):
    """What is needed of the HTTP client: one GET within its budgets."""

    async def get_bytes(
        self,
        path: str,
        params: Mapping[str, str | int] | None = None,
        *,
        weight: int = 1,
        group: str = "default",
    ) -> bytes:
        """Return the body of an answer with status 200."""
        ...


async def fetch_markets(rest: Rest, venue: Venue, at_ns: int) -> dict[VenueSymbol, MarketListing]:
    """
    Return every symbol with its status and trading rules, read at ``at_ns``.

    Raises:
        VenueUnreachable, RateLimited: Try again.
        VenueRefused, MalformedFrame: The reply is of no use.
    """
    where = endpoints_of(venue)
    reply = await rest.get_bytes(
        where.exchange_info_path, weight=where.exchange_info_weight, group=WEIGHT_GROUP
    )
    return rules.parse_exchange_info(reply, venue, at_ns)


async def fetch_snapshot(rest: Rest, venue: Venue, venue_symbol: VenueSymbol, levels: int) -> bytes:
    """
    Return the raw depth snapshot of a symbol, for the feed's ``on_snapshot``.

    ``levels`` is rounded up to a limit that the venue serves.

    Raises:
        VenueUnreachable, RateLimited: Try again.
        VenueRefused: The symbol is unknown.
    """
    limit, weight = snapshot_request(venue, levels)
    params: dict[str, str | int] = {"symbol": venue_symbol, "limit": limit}
    path = endpoints_of(venue).depth_path
    return await rest.get_bytes(path, params, weight=weight, group=WEIGHT_GROUP)
