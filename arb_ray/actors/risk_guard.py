"""
RiskGuard: the one actor that says yes to an entry.

It decides with the pure rules of ``engine.risk``, writes every yes to PostgreSQL under its
epoch before it answers, and rebuilds itself from the ledger at every start. A guard that
learns of a newer epoch leaves the process: nothing that it says could be written anyway.

    guard_groups     calls that come while a commit is under way share the next one
    guard_decisions  what a group decides, writes and learns
    guard_keeper     the book, rebuilt from the ledger, under the limits in force
    guard_changes    halts and commands: in force at once, written in their order
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from arb_ray.actors.guard_changes import StateChanges
from arb_ray.actors.guard_decisions import Decisions
from arb_ray.actors.guard_groups import Groups
from arb_ray.actors.guard_keeper import TRANSIENT, Keeper, LimitsInForce, LimitsSource
from arb_ray.actors.hosting import Loops
from arb_ray.actors.risk_metrics import RiskMetrics
from arb_ray.actors.wire import unpack
from arb_ray.domain.errors import ArbError, Fenced, OutcomeUnknown, StoreUnavailable
from arb_ray.domain.instrument import Symbol
from arb_ray.domain.ledger import Balance, Entry
from arb_ray.domain.risk_intent import (
    Mark,
    ReserveIntent,
    RiskRefusal,
    RiskStatus,
    Settlement,
    Verdict,
)
from arb_ray.engine.risk_commands import Command
from arb_ray.engine.risk_limits import RiskLimits
from arb_ray.ports import Clock, Metrics, RiskStore


class GuardTimes(msgspec.Struct, frozen=True):
    """How often the lease is proved, and how long a start waits between tries."""

    lease_renew_s: float = 1.0
    start_retry_s: float = 0.5


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
        self._store = store
        self._clock = clock
        self._figures = RiskMetrics(metrics)
        self._log = log
        self._times = times or GuardTimes()
        self._loops = loops or Loops()
        self._keeper = Keeper(holder, store, limits, newest_limits, opening, clock, log)
        self._changes = StateChanges(self._keeper, store, log)
        self._decisions = Decisions(self._keeper, store, clock, self._figures, self._leave)
        self._groups = Groups(self._decisions.carry_out, self._keeper.turn, log)
        self._has_changed = asyncio.Event()

    def start(self) -> None:
        """Recover, then keep the lease."""
        self._loops.start("guard", self._serve())

    async def recover(self) -> None:
        """Take the lease and rebuild the book from the ledger, under the newest limits."""
        await self._keeper.recover()

    async def open_markets(self, entries: bytes) -> int:
        """
        Post the opening balances of markets that came while the guard runs.

        Returns:
            The version of the wanted state whose limits are in force.
        """
        if self._keeper.book is None:
            raise StoreUnavailable("RiskGuard", "still recovering")
        wanted = unpack(entries, list[Entry])
        with self._leaving_if_fenced():
            await self._keeper.open_markets(wanted)
        return self._keeper.limits_version

    async def _serve(self) -> None:
        while self._keeper.book is None:
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
            await self._changes.try_writing()
            try:
                await self._store.renew_lease(self._keeper.epoch)
            except (StoreUnavailable, OutcomeUnknown) as error:
                # Safe without the lease: each yes is a fenced write and fails by itself.
                self._log.warning("lease_not_renewed", cause=str(error))
            await self._keeper.take_limits()
            self._figures.export(self._keeper.book, self._clock.now_ns())

    async def reserve(self, intent: ReserveIntent) -> Verdict:
        """
        Answer an intent; a yes is in PostgreSQL before it is given.

        Raises:
            OutcomeUnknown: The commit may have happened. The room stays taken here until
                the strategy voids it, or asks again and the store answers.
            StoreUnavailable: Another guard has taken over, and this one leaves.
        """
        if self._keeper.book is None:
            why = "RiskGuard is still recovering"
            return self._decisions.refuse(intent, RiskRefusal.STORE, why)
        verdict: Verdict = await self._groups.join(intent)
        return verdict

    async def settle(self, settlement: Settlement) -> bool:
        """
        Post or void; True when this call, or the one it repeats, did it; False when it was done.

        A loss that halts is in force as a halt from here on, and written as one before it is
        posted: a crash in between leaves a halted guard and a settlement that is repeated,
        never the other way round.
        """
        if self._keeper.book is None:
            raise StoreUnavailable("RiskGuard", "still recovering")
        with self._leaving_if_fenced():
            if self._keeper.book.halt_by(settlement, self._clock.now_ns()):
                # What cannot be written keeps the settlement back.
                await self._changes.write()
            is_new: bool = await self._groups.join(settlement)
            if self._changes.unwritten_count:
                await self._changes.try_writing()
        return is_new

    async def mark(self, host: str, marks: Sequence[Mark]) -> RiskStatus:
        """
        Take a host's marks; answer with what every strategy must know.

        Never waits for the store: a halt is in force at once, and the loop writes it down.
        """
        book = self._keeper.book
        if book is None:
            raise StoreUnavailable("RiskGuard", f"still recovering, {host} must wait")
        now_ns = self._clock.now_ns()
        for mark in marks:
            book.apply_mark(mark, now_ns)
        if book.has_state_changes:
            self._has_changed.set()
        return self._changes.status(now_ns)

    async def free(self) -> Sequence[Balance]:
        """Return every FREE balance."""
        return () if self._keeper.book is None else self._keeper.book.free_balances()

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
        if self._keeper.book is None:
            raise StoreUnavailable("RiskGuard", "still recovering")
        now_ns = self._clock.now_ns()
        command = Command(verb, reason, actor, now_ns, Symbol(symbol))
        if command.is_in_force(self._keeper.book):
            return self._changes.status(now_ns)
        with self._leaving_if_fenced():
            await self._changes.obey(command)
        self._log.warning("risk_command", verb=verb, reason=reason, actor=actor, symbol=symbol)
        # Yeses that were decided before are on their way to PostgreSQL. What waits for the next
        # group is not decided yet.
        async with self._keeper.turn:
            return self._changes.status(self._clock.now_ns())

    async def status(self) -> dict[str, Any]:
        """Return the guard's state for people."""
        keeper = self._keeper
        if keeper.book is None:
            return {"state": "recovering", "ready": False, "refusals": {}}
        now_ns = self._clock.now_ns()
        return {
            **msgspec.to_builtins(self._changes.status(now_ns)),
            "ready": True,
            "born_ns": keeper.epoch,  # a guard's epoch is its birth
            "deployment": 0 if keeper.are_limits_new else keeper.limits_version,
            "refusals": dict(self._decisions.refusals),
            "unheard": keeper.book.unheard_count(now_ns),
            "loops": self._loops.names,
        }

    async def stop(self) -> None:
        """Stop the loops and give the connections back; the lease is left to the next one."""
        await self._loops.stop()
        await self._groups.stop()
        await self._store.close()

    @contextmanager
    def _leaving_if_fenced(self) -> Iterator[None]:
        """End the process once another guard has taken over; the caller asks that one."""
        try:
            yield
        except Fenced as error:
            self._leave(error)
            raise StoreUnavailable("RiskGuard", str(error)) from error

    def _leave(self, error: Fenced) -> None:
        self._loops.fail("guard", error)


__all__ = ["GuardTimes", "LimitsInForce", "LimitsSource", "RiskGuard"]
