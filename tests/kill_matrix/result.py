"""What becomes of a cell."""

from __future__ import annotations

import msgspec


class Result(msgspec.Struct):
    """What became of a cell."""

    id: str
    is_reached: bool = False
    flat_after_s: float = 0.0
    took_s: float = 0.0
    rival_refused: int = 0
    problems: list[str] = []

    @property
    def is_ok(self) -> bool:
        return self.is_reached and not self.problems
