"""
What RiskGuard decides, writes and learns: one group of grants and settlements at a time.

The book decides in memory, at once, and a yes takes its room before anything waits. One
commit writes them all under the guard's epoch. Only then does anyone get an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from arb_ray.actors.guard_groups import Call
from arb_ray.actors.guard_keeper import Keeper
from arb_ray.actors.risk_metrics import RiskMetrics
from arb_ray.domain.errors import ArbError, Fenced, OutcomeUnknown, StoreUnavailable
from arb_ray.domain.risk_intent import (
    Granted,
    Refused,
    ReserveIntent,
    RiskRefusal,
    RiskState,
    Settlement,
    Verdict,
)
from arb_ray.engine.postings import hold_entry
from arb_ray.engine.risk import RiskBook
from arb_ray.ports import Clock, Decision, GrantWrite, RiskStore, Settled


class _Written:
    """A decision on its way to the store, for those who wait for it."""

    def __init__(self, call: Call, decision: Decision, *, was_asked: bool) -> None:
        self.call = call
        self.decision = decision
        self.was_asked = was_asked  # an earlier try may have been committed


class Decisions:
    """Carries groups of calls out; whoever calls it holds the keeper's turn."""

    def __init__(
        self,
        keeper: Keeper,
        store: RiskStore,
        clock: Clock,
        figures: RiskMetrics,
        on_fenced: Callable[[Fenced], None],
    ) -> None:
        self._keeper = keeper
        self._store = store
        self._clock = clock
        self._figures = figures
        self._on_fenced = on_fenced
        self.refusals: dict[str, int] = {}

    async def carry_out(self, calls: Sequence[Call]) -> None:
        """Decide, write what must be written in one commit, and answer."""
        try:
            await self._carry_out(calls, self._clock.now_ns())
        except Fenced as error:
            # Another guard has taken over: this one leaves, and the caller asks that one.
            self._on_fenced(error)
            for call in calls:
                call.fail(StoreUnavailable("RiskGuard", str(error)))

    async def _carry_out(self, calls: Sequence[Call], now_ns: int) -> None:
        group: list[_Written] = []
        for call in calls:
            try:
                self._decide(call, now_ns, group)
            except ArbError as error:
                call.fail(error)
        if not group:
            return
        self._figures.written(len(group))
        outcomes = await self._write([one.decision for one in group])
        # Everything that was learned is in the book before anyone acts on his answer.
        unsure: list[tuple[Call, bool]] = []
        for one, outcome in zip(group, outcomes, strict=True):
            if isinstance(one.decision, GrantWrite):
                self._learn_grant(one, one.decision.intent, outcome)
            elif isinstance(outcome, Exception):
                one.call.fail(outcome)
            else:
                self._learn_settlement(one.call, one.decision, outcome, now_ns, unsure)
        if unsure:
            await self._ask_ledger(unsure, now_ns)

    # -- decide ---------------------------------------------------------------------------

    def _decide(self, call: Call, now_ns: int, group: list[_Written]) -> None:
        """Answer a call at once, or add what it needs written to the group."""
        if isinstance(call.asked, Settlement):
            group.append(_Written(call, call.asked, was_asked=False))
            return
        intent = call.asked
        was_asked = intent.trade_id in self._keeper.unproven
        verdict = self._verdict(intent, now_ns, was_asked=was_asked)
        if verdict is not None:
            call.answer(verdict)
            return
        self._keeper.unproven.add(intent.trade_id)
        write = GrantWrite(intent, hold_entry(intent, now_ns), now_ns)
        group.append(_Written(call, write, was_asked=was_asked))

    def _verdict(self, intent: ReserveIntent, now_ns: int, *, was_asked: bool) -> Verdict | None:
        """Return an answer that needs no write; None takes the room of a yes that does."""
        keeper, book = self._keeper, self._book
        verdict = book.decide(intent, now_ns)
        if isinstance(verdict, Refused):
            self._count(verdict)
            return verdict
        if book.is_granted(intent.trade_id):
            meanwhile = self._meanwhile()
            if was_asked and meanwhile:
                # Asked again it could be granted only now, after the halt was answered.
                raise OutcomeUnknown(f"reservation {intent.trade_id}: {meanwhile} meanwhile", 0)
            return None if was_asked else verdict  # a repeat: the yes is written already
        if keeper.is_stopped:
            # Also of a host that was drained, crashed, and knows nothing of the stop.
            return self.refuse(intent, RiskRefusal.NOT_ACTIVE, "the run is being stopped")
        if keeper.are_limits_new:
            # Read, and the store that must know of them is away: nothing is entered by old ones.
            return self.refuse(intent, RiskRefusal.STORE, "new limits are not in force yet")
        # Room is taken before the write: whatever else is decided meanwhile counts it.
        book.apply_grant(intent, now_ns)
        return None

    def _meanwhile(self) -> str:
        """Tell what keeps a yes from being written now; empty when nothing does."""
        if self._book.state is not RiskState.ACTIVE:
            return str(self._book.state)
        if self._keeper.is_stopped:
            return "the run is being stopped"
        return "new limits are not in force" if self._keeper.are_limits_new else ""

    @property
    def _book(self) -> RiskBook:
        assert self._keeper.book is not None
        return self._keeper.book

    # -- write ----------------------------------------------------------------------------

    async def _write(self, group: Sequence[Decision]) -> Sequence[Any]:
        """Return what became of each decision, an error too: it concerns whoever asked."""
        epoch = self._keeper.epoch
        try:
            if len(group) > 1:
                return await self._store.write(epoch, group)
            (one,) = group
            if isinstance(one, GrantWrite):
                return [await self._store.grant(epoch, one.intent, one.hold, one.at_ns)]
            return [Settled(*await self._store.settle(epoch, one))]
        except Fenced:
            raise
        except ArbError as error:
            return [error] * len(group)

    # -- learn ----------------------------------------------------------------------------

    def _learn_grant(self, one: _Written, intent: ReserveIntent, outcome: Any) -> None:
        trade_id = intent.trade_id
        if isinstance(outcome, StoreUnavailable):
            if one.was_asked:
                # The first try may have been committed, so its room must stay taken.
                one.call.fail(OutcomeUnknown(f"reservation {trade_id}: {outcome}", 0))
                return
            self._keeper.unproven.discard(trade_id)
            self._book.undo_grant(trade_id)
            one.call.answer(self.refuse(intent, RiskRefusal.STORE, str(outcome)))
        elif isinstance(outcome, Exception):
            one.call.fail(outcome)
        else:
            self._keeper.unproven.discard(trade_id)
            if isinstance(outcome, Granted):
                self._figures.granted()
            else:
                self._book.undo_grant(trade_id)
                self._book.note_refused(outcome)  # a repeat gets the answer of the store
                self._count(outcome)
            one.call.answer(outcome)

    def _learn_settlement(
        self,
        call: Call,
        settlement: Settlement,
        outcome: Settled,
        now_ns: int,
        unsure: list[tuple[Call, bool]],
    ) -> None:
        trade_id = settlement.trade_id
        was_unproven = trade_id in self._keeper.unproven
        self._keeper.unproven.discard(trade_id)
        if outcome.is_new and not was_unproven:
            self._book.apply_settlement(settlement, outcome.released, now_ns)
        elif self._book.is_granted(trade_id):
            # Of the grant or of the first settlement no commit was heard, so what was held
            # and what came free is known to the ledger only.
            unsure.append((call, outcome.is_new))
            return
        else:
            self._book.note_ended(trade_id)
        call.answer(outcome.is_new)

    async def _ask_ledger(self, unsure: Sequence[tuple[Call, bool]], now_ns: int) -> None:
        try:
            await self._keeper.rebuild(now_ns)
        except Fenced:
            raise
        except ArbError as error:
            for call, _ in unsure:
                call.fail(error)
            return
        for call, is_new in unsure:
            call.answer(is_new)

    # -- refusals -------------------------------------------------------------------------

    def refuse(self, intent: ReserveIntent, reason: RiskRefusal, detail: str) -> Refused:
        """Say no for good: whoever asked gives the id up, and a late copy must hold no room."""
        refused = Refused(intent.trade_id, reason, detail)
        if self._keeper.book is None:
            self._keeper.refused_early.append(refused)
        else:
            self._keeper.book.note_refused(refused)
        self._count(refused)
        return refused

    def _count(self, refused: Refused) -> None:
        self.refusals[refused.reason] = self.refusals.get(refused.reason, 0) + 1
        self._figures.refused(refused.reason)
