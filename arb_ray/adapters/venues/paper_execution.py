"""
The paper venue: real books, real rules, simulated orders, durable answers.

An order is stored before it travels and its report before it is told, so after any crash
the venue can be asked. A stored order without a report never met a book: the crash came
while it travelled, and the venue's word on it is "cancelled, nothing filled", written down
like any other so that it is given twice alike.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from arb_ray.domain.book import Levels, exact_levels
from arb_ray.domain.errors import OutcomeUnknown, StoreUnavailable
from arb_ray.domain.instrument import InstrumentId, Leg
from arb_ray.domain.money import Side
from arb_ray.domain.order import OrderReport, OrderRequest, OrderStatus
from arb_ray.engine.paper import Taken, fill_order, latency_ns
from arb_ray.engine.postings import report_entries
from arb_ray.ports import BookView, Clock, LedgerStore, Metrics

STORE_RETRY_NS = 200_000_000
"""A report is written again and again at this pace until PostgreSQL has it: the fill has
happened, and forgetting it would be the one wrong thing to do."""


LOST = "the order was on its way when the process ended"
WITHDRAWN = "withdrawn: too old to be sent"

FILL_RATIO_ORDERS = 50
"""Orders of a venue over which the filled part is averaged."""


class PaperLatency(msgspec.Struct, frozen=True):
    """A venue's order latency, ms, as a log-normal through its median and 99th percentile."""

    median_ms: Decimal
    p99_ms: Decimal


