"""A world for one trade: markets, books, venues that misbehave, a ledger and a journal."""

from __future__ import annotations

import random
import re
from decimal import Decimal

from arb_ray.domain.instrument import (
    FeeAsset,
    FeeSchedule,
    Instrument,
    InstrumentId,
    Kind,
    Leg,
    Pair,
    Symbol,
    TickBand,
    TradingRules,
    Venue,
    VenueSymbol,
)
from arb_ray.domain.ledger import Account
from arb_ray.domain.money import KRW, USDT, Asset, Qty, Side
from arb_ray.domain.opportunity import Costs, Direction, Opportunity
from arb_ray.domain.order import OrderReport, OrderRequest, OrderStatus
from arb_ray.domain.risk_intent import Granted, Refused, RiskRefusal
from arb_ray.engine import trade_events as ev
from arb_ray.engine.paper import fill_order
from arb_ray.engine.postings import balances_of, hold_entry, holds_for, report_entries
from arb_ray.engine.sizing import limit_price, size_entry, worst_loss_usdt
from arb_ray.engine.trade import replay, resume_effects, step
from arb_ray.engine.trade_orders import Wanted, wanted
from arb_ray.engine.trade_plan import (
    LegKey,
    OrderPrice,
    PlannedLeg,
    TradeLimits,
    TradePlan,
    trade_id_for,
)
from arb_ray.engine.trade_state import Idle, Phase

D = Decimal
FX = D("1380")
ALLOWANCE_BPS = D(50)
SECOND = 10**9


def leg(
    venue,
    asset,
    quote,
    kind=Kind.SPOT,
    *,
    tick,
    lot,
    min_notional,
    fee_bps,
    fee_asset=FeeAsset.QUOTE,
    multiplier="1",
    max_qty="0",
):
    suffix = "-PERP" if kind is Kind.PERP else ""
    return Leg(
        Instrument(
            InstrumentId(f"{venue}:{asset}-{quote}{suffix}"),
            Asset(asset),
            Asset(quote),
            venue,
            kind,
            VenueSymbol(asset if multiplier == "1" else f"{multiplier}{asset}USDT"),
            D(multiplier),
        ),
        TradingRules((TickBand(D(0), D(tick)),), D(lot), D(lot), D(max_qty), D(min_notional)),
        FeeSchedule(D(fee_bps), fee_asset),
    )


def upbit(asset, tick, max_qty="0"):
    return leg(
        Venue.UPBIT,
        asset,
        KRW,
        tick=tick,
        lot="0.00000001",
        min_notional="5000",
        fee_bps="5",
        max_qty=max_qty,
    )


def spot(asset, tick, lot, max_qty="0"):
    return leg(
        Venue.BINANCE_SPOT,
        asset,
        USDT,
        tick=tick,
        lot=lot,
        min_notional="5",
        fee_bps="10",
        fee_asset=FeeAsset.RECEIVED,
        max_qty=max_qty,
    )


def perp(asset, tick, lot, min_notional="5", multiplier="1"):
    return leg(
        Venue.BINANCE_USDM,
        asset,
        USDT,
        Kind.PERP,
        tick=tick,
        lot=lot,
        min_notional=min_notional,
        fee_bps="5",
        multiplier=multiplier,
    )


FX_LEG = leg(Venue.UPBIT, "USDT", KRW, tick="1", lot="0.00000001", min_notional="5000", fee_bps="5")

BTC_SPOT = Pair(Symbol("BTC"), upbit("BTC", "1000"), spot("BTC", "0.01", "0.00001"), FX_LEG)
BTC_PERP = Pair(Symbol("BTC"), upbit("BTC", "1000"), perp("BTC", "0.1", "0.001", "100"), FX_LEG)
PEPE_SPOT = Pair(Symbol("PEPE"), upbit("PEPE", "0.0001"), spot("PEPE", "0.00000001", "1"), FX_LEG)
PEPE_PERP = Pair(
    Symbol("PEPE"),
    upbit("PEPE", "0.0001"),
    perp("PEPE", "0.0000001", "1", multiplier="1000"),
    FX_LEG,
)
BTC_CAPPED = Pair(
    Symbol("BTC"), upbit("BTC", "1000", "0.003"), spot("BTC", "0.01", "0.00001", "0.002"), FX_LEG
)

