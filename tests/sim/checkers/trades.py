"""The journal's order, and each trade's end: flat, and worth what its fills say."""

from __future__ import annotations

from collections import defaultdict
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import msgspec

from tests.sim.history import Commit, History
from tests.sim.market import FUNDING_NS

ZERO = Decimal(0)
QUANTUM = Decimal("1e-8")
DUST_USDT = Decimal(9)
"""No venue's minimum is larger (5 USDT, 5,000 KRW, a lot of 4 USDT) at prices that moved."""

ENTRY_GROUP = {"entry", "hedge"}


class Story:
    """One trade by its journal, as plain JSON."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.kinds: list[str] = []
        self.fx_exit = Decimal(plan["fx_mid_krw"])  # until an exit is decided
        self.mark = Decimal(plan["mark_usdt"])
        self.funding: dict[int, tuple[Decimal, Decimal]] = {}
        self.answered_ns = 0

    def leg(self, instrument: str) -> dict[str, Any] | None:
        """The planned leg on an instrument."""
        for key in ("a", "b"):
            if self.plan[key]["leg"]["instrument"]["id"] == instrument:
                return self.plan[key]
        return None


class TradeChecker:
    """Reads every journal event as JSON, and settles each trade a second time."""

    orders: Any  # the order checker, which knows this one

    def __init__(self, history: History, risk: Any) -> None:
        self._history = history
        self._risk = risk
        self._journal: defaultdict[str, list[bytes]] = defaultdict(list)
        self.stories: dict[str, Story] = {}
        self.closed = 0

    # -- journal --------------------------------------------------------------------------

    def append_event(
        self, commit: Commit, _symbol: str, _epoch: int, trade_id: str, seq: int, data: bytes
    ) -> None:
        journal = self._journal[trade_id]
        if seq < len(journal):
            if journal[seq] != data:
                self._violated("journal", f"{trade_id}/{seq} was written twice")
            return
        if seq > len(journal):
            self._violated("journal", f"{trade_id}/{seq} left a gap")
        journal.append(data)
        event = msgspec.json.decode(data)
        kind = event["type"]
        if kind == "Signal":
            if seq or trade_id in self.stories:
                self._violated("journal", f"{trade_id} began twice")
            self.stories[trade_id] = Story(event["plan"])
            return
        story = self.stories.get(trade_id)
        if story is None:
            self._violated("journal", f"{trade_id}: {kind} without a beginning")
            return
        if trade_id in self._risk.settled and kind != "Settled":
            self._violated("journal", f"{trade_id}: {kind} after its end")
        if kind == "ExitDecided" and abs(self._net(trade_id)) * story.mark > DUST_USDT:
            self._violated("naked", f"{trade_id} was held with legs that were not evened out")
        self._note(story, kind, event)

    def _note(self, story: Story, kind: str, event: dict[str, Any]) -> None:
        story.kinds.append(kind)
        if kind == "ReserveAnswered":
            story.answered_ns = event["at_ns"]
        elif kind == "ExitDecided":
            story.fx_exit = Decimal(event["fx_mid_krw"])
            story.mark = Decimal(event["mark_usdt"])
        elif kind == "Retry":
            story.mark = Decimal(event["mark_usdt"])
        elif kind == "FundingPaid":
            rate = Decimal(event["mark_price"]), Decimal(event["rate"])
            story.funding.setdefault(event["funding_ns"], rate)

    def grant(self, commit: Commit, _epoch: int, intent: Any, _hold: Any, _at_ns: int) -> None:
        story = self.stories.get(intent.trade_id)
        if story is None:
            self._violated("journal", f"{intent.trade_id} was reserved before it was journaled")
            return
        planned = {(one["venue"], one["asset"], one["amount"]) for one in story.plan["holds"]}
        asked = {(str(one.venue), str(one.asset), str(one.amount)) for one in intent.holds}
        if asked != planned or Decimal(story.plan["worst_loss_usdt"]) != intent.worst_loss_usdt:
            self._violated("journal", f"{intent.trade_id} reserved something else than planned")

    def may_send(self, order: Any) -> None:
        """An order follows from the journal: a yes in time, an edge confirmed, prices."""
        story, order_id = self.stories.get(order.trade_id), order.client_order_id
        if story is None or "EdgeConfirmed" not in story.kinds:
            self._violated("journal", f"{order_id} was sent and no confirmed edge is journaled")
            return
        if story.answered_ns > story.plan["deadline_ns"]:
            self._violated("deadline", f"{order_id}: the yes was late, and it was entered")
        purpose = str(order.purpose)
        if purpose in {"exit", "unwind"} and "ExitDecided" not in story.kinds:
            self._violated("journal", f"{order_id} leaves a trade, and no exit is journaled")
        number = int(order_id.rsplit(":", 1)[1])
        if number > 1 and purpose == "entry" and "Retry" not in story.kinds:
            self._violated("journal", f"{order_id} is a third entry that nobody priced")

    def planned_qty(self, trade_id: str, instrument: str) -> Decimal | None:
        """The venue units that a leg may enter with."""
        story = self.stories.get(trade_id)
        leg = story.leg(instrument) if story else None
        return Decimal(leg["qty"]) if leg else None

    def dust_taken(self, trade_id: str, instrument: str) -> Decimal:
        """What a leg takes along of what earlier trades have left."""
        story = self.stories.get(trade_id)
        if story is None or story.leg(instrument) is None:
            return ZERO
        is_a = story.plan["a"]["leg"]["instrument"]["id"] == instrument
        return Decimal(story.plan["dust_a" if is_a else "dust_b"])

    def is_bought_first(self, trade_id: str, instrument: str) -> bool:
        """Whether a leg begins with a purchase."""
        story = self.stories.get(trade_id)
        leg = story.leg(instrument) if story else None
        return leg is not None and leg["side"] == "buy"

    # -- the end --------------------------------------------------------------------------

    def settle(self, commit: Commit, _epoch: int, settlement: Any) -> None:
        if not commit.result[0]:
            return
        trade_id = settlement.trade_id
        sent = self.orders.by_trade.get(trade_id, [])
        unanswered = [one.order.client_order_id for one in sent if one.report is None]
        fills = [(one.order, fill) for one in sent if one.report for fill in one.report.fills]
        if str(settlement.kind) == "voided":
            if sent:
                self._violated("void", f"{trade_id} was voided after it had sent orders")
            return
        self.closed += bool(fills)
        if trade_id not in self.stories:
            self._violated("journal", f"{trade_id} was settled and never journaled")
            return
        # An order that nobody accepted is not in the books; one that was has its last word.
        if unanswered:
            self._violated("settled_early", f"{trade_id} ended and {unanswered} have no last word")
        self._check_flat(trade_id)
        self._check_worth(settlement, self.stories[trade_id], fills)

    def _net(self, trade_id: str) -> Decimal:
        plan = self.stories[trade_id].plan
        return sum(
            (
                self.orders.position(trade_id, plan[key]["leg"]["instrument"]["id"])
                for key in ("a", "b")
            ),
            ZERO,
        )

    def _check_flat(self, trade_id: str) -> None:
        """Both legs are closed, and the dust that a way out had to take along is gone too."""
        story = self.stories[trade_id]
        is_left = any(
            str(one.order.purpose) in {"exit", "unwind"} for one in self.orders.by_trade[trade_id]
        )
        net = ZERO
        for key in ("a", "b"):
            instrument = story.plan[key]["leg"]["instrument"]["id"]
            position = self.orders.position(trade_id, instrument)
            if is_left:
                position += self.dust_taken(trade_id, instrument)
            net += position
            if abs(position) * story.mark > DUST_USDT:
                self._violated("flat", f"{trade_id} ended with {position} on {instrument}")
        if abs(net) * story.mark > DUST_USDT:
            self._violated("flat", f"{trade_id} ended with an exposure of {net}")

    def funding_usdt(self, trade_id: str) -> Decimal:
        """What funding moved, computed from fills and announced rates."""
        story, total = self.stories[trade_id], ZERO
        instrument = story.plan["b"]["leg"]["instrument"]
        for funding_ns, (mark_price, rate) in story.funding.items():
            position = self.orders.position(trade_id, instrument["id"], funding_ns)
            paid = position / Decimal(instrument["multiplier"]) * mark_price * rate
            total -= paid.quantize(QUANTUM, rounding=ROUND_HALF_EVEN)
        return total

    def _missed_funding(self, trade_id: str, fills: list[Any]) -> list[int]:
        """The instants over which the perpetual was open and that no event tells of."""
        story = self.stories[trade_id]
        perp = story.plan["b"]["leg"]["instrument"]
        times = [fill.at_ns for order, fill in fills if order.instrument == perp["id"]]
        if perp["kind"] != "perp" or not times:
            return []
        first = -(-min(times) // FUNDING_NS) * FUNDING_NS
        return [
            at_ns
            for at_ns in range(first, max(times), FUNDING_NS)
            if self.orders.position(trade_id, perp["id"], at_ns) and at_ns not in story.funding
        ]

    def _check_worth(self, settlement: Any, story: Story, fills: list[Any]) -> None:
        tolerance = QUANTUM * (10 + 6 * len(fills))
        parts, trade_id = settlement.parts, settlement.trade_id
        total = parts.spread + parts.fx + parts.fees + parts.slippage + parts.funding
        if abs(total - settlement.realized_usdt) > tolerance:
            self._violated("parts", f"{trade_id}: parts {total}, {settlement.realized_usdt} real")
        funding = self.funding_usdt(trade_id)
        if parts.funding != funding:
            self._violated("funding", f"{trade_id}: {parts.funding} told, {funding} due")
        missed = self._missed_funding(trade_id, fills)
        if missed:
            self._violated(
                "funding_missed", f"{trade_id} was open at {missed}, and nothing is paid"
            )
        residual = self._net(trade_id)
        worth = _worth(story, fills, residual) + funding
        if abs(worth - settlement.realized_usdt) > tolerance:
            text = f"{trade_id}: {settlement.realized_usdt} booked, the fills say {worth}"
            self._violated("worth", text)
        fees, turnover = _fees_and_turnover(story, fills)
        if abs(fees - settlement.fees_usdt) > tolerance or abs(fees + parts.fees) > tolerance:
            self._violated("fees", f"{trade_id}: {settlement.fees_usdt} told, fills say {fees}")
        if abs(turnover - settlement.notional_usdt) > tolerance:
            text = f"{trade_id}: {settlement.notional_usdt} told, fills say {turnover}"
            self._violated("turnover", text)

    def _violated(self, check: str, text: str) -> None:
        self._history.violated(f"trades.{check}", text)


def _worth(story: Story, fills: list[Any], residual: Decimal) -> Decimal:
    total = residual * story.mark
    for order, fill in fills:
        leg = story.leg(order.instrument)
        assert leg is not None
        sign = 1 if str(order.side) == "buy" else -1
        quote = leg["leg"]["instrument"]["quote"]
        flow = -sign * fill.price * fill.qty
        if fill.fee.asset == quote:
            flow -= fill.fee.amount
        total += flow / story.fx_exit if quote == "KRW" else flow
    return total


def _fees_and_turnover(story: Story, fills: list[Any]) -> tuple[Decimal, Decimal]:
    fees = turnover = ZERO
    fx_entry = Decimal(story.plan["fx_mid_krw"])
    for order, fill in fills:
        leg = story.leg(order.instrument)
        assert leg is not None
        instrument = leg["leg"]["instrument"]
        fx = fx_entry if str(order.purpose) in ENTRY_GROUP else story.fx_exit
        per_quote = 1 / fx if instrument["quote"] == "KRW" else Decimal(1)
        fee = fill.fee.amount
        if fill.fee.asset == instrument["asset"]:
            fee = fee / Decimal(instrument["multiplier"]) * fill.price
        fees += fee * per_quote
        turnover += fill.price * fill.qty * per_quote
    return fees, turnover
