"""RiskGuard's limits of pace: what a grant had to know of the minute, the day, the last trades."""

from __future__ import annotations

from collections import deque
from decimal import Decimal
from typing import Any

import msgspec

from arb_ray.adapters.storage.audit.check import TOLD_MAX, Check, Connection, Outcome, Scope

MINUTE_NS = 60 * 10**9
DAY_NS = 86_400 * 10**9

# Grants stand at the instant of their decision (by the guard's clock, or that of the database
# where it is earlier), outcomes and an operator's resumes at that of their write: a guard decides
# and settles in turn, so what was written before a decision was known to it.
_TIMELINE = """
    SELECT least(r.granted_ns, r.recorded_ns) AS instant, 'grant' AS kind, r.trade_id, r.granted_ns,
           r.recorded_ns, 0::numeric AS realized, 0::numeric AS notional, 0::numeric AS fees,
           0::bigint AS closed_ns, ($2::text IS NULL OR r.session_id = $2) AS is_in_scope,
           (SELECT l.limits::text FROM arb.risk_limits AS l
            WHERE l.env = $1 AND l.epoch = r.epoch AND l.recorded_ns <= r.recorded_ns
            ORDER BY l.number DESC LIMIT 1) AS limits
    FROM arb.reservations AS r WHERE r.env = $1
    UNION ALL
    SELECT o.recorded_ns, 'outcome', o.trade_id, 0, o.recorded_ns, o.realized_usdt,
           coalesce((o.content->>'notional_usdt')::numeric, 0),
           coalesce((o.content->>'fees_usdt')::numeric, 0), o.closed_ns, false, NULL
    FROM arb.reservation_outcomes AS o WHERE o.env = $1 AND o.kind = 'posted'
    UNION ALL
    SELECT e.recorded_ns, 'resume', '', 0, e.recorded_ns, 0, 0, 0, e.at_ns, false, NULL
    FROM arb.risk_events AS e
    WHERE e.env = $1 AND e.state = 'active' AND e.actor <> 'guard' AND e.flatten IS NULL
    ORDER BY instant, recorded_ns, trade_id
"""

_PREFETCH_ROWS = 2_000

REMEMBERED_MAX = 10_000
"""Trades that are looked back on; limits that look further back are judged by so many."""

DAYS_MAX = 3
"""A decision is about the day of its guard's clock, which is at most midnight apart from ours."""


class _Limits(msgspec.Struct, frozen=True):
    """Those of the limits in force that are about pace, under their names in the ledger."""

    drawdown_usdt: Decimal
    entries_per_minute_count: int
    consecutive_losses_count: int
    loss_cool_down_s: float
    anomaly_window_count: int
    win_rate_max_ratio: float
    fees_min_bps: Decimal


class _Day:
    """What was realized on a UTC day, and the best of it."""

    def __init__(self) -> None:
        self.realized = self.peak = Decimal(0)

    def add(self, realized: Decimal) -> None:
        self.realized += realized
        self.peak = max(self.peak, self.realized)