class PaperExecution:
    """Implements ``Execution`` over the host's own books."""

    def __init__(
        self,
        *,
        legs: Mapping[InstrumentId, Leg],
        latencies: Mapping[str, PaperLatency],
        seed: int,
        books: BookView,
        ledger: LedgerStore,
        clock: Clock,
        metrics: Metrics,
        log: Any,
    ) -> None:
        self._legs = legs
        self._latencies = latencies
        self._seed = seed
        self._books = books
        self._ledger = ledger
        self._clock = clock
        self._metrics = metrics
        self._log = log
        self._travelling: dict[str, asyncio.Future[OrderReport]] = {}
        self._taken = Taken()
        self._filled_parts: defaultdict[str, deque[float]] = defaultdict(
            lambda: deque(maxlen=FILL_RATIO_ORDERS)
        )

    async def submit(self, owner_epoch: int, order: OrderRequest) -> OrderReport:
        """
        Accept, travel, fill, store, answer.

        An id that is on its way already gets the answer of its first submission.

        Raises:
            StoreUnavailable: The order was not accepted; nothing happened.
            OutcomeUnknown: It may have been accepted.
            Fenced: Another strategy owns the symbol now.
        """
        order_id = order.client_order_id
        if order_id in self._travelling:
            return await asyncio.shield(self._travelling[order_id])
        answer = self._travelling[order_id] = asyncio.get_running_loop().create_future()
        try:
            report = await self._carry(owner_epoch, order)
        except BaseException:
            answer.set_exception(OutcomeUnknown(f"order {order_id}: its submission failed", 0))
            answer.exception()  # nobody has to be waiting for it
            raise
        else:
            answer.set_result(report)
            return report
        finally:
            del self._travelling[order_id]

    async def _carry(self, owner_epoch: int, order: OrderRequest) -> OrderReport:
        # It leaves when it is sent, which is later than its decision: the journal comes first.
        sent_ns = max(order.decided_ns, self._clock.now_ns())
        is_new = await self._ledger.accept_order(order.symbol, owner_epoch, order)
        if not is_new:
            return await self._last_word(owner_epoch, order)
        leg = self._legs[order.instrument]
        latency = self._latencies[leg.instrument.venue]
        travel_ns = latency_ns(self._seed, order.client_order_id, latency.median_ms, latency.p99_ms)
        await self._clock.sleep_until_ns(sent_ns + travel_ns, order.client_order_id)
        report = self._meet_book(leg, order)
        await self._store(owner_epoch, leg, order, report)
        return report

    async def query(self, owner_epoch: int, order: OrderRequest) -> OrderReport | None:
        """
        Return the venue's word on an order; None when it was never accepted.

        Raises:
            StoreUnavailable, OutcomeUnknown: There is no answer now; ask again.
        """
        if order.client_order_id in self._travelling:
            return await asyncio.shield(self._travelling[order.client_order_id])
        if not await self._ledger.is_order_known(order.client_order_id):
            return None
        return await self._last_word(owner_epoch, order)

    async def withdraw(self, owner_epoch: int, order: OrderRequest) -> OrderReport:
        """
        Use up the order's id, so that nothing can fill under it any more; return its last word.

        Raises:
            StoreUnavailable, OutcomeUnknown: Nothing is known; withdraw it again.
            Fenced: Another strategy owns the symbol now.
        """
        if order.client_order_id in self._travelling:
            return await asyncio.shield(self._travelling[order.client_order_id])
        # Its last word uses the id up, whether it was ever accepted or not.
        return await self._last_word(owner_epoch, order, WITHDRAWN)

    async def _last_word(
        self, owner_epoch: int, order: OrderRequest, if_lost: str = LOST
    ) -> OrderReport:
        """Return what is stored of an accepted order; one that was lost is cancelled now."""
        report = await self._ledger.find_report(order.client_order_id)
        if report is not None:
            return report
        leg = self._legs[order.instrument]
        lost = OrderReport(
            order.client_order_id,
            OrderStatus.CANCELLED,
            (),
            self._clock.now_ns(),
            if_lost,
        )
        await self._store(owner_epoch, leg, order, lost)
        return lost

    def _meet_book(self, leg: Leg, order: OrderRequest) -> OrderReport:
        now_ns = self._clock.now_ns()
        levels = self._books.levels(order.instrument)
        if levels is None or not self._books.is_fresh(order.instrument):
            # The venue cannot be seen, so nobody knows what would have been filled.
            report = OrderReport(
                order.client_order_id, OrderStatus.CANCELLED, (), now_ns, "no fresh book"
            )
        else:
            report = self._filled(leg, order, levels, now_ns)
        return report

    def _filled(
        self, leg: Leg, order: OrderRequest, levels: tuple[Levels, Levels], now_ns: int
    ) -> OrderReport:
        bids, asks = exact_levels(levels[0]), exact_levels(levels[1])
        displayed = asks if order.side is Side.BUY else bids
        left = self._taken.left(order.instrument, order.side, displayed)
        if order.side is Side.BUY:
            report = fill_order(leg, order, bids, left, now_ns)
        else:
            report = fill_order(leg, order, left, asks, now_ns)
        self._taken.take(order, displayed, report.fills)
        return report

    async def _store(
        self, owner_epoch: int, leg: Leg, order: OrderRequest, report: OrderReport
    ) -> None:
        entries = report_entries(leg, order, report)
        while True:
            try:
                await self._ledger.report_order(order.symbol, owner_epoch, order, report, entries)
            except (StoreUnavailable, OutcomeUnknown) as error:
                self._log.warning(
                    "fill_waits_for_store",
                    symbol=order.symbol,
                    trade_id=order.trade_id,
                    order_id=order.client_order_id,
                    cause=str(error),
                )
                due_ns = self._clock.now_ns() + STORE_RETRY_NS
                await self._clock.sleep_until_ns(due_ns, order.client_order_id)
            else:
                self._count(str(leg.instrument.venue), order, report)
                return

    def _count(self, venue: str, order: OrderRequest, report: OrderReport) -> None:
        self._metrics.inc("orders", venue=venue, status=str(report.status))
        if not report.fills:
            self._metrics.inc("order_failures", venue=venue)
        parts = self._filled_parts[venue]
        parts.append(float(sum((fill.qty for fill in report.fills), Decimal(0)) / order.qty))
        self._metrics.set("fill_ratio", sum(parts) / len(parts), venue=venue)
