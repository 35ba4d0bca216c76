"""PostgreSQL and Redis as seen through the proxy: cut, stalled, refused, slow."""

from __future__ import annotations

from tests.chaos.faults.broken import Broken


def begin(world, planned) -> Broken:
    """Break every connection of the nodes to one store."""
    store, _, how = planned.kind.partition("_")

    def does(act):
        return lambda: world.wires.do(store, act)

    def break_off(proxy):
        proxy.refuse(True)
        proxy.cut()

    def slow(proxy):
        proxy.latency_s = planned.amount

    def fast(proxy):
        proxy.latency_s = 0.0

    acts = {
        # A cut that nobody hears of would be none: new connections are refused for a moment.
        "cut": (break_off, lambda proxy: proxy.refuse(False)),
        "refuse": (break_off, lambda proxy: proxy.refuse(False)),
        "stall": (lambda proxy: proxy.stall(), lambda proxy: proxy.resume()),
        "slow": (slow, fast),
    }
    wound, cure = acts[how]
    does(wound)()
    return Broken(heal=does(cure))
