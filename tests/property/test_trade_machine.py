"""Whole lives of a trade: venues, RiskGuard and crashes in every order that a seed can think of."""

from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arb_ray.domain.instrument import Kind
from arb_ray.domain.ledger import Account
from arb_ray.domain.opportunity import Direction
from arb_ray.domain.order import Purpose
from arb_ray.domain.risk_intent import SettleKind
from arb_ray.engine import trade_events as ev
from arb_ray.engine.pnl import ExecutedOrder, position
from arb_ray.engine.postings import balances_of
from arb_ray.engine.trade import step
from arb_ray.engine.trade_state import Idle, Phase
from tests import trade_world as tw

D = Decimal
PAIRS = [tw.BTC_SPOT, tw.BTC_PERP, tw.PEPE_SPOT, tw.PEPE_PERP, tw.BTC_CAPPED]
worlds = st.builds(
    lambda pair, direction, seed, trouble: tw.World(
        tw.make_plan(pair, direction), seed, trouble
    ).live(),
    st.sampled_from(PAIRS),
    st.sampled_from(list(Direction)),
    st.integers(0, 2**32),
    st.integers(0, 80),
)


def was_posted(world):
    return bool(world.settlements) and world.settlements[-1].kind is SettleKind.POSTED


@settings(max_examples=250, deadline=None)
@given(worlds)
def test_every_life_ends_flat_settled_once_and_balanced(world):
    assert isinstance(world.trade, Idle)
    assert world.trade.last_number == 1
    assert len(set(world.settlements)) <= 1, "repeats say the same"

    # An id executes at most once, and ids are consecutive from 0.
    ids = [order.client_order_id for _, order, _ in world.executions]
    assert len(ids) == len(set(ids))
    if not was_posted(world):
        assert not world.executions
        return

    settlement = world.settlements[-1]
    for market in (world.plan.a.leg, world.plan.b.leg):
        done = [ExecutedOrder(*row) for row in world.executions]
        rest = position(done, market)
        if market.instrument.kind is Kind.PERP:
            assert rest == 0, "a perpetual can always be closed: reduce-only has no minimum"
        elif market.instrument.venue == "upbit":
            # 5,000 KRW, and the crumb of the coarser lot that it mirrors
            other_lot = world.plan.b.leg.to_base_qty(world.plan.b.leg.rules.lot)
            assert abs(rest) < D(5200) / tw.prices_of_plan(world.plan)[0] + other_lot
        else:
            assert abs(rest) < D("5.2") / tw.prices_of_plan(world.plan)[1]
    assert not world.on(Account.POSITION)
    assert not world.on(Account.UNSETTLED)

    # The ledger's own value of the trade, summed here without the engine's help.
    state = final_rates(world)
    ours = world.ours()
    asset = world.plan.a.leg.instrument.asset
    value = (
        ours.get("USDT", D(0))
        + ours.get("KRW", D(0)) / state["fx"]
        + ours.get(asset, D(0)) * state["mark"]
    )
    postings = sum(len(entry.postings) for entry in world.entries.values())
    tolerance = (postings + 1) * D("1e-8")
    assert abs(settlement.realized_usdt - value) <= tolerance
    assert abs(settlement.parts.total - settlement.realized_usdt) <= tolerance
    # What is left of the asset is dust, whichever way: the inventory is what it was.
    assert ours_by_account(world) <= {(Account.DUST, asset)}


def ours_by_account(world):
    """Our base balances; what a trade still holds is free once it is released."""
    asset = world.plan.a.leg.instrument.asset
    released = Counter()
    for (_, account, name), amount in balances_of(world.entries.values()).items():
        if name == asset and account.is_ours:
            released["base" if account in {Account.FREE, Account.HELD} else account] += amount
    return {(key, asset) for key, amount in released.items() if amount}


def final_rates(world):
    """FX of the exit that was accepted, and the newest mark that was taken into account."""
    state = {"fx": world.plan.fx_mid_krw, "mark": world.plan.mark_usdt}
    trade = Idle()
    for row in world.journal:
        event = ev.decode_event(row)
        before, (trade, _) = trade, step(trade, event)
        if isinstance(event, ev.ExitDecided) and before != trade:
            state = {"fx": event.fx_mid_krw, "mark": event.mark_usdt}
        if isinstance(event, ev.Retry) and before != trade:
            state["mark"] = event.mark_usdt
    return state


@settings(max_examples=100, deadline=None)
@given(worlds)
def test_no_leg_is_ever_taken_beyond_its_plan_and_exits_only_shrink(world):
    held = Counter()
    for market, order, report in world.executions:
        key = market.instrument.id
        before = held[key]
        held[key] += order.side.sign * position_of(market, order, report)
        planned = world.plan.a if market == world.plan.a.leg else world.plan.b
        assert abs(held[key]) <= market.to_base_qty(planned.qty)
        if order.purpose is not Purpose.ENTRY:
            assert abs(held[key]) <= abs(before)
            assert held[key] * before >= 0, "closing never turns a position around"


def position_of(market, order, report):
    return abs(position([ExecutedOrder(market, order, report)], market))


@settings(max_examples=100, deadline=None)
@given(worlds)
def test_the_holds_cover_what_the_entry_needs(world):
    """Until the exit begins, no HELD balance of this trade falls below zero."""
    entry_group = {Purpose.ENTRY, Purpose.HEDGE}
    fills = {
        f"fill:{fill.fill_id}"
        for _, order, report in world.executions
        if order.purpose in entry_group
        for fill in report.fills
    }
    held = Counter()
    for entry_id, entry in world.entries.items():
        if entry_id.startswith("hold:") or entry_id in fills:
            for posting in entry.postings:
                if posting.account is Account.HELD:
                    held[posting.venue, posting.asset] += posting.amount
    assert all(amount >= 0 for amount in held.values()), held


@settings(max_examples=60, deadline=None)
@given(worlds)
def test_the_journal_replays_to_the_same_effects(world):
    def play():
        trade, all_effects = Idle(), []
        for row in world.journal:
            trade, effects = step(trade, ev.decode_event(row))
            all_effects += effects
        return trade, all_effects

    assert play() == play()
    assert play()[0] == world.trade


def test_the_lives_reach_every_phase_and_every_way_out():
    seen, reasons = Counter(), Counter()
    for seed in range(250):
        pair = PAIRS[seed % len(PAIRS)]
        direction = list(Direction)[seed // len(PAIRS) % 2]
        world = tw.World(tw.make_plan(pair, direction), seed, trouble=40).live()
        seen.update(set(world.phases))
        reasons.update(s.exit_reason for s in set(world.settlements))
    assert set(seen) == set(Phase)
    assert {"not_filled", "evened_out", "take_profit", "risk_flatten"} <= set(reasons)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("direction", list(Direction))
def test_an_untroubled_life_is_four_orders_and_leaves_no_exposure(pair, direction):
    world = tw.World(tw.make_plan(pair, direction), 1, trouble=0).live()
    net = sum(
        (position([ExecutedOrder(*row)], row[0]) for row in world.executions), start=Decimal(0)
    )
    assert len(world.executions) >= 4
    assert abs(net) <= Decimal("1e-6")
    assert not world.notes
