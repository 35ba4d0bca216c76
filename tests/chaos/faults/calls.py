"""Ray calls that one actor makes: the request is lost, the answer is lost, or it comes late."""

from __future__ import annotations

from tests.chaos.faults.broken import Broken
from tests.chaos.faults.spell import cast

WHAT = {"calls_lost": "lost", "answers_lost": "answer", "calls_late": "late"}
LATE_SHARE = 0.8


def begin(world, planned) -> Broken:
    """Spoil a share of the calls of one actor."""
    is_late = planned.kind == "calls_late"
    calls = {
        "what": WHAT[planned.kind],
        "share": LATE_SHARE if is_late else planned.amount,
        "delay_s": planned.amount,
    }
    return cast(world, planned.target, {"calls": calls})
