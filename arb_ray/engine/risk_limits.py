"""What RiskGuard is told, and the tally of one UTC day that its limits are held against."""

from __future__ import annotations

from collections import defaultdict, deque
from datetime import UTC, datetime
from decimal import Decimal

import msgspec

from arb_ray.domain.instrument import Symbol
from arb_ray.domain.money import BPS, ZERO
from arb_ray.domain.risk_intent import SettleKind, Settlement

NS_PER_S = 10**9
NS_PER_MS = 10**6
DAY_NS = 86_400 * NS_PER_S
MINUTE_NS = 60 * NS_PER_S


class RiskLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of one environment; the same names as in the configuration."""

    daily_loss_usdt: Decimal
    symbol_daily_loss_usdt: Decimal
    drawdown_usdt: Decimal
    trade_notional_usdt: Decimal
    symbol_notional_usdt: Decimal
    total_notional_usdt: Decimal
    open_trades_count: int
    entries_per_minute_count: int
    consecutive_losses_count: int
    loss_cool_down_s: float
    mark_age_max_ms: int
    anomaly_window_count: int
    win_rate_max_ratio: float
    fees_min_bps: Decimal
    flatten_on_halt: bool = True

    @property
    def recent_count(self) -> int:
        """How many settlements the runs look back on, whatever the day."""
        return max(self.anomaly_window_count, self.consecutive_losses_count)


class DayTally:
    """
    The realized figures of one UTC day, and the runs that outlive it.

    A loss belongs to the day in which its trade closed; losses in a row and the window of
    the anomalies go on over midnight.
    """

    def __init__(self, limits: RiskLimits, day: int) -> None:
        self._limits = limits
        self.day = day  # days since 1970-01-01 UTC
        self.realized_usdt = ZERO
        self.peak_usdt = ZERO  # the best realized PnL of the day, 0 at its start
        self.gap_loss_usdt = ZERO  # losses beyond their reservations
        self.by_symbol: defaultdict[Symbol, Decimal] = defaultdict(lambda: ZERO)
        self._ahead: list[tuple[Settlement, Decimal | None]] = []  # closed after this day
        self.cool_until_ns = 0
        self._losses_in_row = 0
        self._window: deque[Settlement] = deque(maxlen=limits.anomaly_window_count)
        self.judged_after_ns = 0  # while a book is rebuilt: earlier closes make no anomaly

    @property
    def name(self) -> str:
        """The day as ``YYYY-MM-DD``."""
        return datetime.fromtimestamp(self.day * 86_400, UTC).date().isoformat()

    @property
    def loss_usdt(self) -> Decimal:
        """What counts against the daily limit: never negative."""
        return max(ZERO, -self.realized_usdt)

    def symbol_loss_usdt(self, symbol: Symbol) -> Decimal:
        """The same for one symbol."""
        return max(ZERO, -self.by_symbol.get(symbol, ZERO))

    def roll(self, now_ns: int) -> None:
        """Begin a new day when ``now_ns`` lies in one; days never go back."""
        day = now_ns // DAY_NS
        if day <= self.day:
            return
        self.day = day
        self.realized_usdt = self.peak_usdt = self.gap_loss_usdt = ZERO
        self.by_symbol.clear()
        ahead, self._ahead = self._ahead, []
        for settlement, reserved_usdt in ahead:
            self._count_day(settlement, reserved_usdt)

    def add(self, settlement: Settlement, reserved_usdt: Decimal | None) -> None:
        """
        Count a settlement; ``reserved_usdt`` is None when its reservation is not known.

        A trade that closed on a day before this one counts in that day only. One that seems
        to close after it (a host's clock runs ahead) counts here and in its own day: the
        careful side.
        """
        if settlement.kind is not SettleKind.POSTED:
            return
        self._count_day(settlement, reserved_usdt)
        if settlement.notional_usdt > 0:  # a trade that filled nothing is neither won nor lost
            if settlement.closed_ns > self.judged_after_ns:
                self._window.append(settlement)
            self._count_run(settlement)

    def _count_day(self, settlement: Settlement, reserved_usdt: Decimal | None) -> None:
        closed_day = settlement.closed_ns // DAY_NS
        if closed_day < self.day:
            return
        if closed_day > self.day:
            self._ahead.append((settlement, reserved_usdt))
        realized = settlement.realized_usdt
        self.realized_usdt += realized
        self.by_symbol[settlement.symbol] += realized
        self.peak_usdt = max(self.peak_usdt, self.realized_usdt)
        if reserved_usdt is not None:
            self.gap_loss_usdt += max(ZERO, -realized - reserved_usdt)

    def _count_run(self, settlement: Settlement) -> None:
        if settlement.realized_usdt >= 0:
            self._losses_in_row = 0
            return
        self._losses_in_row += 1
        if self._losses_in_row >= self._limits.consecutive_losses_count:
            self._losses_in_row = 0
            pause_ns = int(self._limits.loss_cool_down_s * NS_PER_S)
            self.cool_until_ns = max(self.cool_until_ns, settlement.closed_ns + pause_ns)

    def forget_anomalies(self) -> None:
        """Judge only trades that are counted from now on: an operator saw the earlier ones."""
        self._window.clear()
        self.judged_after_ns = 0

    def anomaly(self) -> str:
        """Name what is too good to be true over the last trades; empty when nothing is."""
        count = len(self._window)
        if count < self._limits.anomaly_window_count:
            return ""
        wins = sum(settlement.realized_usdt > 0 for settlement in self._window)
        if wins / count > self._limits.win_rate_max_ratio:
            return f"anomaly: {wins} of the last {count} trades won"
        fees = sum((settlement.fees_usdt for settlement in self._window), ZERO)
        traded = sum((settlement.notional_usdt for settlement in self._window), ZERO)
        fees_bps = fees / traded * BPS
        if fees_bps < self._limits.fees_min_bps:
            return f"anomaly: fees of the last {count} trades are {fees_bps:.2f} bps of turnover"
        return ""
