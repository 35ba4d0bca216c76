"""Upbit's REST replies that arb_ray needs; parsing is in ``rules``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Protocol

from arb_ray.adapters.venues.upbit import rules
from arb_ray.adapters.venues.upbit.endpoints import INSTRUMENTS_PATH, MARKETS_PATH, ORDERBOOK_PATH
from arb_ray.domain.instrument import TradingRules, VenueSymbol
from arb_ray.engine.market_event import MarketListing

MARKET_GROUP = "market"
ORDERBOOK_GROUP = "orderbook"
"""Upbit counts requests by group: 10 a second each, per IP address."""

MARKETS_PER_REQUEST = 100
"""Keeps the address of a request near a kilobyte."""


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


async def fetch_markets(rest: Rest) -> tuple[MarketListing, ...]:
    """
    Return every market with its warnings.

    Raises:
        VenueUnreachable, RateLimited: Try again.
        VenueRefused, MalformedFrame: The reply is of no use.
    """
    params = {"is_details": "true"}
    return rules.parse_markets(await rest.get_bytes(MARKETS_PATH, params, group=MARKET_GROUP))


async def fetch_rules(
    rest: Rest, markets: Sequence[VenueSymbol], at_ns: int
) -> dict[VenueSymbol, TradingRules]:
    """
    Return the trading rules of KRW ``markets``; a market without an answer gets the table's.

    Raises:
        VenueUnreachable, RateLimited: Try again.
        VenueRefused: One of the markets is unknown; Upbit then answers for none (404).
        MalformedFrame: The reply is of no use.
        BadInput: A market is not quoted in KRW.
    """
    ticks: dict[VenueSymbol, Decimal] = {}
    wanted = list(dict.fromkeys(markets))
    for part in _parts(wanted):
        reply = await rest.get_bytes(INSTRUMENTS_PATH, {"markets": part}, group=ORDERBOOK_GROUP)
        ticks.update(rules.parse_ticks(reply))
    return rules.rules_from_ticks(ticks, wanted, at_ns)


async def fetch_mids(rest: Rest, markets: Sequence[VenueSymbol]) -> dict[VenueSymbol, Decimal]:
    """
    Return the middle of each market's book, in its quote.

    Raises:
        VenueUnreachable, RateLimited: Try again.
        VenueRefused: One of the markets is unknown; Upbit then answers for none (404).
        MalformedFrame: The reply is of no use.
    """
    mids: dict[VenueSymbol, Decimal] = {}
    for part in _parts(list(dict.fromkeys(markets))):
        params: dict[str, str | int] = {"markets": part, "count": 1}
        mids |= rules.parse_mids(
            await rest.get_bytes(ORDERBOOK_PATH, params, group=ORDERBOOK_GROUP)
        )
    return mids


def _parts(markets: Sequence[VenueSymbol]) -> Iterator[str]:
    for start in range(0, len(markets), MARKETS_PER_REQUEST):
        yield ",".join(markets[start : start + MARKETS_PER_REQUEST])
