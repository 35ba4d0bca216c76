"""The worked example of docs/STRATEGY.md, computed again from its own tables."""

import re
from decimal import Decimal
from pathlib import Path

import pytest

from arb_ray.domain.instrument import Kind, Symbol
from arb_ray.domain.money import Asset, Money, Price, Qty, Side
from arb_ray.domain.opportunity import Direction
from arb_ray.domain.order import Fill, OrderReport, OrderRequest, OrderStatus, Purpose
from arb_ray.engine.exits import ExitRules, ExitTerms, OpenPosition, closing
from arb_ray.engine.pnl import ExecutedOrder, Valuation, pnl_parts, postings_total_usdt
from arb_ray.engine.postings import report_entries
from arb_ray.engine.sizing import fee_amount
from arb_ray.engine.spread import CostTerms, both_directions
from tests.signal_market import params, spot_pair
from tests.trade_world import perp, upbit

DOC = (Path(__file__).parents[2] / "docs" / "STRATEGY.md").read_text()
QTY = 0.25


def table(name):
    lines = DOC.split(f"<!-- example: {name} -->")[1].strip().split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def books():
    found = {"U": ([], []), "N": ([], []), "F": ([], [])}
    for book, side, price, size in table("books"):
        found[book][side == "ask"].append((float(price), float(size)))
    return {name: (tuple(bids), tuple(asks)) for name, (bids, asks) in found.items()}


def priced():
    b = books()
    terms = CostTerms.of(spot_pair(), params(slippage_allowance_bps=2.0, safety_buffer_bps=2.0))
    return both_directions(b["U"], b["N"], b["F"], QTY, terms, symbol="ETH", at_ns=0)


def test_edge_table_is_what_the_engine_computes():
    def figures(found):
        costs = found.costs
        return {
            "gross": found.gross_bps,
            "entry fees": costs.entry_fees_bps,
            "after entry fees": found.after_entry_fees_bps,
            "exit fees": costs.exit_fee_a_bps + costs.exit_fee_b_bps,
            "exit spread": costs.exit_spread_bps,
            "slippage allowance": costs.slippage_allowance_bps,
            "expected exit premium": costs.expected_exit_premium_bps,
            "expected funding": costs.expected_funding_bps,
            "safety buffer": costs.safety_buffer_bps,
            "net": found.net_bps,
        }

    ab, ba = (figures(found) for found in priced())
    rows = table("edge")
    assert [row[0] for row in rows] == list(ab)
    for name, written_ab, written_ba in rows:
        assert f"{ab[name]:.2f}" == written_ab, name
        assert f"{ba[name]:.2f}" == written_ba, name


def test_amounts_in_the_text_are_what_the_engine_computes():
    ab, _ = priced()
    assert ab.price_a * QTY == pytest.approx(695_350)
    assert ab.notional_usdt == pytest.approx(499.99)
    assert ab.notional_usdt * ab.fx_krw == pytest.approx(698_986.02)
    for amount in ("695,350 KRW", "499.99 USDT", "698,986.02 KRW"):
        assert amount in DOC


def test_closing_table_is_what_the_engine_computes():
    b = books()
    entry_krw, entry_usdt = (
        float(re.search(pattern, DOC)[1].replace(",", ""))
        for pattern in (r"([\d,.]+) KRW out", r"([\d,.]+) USDT in")
    )
    ab, _ = priced()
    assert entry_krw == pytest.approx(ab.price_a * QTY * 1.0005)
    assert entry_usdt == pytest.approx(ab.notional_usdt * 0.999)
    position = OpenPosition(
        "t", "ETH", Direction.LONG_A_SHORT_B, QTY, ab.notional_usdt, -entry_krw, entry_usdt,
        ab.fx_mid_krw, 0, Kind.SPOT, ExitRules.of(params()),
    )  # fmt: skip
    rows = table("closing")
    assert len(rows) == 2
    for moment, u_bid, usdt, bps in rows:
        u = (((float(u_bid), 1.0),), ((float(u_bid) + 1_000, 1.0),))
        value = closing(
            position,
            u,
            b["N"],
            (b["F"][0][0][0] + b["F"][1][0][0]) / 2,
            ExitTerms.of(spot_pair(), params()),
        )
        assert f"{value.net_usdt:.4f}" == usdt, moment
        assert f"{value.net_usdt / ab.notional_usdt * 1e4:.2f}" == bps, moment


