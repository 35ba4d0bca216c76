"""Mistakes of RiskGuard and of its start."""

from __future__ import annotations

import copy
from decimal import Decimal
from typing import Any

import msgspec

from arb_ray.actors import guard_changes, guard_decisions, guard_keeper
from arb_ray.adapters.storage import memory
from arb_ray.domain.errors import ArbError, Fenced, OutcomeUnknown, StoreUnavailable
from arb_ray.domain.risk_intent import Granted, RiskState
from arb_ray.engine import risk, risk_limits
from arb_ray.ports import GrantWrite
from tests.sim.bugs.register import bug, patch

replace = msgspec.structs.replace


@bug
def guard_ignores_the_deadline() -> Any:
    """A yes is given however late the intent arrives."""
    right = risk.RiskBook._objection_to_asker
    return patch(
        risk.RiskBook, "_objection_to_asker", lambda self, intent, _now: right(self, intent, 0)
    )


@bug
def guard_grants_while_halted() -> Any:
    """The state is not asked for."""
    right = risk.RiskBook._objection_to_asker

    def wrong(self: Any, intent: Any, now_ns: int) -> Any:
        state, self._state = self._state, RiskState.ACTIVE
        try:
            return right(self, intent, now_ns)
        finally:
            self._state = state

    return patch(risk.RiskBook, "_objection_to_asker", wrong)


@bug
def guard_forgets_open_trades() -> Any:
    """What is reserved does not count against the limit."""
    return patch(risk.RiskBook, "_exposure_usdt", lambda self: Decimal(0))


@bug
def guard_forgets_losses() -> Any:
    """What was lost today does not count against the limit."""
    return patch(risk_limits.DayTally, "loss_usdt", Decimal(0))


@bug
def guard_forgets_a_symbols_losses() -> Any:
    """What a symbol lost today does not count against its own limit."""
    return patch(risk_limits.DayTally, "symbol_loss_usdt", lambda self, symbol: Decimal(0))


@bug
def guard_ignores_marks() -> Any:
    """A trade that stands below its reservation counts for its reservation."""
    return patch(risk.RiskBook, "apply_mark", lambda self, mark, now_ns: None)


@bug
def guard_starts_every_minute_anew() -> Any:
    """The day's figures are dropped at every minute."""

    def wrong(self: Any, now_ns: int) -> None:
        minute = now_ns // (5 * 10**9)
        if minute != getattr(self, "minute", minute):
            self.realized_usdt = self.peak_usdt = self.gap_loss_usdt = Decimal(0)
            self.by_symbol.clear()
        self.minute = minute

    return patch(risk_limits.DayTally, "roll", wrong)


@bug
def guard_forgets_to_halt() -> Any:
    """A loss beyond its reservation is posted like any other."""
    return (
        patch(risk.RiskBook, "halt_by", lambda self, settlement, now_ns: False),
        patch(risk.RiskBook, "_check_realized", lambda self, now_ns: None),
    )


@bug
def guard_halts_in_memory_only() -> Any:
    """The halt is in force and never written."""

    async def wrong(self: Any) -> None:
        self._keeper.changes.extend(self._book.take_state_changes())
        self._keeper.changes.clear()

    return patch(guard_changes.StateChanges, "_write", wrong)


@bug
def guard_counts_no_pace() -> Any:
    """Any number of entries, and of trades, at any time."""
    return patch(risk.RiskBook, "_objection_to_pace", lambda self, now_ns: None)


@bug
def guard_never_cools_down() -> Any:
    """Losses in a row bring no pause."""
    return patch(risk_limits.DayTally, "_count_run", lambda self, settlement: None)


@bug
def guard_forgets_drawdown() -> Any:
    """The fall from the day's best is not looked at."""
    return patch(risk.RiskBook, "drawdown_usdt", Decimal(0))


@bug
def guard_loses_marks_with_new_limits() -> Any:
    """A book that is rebuilt takes over nothing that only the old one knew."""
    return patch(risk.RiskBook, "inherit", lambda self, former, unproven: None)


@bug
def guard_keeps_the_old_limits() -> Any:
    """New limits are noted and not put in force."""

    async def wrong(self: Any, now_ns: int) -> None:
        """Keep the book."""

    return patch(guard_keeper.Keeper, "rebuild", wrong)


@bug
def guard_starts_without_asking_for_losses() -> Any:
    """A restarted guard grants before it has heard how open trades stand."""
    right = risk.RiskBook.__init__

    def wrong(self: Any, *arguments: Any) -> None:
        right(self, *arguments)
        self._unheard.clear()

    return patch(risk.RiskBook, "__init__", wrong)


@bug
def guard_forgets_sizes() -> Any:
    """No bound on notional."""
    return patch(risk.RiskBook, "_objection_to_size", lambda self, intent: None)


@bug
def guard_overdraws() -> Any:
    """Free balances are not looked at."""
    return patch(risk.RiskBook, "_objection_to_holds", lambda self, holds: None)


@bug
def guard_frees_twice() -> Any:
    """What a settlement released is added twice."""
    right = risk.RiskBook._add_free

    def wrong(self: Any, balances: Any) -> None:
        balances = tuple(balances)
        right(self, balances)
        if not any(str(one.account) == "opening" for one in balances):
            right(self, balances)

    return patch(risk.RiskBook, "_add_free", wrong)


