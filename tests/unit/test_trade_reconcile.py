"""What is believed after a crash."""

from decimal import Decimal

import pytest

from arb_ray.domain.money import Price, Qty, Side
from arb_ray.domain.order import OrderReport, OrderRequest, OrderStatus, Purpose
from arb_ray.engine.reconcile import Finding, find_orphans, resolve_order

ORDER = OrderRequest(
    "t:1:0",
    "t:1",
    "BTC",
    "upbit:BTC-KRW",
    Side.BUY,
    Qty(Decimal(1)),
    Price(Decimal(1)),
    Decimal(1),
    Purpose.ENTRY,
    0,
)
REPORT = OrderReport("t:1:0", OrderStatus.CANCELLED, (), 5)


def test_a_stored_answer_is_believed():
    found = resolve_order(ORDER, REPORT, is_known=True, now_ns=9)
    assert (found.finding, found.report, found.must_store) == (Finding.ANSWERED, REPORT, False)


def test_an_accepted_order_without_an_answer_is_closed_unfilled_and_stored_first():
    found = resolve_order(ORDER, None, is_known=True, now_ns=9)
    assert found.finding is Finding.ACCEPTED
    assert (found.report.status, found.report.fills) == (OrderStatus.CANCELLED, ())
    assert found.must_store


def test_an_order_that_was_never_accepted_has_no_report():
    found = resolve_order(ORDER, None, is_known=False, now_ns=9)
    assert (found.finding, found.report, found.must_store) == (Finding.UNKNOWN, None, False)


def test_an_unknown_outcome_is_never_stored_as_an_answer():
    lost = OrderReport("t:1:0", OrderStatus.UNKNOWN, (), 5)
    with pytest.raises(AssertionError, match="never a last word"):
        resolve_order(ORDER, lost, is_known=True, now_ns=9)


def test_reservations_and_trades_that_do_not_belong_together_are_named():
    orphans = find_orphans(["a:1", "b:1"], ["b:1", "c:1", "d:1"], ["d:1"])
    assert (orphans.to_void, orphans.without_room) == (("a:1",), ("c:1",))