def executed_orders():
    """The four orders of the round trip as the venues report them, from the page's table."""
    done = []
    for n, (way, book, side, qty, decided, filled, fee) in enumerate(table("orders")):
        leg = LEGS[book]
        amount, asset = fee.split()
        order = OrderRequest(
            f"t-{n}", "t", Symbol("ETH"), leg.instrument.id, Side(side), Qty(Decimal(qty)),
            Price(Decimal(decided)), Decimal(decided),
            Purpose.ENTRY if way == "in" else Purpose.EXIT, n,
        )  # fmt: skip
        fill = Fill(
            f"t-{n}-f0", f"t-{n}", Price(Decimal(filled)), Qty(Decimal(qty)),
            Money(Decimal(amount), Asset(asset)), n, (),
        )  # fmt: skip
        report = OrderReport(f"t-{n}", OrderStatus.FILLED, (fill,), n)
        done.append(ExecutedOrder(leg, order, report))
    return done


LEGS = {"U": upbit("ETH", "1000"), "N": perp("ETH", "0.01", "0.001")}


def rates():
    entry, leave, mark, rate = (Decimal(value) for _, value in table("rates"))
    return Valuation(entry, leave, mark), mark * rate


def test_fees_of_the_round_trip_are_what_the_engine_takes():
    for done in executed_orders():
        (fill,) = done.report.fills
        assert fill.fee.amount == fee_amount(fill.price * fill.qty, done.leg.fees.taker_rate)


def test_profit_table_is_what_the_engine_computes():
    valuation, per_unit = rates()
    funding = per_unit * Decimal("0.25")
    orders = executed_orders()
    parts = pnl_parts(orders, [funding], valuation)
    entries = [entry for d in orders for entry in report_entries(d.leg, d.order, d.report)]
    realized = postings_total_usdt(entries, Asset("ETH"), valuation) + funding
    written = {name: usdt for name, usdt, _ in table("profit")}
    computed = {
        "spread": parts.spread,
        "fx": parts.fx,
        "fees": parts.fees,
        "slippage": parts.slippage,
        "funding": parts.funding,
        "realized": realized,
    }
    assert {name: f"{amount:+.4f}" for name, amount in computed.items()} == written
    assert abs(parts.total - realized) < Decimal("1e-7")


def test_the_hand_calculation_of_the_round_trip_leads_to_the_same():
    (a, b, c, d), (valuation, _) = executed_orders(), rates()
    fx_in, fx_out = valuation.fx_entry_krw, valuation.fx_exit_krw

    def at(price, done):
        return price * done.order.qty

    krw_in, usdt_in = at(a.order.decision_price, a), at(b.order.decision_price, b)
    krw_out, usdt_out = at(c.order.decision_price, c), at(d.order.decision_price, d)
    paid = at(a.report.fills[0].price, a) + a.report.fills[0].fee.amount
    written = {name: Decimal(usdt) for name, usdt, _ in table("profit")}
    spread = -krw_in / fx_in + usdt_in + krw_out / fx_out - usdt_out
    slippage = -50 / fx_in - Decimal("0.04") - 125 / fx_out - Decimal("0.025")
    fx = -paid * (1 / fx_out - 1 / fx_in)
    for name, amount in {"spread": spread, "slippage": slippage, "fx": fx}.items():
        assert round(amount, 4) == written[name], name
    for amount in (krw_in, krw_out, paid, usdt_in, usdt_out):
        assert f"{amount.normalize():,f}" in DOC or f"{amount:,.2f}" in DOC, amount


def test_every_setting_that_the_text_names_exists():
    fields = set(params().__struct_fields__)
    named = set(re.findall(r"`([a-z_]+_(?:bps|s|max|fractions))`", DOC))
    assert named
    assert named <= fields
