"""The wall clock of one process steps, and steps back; its monotonic clock goes on."""

from __future__ import annotations

from tests.chaos.faults.broken import Broken
from tests.chaos.faults.spell import cast


def begin(world, planned) -> Broken:
    """Set one process' wall clock ahead or behind."""
    sign = 1 if planned.kind == "clock_ahead" else -1
    return cast(world, planned.target, {"wall_offset_ns": sign * round(planned.amount * 1e9)})
