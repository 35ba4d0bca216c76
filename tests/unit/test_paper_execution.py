"""The paper venue: an order is stored before it travels, its last word before it is told."""

import asyncio

import pytest

from arb_ray.adapters.storage.memory import MemoryStore
from arb_ray.adapters.venues.paper_execution import PaperExecution
from arb_ray.domain.errors import Fenced, OutcomeUnknown, StoreUnavailable
from arb_ray.domain.money import Side
from arb_ray.domain.order import OrderRequest, OrderStatus, Purpose
from tests.shell_world import LATENCIES, Books, Counts, D, Faulty, JumpClock, Log
from tests.signal_market import F_BOOK, N_BOOK, T0, U_FAIR, Market, S, book, spot_pair

AWAY = StoreUnavailable("postgres", "away")


class Venue:
    def __init__(self):
        self.market = Market(spot_pair())
        self.clock = JumpClock()
        self.memory = MemoryStore()
        self.store = Faulty(self.memory)
        self.log, self.metrics = Log(), Counts()
        pair = self.market.pair
        self.execution = PaperExecution(
            legs={leg.instrument.id: leg for leg in (pair.a, pair.b)},
            latencies=LATENCIES,
            seed=1,
            books=Books(self.market.view, self.clock),
            ledger=self.store,
            clock=self.clock,
            metrics=self.metrics,
            log=self.log,
        )
        self.put(u=U_FAIR, n=N_BOOK, f=F_BOOK)

    def put(self, **books):
        self.market.now_ns = self.market.mono_ns = self.clock.now
        self.market.put(**books)

    def order(self, number=0, qty="0.1", limit="2810000", **changes):
        fields = {
            "client_order_id": f"test:ETH:1:{number}",
            "trade_id": "test:ETH:1",
            "symbol": "ETH",
            "instrument": self.market.pair.a.instrument.id,
            "side": Side.BUY,
            "qty": D(qty),
            "limit_price": D(limit),
            "decision_price": D(2_800_000),
            "purpose": Purpose.ENTRY,
            "decided_ns": self.clock.now,
        }
        return OrderRequest(**(fields | changes))

    async def submit(self, order):
        return await self.execution.submit(1, order)


@pytest.fixture
async def venue():
    venue = Venue()
    await venue.memory.claim_symbol("ETH", "host")
    return venue


async def test_an_order_is_filled_at_the_taker_s_side_after_its_latency(venue):
    order = venue.order()
    report = await venue.submit(order)
    assert report.status is OrderStatus.FILLED
    assert {fill.price for fill in report.fills} == {D(2_800_000)}
    assert T0 + 1_000_000 < report.at_ns < T0 + 200_000_000
    assert await venue.memory.find_report(order.client_order_id) == report
    assert any(entry.startswith("fill:") for entry in venue.memory.entries)


async def test_the_book_at_arrival_counts_not_the_one_that_triggered(venue):
    sleep = venue.clock.sleep_until_ns

    async def move_first(due_ns, key):
        await sleep(due_ns, key)
        venue.put(u=book(2_803_000.0, 2_805_000.0))

    venue.clock.sleep_until_ns = move_first
    report = await venue.submit(venue.order())
    assert {fill.price for fill in report.fills} == {D(2_805_000)}


async def test_an_order_that_leaves_late_arrives_late(venue):
    order = venue.order(decided_ns=T0 - S)
    report = await venue.submit(order)
    assert report.at_ns > T0


async def test_a_stale_book_fills_nothing(venue):
    venue.clock.now += 4 * S
    report = await venue.submit(venue.order())
    assert report.status is OrderStatus.CANCELLED
    assert report.fills == ()
    assert venue.metrics.counters["order_failures"] == 1
    assert venue.metrics.gauges["fill_ratio"] == 0.0
    assert await venue.memory.find_report(report.client_order_id) == report


async def test_each_last_word_is_counted_once_and_the_filled_part_averaged(venue):
    filled = venue.order(1)
    await venue.submit(filled)
    await venue.submit(filled)  # a repeat is no second order
    venue.clock.now += 4 * S
    await venue.submit(venue.order(2))
    assert venue.metrics.counters["orders"] == 2
    assert venue.metrics.counters["order_failures"] == 1
    assert venue.metrics.gauges["fill_ratio"] == 0.5


async def test_a_cut_or_missing_book_fills_nothing(venue):
    venue.market.alive("upbit", is_up=False)
    assert (await venue.submit(venue.order())).status is OrderStatus.CANCELLED
    venue.market.view.books.clear()
    assert (await venue.submit(venue.order(1))).status is OrderStatus.CANCELLED


