"""Orders and fills: sent once, within their limits, by the fee schedule, never past the plan."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from decimal import ROUND_UP, Decimal
from typing import Any

from tests.sim.actors import ENTRY_TTL_NS
from tests.sim.faults import LATE_MAX_S, STALL_MAX_S
from tests.sim.history import Commit, History
from tests.sim.market import PAIRS

ZERO = Decimal(0)
LEGS = {leg.instrument.id: leg for pair in PAIRS for leg in (pair.a, pair.b)}
AGE_MAX_NS = ENTRY_TTL_NS + int((STALL_MAX_S + LATE_MAX_S) * 1e9) + 10_000_000
"""A shell sends nothing older than the first; the store may then take as long as the rest."""


class Sent:
    """An accepted order, and what is known of its end."""

    def __init__(self, order: Any, accepted_ns: int) -> None:
        self.order = order
        self.accepted_ns = accepted_ns
        self.report: Any = None


class OrderChecker:
    """Every order by its id, and by its trade."""

    def __init__(
        self, history: History, risk: Any, trades: Any, offsets_ns: Mapping[str, int]
    ) -> None:
        self._history = history
        self._offsets_ns = offsets_ns
        self._risk = risk
        self._trades = trades
        self._owners: defaultdict[str, int] = defaultdict(int)
        self.sent: dict[str, Sent] = {}
        self.by_trade: defaultdict[str, list[Sent]] = defaultdict(list)

    def claim_symbol(self, commit: Commit, symbol: str, _owner: str) -> None:
        self._owners[symbol] = commit.result

    def accept_order(self, commit: Commit, symbol: str, owner_epoch: int, order: Any) -> None:
        order_id, trade_id = order.client_order_id, order.trade_id
        known = self.sent.get(order_id)
        if commit.result != (known is None):
            self._violated("once", f"{order_id}: the store said new={commit.result}")
        if known is not None:
            if known.order != order:
                self._violated("once", f"{order_id} was sent with another content")
            return
        if owner_epoch != self._owners[symbol]:
            self._violated("fence", f"{order_id} was sent by an owner of the past")
        if trade_id not in self._risk.granted:
            self._violated("reservation", f"{order_id} was sent without a reservation")
        if trade_id in self._risk.settled:
            self._violated("reservation", f"{order_id} was sent after its trade's end")
        unanswered = [one for one in self.by_trade[trade_id] if one.report is None]
        if len(unanswered) > 1:
            self._violated("pending", f"{order_id} was sent while two others have no last word")
        self._trades.may_send(order)
        # What a spool took first was sent then: the store learned of it later.
        accepted_ns = self._history.spooled_ns.get(order_id, commit.now_ns)
        sent = self.sent[order_id] = Sent(order, accepted_ns)
        self.by_trade[trade_id].append(sent)

    def report_order(
        self, commit: Commit, _symbol: str, _epoch: int, order: Any, report: Any, _entries: Any
    ) -> None:
        sent = self.sent.get(order.client_order_id)
        if sent is None and not report.fills:
            # Withdrawn before it was ever accepted: its id is used up.
            sent = self.sent[order.client_order_id] = Sent(order, commit.now_ns)
            self.by_trade[order.trade_id].append(sent)
        if sent is None:
            self._violated("accepted", f"{order.client_order_id} was filled and never accepted")
            return
        if sent.report is not None:
            if (sent.report.status, sent.report.fills) != (report.status, report.fills):
                self._violated("last_word", f"{order.client_order_id} has two last words")
            return
        sent.report = report
        age_ns = sent.accepted_ns - order.decided_ns
        error_ns = max(abs(offset_ns) for offset_ns in self._offsets_ns.values())
        if report.fills and age_ns > AGE_MAX_NS + 2 * error_ns:
            text = f"{order.client_order_id} was sent {age_ns} ns after its decision, and filled"
            self._violated("stale", text)
        self._check_fills(order, report)
        self._check_position(order)

    def _check_fills(self, order: Any, report: Any) -> None:
        leg, order_id = LEGS[order.instrument], order.client_order_id
        is_buy = str(order.side) == "buy"
        total = ZERO
        for fill in report.fills:
            total += fill.qty
            if fill.price > order.limit_price if is_buy else fill.price < order.limit_price:
                self._violated("price", f"{order_id} was filled at {fill.price}")
            price, size = fill.book_slice[-1]
            if price != fill.price or size < fill.qty or fill.qty % leg.rules.lot:
                self._violated("book", f"{order_id} got {fill.qty} of {size} at {price}")
            if list(fill.book_slice) != sorted(fill.book_slice, reverse=not is_buy):
                self._violated("book", f"{order_id} met a book in disorder")
            is_in_base = is_buy and str(leg.fees.fee_asset) == "received"
            paid_from = (
                fill.qty * leg.instrument.multiplier if is_in_base else fill.price * fill.qty
            )
            fee = paid_from * leg.fees.taker_bps / 10_000
            if fill.fee.amount != fee.quantize(Decimal("1e-8"), rounding=ROUND_UP):
                self._violated("fee", f"{order_id} paid {fill.fee.amount} of {fee}")
            if fill.fee.asset != (leg.instrument.asset if is_in_base else leg.instrument.quote):
                self._violated("fee", f"{order_id} paid its fee in {fill.fee.asset}")
        if total > order.qty:
            self._violated("qty", f"{order_id} got {total} of {order.qty}")

    def _check_position(self, order: Any) -> None:
        """Entries stay within the plan, and nothing that closes turns a leg around."""
        leg, trade_id = LEGS[order.instrument], order.trade_id
        planned = self._trades.planned_qty(trade_id, order.instrument)
        entered = sum(
            (
                fill.qty
                for sent in self.by_trade[trade_id]
                if sent.report and sent.order.instrument == order.instrument
                if str(sent.order.purpose) == "entry"
                for fill in sent.report.fills
            ),
            ZERO,
        )
        if planned is not None and entered > planned:
            self._violated("plan", f"{order.client_order_id}: {entered} entered, {planned} planned")
        position = self.position(trade_id, order.instrument)
        is_long = self._trades.is_bought_first(trade_id, order.instrument)
        wrong = -position if is_long else position
        # With the dust that it takes along a leg closes more than it has gained.
        most = abs(self._trades.dust_taken(trade_id, order.instrument))
        if wrong > most + leg.rules.lot * leg.instrument.multiplier:
            self._violated("turned", f"{order.client_order_id} left {position} on its leg")

    def position(self, trade_id: str, instrument: str, until_ns: int | None = None) -> Decimal:
        """What a leg has gained, asset units, net of fees taken in base."""
        leg, total = LEGS[instrument], ZERO
        for sent in self.by_trade[trade_id]:
            if sent.order.instrument != instrument or sent.report is None:
                continue
            for fill in sent.report.fills:
                if until_ns is None or fill.at_ns <= until_ns:
                    sign = 1 if str(sent.order.side) == "buy" else -1
                    total += sign * fill.qty * leg.instrument.multiplier
                    if fill.fee.asset == leg.instrument.asset:
                        total -= fill.fee.amount
        return total

    def _violated(self, check: str, text: str) -> None:
        self._history.violated(f"orders.{check}", text)
