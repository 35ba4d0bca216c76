"""
RiskGuard's rules: who may open what, so that the day's loss limit is a promise.

The invariant, at every grant (DESIGN section 3):

    max(0, -realized PnL of the day)
    + sum over open or pending trades of max(reserved, current loss)
    + the new worst case  <=  daily limit

    ACTIVE --(anomaly | operator)--> REDUCE_ONLY --(gap | limit | operator)--> HALTED
       '-----------------------(gap loss | limit reached | operator)------------^
    Only an operator goes the other way.

The book is memory without I/O: the guard writes what it says, and rebuilds it from
``RiskBooks`` at every start. No method awaits, so a decision and the room it takes are
one step as long as the guard calls ``decide`` and ``apply_grant`` without a pause between.

    risk_room    the room that is taken, and the money that is free beside it
    risk_state   the state in force, and which trades must close
    risk         what speaks against an intent, and what a grant and its end change
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterable
from decimal import Decimal
from typing import Any

from arb_ray.domain.errors import BadInput, LedgerViolation
from arb_ray.domain.instrument import Venue
from arb_ray.domain.ledger import Balance
from arb_ray.domain.money import ZERO, Asset
from arb_ray.domain.risk_books import RiskBooks
from arb_ray.domain.risk_intent import (
    Granted,
    Hold,
    Mark,
    Refused,
    ReserveIntent,
    RiskRefusal,
    RiskState,
    RiskStatus,
    Settlement,
    Verdict,
)
from arb_ray.engine.risk_limits import DAY_NS, MINUTE_NS, DayTally, RiskLimits
from arb_ray.engine.risk_state import GAP_LOSS, GUARD, BookState, StateChange

REMEMBERED_MAX = 50_000
"""Refused and ended ids that are kept; the store answers for the ones before them."""

DAILY_LOSS = "daily_loss"


def substance(intent: ReserveIntent) -> tuple[object, ...]:
    """Return what a repeat must agree on; session, owner and instants change over a restart."""
    return (
        intent.symbol,
        intent.direction,
        intent.worst_loss_usdt,
        intent.notional_usdt,
        intent.holds,
    )


class RiskBook(BookState):
    """Limits, reservations, today's figures and state of one environment."""

    def __init__(self, limits: RiskLimits, epoch: int, books: RiskBooks, now_ns: int) -> None:
        super().__init__(limits, books, now_ns)
        self._epoch = epoch
        self._tally = DayTally(limits, now_ns // DAY_NS)
        self._refused: OrderedDict[str, Refused] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()
        # An operator who resumed has seen what was odd: it is not raised a second time.
        self._tally.judged_after_ns = books.resumed_ns
        for settlement in (*books.settled_before, *books.settled_today):
            self._remember(self._ended, settlement.trade_id, None)
            self._tally.add(settlement, books.reserved_usdt.get(settlement.trade_id))
        self._tally.judged_after_ns = 0
        self._check_realized(now_ns)

    def inherit(self, former: RiskBook, unproven: Collection[str]) -> None:
        """
        Take over from the book that this one replaces what the ledger does not know.

        Marks, orders to flatten, answers given, the room of grants whose commit was not
        heard of (``unproven``), and the state in force unless the ledger's is more severe:
        a decision that could not be written yet is a decision.
        """
        for trade_id in former._ended:
            self._remember(self._ended, trade_id, None)
        for trade_id, refused in former._refused.items():
            self._remember(self._refused, trade_id, refused)
        for trade_id, held in former._open.items():
            if trade_id in self._open:
                self._open[trade_id].mark = held.mark
            elif trade_id in unproven and trade_id not in self._ended:
                self._take(held.intent, held.granted_ns)
                self._open[trade_id].mark = held.mark
        # Its book is new, its knowledge is not: it waits for nobody whom the former one heard.
        self._unheard = former._unheard & self._open.keys()
        self._unheard_until_ns = former._unheard_until_ns
        self._inherit_state(former)

    # Decisions

    def decide(self, intent: ReserveIntent, now_ns: int) -> Verdict:
        """
        Answer an intent, the same way however often it is asked.

        An id whose reservation has ended is refused: its first answer may have been a yes,
        but nothing is held under it any more. A yes takes no room yet: ``apply_grant`` does.

        Raises:
            BadInput: The intent asks for no room, or for a negative hold.
            LedgerViolation: Other room is held under this id.
        """
        self._tally.roll(now_ns)
        trade_id = intent.trade_id
        if trade_id in self._ended:
            return Refused(trade_id, RiskRefusal.TOMBSTONE, "the reservation has ended")
        if trade_id in self._refused:
            return self._refused[trade_id]
        if trade_id in self._open:
            held = self._open[trade_id]
            if substance(held.intent) != substance(intent):
                raise LedgerViolation(trade_id, "another reservation has this id")
            return Granted(trade_id, self._epoch, held.granted_ns)
        if intent.worst_loss_usdt <= 0 or any(hold.amount < 0 for hold in intent.holds):
            problem = f"worst loss {intent.worst_loss_usdt}, holds {intent.holds}"
            raise BadInput(f"intent {trade_id}", problem, "Ask for a positive worst case")
        objection = self._objection(intent, now_ns)
        if objection is None:
            return Granted(trade_id, self._epoch, now_ns)
        refused = Refused(trade_id, *objection)
        self._remember(self._refused, trade_id, refused)
        return refused

    def _objection(self, intent: ReserveIntent, now_ns: int) -> tuple[RiskRefusal, str] | None:
        return (
            self._objection_to_asker(intent, now_ns)
            or self._objection_to_pace(now_ns)
            or self._objection_to_size(intent)
            or self._objection_to_loss(intent)
            or self._objection_to_holds(intent.holds)
            or self._objection_to_silence(now_ns)
        )

    def _objection_to_asker(
        self, intent: ReserveIntent, now_ns: int
    ) -> tuple[RiskRefusal, str] | None:
        if self._state is not RiskState.ACTIVE:
            return RiskRefusal.NOT_ACTIVE, f"{self._state}: {self._reason}"
        if now_ns > intent.deadline_ns:
            return RiskRefusal.DEADLINE, f"{now_ns - intent.deadline_ns} ns too late"
        owner_epoch = self._owner_epochs.get(intent.symbol, 0)
        if intent.owner_epoch < owner_epoch:
            return RiskRefusal.FENCED_OWNER, f"epoch {intent.owner_epoch} < {owner_epoch}"
        busy = [held for held in self._open.values() if held.intent.symbol == intent.symbol]
        if busy:
            return RiskRefusal.SYMBOL_BUSY, busy[0].intent.trade_id
        return None

    def _objection_to_pace(self, now_ns: int) -> tuple[RiskRefusal, str] | None:
        if now_ns < self._tally.cool_until_ns:
            return RiskRefusal.COOL_DOWN, "too many losses in a row"
        if len(self._open) >= self._limits.open_trades_count:
            return RiskRefusal.OPEN_TRADES, f"{len(self._open)} open or pending"
        while self._entries_ns and self._entries_ns[0] <= now_ns - MINUTE_NS:
            self._entries_ns.popleft()
        if len(self._entries_ns) >= self._limits.entries_per_minute_count:
            return RiskRefusal.ENTRY_RATE, f"{len(self._entries_ns)} in the last minute"
        return None

    def _objection_to_size(self, intent: ReserveIntent) -> tuple[RiskRefusal, str] | None:
        notional = intent.notional_usdt
        total = sum((held.intent.notional_usdt for held in self._open.values()), ZERO)
        # One open trade a symbol, and this symbol has none: the symbol's sum is this trade.
        for reason, used, limit in (
            (RiskRefusal.TRADE_NOTIONAL, notional, self._limits.trade_notional_usdt),
            (RiskRefusal.SYMBOL_NOTIONAL, notional, self._limits.symbol_notional_usdt),
            (RiskRefusal.TOTAL_NOTIONAL, total + notional, self._limits.total_notional_usdt),
        ):
            if used > limit:
                return reason, f"{used} > {limit} USDT"
        return None

    def _objection_to_loss(self, intent: ReserveIntent) -> tuple[RiskRefusal, str] | None:
        worst, symbol = intent.worst_loss_usdt, intent.symbol
        used = self.used_usdt() + worst
        if used > self._limits.daily_loss_usdt:
            return RiskRefusal.DAILY_LOSS, f"{used} > {self._limits.daily_loss_usdt} USDT"
        used = self._tally.symbol_loss_usdt(symbol) + worst
        if used > self._limits.symbol_daily_loss_usdt:
            limit = self._limits.symbol_daily_loss_usdt
            return RiskRefusal.SYMBOL_DAILY_LOSS, f"{used} > {limit} USDT"
        fall = self.drawdown_usdt
        if fall >= self._limits.drawdown_usdt:
            return RiskRefusal.DRAWDOWN, f"{fall} USDT below the day's best"
        return None

    def _objection_to_holds(self, holds: Iterable[Hold]) -> tuple[RiskRefusal, str] | None:
        wanted: defaultdict[tuple[Venue, Asset], Decimal] = defaultdict(lambda: ZERO)
        for hold in holds:
            wanted[hold.venue, hold.asset] += hold.amount
        for (venue, asset), amount in wanted.items():
            free = self._free.get((venue, asset), ZERO)
            if amount > free:
                return RiskRefusal.BALANCE, f"{venue} {asset}: {free} free, {amount} wanted"
        return None

    def _objection_to_silence(self, now_ns: int) -> tuple[RiskRefusal, str] | None:
        unheard = self._unheard & self._open.keys()
        if not unheard or now_ns >= self._unheard_until_ns:
            return None
        # It may stand far below its reservation, and a guard that died knew. A host that
        # stays silent is dead or has nothing to tell: then the reservation must do.
        return RiskRefusal.NOT_ACTIVE, f"no mark of {min(unheard)} since RiskGuard's start"

    # What became of it

    def apply_grant(self, intent: ReserveIntent, now_ns: int) -> None:
        """Take the room of a yes: from now on it counts, written down or not yet."""
        assert not self.is_granted(intent.trade_id)
        assert intent.trade_id not in self._ended
        assert self.used_usdt() + intent.worst_loss_usdt <= self._limits.daily_loss_usdt
        self._take(intent, now_ns)

    def note_refused(self, refused: Refused) -> None:
        """Remember a no that was not the book's own, so that a repeat gets the same answer."""
        self._remember(self._refused, refused.trade_id, refused)

    def undo_grant(self, trade_id: str) -> None:
        """Give the room back: the store is known not to have taken the yes. The id stays used."""
        self._give_back(trade_id)
        self.note_refused(Refused(trade_id, RiskRefusal.STORE, "the yes could not be written"))

    def apply_settlement(
        self, settlement: Settlement, released: Iterable[Balance], now_ns: int
    ) -> None:
        """
        Count the end of a reservation, once; ``released`` is what moved back to FREE.

        The void of an unknown id leaves a tombstone here too.
        """
        self._tally.roll(now_ns)
        if settlement.trade_id in self._ended:
            return
        self.halt_by(settlement, now_ns)
        self._remember(self._ended, settlement.trade_id, None)
        held = self._open.pop(settlement.trade_id, None)
        self._flatten.discard(settlement.symbol)
        self._add_free(released)
        self._tally.add(settlement, held.intent.worst_loss_usdt if held else None)
        self._check_realized(now_ns)

    def note_ended(self, trade_id: str) -> None:
        """Remember an end that the ledger had counted before this book was told of it."""
        assert not self.is_granted(trade_id)
        self._remember(self._ended, trade_id, None)

    def halt_by(self, settlement: Settlement, now_ns: int) -> bool:
        """
        Put the halt in force that ``settlement`` brings, and tell whether it brings one.

        The loss is a fact before the ledger has it, so nothing is granted on top of it.
        """
        held = self._open.get(settlement.trade_id)
        if held is None or -settlement.realized_usdt <= held.intent.worst_loss_usdt:
            return False
        gap = -settlement.realized_usdt - held.intent.worst_loss_usdt
        detail = f"{settlement.trade_id} lost {gap} USDT more than its reservation"
        self._raise_state(RiskState.HALTED, f"{GAP_LOSS}: {detail}", now_ns)
        return True

    def apply_mark(self, mark: Mark, now_ns: int) -> None:
        """
        Take a strategy's estimate; older ones and those of ended trades change nothing.

        A trade that stands below its reservation is closed at once; if that breaks the day's
        promise, everything is.
        """
        self._tally.roll(now_ns)
        held = self._open.get(mark.trade_id)
        if held is None or (held.mark is not None and mark.at_ns < held.mark.at_ns):
            return
        held.mark = mark
        self._unheard.discard(mark.trade_id)
        if held.loss_usdt <= held.intent.worst_loss_usdt:
            return
        self._flatten.add(held.intent.symbol)
        used = self.used_usdt()
        if used > self._limits.daily_loss_usdt:
            detail = f"{mark.trade_id} stands at {mark.pnl_usdt} USDT, {used} USDT at risk"
            self._raise_state(RiskState.HALTED, f"{GAP_LOSS}: {detail}", now_ns)

    def roll_day(self, now_ns: int) -> None:
        """Begin the UTC day of ``now_ns``; reservations and the state carry over in full."""
        self._tally.roll(now_ns)

    def _check_realized(self, now_ns: int) -> None:
        if self._tally.loss_usdt >= self._limits.daily_loss_usdt:
            detail = f"{self._tally.loss_usdt} USDT lost on {self._tally.name}"
            self._raise_state(RiskState.HALTED, f"{DAILY_LOSS}: {detail}", now_ns)
        anomaly = self._tally.anomaly()
        if anomaly:
            self._raise_state(RiskState.REDUCE_ONLY, anomaly, now_ns)

    def set_state(self, change: StateChange) -> None:
        """Carry out an operator's decision; resuming also ends every order to flatten."""
        assert change.actor != GUARD, "the book changes its own state by its rules only"
        assert change.flatten_symbol is None, "an order to flatten changes no state"
        self._tally.roll(change.at_ns)
        self._set_state(change)
        if change.state is RiskState.ACTIVE:
            self._tally.forget_anomalies()

    # Figures

    def used_usdt(self) -> Decimal:
        """Return today's loss and what open or pending trades count for: <= the daily limit."""
        return self._tally.loss_usdt + self._exposure_usdt()

    @property
    def gap_loss_usdt(self) -> Decimal:
        """Today's losses beyond their reservations."""
        return self._tally.gap_loss_usdt

    @property
    def drawdown_usdt(self) -> Decimal:
        """Today's fall from the best realized PnL, current losses of open trades included."""
        return self._tally.peak_usdt - self._tally.realized_usdt + self._marked_loss_usdt()

    def status(self, now_ns: int) -> RiskStatus:
        """Return what every strategy must know."""
        self._tally.roll(now_ns)
        return RiskStatus(
            state=self._state,
            reason=self._reason,
            epoch=self._epoch,
            flatten=tuple(sorted(self._flatten)),
            flatten_all=self._must_flatten_all(),
            day=self._tally.name,
            realized_usdt=self._tally.realized_usdt,
            daily_loss_usdt=self._tally.loss_usdt,
            reserved_usdt=self._exposure_usdt(),
            daily_limit_usdt=self._limits.daily_loss_usdt,
            open_trades=len(self._open),
            at_ns=now_ns,
            actor=self._actor,
            since_ns=self._since_ns,
            gap_loss_usdt=self.gap_loss_usdt,
        )

    @staticmethod
    def _remember(memory: OrderedDict[str, Any], key: str, value: Any) -> None:
        memory[key] = value
        if len(memory) > REMEMBERED_MAX:
            memory.popitem(last=False)


__all__ = ["GUARD", "REMEMBERED_MAX", "RiskBook", "StateChange", "substance"]
