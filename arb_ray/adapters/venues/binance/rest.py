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


WEIGHT_WINDOW_S = 60.0
USED_WEIGHT_HEADER = "X-MBX-USED-WEIGHT-1M"
MAX_WEIGHT_DIGITS = 9


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


async def fetch_weight_per_min(rest: Rest, venue: Venue, venue_symbol: VenueSymbol) -> int | None:
    """
    Return the request weight a minute that the venue grants now; None when it does not say.

    Raises:
        VenueUnreachable, RateLimited: Try again.
        VenueRefused, MalformedFrame: The reply is of no use.
    """
    where = endpoints_of(venue)
    # The limits are all that is wanted; spot can leave out the other thousands of symbols.
    params = {"symbol": venue_symbol} if venue is Venue.BINANCE_SPOT else None
    reply = await rest.get_bytes(
        where.exchange_info_path, params, weight=where.exchange_info_weight, group=WEIGHT_GROUP
    )
    return rules.parse_weight_per_min(reply, venue)


def weight_used(headers: Mapping[str, str]) -> int | None:
    """Return the weight that our address used in the running minute, as a reply tells it."""
    told = headers.get(USED_WEIGHT_HEADER, "").strip()
    return int(told) if told.isdecimal() and len(told) <= MAX_WEIGHT_DIGITS else None


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
