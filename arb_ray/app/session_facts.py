"""What is fixed for the life of a session."""

from __future__ import annotations

import msgspec

from arb_ray.engine.session_snapshot import Counts


class SessionFacts(msgspec.Struct, frozen=True):
    """The session's id, the seed of everything drawn in it, and where simulated time began."""

    session_id: str
    seed: int
    origin_ns: int
    market: str = ""  # source, identity and leg B: what counts of its snapshots are of
    # What the runs before this one had counted.
    carried: Counts = msgspec.field(default_factory=Counts)
