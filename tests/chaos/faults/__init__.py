"""
How each kind of fault is brought about, one module a family.

``begin`` breaks something and returns how it is healed and how one sees that the victim is
another process than before. What cannot be done here and now is told by ``NotHere``.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.chaos.faults import calls, clock, exchange, network, node, processes
from tests.chaos.faults.broken import Broken, NotHere, at_once
from tests.chaos.kinds import BY_NAME
from tests.chaos.schedule import Planned

FAMILIES: dict[str, Callable[..., Broken]] = {
    "processes": processes.begin,
    "network": network.begin,
    "exchange": exchange.begin,
    "calls": calls.begin,
    "clock": clock.begin,
    "node": node.begin,
}


def begin(world, planned: Planned) -> Broken:
    """Break something. Raises NotHere with the reason when it cannot be done."""
    return FAMILIES[BY_NAME[planned.kind].family](world, planned)


__all__ = ["Broken", "NotHere", "at_once", "begin"]
