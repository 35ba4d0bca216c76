"""What a run was: its faults by kind, its trades, its recoveries, its verdict."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import msgspec

from tests.chaos.adversary import Episode
from tests.chaos.kinds import KINDS, Kind


class Row(msgspec.Struct, frozen=True):
    """One kind. Recoveries are of episodes where it came alone and met a system that traded."""

    kind: str
    injected: int
    in_storms: int
    recoveries_s: tuple[float, ...]
    asked: str  # what issue 4 asks, or ""
    slow: bool  # slower than that
    not_here: str  # why it could not be injected, when it never could

    @property
    def median_s(self) -> float | None:
        """Of the recoveries."""
        return statistics.median(self.recoveries_s) if self.recoveries_s else None

    @property
    def longest_s(self) -> float | None:
        """Of the recoveries."""
        return max(self.recoveries_s, default=None)


def rows(episodes: Sequence[Episode], kinds: Sequence[Kind] = KINDS) -> list[Row]:
    """Count what was injected; every kind has a row, also one that never came."""
    return [_row(kind, episodes) for kind in kinds]


def _row(kind: Kind, episodes: Sequence[Episode]) -> Row:
    mine = [(e, f) for e in episodes for f in e.faults if f.kind == kind.name]
    alone = tuple(e.back_s for e, _ in mine if e.is_alone and e.clean and not e.why_not)
    reasons = [e.not_here[kind.name] for e in episodes if kind.name in e.not_here]
    is_slow = bool(alone) and (
        (kind.most_s is not None and max(alone) > kind.most_s)
        or (kind.median_s is not None and statistics.median(alone) > kind.median_s)
    )
    return Row(
        kind=kind.name,
        injected=len(mine),
        in_storms=sum(not e.is_alone for e, _ in mine),
        recoveries_s=alone,
        asked=_asked(kind),
        slow=is_slow,
        not_here=reasons[-1] if reasons and not mine else "",
    )


def _asked(kind: Kind) -> str:
    median = f"median {kind.median_s:g}, " if kind.median_s is not None else ""
    return f"{median}most {kind.most_s:g}" if kind.most_s is not None else ""


def lines(found: Sequence[Row]) -> list[str]:
    """Return the table as text."""
    told = [
        f"{'fault':<18}{'injected':>9}{'storms':>8}{'median s':>10}{'longest s':>11}  asked, s",
        "-" * 78,
    ]
    for row in found:
        note = f"  not here: {row.not_here}" if row.not_here else ""
        slow = "  SLOWER" if row.slow else ""
        told.append(
            f"{row.kind:<18}{row.injected:>9}{row.in_storms:>8}{_number(row.median_s):>10}"
            f"{_number(row.longest_s):>11}  {row.asked}{slow}{note}".rstrip()
        )
    told.append("-" * 78)
    told.append(f"{'all':<18}{sum(row.injected for row in found):>9}")
    return told


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def as_object(found: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the table for machines."""
    return [
        msgspec.structs.asdict(row) | {"median_s": row.median_s, "longest_s": row.longest_s}
        for row in found
    ]
