"""Profit where a trade is at the edge of what can be valued; tests/property has the identity."""

from decimal import Decimal

import pytest
from msgspec.structs import replace

from arb_ray.domain.errors import AssetMismatch
from arb_ray.domain.money import Money, Price, Qty, Side
from arb_ray.domain.order import Fill, OrderReport, OrderRequest, OrderStatus, Purpose
from arb_ray.engine import pnl
from tests import trade_world as tw

D = Decimal
RATES = pnl.Valuation(D(1380), D(1400), D(70_000))


def bought(leg, price, fee_asset, fee="0.001"):
    order = OrderRequest(
        "t:1:0",
        "t:1",
        "BTC",
        leg.instrument.id,
        Side.BUY,
        Qty(D(1)),
        Price(D(price)),
        D(price),
        Purpose.ENTRY,
        0,
    )
    fill = Fill("f", "t:1:0", Price(D(price)), Qty(D(1)), Money(D(fee), fee_asset), 5, ())
    return pnl.ExecutedOrder(leg, order, OrderReport("t:1:0", OrderStatus.FILLED, (fill,), 5))


def test_a_fee_in_an_asset_without_a_rate_is_no_profit_but_an_error():
    with pytest.raises(AssetMismatch, match="BNB"):
        pnl.pnl_parts([bought(tw.BTC_SPOT.b, "70000", "BNB")], [], RATES)


def test_a_leg_that_is_quoted_in_an_asset_without_a_rate_is_an_error():
    leg = replace(tw.BTC_SPOT.b, instrument=replace(tw.BTC_SPOT.b.instrument, quote="BTC"))
    with pytest.raises(AssetMismatch, match="BTC"):
        pnl.turnover_usdt([bought(leg, "70000", "BTC")], RATES)


def test_no_part_of_a_profit_is_a_negative_zero():
    done = bought(tw.BTC_PERP.b, "70000", "USDT", fee="0")
    parts = pnl.pnl_parts([done], [D("-0")], RATES)
    assert not any(part.is_signed() for part in (parts.fees, parts.slippage, parts.fx))
    assert not parts.funding.is_signed()
