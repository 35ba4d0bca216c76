"""
RiskGuard: the one actor that says yes to an entry.

It decides with the pure rules of ``engine.risk``, writes every yes to PostgreSQL under its
epoch before it answers, and rebuilds itself from the ledger at every start. A guard that
learns of a newer epoch leaves the process: nothing that it says could be written anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

from arb_ray.actors.hosting import Loops
from arb_ray.actors.risk_metrics import RiskMetrics
from arb_ray.actors.wire import unpack
from arb_ray.domain.errors import (
    ArbError,
    Fenced,
    OutcomeUnknown,
    Remedy,
    StoreUnavailable,
)
from arb_ray.domain.instrument import Symbol
from arb_ray.domain.ledger import Account, Balance, Entry
from arb_ray.domain.risk_books import RiskBooks
from arb_ray.domain.risk_intent import (
    Mark,
    Refused,
    ReserveIntent,
    RiskRefusal,
    RiskState,
    RiskStatus,
    Settlement,
    Verdict,
)
from arb_ray.engine.postings import hold_entry
from arb_ray.engine.risk import REMEMBERED_MAX, RiskBook, StateChange
from arb_ray.engine.risk_commands import change_asked_for
from arb_ray.engine.risk_limits import DAY_NS, MINUTE_NS, RiskLimits
from arb_ray.ports import Clock, Metrics, RiskStore

Asked = TypeVar("Asked", ReserveIntent, Settlement)
Answer = TypeVar("Answer")

TRANSIENT = frozenset({Remedy.RETRY, Remedy.RECONCILE})
"""Errors that a start waits out; any other ends the process."""


class GuardTimes(msgspec.Struct, frozen=True):
    """How often the lease is proved, and how long a start waits between tries."""

    lease_renew_s: float = 1.0
    start_retry_s: float = 0.5


class LimitsInForce(msgspec.Struct, frozen=True):
    """The limits that a version of the wanted state brought."""

    version: int
    limits: RiskLimits
    is_stopped: bool = False  # nothing is wanted any more, so nothing is entered


LimitsSource = Callable[[], Awaitable[LimitsInForce | None]]
"""Reads the wanted state; None when it has not changed since the last call."""


class RiskGuard:
    """A durable shell around ``RiskBook``."""

    def __init__(
        self,
        *,
        holder: str,
        store: RiskStore,
        limits: RiskLimits,
        newest_limits: LimitsSource | None = None,
        opening: Callable[[], Awaitable[Sequence[Entry]]],
        clock: Clock,
        metrics: Metrics,
        log: Any,
        times: GuardTimes | None = None,
        loops: Loops | None = None,
    ) -> None:
        self._holder = holder
        self._store = store
        self._limits = limits
        self._limits_version = 0
        self._newest_limits = newest_limits
        self._are_limits_new = False  # read, and not yet in force
        self._is_stopped = False
        self._opening = opening
        self._clock = clock
        self._figures = RiskMetrics(metrics)
        self._log = log
        self._times = times or GuardTimes()
        self._loops = loops or Loops()
        self._book: RiskBook | None = None
        self._epoch = 0
        # Grants whose commit was not heard of: their room is taken, and a repeat writes again.
        self._unproven: set[str] = set()
        # What was refused before there was a book; the oldest are forgotten at the bound.
        self._refused_early: deque[Refused] = deque(maxlen=REMEMBERED_MAX)
        # One grant or settlement at a time (the store takes them in turn anyway): a rebuild
        # in between would lose the room of a grant that is on its way.
        self._turn = asyncio.Lock()
        self._changes: deque[StateChange] = deque()  # of the book's own, not yet written
        # Whoever writes a state or swaps the book holds this, so that no decision falls between.
        self._changing = asyncio.Lock()
        self._has_changed = asyncio.Event()
        # Repeats of a call that is under way share its outcome: while PostgreSQL hangs, one
        # call an id waits for it, however often a host asks.
        self._under_way: dict[ReserveIntent | Settlement, asyncio.Task[Any]] = {}
        self.refusals: dict[str, int] = {}

    def start(self) -> None:
        """Recover, then keep the lease."""
        self._loops.start("guard", self._serve())

    async def recover(self) -> None:
        """Take the lease and rebuild the book from the ledger, under the newest limits."""
        self._epoch = await self._store.take_lease(self._holder)
        # Ray repeats the constructor of the day of the start: what it says may be outdated.
        await self._read_limits()
        await self._store.note_limits(self._epoch, self._limits)
        now_ns = self._clock.now_ns()
        books = await self._load(now_ns)
        try:
            wanted = await self._opening()
        except ArbError as error:
            if not _opened(books.balances) or error.remedy not in TRANSIENT:
                raise
            # Only a market that is new would get something; settlements must not wait for it.
            self._log.warning("no_inventory", cause=str(error))
            wanted = ()
        await self._open_balances(wanted, books.balances)
        self._book = await self._rebuilt(now_ns)
        self._are_limits_new = False
        self._log.info(
            "risk_recovered",
            epoch=self._epoch,
            state=self._book.status(now_ns).state,
            open_reservations=self._book.status(now_ns).open_trades,
        )

    async def _rebuilt(self, now_ns: int) -> RiskBook:
        books = await self._load(now_ns)
        book = RiskBook(self._limits, self._epoch, books, now_ns)
        while self._refused_early:
            book.note_refused(self._refused_early.pop())
        return book

    async def _load(self, now_ns: int) -> RiskBooks:
        day_start_ns = now_ns // DAY_NS * DAY_NS
        return await self._store.load(
            self._epoch, day_start_ns, now_ns - MINUTE_NS, self._limits.recent_count
        )

    async def _rebuild(self, now_ns: int) -> None:
        """Replace the book by what the ledger knows, and lose nothing that only the book knew."""
        async with self._changing:
            book = await self._rebuilt(now_ns)
            # No pause from here on: marks have gone on moving the old book all the while.
            assert self._book is not None
            self._changes.extend(self._book.take_state_changes())
            book.inherit(self._book, self._unproven)
            self._book = book

    async def _open_balances(self, wanted: Sequence[Entry], known: Sequence[Balance]) -> None:
        """Post the opening balance of every market that has none yet, once and for ever."""
        opened = _opened(known)
        missing = [
            entry
            for entry in wanted
            if not any((p.venue, p.asset) in opened for p in entry.postings)
        ]
        for entry in missing:
            await self._store.open_balances(self._epoch, entry)

    async def open_markets(self, entries: bytes) -> int:
        """
        Post the opening balances of markets that came while the guard runs.

        Returns:
            The version of the wanted state whose limits are in force.
        """
        if self._book is None:
            raise StoreUnavailable("RiskGuard", "still recovering")
        wanted = unpack(entries, list[Entry])
        with self._leaving_if_fenced():
            async with self._turn:
                now_ns = self._clock.now_ns()
                books = await self._load(now_ns)
                await self._open_balances(wanted, books.balances)
                # Always: of a balance whose commit was not heard of the ledger alone knows.
                await self._rebuild(now_ns)
        return self._limits_version

    async def _read_limits(self) -> None:
        found = await self._newest_limits() if self._newest_limits else None
        if found is not None:
            self._limits, self._limits_version = found.limits, found.version
            self._is_stopped = found.is_stopped
            self._are_limits_new = True

    async def _take_limits(self) -> None:
        """Put new limits in force: the book is built anew under them, between two decisions."""
        try:
            await self._read_limits()
            if self._are_limits_new:
                async with self._turn:
                    await self._store.note_limits(self._epoch, self._limits)
                    await self._rebuild(self._clock.now_ns())
                    self._are_limits_new = False
                self._log.warning("risk_limits", version=self._limits_version)
        except ArbError as error:
            if error.remedy is Remedy.HALT:
                raise
            # The limits before stay in force, and submit waits until it hears of the new ones.
            self._log.warning("write_waits", what="risk limits", cause=str(error))

    async def _serve(self) -> None:
        while self._book is None:
            try:
                await self.recover()
            except ArbError as error:
                if error.remedy not in TRANSIENT:
                    raise
                self._log.warning("risk_start_waits", cause=str(error))
                await asyncio.sleep(self._times.start_retry_s)
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._has_changed.wait(), self._times.lease_renew_s)
            self._has_changed.clear()
            await self._try_writing_changes()
            try:
                await self._store.renew_lease(self._epoch)
            except (StoreUnavailable, OutcomeUnknown) as error:
                # Safe without the lease: each yes is a fenced write and fails by itself.
                self._log.warning("lease_not_renewed", cause=str(error))
            await self._take_limits()
            self._figures.export(self._book, self._clock.now_ns())

    async def reserve(self, intent: ReserveIntent) -> Verdict:
        """
        Answer an intent; a yes is in PostgreSQL before it is given.

        Raises:
            OutcomeUnknown: The commit may have happened. The room stays taken here until
                the strategy voids it, or asks again and the store answers.
            StoreUnavailable: Another guard has taken over, and this one leaves.
        """
        if self._book is None:
            return self._refuse(intent, RiskRefusal.STORE, "RiskGuard is still recovering")
        return await self._shared(intent, self._reserve_in_turn)

    async def _reserve_in_turn(self, intent: ReserveIntent) -> Verdict:
        with self._leaving_if_fenced():
            async with self._turn:
                return await self._reserve(intent)

    async def _shared(self, asked: Asked, call: Callable[[Asked], Awaitable[Answer]]) -> Answer:
        """
        Make a call once while repeats of it come in; all of them get its outcome.

        The id is in ``asked``, and other content under the same id is another call: it is
        judged in its turn. A caller that goes away does not take the call with it.
        """
        task = self._under_way.get(asked)
        if task is None:
            task = asyncio.ensure_future(call(asked))
            self._under_way[asked] = task
            task.add_done_callback(lambda done: self._forget(asked, done))
        answer: Answer = await asyncio.shield(task)
        return answer

    def _forget(self, asked: ReserveIntent | Settlement, task: asyncio.Task[Any]) -> None:
        del self._under_way[asked]
        if not task.cancelled() and task.exception() is not None:
            self._log.debug("call_failed", trade_id=asked.trade_id, cause=str(task.exception()))

    async def _reserve(self, intent: ReserveIntent) -> Verdict:
        assert self._book is not None
        now_ns = self._clock.now_ns()
        verdict = self._book.decide(intent, now_ns)
        if isinstance(verdict, Refused):
            self._count(verdict)
            return verdict
        if self._is_stopped and not self._book.is_granted(intent.trade_id):
            # Also of a host that was drained, crashed, and knows nothing of the stop.
            return self._refuse(intent, RiskRefusal.NOT_ACTIVE, "the run is being stopped")
        if self._are_limits_new and not self._book.is_granted(intent.trade_id):
            # Read, and the store that must know of them is away: nothing is entered by old ones.
            return self._refuse(intent, RiskRefusal.STORE, "new limits are not in force yet")
        was_asked = intent.trade_id in self._unproven
        if not self._book.is_granted(intent.trade_id):
            # Room is taken before the write: whatever else is decided meanwhile counts it.
            self._book.apply_grant(intent, now_ns)
        elif not was_asked:
            return verdict  # a repeat: the yes is written already
        self._unproven.add(intent.trade_id)
        try:
            stored = await self._store.grant(
                self._epoch, intent, hold_entry(intent, now_ns), now_ns
            )
        except StoreUnavailable as error:
            if was_asked:
                # The first try may have been committed, so its room must stay taken.
                raise OutcomeUnknown(f"reservation {intent.trade_id}: {error}", 0) from error
            self._unproven.discard(intent.trade_id)
            self._book.undo_grant(intent.trade_id)
            return self._refuse(intent, RiskRefusal.STORE, str(error))
        self._unproven.discard(intent.trade_id)
        if isinstance(stored, Refused):
            self._book.undo_grant(intent.trade_id)
            self._count(stored)
        else:
            self._figures.granted()
        return stored

    async def settle(self, settlement: Settlement) -> bool:
        """
        Post or void; True when this call, or the one it repeats, did it; False when it was done.

        A loss that halts is written as a halt before it is posted: a crash in between leaves
        a halted guard and a settlement that is repeated, never the other way round.
        """
        if self._book is None:
            raise StoreUnavailable("RiskGuard", "still recovering")
        return await self._shared(settlement, self._settle_in_turn)

    async def _settle_in_turn(self, settlement: Settlement) -> bool:
        with self._leaving_if_fenced():
            async with self._turn:
                is_new = await self._settle(settlement)
            await self._try_writing_changes()
        return is_new

    async def _settle(self, settlement: Settlement) -> bool:
        assert self._book is not None
        now_ns = self._clock.now_ns()
        trade_id = settlement.trade_id
        if self._book.halt_by(settlement, now_ns):
            # It is in force from here on; what cannot be written keeps the settlement back.
            async with self._changing:
                await self._write_changes()
        is_new, released = await self._store.settle(self._epoch, settlement)
        was_unproven = trade_id in self._unproven
        self._unproven.discard(trade_id)
        if is_new and not was_unproven:
            self._book.apply_settlement(settlement, released, now_ns)
        elif self._book.is_granted(trade_id):
            # Of the grant or of the first settlement no commit was heard, so what was held
            # and what came free is known to the ledger only.
            await self._rebuild(now_ns)
        else:
            self._book.note_ended(trade_id)
        return is_new

    async def mark(self, host: str, marks: Sequence[Mark]) -> RiskStatus:
        """
        Take a host's marks; answer with what every strategy must know.

        Never waits for the store: a halt is in force at once, and the loop writes it down.
        """
        if self._book is None:
            raise StoreUnavailable("RiskGuard", f"still recovering, {host} must wait")
        now_ns = self._clock.now_ns()
        for mark in marks:
            self._book.apply_mark(mark, now_ns)
        if self._book.has_state_changes:
            self._has_changed.set()
        return self._status(self._book, now_ns)

    async def free(self) -> Sequence[Balance]:
        """Return every FREE balance."""
        return () if self._book is None else self._book.free_balances()

    async def command(self, verb: str, reason: str, actor: str, symbol: str = "") -> RiskStatus:
        """
        Carry out an operator's ``halt``, ``resume``, ``reduce`` or ``flatten``.

        ``symbol`` makes a flatten that of its one trade: the state stays as it is. What is
        stricter than before is in force at once, also while PostgreSQL hangs or is away; the
        answer's ``unwritten`` tells that it is not written down yet, which the lease's loop
        goes on trying. After the answer to a halt no yes is given or under way any more.

        Raises:
            BadInput: There is no such command, or no trade is open on ``symbol``.
            StoreUnavailable: A resume could not be written down, so it was not done.
            OutcomeUnknown: A resume may be written down; it is not in force here.
        """
        if self._book is None:
            raise StoreUnavailable("RiskGuard", "still recovering")
        asked = (verb, reason, actor, self._clock.now_ns(), Symbol(symbol))
        # Before anything can wait: the next intent is judged by it already.
        self._book.enforce(change_asked_for(self._book, *asked))
        with self._leaving_if_fenced():
            async with self._changing:
                await self._obey(change_asked_for(self._book, *asked))
        self._log.warning("risk_command", verb=verb, reason=reason, actor=actor, symbol=symbol)
        async with self._turn:  # a yes that was decided before is on its way to PostgreSQL
            return self._status(self._book, self._clock.now_ns())

    async def _obey(self, change: StateChange) -> None:
        assert self._book is not None
        is_milder = change.state is RiskState.ACTIVE and change.flatten_symbol is None
        self._book.enforce(change)  # a resume that was written meanwhile had ended it
        try:
            # The newest row is the state after a restart, so what came before goes first.
            await self._write_changes()
            await self._store.set_state(self._epoch, change)
        except (StoreUnavailable, OutcomeUnknown) as error:
            if is_milder:
                raise
            self._log.warning("write_waits", what="risk command", cause=str(error))
            # Written twice when only the answer was lost, which says the same.
            self._changes.append(change)
        # What the book decided while this was written comes after it, here and in the ledger.
        self._changes.extend(self._book.take_state_changes())
        if change.flatten_symbol is None:
            self._book.set_state(change)
        for later in (change, *self._changes):
            self._book.enforce(later)

    def _status(self, book: RiskBook, now_ns: int) -> RiskStatus:
        status = book.status(now_ns)
        waiting = len(self._changes) + book.has_state_changes
        return msgspec.structs.replace(status, unwritten=waiting) if waiting else status

    async def status(self) -> dict[str, Any]:
        """Return the guard's state for people."""
        if self._book is None:
            return {"state": "recovering", "ready": False, "refusals": {}}
        now_ns = self._clock.now_ns()
        status = self._status(self._book, now_ns)
        return {
            **msgspec.to_builtins(status),
            "ready": True,
            "born_ns": self._epoch,  # a guard's epoch is its birth
            "deployment": 0 if self._are_limits_new else self._limits_version,
            "refusals": dict(self.refusals),
            "unheard": self._book.unheard_count(now_ns),
            "loops": self._loops.names,
        }

    async def stop(self) -> None:
        """Stop the loops and give the connections back; the lease is left to the next one."""
        await self._loops.stop()
        under_way = list(self._under_way.values())
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self._store.close()

    async def _try_writing_changes(self) -> None:
        """Write what the book decided by itself; what cannot be written now is kept."""
        async with self._changing:
            try:
                await self._write_changes()
            except (StoreUnavailable, OutcomeUnknown) as error:
                # It is in force already; the lease loop tries again.
                self._log.warning("write_waits", what="risk state", cause=str(error))

    async def _write_changes(self) -> None:
        assert self._book is not None
        self._changes.extend(self._book.take_state_changes())
        while self._changes:
            change = self._changes[0]
            await self._store.set_state(self._epoch, change)
            self._changes.popleft()
            self._log.warning("risk_state", state=change.state, reason=change.reason)

    @contextmanager
    def _leaving_if_fenced(self) -> Iterator[None]:
        """End the process once another guard has taken over; the caller asks that one."""
        try:
            yield
        except Fenced as error:
            self._loops.fail("guard", error)
            raise StoreUnavailable("RiskGuard", str(error)) from error

    def _refuse(self, intent: ReserveIntent, reason: RiskRefusal, detail: str) -> Refused:
        """Say no for good: whoever asked gives the id up, and a late copy must hold no room."""
        refused = Refused(intent.trade_id, reason, detail)
        if self._book is None:
            self._refused_early.append(refused)
        else:
            self._book.note_refused(refused)
        self._count(refused)
        return refused

    def _count(self, refused: Refused) -> None:
        self.refusals[refused.reason] = self.refusals.get(refused.reason, 0) + 1
        self._figures.refused(refused.reason)


def _opened(known: Sequence[Balance]) -> set[tuple[str, str]]:
    """Return the markets that have an opening balance."""
    return {(b.venue, b.asset) for b in known if b.account is Account.OPENING}
