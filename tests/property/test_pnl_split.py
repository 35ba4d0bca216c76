"""The parts of a trade's profit against its postings, over trades that no plan would make."""

from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_ray.domain.errors import AssetMismatch
from arb_ray.domain.ledger import Account, Entry, EntryKind, Posting
from arb_ray.domain.money import Money, Price, Qty, Side
from arb_ray.domain.order import Fill, OrderReport, OrderRequest, OrderStatus, Purpose
from arb_ray.engine import pnl
from arb_ray.engine.postings import balances_of, funding_entry, report_entries
from arb_ray.engine.sizing import fee_amount
from tests import trade_world as tw

D = Decimal
PAIRS = [tw.BTC_SPOT, tw.BTC_PERP, tw.PEPE_SPOT, tw.PEPE_PERP]


@st.composite
def executed_orders(draw, pair, index):
    leg = draw(st.sampled_from([pair.a, pair.b]))
    side = draw(st.sampled_from(list(Side)))
    purpose = draw(st.sampled_from(list(Purpose)))
    price = tw.prices_of(pair)[leg is pair.b]
    tick = leg.rules.tick_size(price)
    order_id = f"t:1:{index}"
    fills = []
    for number in range(draw(st.integers(0, 4))):
        fill_price = price + draw(st.integers(-90, 90)) * tick
        qty = draw(st.integers(1, 3000)) * max(leg.rules.lot, D("0.00000001"))
        base_fee = leg.fees.is_taken_in_base(side)
        worth = leg.to_base_qty(qty) if base_fee else fill_price * qty
        fee = fee_amount(worth, leg.fees.taker_rate)
        asset = leg.instrument.asset if base_fee else leg.instrument.quote
        fills.append(
            Fill(
                f"{order_id}:{number}",
                order_id,
                Price(fill_price),
                Qty(qty),
                Money(fee, asset),
                5,
                (),
            )
        )
    decision = price + draw(st.integers(-90, 90)) * tick / 7
    order = OrderRequest(
        order_id,
        "t:1",
        pair.symbol,
        leg.instrument.id,
        side,
        Qty(D(10) ** 12),
        Price(price),
        decision,
        purpose,
        0,
    )
    report = OrderReport(order_id, OrderStatus.PARTIAL, tuple(fills), 5)
    return pnl.ExecutedOrder(leg, order, report)


@st.composite
def trades(draw):
    pair = draw(st.sampled_from(PAIRS))
    count = draw(st.integers(0, 7))
    executed = [draw(executed_orders(pair, index)) for index in range(count)]
    cents = st.decimals("-5", "5", places=8)
    funding = draw(st.lists(cents, max_size=3)) if pair in PAIRS[1::2] else []
    fx = st.decimals("1100", "1700", places=1)
    mark = draw(st.decimals("0", "100000", places=8))
    return pair, executed, funding, pnl.Valuation(draw(fx), draw(fx), mark)


def entries_of(pair, executed, funding):
    entries = [e for x in executed for e in report_entries(x.leg, x.order, x.report)]
    entries += [
        funding_entry(pair.b.instrument, "t:1", pair.symbol, amount, number)
        for number, amount in enumerate(funding)
    ]
    return entries


@given(trades())
def test_the_parts_meet_the_postings(trade):
    pair, executed, funding, rates = trade
    entries = entries_of(pair, executed, funding)
    asset = pair.a.instrument.asset
    parts = pnl.pnl_parts(executed, funding, rates)
    total = pnl.postings_total_usdt(entries, asset, rates)
    postings = 1 + sum(len(entry.postings) for entry in entries)
    assert abs(parts.total - total) <= postings * D("1e-8")


@given(trades())
def test_each_asset_sums_to_zero_and_the_base_is_the_position(trade):
    pair, executed, funding, _ = trade
    entries = entries_of(pair, executed, funding)
    sums, base = {}, D(0)
    for (_, account, asset), amount in balances_of(entries).items():
        sums[asset] = sums.get(asset, D(0)) + amount
        if asset == pair.a.instrument.asset and account.is_ours:
            base += amount
    assert not any(sums.values())
    assert base == pnl.position(executed, pair.a) + pnl.position(executed, pair.b)


