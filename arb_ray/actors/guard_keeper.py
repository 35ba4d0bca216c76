"""
The book that RiskGuard decides by: rebuilt from the ledger, under the limits in force.

Whoever decides, or replaces the book, holds ``turn``; whoever writes a state, or replaces the
book, holds ``changing``. So no decision and no halt falls between an old book and a new one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from arb_ray.domain.errors import ArbError, Remedy
from arb_ray.domain.ledger import Account, Balance, Entry
from arb_ray.domain.risk_books import RiskBooks
from arb_ray.domain.risk_intent import Refused
from arb_ray.engine.risk import REMEMBERED_MAX, RiskBook, StateChange
from arb_ray.engine.risk_limits import DAY_NS, MINUTE_NS, RiskLimits
from arb_ray.ports import Clock, RiskStore

TRANSIENT = frozenset({Remedy.RETRY, Remedy.RECONCILE})
"""Errors that a start waits out; any other ends the process."""


class LimitsInForce(msgspec.Struct, frozen=True):
    """The limits that a version of the wanted state brought."""

    version: int
    limits: RiskLimits
    is_stopped: bool = False  # nothing is wanted any more, so nothing is entered


LimitsSource = Callable[[], Awaitable[LimitsInForce | None]]
"""Reads the wanted state; None when it has not changed since the last call."""


class Keeper:
    """Has the book, and what belongs to it: epoch, limits, and what is not proved or written."""

    def __init__(
        self,
        holder: str,
        store: RiskStore,
        limits: RiskLimits,
        newest_limits: LimitsSource | None,
        opening: Callable[[], Awaitable[Sequence[Entry]]],
        clock: Clock,
        log: Any,
    ) -> None:
        self._holder = holder
        self._store = store
        self._limits = limits
        self._newest_limits = newest_limits
        self._opening = opening
        self._clock = clock
        self._log = log
        self.book: RiskBook | None = None
        self.epoch = 0
        self.limits_version = 0
        self.are_limits_new = False  # read, and not yet in force
        self.is_stopped = False
        # Grants whose commit was not heard of: their room is taken, and a repeat writes again.
        self.unproven: set[str] = set()
        # What was refused before there was a book; the oldest are forgotten at the bound.
        self.refused_early: deque[Refused] = deque(maxlen=REMEMBERED_MAX)
        self.changes: deque[StateChange] = deque()  # of the book's own, not yet written
        # One group of decisions at a time: a rebuild in between would lose the room of a grant
        # that is on its way.
        self.turn = asyncio.Lock()
        self.changing = asyncio.Lock()

    async def recover(self) -> None:
        """Take the lease and rebuild the book from the ledger, under the newest limits."""
        self.epoch = await self._store.take_lease(self._holder)
        # Ray repeats the constructor of the day of the start: what it says may be outdated.
        await self._read_limits()
        await self._store.note_limits(self.epoch, self._limits)
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
        self.book = await self._rebuilt(now_ns)
        self.are_limits_new = False
        self._log.info(
            "risk_recovered",
            epoch=self.epoch,
            state=self.book.status(now_ns).state,
            open_reservations=self.book.status(now_ns).open_trades,
        )

    async def _rebuilt(self, now_ns: int) -> RiskBook:
        books = await self._load(now_ns)
        book = RiskBook(self._limits, self.epoch, books, now_ns)
        while self.refused_early:
            book.note_refused(self.refused_early.popleft())
        return book

    async def _load(self, now_ns: int) -> RiskBooks:
        day_start_ns = now_ns // DAY_NS * DAY_NS
        return await self._store.load(
            self.epoch, day_start_ns, now_ns - MINUTE_NS, self._limits.recent_count
        )

    async def rebuild(self, now_ns: int) -> None:
        """
        Replace the book by what the ledger knows, and lose nothing that only the book knew.

        The caller has the turn.
        """
        assert self.turn.locked()
        async with self.changing:
            book = await self._rebuilt(now_ns)
            # No pause from here on: marks have gone on moving the old book all the while.
            assert self.book is not None
            self.changes.extend(self.book.take_state_changes())
            book.inherit(self.book, self.unproven)
            self.book = book

    async def open_markets(self, wanted: Sequence[Entry]) -> None:
        """Post the opening balances of markets that came while the guard runs."""
        async with self.turn:
            now_ns = self._clock.now_ns()
            books = await self._load(now_ns)
            await self._open_balances(wanted, books.balances)
            # Always: of a balance whose commit was not heard of the ledger alone knows.
            await self.rebuild(now_ns)

    async def _open_balances(self, wanted: Sequence[Entry], known: Sequence[Balance]) -> None:
        """Post the opening balance of every market that has none yet, once and for ever."""
        opened = _opened(known)
        missing = [
            entry
            for entry in wanted
            if not any((p.venue, p.asset) in opened for p in entry.postings)
        ]
        for entry in missing:
            await self._store.open_balances(self.epoch, entry)

    async def _read_limits(self) -> None:
        found = await self._newest_limits() if self._newest_limits else None
        if found is not None:
            self._limits, self.limits_version = found.limits, found.version
            self.is_stopped = found.is_stopped
            self.are_limits_new = True

    async def take_limits(self) -> None:
        """Put new limits in force: the book is built anew under them, between two decisions."""
        try:
            await self._read_limits()
            if self.are_limits_new:
                async with self.turn:
                    await self._store.note_limits(self.epoch, self._limits)
                    await self.rebuild(self._clock.now_ns())
                    self.are_limits_new = False
                self._log.warning("risk_limits", version=self.limits_version)
        except ArbError as error:
            if error.remedy is Remedy.HALT:
                raise
            # The limits before stay in force, and submit waits until it hears of the new ones.
            self._log.warning("write_waits", what="risk limits", cause=str(error))


def _opened(known: Sequence[Balance]) -> set[tuple[str, str]]:
    """Return the markets that have an opening balance."""
    return {(b.venue, b.asset) for b in known if b.account is Account.OPENING}
