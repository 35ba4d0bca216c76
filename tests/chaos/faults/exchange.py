"""Feeds: silent, gapped, reordered, doubled, malformed, stale; by the exchanges' own faults."""

from __future__ import annotations

import contextlib
import os
import signal

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
    return _restarted_feed(world, planned.target) if kind is FaultKind.CLOCK_SKEW else Broken()


def _restarted_feed(world, venue: str) -> Broken:
    """
    Heal as an operator does: by a new feed.

    The estimate of a venue's clock keeps the largest offset for one to two windows of five
    minutes, and refuses entries for so long: frames that are late and a clock that stepped back
    look alike. That is meant; a feed that starts again has no such memory.
    """
    target = f"feed:{venue}"
    try:
        victim = world.pid(target)
    except (LookupError, requests.RequestException) as error:
        raise NotHere(str(error)) from error

    def heal():
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)

    return Broken(heal=heal, is_replaced=lambda: world.pid(target, timeout_s=0.0) != victim)
