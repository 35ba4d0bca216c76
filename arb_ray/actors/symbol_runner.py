"""
One symbol's strategy at work: the shell around ``SymbolStrategy`` and the trade machine.

Events are served one at a time. Each is journaled before the machine moves, and what the
machine asks for is carried out beside (``effect_runner``); every outcome comes back as the
next event. Starting is recovering: the symbol is claimed (which fences an older owner), the
open trade's events are replayed, and what was unfinished is resumed.

While PostgreSQL is away a live trade goes on: the ledger takes its events, exits, hedges and
fills on the local disk (``SpooledLedger``). What waits is what begins or ends a trade. When
the disk takes nothing either, everything waits: a report, an answer or a settlement as long
as it takes, since it has happened; a decision that rests on prices (an exit, a retry) and a
funding payment are tried twice and then given up, so that the next look prices them anew;
and an order that waited longer than its limit allows is not sent.
"""

from __future__ import annotations

import asyncio
from decimal import Decimal

from arb_ray.actors.effect_runner import STORE_RETRY_NS, EffectRunner, RunnerParts
from arb_ray.actors.funding_clerk import FundingClerk
from arb_ray.actors.trade_log import plan_facts, trade_facts
from arb_ray.domain.errors import OutcomeUnknown, StoreUnavailable
from arb_ray.domain.instrument import Pair, Symbol
from arb_ray.domain.opportunity import Opportunity, Refusal
from arb_ray.domain.risk_intent import Mark, Refused, RiskRefusal
from arb_ray.engine.evaluation import Evaluation
from arb_ray.engine.gates import Standing, confirm_refusal
from arb_ray.engine.planning import (
    MID_QUANTUM,
    Identity,
    mark_usdt,
    plan_entry,
    prices_by_leg,
)
from arb_ray.engine.position import live_mark_usdt, open_position
from arb_ray.engine.strategy import SymbolStrategy
from arb_ray.engine.strategy_params import NS_PER_S
from arb_ray.engine.trade import replay, resume_effects, step
from arb_ray.engine.trade_events import (
    AnyEvent,
    EdgeConfirmed,
    EdgeGone,
    ExitDecided,
    ExitReason,
    ReserveAnswered,
    ReserveUnanswered,
    Retry,
    SettleRisk,
    Signal,
    decode_event,
    encode_event,
)
from arb_ray.engine.trade_orders import Prices, wanted
from arb_ray.engine.trade_plan import LegKey, TradePlan
from arb_ray.engine.trade_settle import voided
from arb_ray.engine.trade_state import Idle, Live, Phase, Reserving, Settling, Trade
from arb_ray.ports import StoredTrade

__all__ = ["RunnerParts", "SymbolRunner"]

IMPATIENT_TRIES = 2
"""Appends that are tried for a decision that can be made again."""

COPY_GRACE_NS = 2 * NS_PER_S
"""The clocks of a host and of RiskGuard differ by less."""


