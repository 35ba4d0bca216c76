"""REST clients within the venues' budgets, and how patiently they are asked at a start."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from arb_ray.adapters.transport.backoff import Backoff, BackoffPolicy
from arb_ray.adapters.transport.http import Reply, RestClient, RestPolicy, with_retries
from arb_ray.adapters.transport.rate_limit import Window
from arb_ray.adapters.venues.binance import rest as binance_rest
from arb_ray.adapters.venues.binance.endpoints import endpoints_of
from arb_ray.adapters.venues.upbit import rest as upbit_rest
from arb_ray.app.settings import Settings
from arb_ray.domain.errors import VenueUnreachable
from arb_ray.domain.instrument import Venue

T = TypeVar("T")

START_ATTEMPTS_MAX = 4
START_WAIT_MAX_S = 4.0
START_READ_MAX_S = 20.0
"""For rules, and again for prices: together below the minute that hosts and guard wait."""


def rest_client(
    settings: Settings, venue: Venue, on_reply: Callable[[Reply], None] | None = None
) -> RestClient:
    """Return a venue's REST client within the venue's budgets; enter it before use."""
    section = getattr(settings.venues, venue)
    if venue is Venue.UPBIT:
        per_s = Window(section.rest_requests_per_s_count, 1.0)
        groups = {upbit_rest.MARKET_GROUP: (per_s,), upbit_rest.ORDERBOOK_GROUP: (per_s,)}
    else:
        per_min = endpoints_of(venue).limits.rest_weight_per_min
        groups = {binance_rest.WEIGHT_GROUP: (Window(per_min, binance_rest.WEIGHT_WINDOW_S),)}
    policy = RestPolicy(
        venue=venue, base_url=section.rest_url, groups=groups, timeout_s=section.rest_timeout_s
    )

    def heard(reply: Reply) -> None:
        # Several processes share our address; Binance tells what all of them used.
        if venue is not Venue.UPBIT:
            used = binance_rest.weight_used(reply.headers)
            if used is not None:
                client.observe(binance_rest.WEIGHT_GROUP, used, binance_rest.WEIGHT_WINDOW_S)
        if on_reply is not None:
            on_reply(reply)

    client = RestClient(policy, on_reply=heard)
    return client


async def ask_at_start(venue: Venue, call: Callable[[], Awaitable[T]]) -> T:
    """
    Ask a venue a few times, because at a start it may be on its way up, like ourselves.

    Raises:
        VenueUnreachable: No answer to any attempt, or none within ``START_READ_MAX_S``.
        ArbError: Any error with another remedy, at once.
    """
    backoff = Backoff(BackoffPolicy(initial_s=0.5, maximum_s=START_WAIT_MAX_S), random.random)
    try:
        async with asyncio.timeout(START_READ_MAX_S):
            return await with_retries(
                call, backoff, attempts_max=START_ATTEMPTS_MAX, wait_max_s=START_WAIT_MAX_S
            )
    except TimeoutError as late:
        raise VenueUnreachable(venue, f"no answer within {START_READ_MAX_S:g} s") from late