@given(trades())
def test_each_part_is_what_it_says(trade):
    """Each part again, by another road: change one cause and see one part move."""
    _, executed, funding, rates = trade
    parts = pnl.pnl_parts(executed, funding, rates)
    tiny = D("1e-14")
    assert abs(parts.funding - sum(funding, D(0))) <= tiny
    assert parts.fees <= 0

    same_fx = pnl.Valuation(rates.fx_entry_krw, rates.fx_entry_krw, rates.mark_usdt)
    assert pnl.pnl_parts(executed, funding, same_fx).fx == 0

    at_decision = [with_prices(x, x.order.decision_price) for x in executed]
    ideal = pnl.pnl_parts(at_decision, funding, rates)
    assert ideal.slippage == 0
    assert abs(ideal.spread - parts.spread) <= tiny, "spread knows decision prices only"


def with_prices(done, price):
    fills = tuple(
        Fill(f.fill_id, f.client_order_id, price, f.qty, f.fee, f.at_ns, ())
        for f in done.report.fills
    )
    report = OrderReport(done.report.client_order_id, done.report.status, fills, 5)
    return pnl.ExecutedOrder(done.leg, done.order, report)


def test_the_fx_part_is_the_signed_entry_krw_times_the_change_of_the_rate():
    order = OrderRequest(
        "t:1:0",
        "t:1",
        "BTC",
        tw.BTC_SPOT.a.instrument.id,
        Side.BUY,
        Qty(D(1)),
        Price(D(95_000_000)),
        D(94_000_000),
        Purpose.ENTRY,
        0,
    )
    fill = Fill("f", "t:1:0", Price(D(95_000_000)), Qty(D(1)), Money(D(47_500), "KRW"), 5, ())
    done = pnl.ExecutedOrder(
        tw.BTC_SPOT.a, order, OrderReport("t:1:0", OrderStatus.FILLED, (fill,), 5)
    )
    parts = pnl.pnl_parts([done], [], pnl.Valuation(D(1380), D(1400), D(70_000)))
    with localcontext(pnl.FULL):
        entry_krw = D(-95_047_500)
        assert abs(parts.fx - entry_krw * (1 / D(1400) - 1 / D(1380))) < D("1e-15")
        assert abs(parts.slippage + D(1_000_000) / 1380) < D("1e-15")
        assert abs(parts.fees + D(47_500) / 1380) < D("1e-15")
        assert abs(parts.spread - (70_000 - D(94_000_000) / 1380)) < D("1e-15")
    assert pnl.turnover_usdt([done], pnl.Valuation(D(1380), D(1400), D(0))) == D("68840.57971014")


def test_an_estimate_of_closing_now_pays_the_way_out():
    leg = tw.PEPE_PERP.b
    order = OrderRequest(
        "t:1:0",
        "t:1",
        "PEPE",
        leg.instrument.id,
        Side.SELL,
        Qty(D(40)),
        Price(D("0.01")),
        D("0.01"),
        Purpose.ENTRY,
        0,
    )
    fill = Fill("f", "t:1:0", Price(D("0.0105")), Qty(D(40)), Money(D("0.00021"), "USDT"), 5, ())
    done = pnl.ExecutedOrder(leg, order, OrderReport("t:1:0", OrderStatus.FILLED, (fill,), 5))
    now = pnl.closing_pnl_usdt([done], [D("0.1")], {leg.instrument.id: D("0.01")}, D(1400))
    assert now == D("0.42") - D("0.4") - D("0.00021") - D("0.0002") + D("0.1")


def test_an_asset_without_a_rate_is_an_error():
    postings = (
        Posting("upbit", Account.HELD, "ETH", D(1)),
        Posting("upbit", Account.MARKET, "ETH", D(-1)),
    )
    entry = Entry("x", EntryKind.FILL, None, None, 0, postings)
    with pytest.raises(AssetMismatch):
        pnl.postings_total_usdt([entry], "BTC", pnl.Valuation(D(1), D(1), D(1)))