class _Past:
    """What the ledger held at an instant, as far as limits of pace look back."""

    def __init__(self) -> None:
        self.grants: deque[Any] = deque()
        self.traded: deque[Any] = deque(maxlen=REMEMBERED_MAX)
        self.days: dict[int, _Day] = {}
        self.since_resume = 0  # of ``traded``, the newest
        self.resumed_ns = 0

    def add(self, row: Any) -> None:
        if row["kind"] == "grant":
            self.grants.append(row)
            if len(self.grants) > REMEMBERED_MAX:
                self.grants.popleft()
        elif row["kind"] == "resume":
            self.since_resume, self.resumed_ns = 0, row["closed_ns"]
        else:
            self._add_outcome(row)

    def _add_outcome(self, row: Any) -> None:
        # A close that a host's clock dates tomorrow counts today as well.
        of_days = {row["closed_ns"] // DAY_NS}
        if row["closed_ns"] > row["recorded_ns"]:
            of_days.add(row["recorded_ns"] // DAY_NS)
        for day in of_days:
            self.days.setdefault(day, _Day()).add(row["realized"])
        while len(self.days) > DAYS_MAX:
            del self.days[min(self.days)]
        if row["notional"] > 0:
            self.traded.append(row)
            self.since_resume += row["closed_ns"] > self.resumed_ns

    def problem(self, grant: Any, limits: _Limits) -> str | None:
        return (
            self._too_many(grant, limits)
            or self._too_soon(grant, limits)
            or self._too_low(grant, limits)
            or self._too_odd(limits)
        )

    def _too_many(self, grant: Any, limits: _Limits) -> str | None:
        # By both clocks: one of them may have been set.
        lately = sum(
            other["granted_ns"] > grant["granted_ns"] - MINUTE_NS
            and other["recorded_ns"] > grant["recorded_ns"] - MINUTE_NS
            for other in self.grants
        )
        if lately < limits.entries_per_minute_count:
            return None
        return f"it is the {lately + 1}. of a minute of at most {limits.entries_per_minute_count}"

    def _too_soon(self, grant: Any, limits: _Limits) -> str | None:
        count = limits.consecutive_losses_count
        last = list(self.traded)[-count:]
        if len(last) < count or any(row["realized"] >= 0 for row in last):
            return None
        # A guard counts a run from its start and anew after each pause, and a restart begins it
        # elsewhere: which of the last losses began the pause is not known, so it is the first.
        first_ns = min(row["closed_ns"] for row in last)
        early_ns = first_ns + int(limits.loss_cool_down_s * 10**9) - grant["granted_ns"]
        if early_ns <= 0:
            return None
        return (
            f"{count} trades in a row had lost, and {early_ns / 10**9:.3f} s of the pause were left"
        )

    def _too_low(self, grant: Any, limits: _Limits) -> str | None:
        day = self.days.get(grant["granted_ns"] // DAY_NS, _Day())
        fall = day.peak - day.realized  # what open trades stand at is not in the ledger
        if fall < limits.drawdown_usdt:
            return None
        return f"the day was {fall:f} USDT below its best, {limits.drawdown_usdt} are the limit"

    def _too_odd(self, limits: _Limits) -> str | None:
        count = limits.anomaly_window_count
        if min(self.since_resume, len(self.traded)) < count:
            return None
        last = list(self.traded)[-count:]
        won = sum(row["realized"] > 0 for row in last)
        if won / count > limits.win_rate_max_ratio:
            return f"{won} of the last {count} trades had won, too good to be true"
        fees = sum((row["fees"] for row in last), Decimal(0))
        bps = fees / sum((row["notional"] for row in last), Decimal(0)) * 10_000
        if bps < limits.fees_min_bps:
            return f"the last {count} trades paid {bps:.2f} bps of fees, too little to be true"
        return None


class PaceCheck:
    """At every grant the minute, the pause, the day's best and the last trades allowed it."""

    name = "risk.pace"
    meaning = "at every grant, entry rate, pause after losses, drawdown and odd results allowed it"

    async def look(self, connection: Connection, scope: Scope) -> Outcome:
        """Live through grants, outcomes and resumes in their order."""
        rows, unchecked, violations = 0, 0, 0
        told: list[str] = []
        past = _Past()
        async for row in connection.cursor(
            _TIMELINE, scope.env, scope.session_id, prefetch=_PREFETCH_ROWS
        ):
            if row["kind"] == "grant" and row["is_in_scope"]:
                rows += 1
                limits = _limits(row["limits"])
                problem = limits and past.problem(row, limits)
                unchecked += limits is None
                if problem:
                    violations += 1
                    if len(told) < TOLD_MAX:
                        told.append(f"grant of {row['trade_id']}: {problem}")
            past.add(row)
        return Outcome(self.name, self.meaning, rows, unchecked, violations, tuple(told))


def _limits(text: str | None) -> _Limits | None:
    """Return the limits; None where the ledger holds none, or not these."""
    try:
        return None if text is None else msgspec.json.decode(text, type=_Limits)
    except msgspec.ValidationError:
        return None


CHECKS: tuple[Check, ...] = (PaceCheck(),)
