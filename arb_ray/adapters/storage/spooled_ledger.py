"""
The strategies' ledger when PostgreSQL can be away: a live trade's writes go to a local spool.

    up ----- a write fails, or has no answer in time --> away
    away --- PostgreSQL answers, all is replayed ------> up

While up every write goes straight to PostgreSQL. The first that fails turns the whole host to
its spool, and everything after it goes there too until the spool is replayed: so PostgreSQL
sees one order of writes. What a live trade needs (``LiveEvent``, orders that enter nothing,
reports, postings) is on the disk when the call returns. What may only happen with PostgreSQL
(a claim, a trade number, an entry) is refused meanwhile, at once.

A failed write may have been carried out all the same; its record then meets its own id.
When PostgreSQL refuses a record of ours for good our process ends: its memory holds what the
books do not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, TypeVar

import msgspec

from arb_ray.adapters.storage.own_orders import OwnOrders
from arb_ray.adapters.storage.prompt_calls import PromptCalls
from arb_ray.adapters.storage.spool_records import (
    AnyWrite,
    EventWrite,
    OrderWrite,
    PostWrite,
    ReportWrite,
    encode_write,
)
from arb_ray.adapters.storage.spool_replay import Refusal, Replayer, SpoolPlace, WriteSpool
from arb_ray.domain.errors import ArbError, BadInput, OutcomeUnknown, StoreUnavailable
from arb_ray.domain.instrument import Symbol, Venue
from arb_ray.domain.ledger import Balance, Entry
from arb_ray.domain.money import Asset
from arb_ray.domain.order import OrderReport, OrderRequest, Purpose
from arb_ray.engine.trade_events import LiveEvent
from arb_ray.ports import LedgerStore, Metrics, StoredTrade

PROBE_S: Final = 0.2
"""Pace at which an absent PostgreSQL is looked for; trading is to go on 2 s after its return."""

PROBE_TIMEOUT_S: Final = 0.5
"""A sign of life that takes longer is none yet."""

LEFT_S: Final = 5.0
"""Pace at which spools of processes that are gone are looked for while all is well."""

OTHERS_WAIT_S: Final = 5.0
"""A claim waits so long for another process of this node to replay its spool, then fences it."""

Result = TypeVar("Result")

_live_events = msgspec.json.Decoder(LiveEvent)


class SpooledLedger:
    """``LedgerStore`` of one host process; errors are told there."""

    def __init__(
        self,
        inner: LedgerStore,
        place: SpoolPlace,
        *,
        probe: Callable[[], Awaitable[object]],
        cut: Callable[[], None],
        metrics: Metrics,
        log: Any,
    ) -> None:
        """
        Take parts that are connected to nothing yet.

        ``probe`` asks PostgreSQL for a sign of life; ``cut`` throws away the connections that
        somebody waits on.
        """
        self._inner = inner
        self._place = place
        self._probe = probe
        self._calls = PromptCalls(cut)
        self._replayer = Replayer(inner, place, self._calls, log)
        self._metrics = metrics
        self._log = log
        self._spool: WriteSpool | None = None
        self._is_away = False
        self._appending = 0
        self._orders = OwnOrders()
        self._left_lock = asyncio.Lock()
        self._others_since_s: float | None = None
        self._refusal: Refusal | None = None  # of a record of our own
        self._disk_trouble = ""

    # -- what the host asks -------------------------------------------------------------

    @property
    def is_away(self) -> bool:
        """Whether writes go to the spool; nothing is entered then."""
        return self._is_away

    @property
    def spool_bytes(self) -> int:
        """What lies in this process's spool."""
        return self._spool.size_bytes if self._spool else 0

    @property
    def kept_files(self) -> int:
        """Files of refused records on this node."""
        return len(self._place.reconciliation.files)

    @property
    def troubles(self) -> Sequence[str]:
        """What a person must see to, in sentences."""
        told = []
        if self._disk_trouble:
            told.append(
                f"neither PostgreSQL nor the spool takes writes, exits wait: {self._disk_trouble}"
            )
        if files := self._place.reconciliation.files:
            told.append(
                f"the books refused what was spooled: {len(files)} files wait for reconciliation, "
                f"{files[0]} first"
            )
        return told

    async def run(self) -> None:
        """Look for PostgreSQL while it is away, and replay, for ever. Raises Refusal."""
        loop = asyncio.get_running_loop()
        due_s = 0.0
        while True:
            await asyncio.sleep(PROBE_S)
            is_due = loop.time() >= due_s
            if self._spool is None or not (self.is_away or is_due):
                continue
            due_s = loop.time() + LEFT_S
            try:
                await self._catch_up(self._spool)
            except (StoreUnavailable, OutcomeUnknown) as error:
                self._goes_away(error)

    async def _catch_up(self, spool: WriteSpool) -> None:
        if self.is_away:
            await self._probe()
        # What was left is older, and its symbols' next owners wait for it.
        await self._replay_left()
        await self._replayer.replay(spool, self._is_refused)
        if self._refusal is not None:
            raise self._refusal
        # Nothing waits between this look and the turn: what is being appended now comes first.
        # And nothing is appended but after ``_goes_away``, without a wait in between.
        if self._is_away and not self._appending and not spool.pending:
            self._is_away, self._disk_trouble = False, ""
            self._log.warning("ledger_state", is_up=True, cause="")

    # -- LedgerStore: only with PostgreSQL ----------------------------------------------

    async def claim_symbol(self, symbol: Symbol, owner: str) -> int:
        """
        Claim, after everything that was spooled on this node is in the books.

        A claim raises the epoch, so what is replayed after it is refused: also what this very
        host had spooled before it was killed.
        """
        if self._spool is None:
            self._spool = await self._place.open_own()
        self._require_up()
        await self._replay_left()
        await self._wait_for_others()
        return await self._calls.answer(self._inner.claim_symbol(symbol, owner), "claim")

    async def next_trade_number(self, symbol: Symbol) -> int:
        """Use a number up."""
        return await self._direct(lambda: self._inner.next_trade_number(symbol), "trade number")

    async def open_trade(self, symbol: Symbol) -> StoredTrade | None:
        """Return the open trade; not while part of its story is spooled."""
        return await self._direct(lambda: self._inner.open_trade(symbol), "open trade")

    async def dust(self, asset: Asset) -> Mapping[Venue, Decimal]:
        """Return what closed trades have left; an entry's plan asks, so not while away."""
        return await self._direct(lambda: self._inner.dust(asset), "dust")

    async def balances(self) -> Sequence[Balance]:
        """Return the balances as PostgreSQL has them."""
        return await self._direct(self._inner.balances, "balances")

    async def flush(self) -> None:
        """Return when nothing is spooled; raise StoreUnavailable until then."""
        self._require_up()

    async def close(self) -> None:
        """Close the spool, which stays where it is while it holds records, and the pool."""
        if self._spool is not None:
            if self._spool.pending:
                self._log.warning("spool_left", records=self._spool.pending)
            await self._place.remove(self._spool)
            self._spool = None
        await self._inner.close()

    # -- LedgerStore: a live trade's writes ---------------------------------------------

    async def append_event(
        self, symbol: Symbol, owner_epoch: int, trade_id: str, seq: int, event: bytes
    ) -> None:
        """Append; an event that begins or ends a trade waits for PostgreSQL."""
        write = EventWrite(
            symbol=symbol,
            owner_epoch=owner_epoch,
            of_trade=trade_id,
            seq=seq,
            event=event.decode(),
        )
        await self._written(
            write,
            lambda: self._inner.append_event(symbol, owner_epoch, trade_id, seq, event),
            can_spool=_is_live(event),
        )

    async def accept_order(self, symbol: Symbol, owner_epoch: int, order: OrderRequest) -> bool:
        """Store an order before it is sent; an entry only with PostgreSQL."""
        own = self._orders.begin(order)
        if self.is_away and own.is_accepted:
            return False
        write = OrderWrite(symbol=symbol, owner_epoch=owner_epoch, order=order)
        is_new = await self._written(
            write,
            lambda: self._inner.accept_order(symbol, owner_epoch, order),
            can_spool=order.purpose is not Purpose.ENTRY,
        )
        own.is_accepted = True
        # What went into the spool was sent by nobody before: its only sender is this process.
        return True if is_new is None else is_new

    async def report_order(
        self,
        symbol: Symbol,
        owner_epoch: int,
        order: OrderRequest,
        report: OrderReport,
        entries: Sequence[Entry],
    ) -> None:
        """Store the last word; it has happened, so it is taken whatever the order was for."""
        write = ReportWrite(
            symbol=symbol,
            owner_epoch=owner_epoch,
            order=order,
            report=report,
            entries=tuple(entries),
        )
        await self._written(
            write,
            lambda: self._inner.report_order(symbol, owner_epoch, order, report, entries),
        )
        own = self._orders.find(order.client_order_id)
        if own is not None:
            own.report = report

    async def post(self, symbol: Symbol, owner_epoch: int, entries: Sequence[Entry]) -> None:
        """Post entries."""
        write = PostWrite(symbol=symbol, owner_epoch=owner_epoch, entries=tuple(entries))
        await self._written(write, lambda: self._inner.post(symbol, owner_epoch, entries))

    async def find_report(self, client_order_id: str) -> OrderReport | None:
        """Return the last word: PostgreSQL's, or of an order of our own what we know of it."""
        try:
            return await self._direct(lambda: self._inner.find_report(client_order_id), "report")
        except (StoreUnavailable, OutcomeUnknown):
            own = self._orders.find(client_order_id)
            if own is None:
                raise
            return own.report

    async def is_order_known(self, client_order_id: str) -> bool:
        """
        Tell whether the order was stored.

        One of our own whose acceptance did not succeed counts as known while PostgreSQL is
        away: it may be there, it never met a book, and a last word on it settles both.
        """
        try:
            return await self._direct(
                lambda: self._inner.is_order_known(client_order_id), "question for an order"
            )
        except (StoreUnavailable, OutcomeUnknown):
            if self._orders.find(client_order_id) is None:
                raise
            return True

    # -- inside -------------------------------------------------------------------------

    async def _written(
        self,
        write: AnyWrite,
        call: Callable[[], Coroutine[Any, Any, Result]],
        *,
        can_spool: bool = True,
    ) -> Result | None:
        """Write, or spool; None says that it was spooled."""
        try:
            return await self._direct(call, type(write).__name__)
        except (StoreUnavailable, OutcomeUnknown) as error:
            if not can_spool or self._spool is None:
                raise
            await self._append(self._spool, write, error)
            return None

    async def _direct(self, call: Callable[[], Coroutine[Any, Any, Result]], what: str) -> Result:
        """Ask PostgreSQL, unless it is away."""
        self._require_up()
        try:
            return await self._calls.answer(call(), what)
        except (StoreUnavailable, OutcomeUnknown) as error:
            self._goes_away(error)
            raise

    async def _append(self, spool: WriteSpool, write: AnyWrite, failure: ArbError) -> None:
        self._appending += 1
        try:
            await spool.append(encode_write(write))
        except StoreUnavailable as error:
            self._disk_trouble = str(error)
            self._metrics.inc("spool_refusals")
            self._log.error(
                "spool_refused", symbol=write.symbol, trade_id=write.trade_id, cause=str(error)
            )
            # What may be in PostgreSQL stays in doubt for our caller.
            raise (failure if isinstance(failure, OutcomeUnknown) else error) from error
        finally:
            self._appending -= 1
        self._disk_trouble = ""
        self._metrics.inc("spooled_writes")

    def _require_up(self) -> None:
        if self.is_away:
            pending = self._spool.pending if self._spool else 0
            raise StoreUnavailable("postgres", f"it is away, {pending} writes are spooled")

    def _goes_away(self, error: ArbError) -> None:
        if not self._is_away:
            self._is_away = True
            self._log.warning("ledger_state", is_up=False, cause=str(error))

    async def _replay_left(self) -> None:
        """Bring into the books what processes that are gone have left on this node."""
        async with self._left_lock:
            try:
                left = await self._place.left()
            except BadInput as error:
                raise StoreUnavailable("spool", str(error)) from error
            try:
                for spool in left:
                    self._log.warning("spool_adopted", spool=spool.name, records=spool.pending)
                    await self._replayer.replay(spool)
            finally:
                for spool in left:
                    await self._place.remove(spool)

    def _is_refused(self, refusal: Refusal) -> None:
        self._refusal = self._refusal or refusal

    async def _wait_for_others(self) -> None:
        """Let a process that is still alive replay its spool, for a bounded time."""
        others = self._place.others_with_records()
        if not others:
            self._others_since_s = None
            return
        since_s, self._others_since_s = self._others_since_s, None
        await self._probe()  # it cannot while PostgreSQL is away, and that time does not count
        now_s = asyncio.get_running_loop().time()
        self._others_since_s = now_s if since_s is None else since_s
        if now_s - self._others_since_s < OTHERS_WAIT_S:
            raise StoreUnavailable("spool", f"{others[0]} has not replayed its records yet")


def _is_live(event: bytes) -> bool:
    try:
        _live_events.decode(event)
    except msgspec.DecodeError:
        return False
    return True