class SymbolRunner:
    """Runs one pair until its process ends."""

    def __init__(self, pair: Pair, brain: SymbolStrategy, parts: RunnerParts) -> None:
        self.pair = pair
        self.brain = brain
        self.trade: Trade = Idle()
        self.owner_epoch = 0
        self.is_recovered = False
        self.is_store_away = False  # a write waits for PostgreSQL
        self.last: Evaluation | None = None
        self.mark: Mark | None = None
        self.exit_asked: ExitReason | None = None
        self.standing: Standing | None = None  # the newest that the host gave
        self._parts = parts
        self._effects = EffectRunner(self, parts)
        self._seq = 0
        self._last_ns = 0  # the newest instant in the trade's journal
        self._is_attempting = False
        self._is_deciding_exit = False
        self._turn = asyncio.Lock()
        interval_ns = int(brain.params.funding_interval_s * NS_PER_S)
        self._funding = FundingClerk(self, pair, parts, interval_ns)

    @property
    def symbol(self) -> Symbol:
        """What is traded."""
        return self.pair.symbol

    @property
    def is_busy(self) -> bool:
        """Whether a trade is open, pending, or being prepared."""
        return self._is_attempting or not isinstance(self.trade, Idle)

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is on its way: no trade, or one that only waits for its exit."""
        trade = self.trade
        is_held = isinstance(trade, Live) and trade.phase is Phase.HOLDING
        return not self._is_attempting and (isinstance(trade, Idle) or is_held)

    # -- recovery -----------------------------------------------------------------------

    async def recover(self) -> None:
        """Claim the symbol and pick up its open trade. Raises StoreUnavailable."""
        parts = self._parts
        self.owner_epoch = await parts.ledger.claim_symbol(self.symbol, parts.owner)
        stored = await parts.ledger.open_trade(self.symbol)
        trade: Trade = Idle()
        seq = 0
        for data in stored.events if stored else ():
            event = decode_event(data)
            self._last_ns = max(self._last_ns, event.at_ns)
            trade, _ = step(trade, event)
            seq += 1
        self.trade, self._seq = trade, seq
        self.is_recovered = True
        if stored is None:
            return
        parts.log.warning(
            "trade_resumed",
            **({"symbol": self.symbol, "trade_id": stored.trade_id} | trade_facts(trade)),
            phase=trade.phase,
            events=seq,
        )
        if isinstance(trade, Idle):
            self._void(stored)
        else:
            self._effects.carry_out(resume_effects(trade))

    def _void(self, stored: StoredTrade) -> None:
        """Give back room that was granted to a trade which, by its journal, never began."""
        now_ns = self._parts.clock.now_ns()
        reason = "granted, but the journal has ended"
        settlement = voided(stored.trade_id, self.symbol, reason, now_ns)
        self._effects.carry_out((SettleRisk(settlement),))

    async def _void_unattended(self, deadline_ns: int) -> None:
        """
        Give back room that was granted to a trade after it had been refused.

        A copy of the intent can reach a guard that knows nothing of the first answer. Its yes
        finds nobody, and every later trade would find the symbol busy. After the deadline no
        copy is granted any more, so one look then is enough.
        """
        clock, ledger = self._parts.clock, self._parts.ledger
        await clock.sleep_until_ns(deadline_ns + COPY_GRACE_NS, f"{self.symbol}:void")
        while True:
            try:
                stored = await ledger.open_trade(self.symbol)
            except (StoreUnavailable, OutcomeUnknown):
                await self._effects.pause(STORE_RETRY_NS)
            else:
                break
        if stored is not None and isinstance(replay(map(decode_event, stored.events)), Idle):
            self._void(stored)

    # -- looking at the market ----------------------------------------------------------

    def look(self, now_ns: int, mono_ns: int, standing: Standing) -> Evaluation | None:
        """Evaluate the newest books once; what follows runs beside."""
        self.standing = standing
        trade = self.trade
        if isinstance(trade, Live):
            self._funding.note(trade, now_ns)
            if trade.phase is Phase.HOLDING:
                self._review(trade, now_ns, mono_ns)
                return None
            self._mark(trade, self._value(trade), now_ns)
        evaluation = self.brain.evaluate(self._parts.view, now_ns, mono_ns, standing)
        self.last = evaluation
        if evaluation.opportunity is not None:
            self._is_attempting = True
            self._parts.tasks.spawn(self._attempt(evaluation.opportunity), f"attempt:{self.symbol}")
        return evaluation

    def _review(self, live: Live, now_ns: int, mono_ns: int) -> None:
        review = self.brain.review(
            self._parts.view,
            open_position(live, self.pair),
            now_ns,
            mono_ns,
            asked=self.exit_asked,
        )
        if review.mark_usdt is not None:
            self._mark(live, Decimal(repr(round(review.mark_usdt, 8))), now_ns)
        if review.reason is None or self._is_deciding_exit:
            return
        event = self._exit_decided(live, review.reason, now_ns, mono_ns)
        if event is not None:
            self._is_deciding_exit = True
            self._parts.tasks.spawn(self._decide_exit(event), f"exit:{self.symbol}")

    def _mark(self, live: Live, pnl_usdt: Decimal, now_ns: int) -> None:
        self.mark = Mark(live.plan.trade_id, self.symbol, pnl_usdt, now_ns)

    def _value(self, live: Live) -> Decimal:
        """Value a trade that is being entered, evened out or left, by the last known prices."""
        penalty = Decimal(repr(self.brain.params.depth_short_penalty_bps)) / 10_000
        return live_mark_usdt(live, self._parts.view, self._fx_krw(live), penalty)

    def _fx_krw(self, live: Live) -> Decimal:
        """Return F's last good mid; the plan's, when none was seen since this start."""
        last = self.brain.last_fx_mid_krw
        return Decimal(repr(last)).quantize(MID_QUANTUM) if last else live.plan.fx_mid_krw

    def _exit_decided(
        self, live: Live, reason: ExitReason, now_ns: int, mono_ns: int
    ) -> ExitDecided | None:
        parts = self._parts
        prices = self._prices(live, mono_ns)
        fx = self._fx_krw(live)
        mark = mark_usdt(self.pair, parts.view) or live.mark_usdt
        if any(prices.get(one.key) is None for one in wanted(live)):
            return None  # a venue is dark; the next look tries again
        return ExitDecided(
            at_ns=self._not_before(now_ns),
            reason=reason,
            price_a=prices.get(LegKey.A),
            price_b=prices.get(LegKey.B),
            fx_mid_krw=fx,
            mark_usdt=mark,
        )

    def _prices(self, live: Live, mono_ns: int) -> Prices:
        parts = self._parts
        return prices_by_leg(live, wanted(live), parts.view, parts.terms, parts.max_age_ns, mono_ns)

    def _not_before(self, now_ns: int) -> int:
        """
        Return when an order is decided: never before what the journal has told already.

        This clock may be behind that of the process before. An order of ours would then fill
        before a funding instant that is booked, and nobody could explain the payment.
        """
        return max(now_ns, self._last_ns)

    def priced(self, live: Live) -> Retry:
        """Price what is still to be done."""
        parts = self._parts
        prices = self._prices(live, parts.clock.mono_ns())
        return Retry(
            at_ns=self._not_before(parts.clock.now_ns()),
            price_a=prices.get(LegKey.A),
            price_b=prices.get(LegKey.B),
            mark_usdt=mark_usdt(self.pair, parts.view) or live.mark_usdt,
        )

    async def _decide_exit(self, event: ExitDecided) -> None:
        try:
            await self.serve(event, is_patient=False)
        finally:
            self._is_deciding_exit = False

    # -- entering -----------------------------------------------------------------------

    async def _attempt(self, opportunity: Opportunity) -> None:
        try:
            refusal = await self._try_to_enter(opportunity)
        finally:
            self._is_attempting = False
        if refusal is not None:
            self._refused(opportunity, refusal)

    async def _try_to_enter(self, opportunity: Opportunity) -> Refusal | None:
        parts = self._parts
        try:
            number = await parts.ledger.next_trade_number(self.symbol)
            dust = await parts.ledger.dust(self.pair.a.instrument.asset)
        except (StoreUnavailable, OutcomeUnknown):
            return Refusal.STORE_UNAVAILABLE
        now_ns = parts.clock.now_ns()
        plan = plan_entry(
            self.pair,
            opportunity,
            parts.view,
            parts.terms,
            Identity(number, self.owner_epoch),
            now_ns,
            dust,
        )
        if isinstance(plan, Refusal):
            return plan
        self._seq = self._last_ns = 0  # a new trade's journal begins
        await self.serve(Signal(at_ns=now_ns, plan=plan))
        return None

    def _refused(self, found: Opportunity, refusal: Refusal) -> None:
        now_ns = self._parts.clock.now_ns()
        self.brain.attempt_failed(now_ns, refusal)
        self._parts.listener.refused(found, refusal, now_ns)

    # -- serving events -----------------------------------------------------------------

    async def serve(self, event: AnyEvent, *, is_patient: bool = True) -> bool:
        """
        Journal one event, move the machine, carry out what it asks for.

        Returns:
            False when the journal is away and the event, not being ``is_patient``, was given
            up: nothing has changed.
        """
        async with self._turn:
            # Step first: an event that the machine refuses must not poison the journal.
            before = self.trade
            trade, effects = step(before, event)
            if isinstance(before, Live) and isinstance(trade, Settling):
                await self._funding.before_the_end(before, self._take)
                before = self.trade
                trade, effects = step(before, event)
            if trade is before and not effects:
                return True
            plan = _plan(before) or _plan(trade)
            if plan is not None and not await self._journal(plan, event, is_patient):
                return False
            self.trade = trade
            self._parts.listener.moved(self.symbol, before, trade, event)
        self._after(before, trade, event)
        self._effects.carry_out(effects)
        return True

    async def _take(self, event: AnyEvent) -> None:
        """Serve an event in the turn of another one, which it has to come before."""
        before = self.trade
        trade, effects = step(before, event)
        plan = _plan(before)
        if trade is not before and plan is not None:
            await self._journal(plan, event, is_patient=True)
            self.trade = trade
            self._parts.listener.moved(self.symbol, before, trade, event)
            self._effects.carry_out(effects)

    async def _journal(self, plan: TradePlan, event: AnyEvent, is_patient: bool) -> bool:
        parts = self._parts
        data = encode_event(event)
        may_be_written = False
        tries = 0
        while True:
            tries += 1
            began_ns = parts.clock.mono_ns()
            try:
                await parts.ledger.append_event(
                    self.symbol, self.owner_epoch, plan.trade_id, self._seq, data
                )
            except (StoreUnavailable, OutcomeUnknown) as error:
                parts.log.warning("journal_waits", **plan_facts(plan), cause=str(error))
                # Once it may be written, its place in the journal is taken: no other event
                # could follow, so it is written out and its orders, too old, are not sent.
                may_be_written = may_be_written or isinstance(error, OutcomeUnknown)
                if not (is_patient or may_be_written) and tries >= IMPATIENT_TRIES:
                    self.is_store_away = False  # nothing of ours waits any more
                    return False
                self.is_store_away = True
                await self._effects.pause(STORE_RETRY_NS)
            else:
                self.is_store_away = False
                self._seq += 1
                self._last_ns = max(self._last_ns, event.at_ns)
                parts.listener.journaled(parts.clock.mono_ns() - began_ns)
                return True

    def _after(self, before: Trade, trade: Trade, event: AnyEvent) -> None:
        if isinstance(trade, Idle) and not isinstance(before, Idle):
            self.mark = None
            self.exit_asked = None
            self._funding.forget()
            self.brain.trade_closed(event.at_ns)
        plan = _plan(before)
        refusal = _refusal_of(event)
        if isinstance(before, Reserving) and isinstance(trade, Idle):
            look_up = self._void_unattended(before.plan.deadline_ns)
            self._parts.tasks.spawn(look_up, f"void:{self.symbol}")
        if plan is not None and refusal is not None:
            self._refused(plan.opportunity, refusal)

    def confirmed(self) -> EdgeConfirmed | EdgeGone | None:
        """Ask once more, with the room held, whether to enter; None when nobody waits for it."""
        parts = self._parts
        plan = _plan(self.trade)
        if plan is None:
            return None
        now_ns = parts.clock.now_ns()
        found = confirm_refusal(self.standing) or self.brain.recheck(
            parts.view, now_ns, parts.clock.mono_ns(), plan.opportunity
        )
        if isinstance(found, Refusal):
            return EdgeGone(at_ns=now_ns, reason=str(found))
        return EdgeConfirmed(at_ns=now_ns)


def _refusal_of(event: AnyEvent) -> Refusal | None:
    """Return why an attempt ended, when this event ended it."""
    if isinstance(event, ReserveAnswered) and isinstance(event.verdict, Refused):
        is_balance = event.verdict.reason is RiskRefusal.BALANCE
        return Refusal.INSUFFICIENT_BALANCE if is_balance else Refusal.RISK_REFUSED
    if isinstance(event, ReserveUnanswered):
        return Refusal.RISK_UNREACHABLE
    return Refusal.EDGE_GONE if isinstance(event, EdgeGone) else None


def _plan(trade: Trade) -> TradePlan | None:
    return None if isinstance(trade, Idle) else trade.plan
