"""What is fixed for the life of a session."""

from __future__ import annotations

import msgspec


class SessionFacts(msgspec.Struct, frozen=True):
    """The session's id, the seed of everything drawn in it, and where simulated time began."""

    session_id: str
    seed: int
    origin_ns: int
