"""RiskGuard's promise of DESIGN section 3, at every grant in the order of the commits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from tests.sim.history import Commit, History

DAY_NS = 86_400 * 10**9
MINUTE_NS = 60 * 10**9
ZERO = Decimal(0)


class RiskChecker:
    """Its own books of reservations, realized results, owners, the lease and the state."""

    def __init__(self, history: History, offsets_ns: Mapping[str, int]) -> None:
        self._history = history
        self._offsets_ns = offsets_ns
        self._noted: list[tuple[int, Any]] = []  # limits, and when a guard noted them
        # Posted settlements that a guard has heard of, and when.
        self._known: dict[str, tuple[int, Any]] = {}
        self._highest_limit = ZERO  # a grant under an earlier limit may still lose
        self.open: dict[str, Any] = {}  # trade id -> intent
        self.granted: dict[str, Any] = {}  # every grant there ever was
        self.settled: dict[str, Any] = {}  # trade id -> settlement
        self.grants = 0
        self.state = "active"
        self._state_since_ns = 0
        self._halts = 0
        self._halts_at_grant: dict[str, int] = {}
        self._granted_ns: list[int] = []
        self._owners: defaultdict[str, int] = defaultdict(int)
        self._epoch = 0
        self._gap_days: set[int] = set()
        # By guard and trade, when each mark arrived and the loss that it tells.
        self._marks: defaultdict[tuple[str, str], list[tuple[int, int, Decimal]]]
        self._marks = defaultdict(list)

    def marked(self, process: str, marks: Any, now_ns: int) -> None:
        """A guard heard a host's marks; it counts by them from here on."""
        for mark in marks:
            told = self._marks[process, mark.trade_id]
            if not told or mark.at_ns >= told[-1][1]:
                told.append((now_ns, mark.at_ns, max(ZERO, -mark.pnl_usdt)))

    def _loss_told(self, process: str, trade_id: str, at_ns: int) -> Decimal:
        """
        The last loss that a decision of ``process`` at its ``at_ns`` has heard of.

        One that has heard nothing since its start goes by what others heard a moment ago: it
        must have asked.
        """
        decided_ns = at_ns - self._offsets_ns[process]
        heard = [
            (heard_ns, who, loss)
            for (who, marked), told in self._marks.items()
            if marked == trade_id
            for heard_ns, _, loss in told
            if heard_ns < decided_ns
        ]
        own = [one for one in heard if one[1] == process]
        fresh_ns = decided_ns - self._limits.mark_age_max_ms * 1_000_000
        told = own or [one for one in heard if one[0] > fresh_ns]
        return max(told)[2] if told else ZERO

    def claim_symbol(self, commit: Commit, symbol: str, _owner: str) -> None:
        if commit.result <= self._owners[symbol]:
            self._violated("epochs", f"owner epoch {commit.result} of {symbol} did not grow")
        self._owners[symbol] = commit.result

    def take_lease(self, commit: Commit, _holder: str) -> None:
        if commit.result <= self._epoch:
            self._violated("epochs", f"guard epoch {commit.result} did not grow")
        self._epoch = commit.result

    def note_limits(self, commit: Commit, epoch: int, limits: Any) -> None:
        self._is_current(epoch, "note_limits")
        self._noted.append((commit.now_ns, limits))
        self._highest_limit = max(self._highest_limit, limits.daily_loss_usdt)

    def set_state(self, commit: Commit, epoch: int, change: Any) -> None:
        self._is_current(epoch, "set_state")
        if change.flatten_symbol is not None:
            return
        if str(change.state) == "active" and change.actor == "guard":
            self._violated("state", "the guard resumed by itself")
        self.state, self._state_since_ns = str(change.state), change.at_ns
        self._halts += self.state == "halted"

    def grant(self, commit: Commit, epoch: int, intent: Any, _hold: Any, at_ns: int) -> None:
        self._is_current(epoch, "grant")
        if type(commit.result).__name__ != "Granted" or intent.trade_id in self.granted:
            return
        trade_id, symbol = intent.trade_id, intent.symbol
        self.grants += 1
        # A commit may come late: a yes is judged by what was in force when it was decided.
        decided_ns = at_ns - self._offsets_ns[commit.process]
        self._limits = next(one for noted, one in reversed(self._noted) if noted <= decided_ns)
        self._check_asker(intent, at_ns)
        self._check_room(intent, at_ns, commit.process)
        self._check_size(intent)
        self._check_runs(intent, at_ns, decided_ns)
        self._granted_ns = [one for one in self._granted_ns if one > at_ns - MINUTE_NS] + [at_ns]
        if len(self._granted_ns) > self._limits.entries_per_minute_count:
            self._violated("entry_rate", f"{trade_id} is number {len(self._granted_ns)}")
        busy = [other.trade_id for other in self.open.values() if other.symbol == symbol]
        if busy:
            self._violated("one_open_trade", f"{trade_id} was granted while {busy} is open")
        self.open[trade_id] = self.granted[trade_id] = intent
        self._halts_at_grant[trade_id] = self._halts

    def _check_asker(self, intent: Any, at_ns: int) -> None:
        trade_id = intent.trade_id
        if trade_id in self.settled:
            self._violated("tombstone", f"{trade_id} was granted after its end")
        if self.state != "active" and at_ns > self._state_since_ns:
            self._violated("halted", f"{trade_id} was granted while {self.state}")
        if at_ns > intent.deadline_ns:
            self._violated("deadline", f"{trade_id} was granted too late")
        if intent.owner_epoch != self._owners[intent.symbol]:
            self._violated("fence", f"{trade_id} was granted to an owner of the past")
        if intent.worst_loss_usdt <= 0:
            self._violated("room", f"{trade_id} reserved nothing")

    def _check_room(self, intent: Any, at_ns: int, process: str) -> None:
        limits, worst = self._limits, intent.worst_loss_usdt
        reserved = sum(
            (
                max(one.worst_loss_usdt, self._loss_told(process, one.trade_id, at_ns))
                for one in self.open.values()
            ),
            ZERO,
        )
        used = self.loss_on(at_ns // DAY_NS) + reserved + worst
        if used > limits.daily_loss_usdt:
            self._violated("daily_loss", f"{intent.trade_id} brings {used} USDT at risk")
        used = self.loss_on(at_ns // DAY_NS, intent.symbol) + worst
        if used > limits.symbol_daily_loss_usdt:
            self._violated("symbol_daily_loss", f"{intent.trade_id} brings {used} USDT at risk")

    def _check_size(self, intent: Any) -> None:
        limits = self._limits
        if len(self.open) + 1 > limits.open_trades_count:
            self._violated("open_trades", f"{intent.trade_id} is number {len(self.open) + 1}")
        total = sum((one.notional_usdt for one in self.open.values()), intent.notional_usdt)
        largest = min(limits.trade_notional_usdt, limits.symbol_notional_usdt)
        if total > limits.total_notional_usdt or intent.notional_usdt > largest:
            self._violated("notional", f"{intent.trade_id} brings {total} USDT")

    def _check_runs(self, intent: Any, at_ns: int, decided_ns: int) -> None:
        """Pace and drawdown, counted anew from all that the guard can have known."""
        day = at_ns // DAY_NS
        known = [one for heard_ns, one in self._known.values() if heard_ns < decided_ns]
        realized = peak = ZERO
        in_row, cool_until_ns = 0, 0
        for one in known:
            if one.closed_ns // DAY_NS >= day:
                realized += one.realized_usdt
                peak = max(peak, realized)
            if not one.notional_usdt:
                continue
            in_row = in_row + 1 if one.realized_usdt < 0 else 0
            if in_row >= self._limits.consecutive_losses_count:
                in_row = 0
                pause_ns = int(self._limits.loss_cool_down_s * 1e9)
                cool_until_ns = max(cool_until_ns, one.closed_ns + pause_ns)
        if peak - realized >= self._limits.drawdown_usdt:
            text = f"{intent.trade_id} at {peak - realized} USDT below the day's best"
            self._violated("drawdown", text)
        # A restart reads a bounded number of yesterday's trades, and may cut a run over midnight.
        is_one_day = len({one.closed_ns // DAY_NS for one in known}) <= 1
        if at_ns < cool_until_ns and is_one_day:
            self._violated("cool_down", f"{intent.trade_id} after too many losses in a row")

    def answered(self, commit: Commit) -> None:
        """
        A guard learned what it had asked for: now the runs that it judges by are known to it.

        The day's loss is a promise, and room stays taken until the guard knows the outcome;
        pace and drawdown are judged by what it can know.
        """
        if commit.method == "load":
            told = tuple(self.settled.values())
        elif commit.method == "settle" and commit.result[0]:
            # A repeat learns only that it was done; what was realized, the next load tells.
            told = (self.settled[commit.arguments[1].trade_id],)
        else:
            return
        now = {
            one.trade_id: self._known.get(one.trade_id, (commit.now_ns, one))
            for one in told
            if str(one.kind) == "posted"
        }
        # A load tells all of them, in the order of their commits; an answer adds one.
        self._known = now if commit.method == "load" else self._known | now

    def loss_on(self, day: int, symbol: str | None = None) -> Decimal:
        """The day's realized loss, never negative."""
        return max(ZERO, -_realized(self.settled.values(), day, symbol))

    def settle(self, commit: Commit, epoch: int, settlement: Any) -> None:
        self._is_current(epoch, "settle")
        trade_id = settlement.trade_id
        is_new, _released = commit.result
        if is_new != (trade_id not in self.settled):
            self._violated("settle_once", f"{trade_id}: the store said new={is_new}")
        if not is_new:
            return
        self.settled[trade_id] = settlement
        intent = self.open.pop(trade_id, None)
        loss, day = -settlement.realized_usdt, settlement.closed_ns // DAY_NS
        if intent is None:
            if loss or settlement.notional_usdt:
                self._violated("open_has_reservation", f"{trade_id} traded without a reservation")
            return
        if loss > intent.worst_loss_usdt:
            self._gap_days.add(day)
            if self._halts == self._halts_at_grant[trade_id] and self.state != "halted":
                self._violated("gap", f"{trade_id} lost {loss} and nothing was halted before")
        if self.loss_on(day) > self._highest_limit and day not in self._gap_days:
            self._violated("limit", f"{self.loss_on(day)} USDT lost in a day, and no gap")

    def at_the_end(self) -> None:
        """Everything has come to an end."""
        for trade_id in self.open:
            self._violated("leak", f"the reservation of {trade_id} never ended")

    def _is_current(self, epoch: int, what: str) -> None:
        if epoch != self._epoch:
            self._violated("fence", f"{what} of guard epoch {epoch}, {self._epoch} is in force")

    def _violated(self, check: str, text: str) -> None:
        self._history.violated(f"risk.{check}", text)


def _realized(settlements: Iterable[Any], day: int, symbol: str | None = None) -> Decimal:
    """The sum of what closed on a day; what closes after it (a clock runs ahead) counts too."""
    return sum(
        (
            one.realized_usdt
            for one in settlements
            if one.closed_ns // DAY_NS >= day and symbol in {None, one.symbol}
        ),
        ZERO,
    )