async def test_a_repeated_submit_gives_the_same_report(venue):
    order = venue.order()
    first = await venue.submit(order)
    venue.put(u=book(2_700_000.0, 2_701_000.0))
    assert await venue.submit(order) == first
    assert await venue.execution.query(1, order) == first


async def test_two_submits_of_one_id_at_once_get_one_report(venue):
    order = venue.order()
    first, second = await asyncio.gather(venue.submit(order), venue.submit(order))
    assert first == second == await venue.memory.find_report(order.client_order_id)


async def test_a_question_meets_an_order_that_still_travels(venue):
    order = venue.order()
    first = asyncio.create_task(venue.submit(order))
    await asyncio.sleep(0)
    assert await venue.memory.is_order_known(order.client_order_id)
    assert await venue.execution.query(1, order) == await first
    assert (await first).status is OrderStatus.FILLED


async def test_an_unknown_order_was_never_accepted(venue):
    assert await venue.execution.query(1, venue.order()) is None


async def test_an_order_that_was_lost_on_its_way_is_cancelled_for_good(venue):
    order = venue.order()
    await venue.memory.accept_order("ETH", 1, order)
    lost = await venue.execution.query(1, order)
    assert lost.status is OrderStatus.CANCELLED
    assert await venue.execution.query(1, order) == lost
    assert await venue.submit(order) == lost
    assert not any(entry.startswith("fill:") for entry in venue.memory.entries)


async def test_a_fill_waits_for_its_store_as_long_as_it_takes(venue):
    venue.store.before["report_order"] = [AWAY, AWAY]
    venue.store.after["report_order"] = [OutcomeUnknown("commit", 1)]
    order = venue.order()
    report = await venue.submit(order)
    assert venue.store.calls["report_order"] == 4
    assert venue.log.events == ["fill_waits_for_store"] * 3
    assert await venue.memory.find_report(order.client_order_id) == report
    assert len([e for e in venue.memory.entries if e.startswith("fill:")]) == len(report.fills)


async def test_an_order_that_could_not_be_accepted_does_not_exist(venue):
    venue.store.before["accept_order"] = [AWAY]
    order = venue.order()
    with pytest.raises(StoreUnavailable):
        await venue.submit(order)
    assert await venue.execution.query(1, order) is None
    assert (await venue.submit(order)).status is OrderStatus.FILLED


async def test_a_former_owner_sends_nothing(venue):
    await venue.memory.claim_symbol("ETH", "other")
    with pytest.raises(Fenced):
        await venue.submit(venue.order())
    assert venue.memory._orders == {}


async def test_rules_limits_and_depth_hold(venue):
    assert (await venue.submit(venue.order(0, qty="0.001"))).status is OrderStatus.REJECTED
    assert (await venue.submit(venue.order(1, limit="2799999"))).status is OrderStatus.CANCELLED
    venue.put(u=book(2_798_000.0, 2_800_000.0, size=0.02))
    report = await venue.submit(venue.order(2))
    assert report.status is OrderStatus.PARTIAL
    assert report.filled_qty == D("0.06")


async def test_two_orders_do_not_take_the_same_displayed_size(venue):
    venue.put(u=book(2_798_000.0, 2_800_000.0, size=0.02))
    first = await venue.submit(venue.order())
    assert first.filled_qty == D("0.06")
    assert (await venue.submit(venue.order(1))).status is OrderStatus.CANCELLED
    venue.put(u=book(2_798_000.0, 2_800_000.0, size=0.02))  # the same again proves nothing
    assert (await venue.submit(venue.order(2))).status is OrderStatus.CANCELLED
    venue.put(u=book(2_798_000.0, 2_800_000.0, size=0.03))
    assert (await venue.submit(venue.order(3))).filled_qty == D("0.09")


async def test_an_order_that_is_withdrawn_fills_no_more_when_its_submission_arrives_after_all(
    venue,
):
    order = venue.order()
    assert await venue.execution.query(1, order) is None
    withdrawn = await venue.execution.withdraw(1, order)
    assert (withdrawn.status, withdrawn.fills) == (OrderStatus.CANCELLED, ())
    assert withdrawn.reason.startswith("withdrawn")
    assert await venue.submit(order) == withdrawn
    assert await venue.execution.withdraw(1, order) == withdrawn
    assert await venue.execution.query(1, order) == withdrawn
    assert venue.memory.entries == {}


async def test_withdrawing_an_order_that_has_filled_tells_of_the_fill(venue):
    order = venue.order()
    filled = await venue.submit(order)
    assert await venue.execution.withdraw(1, order) == filled