PRICE = {"BTC": (D("95000000"), D("68840.5")), "PEPE": (D("0.0145"), D("0.00001051"))}
BASE = {"BTC": D("0.00721"), "PEPE": D("47654321")}


def prices_of(pair):
    """Round prices of both legs in venue units, on their grids."""
    krw, usdt = PRICE[pair.symbol]
    return krw, usdt * pair.b.instrument.multiplier


def order_price(market, side, decision, allowance_bps=ALLOWANCE_BPS):
    return OrderPrice(side, decision, limit_price(market.rules, side, decision, allowance_bps))


def make_plan(pair=BTC_SPOT, direction=Direction.LONG_A_SHORT_B, number=1, base=None, **changes):
    legs = size_entry(pair, direction, base or BASE[pair.symbol])
    price_a, price_b = prices_of(pair)
    side_a = direction.entry_side_a
    planned_a = PlannedLeg(pair.a, side_a, Qty(legs.qty_a), order_price(pair.a, side_a, price_a))
    side_b = side_a.opposite
    planned_b = PlannedLeg(pair.b, side_b, Qty(legs.qty_b), order_price(pair.b, side_b, price_b))
    notional = legs.qty_b * price_b
    worst = worst_loss_usdt(notional, D(60), D(30), ALLOWANCE_BPS)
    fields = {
        "number": number,
        "trade_id": trade_id_for("test", pair.symbol, number),
        "session_id": "s1",
        "symbol": pair.symbol,
        "owner_epoch": 1,
        "direction": direction,
        "a": planned_a,
        "b": planned_b,
        "fx_mid_krw": FX,
        "mark_usdt": PRICE[pair.symbol][1],
        "worst_loss_usdt": worst,
        "notional_usdt": notional,
        "holds": holds_for(
            pair,
            direction,
            legs,
            limit_a=planned_a.price.limit,
            limit_b=planned_b.price.limit,
            worst_loss_usdt=worst,
            fx_krw=FX,
            margin_rate=D("0.2"),
        ),
        "opportunity": Opportunity(
            pair.symbol,
            direction,
            0,
            float(BASE[pair.symbol]),
            500.0,
            float(price_a),
            float(price_b),
            1380.0,
            1380.0,
            30.0,
            Costs(5, 10, 5, 10, 2, 2, 0, 0, 1),
        ),
        "limits": TradeLimits(D(3), D(60), D(0), 3600 * SECOND),
        "decided_ns": 0,
        "deadline_ns": SECOND,
    }
    return TradePlan(**(fields | changes))