@bug
def guard_frees_at_no_answer() -> Any:
    """A grant whose commit was not heard of gives its room back."""
    right = guard_decisions.Decisions._learn_grant

    def wrong(self: Any, one: Any, intent: Any, outcome: Any) -> None:
        right(self, one, intent, outcome)
        if isinstance(outcome, OutcomeUnknown):
            self._keeper.unproven.discard(intent.trade_id)
            self._book.undo_grant(intent.trade_id)

    return patch(guard_decisions.Decisions, "_learn_grant", wrong)


@bug
def guard_answers_before_it_writes() -> Any:
    """A yes is given from memory when the store is away."""
    right = guard_decisions.Decisions._learn_grant

    def wrong(self: Any, one: Any, intent: Any, outcome: Any) -> None:
        if isinstance(outcome, OutcomeUnknown):
            outcome = Granted(intent.trade_id, self._keeper.epoch, self._clock.now_ns())
        right(self, one, intent, outcome)

    return patch(guard_decisions.Decisions, "_learn_grant", wrong)


@bug
def guard_answers_before_its_group_is_written() -> Any:
    """A yes is told as soon as it is decided."""
    right = guard_decisions.Decisions._decide

    def wrong(self: Any, call: Any, now_ns: int, group: Any) -> None:
        before = len(group)
        right(self, call, now_ns, group)
        if len(group) > before and isinstance(group[-1].decision, GrantWrite):
            call.answer(Granted(call.asked.trade_id, self._keeper.epoch, now_ns))

    return patch(guard_decisions.Decisions, "_decide", wrong)


@bug
def guard_takes_a_group_for_written() -> Any:
    """The failure of a commit that several share is answered with a yes to each."""
    right = guard_decisions.Decisions._write

    async def wrong(self: Any, group: Any) -> Any:
        outcomes = await right(self, group)
        if len(group) == 1:
            return outcomes
        return [
            Granted(one.intent.trade_id, self._keeper.epoch, one.at_ns)
            if isinstance(one, GrantWrite) and isinstance(outcome, ArbError)
            else outcome
            for one, outcome in zip(group, outcomes, strict=True)
        ]

    return patch(guard_decisions.Decisions, "_write", wrong)


@bug
def guard_takes_a_group_for_lost() -> Any:
    """A commit that several share and that was not heard of is answered with a no to each."""
    right = guard_decisions.Decisions._write

    async def wrong(self: Any, group: Any) -> Any:
        outcomes = await right(self, group)
        if len(group) == 1 or not isinstance(outcomes[0], OutcomeUnknown):
            return outcomes
        return [StoreUnavailable("sim", "nobody knows") for _ in group]

    return patch(guard_decisions.Decisions, "_write", wrong)


@bug
def guard_decides_a_group_by_its_first() -> Any:
    """Room is taken when a group is written, so all of it is judged by the book before it."""
    judge, decide = guard_decisions.Decisions._verdict, risk.RiskBook.decide

    def verdict(self: Any, intent: Any, now_ns: int, *, was_asked: bool) -> Any:
        if getattr(self, "decided_ns", None) != now_ns:
            self.decided_ns, self.book_before = now_ns, copy.deepcopy(self._book)
        before = self.book_before

        def by_it(book: Any, asked: Any, at_ns: int) -> Any:
            return decide(book if book.is_granted(asked.trade_id) else before, asked, at_ns)

        with patch(risk.RiskBook, "decide", by_it):
            return judge(self, intent, now_ns, was_asked=was_asked)

    return patch(guard_decisions.Decisions, "_verdict", verdict)


@bug
def guard_goes_on_under_the_next_epoch() -> Any:
    """A group that was fenced is written again under the epoch of whoever took over."""
    right = guard_decisions.Decisions._write

    async def wrong(self: Any, group: Any) -> Any:
        try:
            return await right(self, group)
        except Fenced as error:
            self._keeper.epoch = error.current
            return await right(self, group)

    return patch(guard_decisions.Decisions, "_write", wrong)


@bug
def guard_starts_empty() -> Any:
    """A restarted guard does not load open reservations."""
    right = memory.MemoryStore.load

    async def wrong(self: Any, *arguments: Any) -> Any:
        return replace(await right(self, *arguments), open_reservations=())

    return patch(memory.MemoryStore, "load", wrong)


@bug
def guard_starts_with_a_clean_day() -> Any:
    """A restarted guard does not load what was lost today."""
    right = memory.MemoryStore.load

    async def wrong(self: Any, *arguments: Any) -> Any:
        return replace(await right(self, *arguments), settled_today=())

    return patch(memory.MemoryStore, "load", wrong)


@bug
def guard_starts_active() -> Any:
    """A restarted guard does not load the halt."""
    right = memory.MemoryStore.load

    async def wrong(self: Any, *arguments: Any) -> Any:
        return replace(await right(self, *arguments), state=RiskState.ACTIVE)

    return patch(memory.MemoryStore, "load", wrong)


@bug
def guard_works_on_when_fenced() -> Any:
    """The lease's epoch is not checked."""
    return patch(memory.MemoryStore, "_check_epoch", lambda self, epoch: None)


@bug
def tombstones_are_forgotten() -> Any:
    """An id whose reservation has ended can be granted."""

    async def wrong(self: Any, epoch: int, intent: Any, hold: Any, at_ns: int) -> Any:
        ended = self.settlements.pop(intent.trade_id, None)
        try:
            return await right(self, epoch, intent, hold, at_ns)
        finally:
            if ended is not None:
                self.settlements[intent.trade_id] = ended

    right = memory.MemoryStore.grant
    return (
        patch(memory.MemoryStore, "grant", wrong),
        patch(risk.RiskBook, "_remember", staticmethod(lambda memory, key, value: None)),
    )
