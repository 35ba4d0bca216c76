"""Feeds: silent, gapped, reordered, doubled, malformed, stale; by the exchanges' own faults."""

from __future__ import annotations

import requests

from arb_ray.adapters.venues.sim.faults import COUNTED, FaultKind
from tests.chaos.faults.broken import Broken, NotHere


def begin(world, planned) -> Broken:
    """Ask the simulated exchange of one venue to misbehave; it ends that by itself."""
    kind = FaultKind(planned.kind)
    fault = {"kind": kind, "venue": planned.target, "duration_s": max(planned.duration_s, 0.1)}
    if kind in COUNTED:
        fault["count"] = max(1, round(planned.amount))
    elif kind is FaultKind.CLOCK_SKEW:
        fault["offset_ms"] = round(planned.amount)
    elif kind is FaultKind.SLOW_CONSUMER:
        fault["delay_ms"] = round(planned.amount)
    try:
        world.exchange(fault)
    except requests.RequestException as error:
        raise NotHere(f"the exchange did not take it: {error}") from error
    return Broken()