class World:
    """
    Plays everyone else: RiskGuard, both venues, the operator, crashes. One seed is one life.

    ``is_calm`` after ``trouble`` steps, so that every life ends.
    """

    def __init__(self, plan, seed, trouble=25):
        self.plan = plan
        self.rng = random.Random(seed)
        self.trouble = trouble
        self.now = 0
        self.trade = Idle()
        self.journal = []
        self.pending = []
        self.entries = {}
        self.accepted = {}  # client order id -> request
        self.reports = {}  # client order id -> the venue's last word
        self.executions = []
        self.settlements = []
        self.grew_old = {}  # when it was decided -> whether its orders waited too long to be sent
        self.rates = []  # (fx, mark) of every decision
        self.phases = [Phase.IDLE]
        self.notes = []

    # Chance

    def happens(self, probability):
        return self.trouble > 0 and self.rng.random() < probability

    def drift(self, price, tick):
        moved = price * (1 + D(self.rng.randint(-80, 80)) / 10000)
        return (moved / tick).to_integral_value() * tick

    def book(self, market, price):
        tick = market.rules.tick_size(price)
        size = next(p.qty for p in (self.plan.a, self.plan.b) if p.leg == market)
        calm = self.trouble <= 0
        sizes = ["3"] if calm else ["0.00000003", "0.1", "0.4", "0.7", "1", "3"]

        def level(depth, sign):
            amount = D(self.rng.choice(sizes)) * size
            return price + sign * depth * tick, amount.quantize(D("1e-8")) + D("0.00000001")

        return tuple(level(i, -1) for i in (1, 2, 3)), tuple(level(i, 1) for i in (1, 2, 3))

    # The loop

    def feed(self, event):
        assert ev.decode_event(ev.encode_event(event)) == event
        trade, effects = step(self.trade, event)
        self.journal.append(ev.encode_event(event))
        self.trade = trade
        self.phases.append(trade.phase)
        self.pending += effects
        return effects

    def live(self):
        self.feed(ev.Signal(at_ns=self.now, plan=self.plan))
        for _ in range(2000):
            self.trouble -= 1
            self.now += SECOND // 10
            if self.happens(0.05):
                self.crash()
            elif self.pending:
                self.carry_out(self.pending.pop(0))
            elif self.trade.phase is Phase.HOLDING:
                self.while_holding()
            else:
                assert self.trade.phase is Phase.IDLE, self.trade
                return self
        raise AssertionError(f"this life does not end: {self.trade.phase}")

    def crash(self):
        before = self.trade
        self.trade = replay(ev.decode_event(row) for row in self.journal)
        assert self.trade == before
        self.pending = list(resume_effects(self.trade))

    def carry_out(self, effect):
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(effect).__name__).lower()
        getattr(self, f"do_{name}")(effect)

    # RiskGuard

    def do_reserve_risk(self, effect):
        intent = effect.intent
        if self.happens(0.03):
            refused = Refused(intent.trade_id, RiskRefusal.DAILY_LOSS)
            self.feed(ev.ReserveAnswered(at_ns=self.now, verdict=refused))
        elif self.happens(0.03):
            self.feed(ev.ReserveUnanswered(at_ns=self.now))
        else:
            late = 2 * SECOND if self.happens(0.03) else 0
            entry = hold_entry(intent, self.now)
            self.entries[entry.entry_id] = entry
            granted = Granted(intent.trade_id, 1, self.now)
            for _ in range(2 if self.happens(0.1) else 1):
                self.feed(ev.ReserveAnswered(at_ns=min(self.now, SECOND) + late, verdict=granted))

    def do_confirm_edge(self, effect):
        if self.trade.phase is not Phase.CONFIRMING:
            return  # a crash made it asked twice
        if self.happens(0.05):
            self.feed(ev.EdgeGone(at_ns=self.now, reason="edge_gone"))
        else:
            self.feed(ev.EdgeConfirmed(at_ns=self.now))

    def do_settle_risk(self, effect):
        self.settlements.append(effect.settlement)
        for _ in range(2 if self.happens(0.2) else 1):
            self.feed(ev.Settled(at_ns=self.now, trade_id=self.plan.trade_id))

    def do_post_entries(self, effect):
        for entry in effect.entries:
            assert self.entries.setdefault(entry.entry_id, entry) == entry

    def do_note(self, effect):
        self.notes.append(effect)

    # Venues

    def do_submit_order(self, effect):
        order = effect.order
        decided_ns = order.decided_ns
        if decided_ns not in self.grew_old:
            self.grew_old[decided_ns] = self.happens(0.1)
        if not effect.is_repeat and self.grew_old[decided_ns]:  # no venue ever saw it
            old = OrderReport(order.client_order_id, OrderStatus.CANCELLED, (), self.now)
            self.feed(ev.OrderReported(at_ns=self.now, report=old))
            return
        if self.happens(0.1):  # lost on the way
            self.feed(ev.OrderReported(at_ns=self.now, report=self.unknown(order)))
            return
        self.execute(order)
        if self.happens(0.1):  # done, and the answer lost
            self.feed(ev.OrderReported(at_ns=self.now, report=self.unknown(order)))
            return
        for _ in range(2 if self.happens(0.2) else 1):
            report = self.reports[order.client_order_id]
            self.feed(ev.OrderReported(at_ns=self.now, report=report))

    def do_withdraw_order(self, effect):
        order = effect.order
        dead = OrderReport(order.client_order_id, OrderStatus.CANCELLED, (), self.now)
        report = self.reports.setdefault(order.client_order_id, dead)
        self.feed(ev.OrderReported(at_ns=self.now, report=report))

    def do_query_order(self, effect):
        order_id = effect.client_order_id
        if self.happens(0.1):
            self.now += 5 * SECOND
        report = self.reports.get(order_id)
        for _ in range(2 if self.happens(0.2) else 1):
            event = ev.QueryAnswered(at_ns=self.now, client_order_id=order_id, report=report)
            self.feed(event)

    def unknown(self, order):
        return OrderReport(order.client_order_id, OrderStatus.UNKNOWN, (), self.now)

    def execute(self, order: OrderRequest):
        known = self.accepted.setdefault(order.client_order_id, order)
        assert known == order, "one id, one order"
        if order.client_order_id in self.reports:
            return
        planned = self.plan.a if order.instrument == self.plan.a.leg.instrument.id else self.plan.b
        tick = planned.leg.rules.tick_size(order.decision_price)
        price = (order.decision_price / tick).to_integral_value() * tick
        if self.trouble <= 0:
            price -= order.side.sign * 2 * tick  # deep and within the limit
        bids, asks = self.book(planned.leg, price)
        report = fill_order(planned.leg, order, bids, asks, self.now)
        if self.happens(0.1):
            report = OrderReport(
                order.client_order_id, OrderStatus.REJECTED, (), self.now, "venue is down"
            )
        self.reports[order.client_order_id] = report
        self.executions.append((planned.leg, order, report))
        for entry in report_entries(planned.leg, order, report):
            assert entry.entry_id not in self.entries
            self.entries[entry.entry_id] = entry

    # Decisions

    def prices(self):
        nominal = dict(zip(LegKey, prices_of_plan(self.plan), strict=True))
        prices: dict[LegKey, OrderPrice | None] = {LegKey.A: None, LegKey.B: None}
        item: Wanted
        for item in wanted(self.trade):
            market = self.plan.leg(item.key)
            decision = self.drift(nominal[item.key], market.rules.tick_size(nominal[item.key]))
            prices[item.key] = order_price(market, item.side, decision, D(200))
        return prices

    def do_request_retry(self, effect):
        prices = self.prices()
        for key in LegKey:
            if self.happens(0.2):
                prices[key] = None
        if self.happens(0.2):
            self.decide_exit(ev.ExitReason.RISK_FLATTEN)
        for _ in range(2 if self.happens(0.1) else 1):
            mark = PRICE[self.plan.symbol][1] * D(self.rng.randint(99, 101)) / 100
            self.feed(
                ev.Retry(
                    at_ns=self.now,
                    price_a=prices[LegKey.A],
                    price_b=prices[LegKey.B],
                    mark_usdt=mark,
                ),
            )

    def while_holding(self):
        if self.happens(0.5):
            for _ in range(2 if self.happens(0.3) else 1):
                self.feed(
                    ev.FundingPaid(
                        at_ns=self.now,
                        funding_ns=self.now // SECOND * SECOND,
                        mark_price=prices_of_plan(self.plan)[1],
                        rate=D(self.rng.randint(-50, 50)) / 100_000,
                    ),
                )
        else:
            self.decide_exit(self.rng.choice(list(ev.ExitReason)))

    def decide_exit(self, reason):
        prices = self.prices()
        if self.happens(0.1):
            prices[LegKey.A] = None
        self.feed(
            ev.ExitDecided(
                at_ns=self.now,
                reason=reason,
                price_a=prices[LegKey.A],
                price_b=prices[LegKey.B],
                fx_mid_krw=FX + self.rng.randint(-20, 20),
                mark_usdt=PRICE[self.plan.symbol][1],
            ),
        )

    # What the ledger says

    def ours(self):
        """Sums over our accounts per asset."""
        sums: dict[str, Decimal] = {}
        for (_, account, asset), amount in balances_of(self.entries.values()).items():
            if account.is_ours:
                sums[asset] = sums.get(asset, D(0)) + amount
        return sums

    def on(self, account: Account):
        balances = balances_of(self.entries.values())
        return {key: amount for key, amount in balances.items() if key[1] is account}


def prices_of_plan(plan):
    krw, usdt = PRICE[plan.symbol]
    return krw, usdt * plan.b.leg.instrument.multiplier


SIDES = (Side.BUY, Side.SELL)
