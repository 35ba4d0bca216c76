"""RiskGuard after a restart: no entry twice, the limit to the cent, each symbol its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import structlog

from arb_ray.actors.risk_guard import RiskGuard
from arb_ray.adapters.clock import SystemClock
from arb_ray.adapters.storage.ledger_store import PostgresLedgerStore
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.adapters.storage.risk_store import PostgresRiskStore
from arb_ray.adapters.telemetry.metrics import PrometheusMetrics
from arb_ray.app.stability.check import Check, require
from arb_ray.domain.instrument import Symbol, Venue
from arb_ray.domain.ledger import NO_PNL, Account, Entry, EntryKind, Posting
from arb_ray.domain.money import Asset
from arb_ray.domain.opportunity import Direction
from arb_ray.domain.risk_intent import (
    Granted,
    Hold,
    Mark,
    Refused,
    ReserveIntent,
    RiskRefusal,
    SettleKind,
    Settlement,
    Verdict,
)
from arb_ray.engine.risk_limits import RiskLimits
from arb_ray.engine.topology import Role

BTC, ETH = Symbol("BTC"), Symbol("ETH")
LIMIT = Decimal(100)
CENT = Decimal("0.01")
SILENT = structlog.wrap_logger(
    structlog.ReturnLogger(), wrapper_class=structlog.make_filtering_bound_logger(50)
)
"""What the guard logs is no news here: the verdict is."""

FAR = Decimal(10) ** 9

LIMITS = RiskLimits(
    daily_loss_usdt=LIMIT,
    symbol_daily_loss_usdt=Decimal(60),
    drawdown_usdt=FAR,
    trade_notional_usdt=FAR,
    symbol_notional_usdt=FAR,
    total_notional_usdt=FAR,
    open_trades_count=100,
    entries_per_minute_count=1_000,
    consecutive_losses_count=1_000,
    loss_cool_down_s=0.0,
    mark_age_max_ms=600_000,
    anomaly_window_count=1_000,
    win_rate_max_ratio=1.0,
    fees_min_bps=Decimal(0),
)


class GuardWorld:
    """One environment of one check, with a guard that is started again when asked."""

    def __init__(self, postgres: Postgres, env: str) -> None:
        self.env = env
        self.ledger = PostgresLedgerStore(postgres, env)
        self._store = PostgresRiskStore(postgres, env)
        self._epochs: dict[Symbol, int] = {}
        self._number = 0
        self.guard: RiskGuard

    async def restart(self) -> None:
        """Begin as after a crash: a new guard and new owners, with nothing but the database."""
        self.guard = RiskGuard(
            holder="stability",
            store=self._store,
            limits=LIMITS,
            opening=self._opening,
            clock=SystemClock(),
            metrics=PrometheusMetrics(Role.RISK, "main"),
            log=SILENT,
        )
        await self.guard.recover()
        for symbol in (BTC, ETH):
            self._epochs[symbol] = await self.ledger.claim_symbol(symbol, "stability")

    def intent(self, symbol: Symbol, worst: Decimal) -> ReserveIntent:
        """Ask for room under a new id."""
        self._number += 1
        now_ns = time.time_ns()
        return ReserveIntent(
            trade_id=f"{self.env}:{symbol}:{self._number}",
            session_id="stability",
            symbol=symbol,
            owner_epoch=self._epochs[symbol],
            direction=Direction.LONG_A_SHORT_B,
            worst_loss_usdt=worst,
            notional_usdt=Decimal(500),
            holds=(Hold(Venue.UPBIT, Asset("KRW"), Decimal(1_000)),),
            asked_ns=now_ns,
            deadline_ns=now_ns + 60 * 10**9,
        )

    async def lose(self, symbol: Symbol, loss: Decimal) -> None:
        """Open a trade and close it with a loss."""
        asked = self.intent(symbol, loss)
        require(isinstance(await self.guard.reserve(asked), Granted), "a first trade was refused")
        await self.guard.settle(
            Settlement(
                trade_id=asked.trade_id,
                symbol=symbol,
                kind=SettleKind.POSTED,
                parts=NO_PNL,
                realized_usdt=-loss,
                fees_usdt=Decimal(0),
                notional_usdt=Decimal(1_000),
                closed_ns=time.time_ns(),
            )
        )

    async def void(self, asked: ReserveIntent) -> None:
        """Give room back."""
        zero = Decimal(0)
        await self.guard.settle(
            Settlement(
                asked.trade_id,
                asked.symbol,
                SettleKind.VOIDED,
                NO_PNL,
                zero,
                zero,
                zero,
                time.time_ns(),
                "stability",
            )
        )

    async def _opening(self) -> Sequence[Entry]:
        krw = Asset("KRW")
        postings = (
            Posting(Venue.UPBIT, Account.OPENING, krw, -FAR),
            Posting(Venue.UPBIT, Account.FREE, krw, FAR),
        )
        return [Entry("opening:krw", EntryKind.OPENING, None, None, 1, postings)]


class GuardChecks:
    """The checks in one database, an environment each."""

    def __init__(self, postgres: Postgres, env: str) -> None:
        self._postgres = postgres
        self._env = env

    def checks(self) -> tuple[Check, ...]:
        """Return them."""
        return (
            Check("restart: no duplicate entry", self._no_duplicate),
            Check("restart: daily limit", self._daily_limit),
            Check("restart: state by symbol", self._by_symbol),
        )

    async def _world(self, name: str) -> GuardWorld:
        world = GuardWorld(self._postgres, f"{self._env}-{name}")
        await world.restart()
        return world

    async def _no_duplicate(self) -> str:
        world = await self._world("twice")
        asked = world.intent(BTC, Decimal(5))
        first = await world.guard.reserve(asked)
        require(isinstance(first, Granted), f"the first entry was refused: {first}")
        await world.restart()
        _refused(await world.guard.reserve(world.intent(BTC, Decimal(5))), RiskRefusal.SYMBOL_BUSY)
        again = await world.guard.reserve(asked)
        same = isinstance(again, Granted) and again.granted_ns == first.granted_ns  # type: ignore[union-attr]
        require(same, f"the repeat of a grant was answered with {again}")
        found = await world.ledger.open_trade(BTC)
        require(found is not None and found.trade_id == asked.trade_id, f"open is {found}")
        return "a second entry is refused, the repeat of the first gets its own answer"

    async def _daily_limit(self) -> str:
        world = await self._world("limit")
        await world.lose(BTC, Decimal(50))
        await world.lose(ETH, Decimal(25))
        room = LIMIT - 75
        for around in (room + CENT, room, room - CENT):
            await world.restart()
            asked = world.intent(ETH, around)
            verdict = await world.guard.reserve(asked)
            if around > room:
                _refused(verdict, RiskRefusal.DAILY_LOSS)
                continue
            require(isinstance(verdict, Granted), f"{around} of {room} left was refused: {verdict}")
            await world.restart()
            other = await world.guard.reserve(world.intent(BTC, room - around + CENT))
            _refused(other, RiskRefusal.DAILY_LOSS)
            await world.void(asked)
        return f"after 75 of {LIMIT} lost, {room} is granted and {room + CENT} is not"

    async def _by_symbol(self) -> str:
        world = await self._world("symbols")
        await world.lose(BTC, Decimal(50))
        held = world.intent(ETH, Decimal(7))
        require(isinstance(await world.guard.reserve(held), Granted), "ETH was refused")
        await world.restart()
        # A guard that has just begun waits to hear of what is open.
        await world.guard.mark("stability", [Mark(held.trade_id, ETH, Decimal(0), time.time_ns())])
        open_btc = await world.ledger.open_trade(BTC)
        open_eth = await world.ledger.open_trade(ETH)
        require(open_btc is None, f"BTC has {open_btc} open")
        require(open_eth is not None and open_eth.trade_id == held.trade_id, f"ETH has {open_eth}")
        _refused(
            await world.guard.reserve(world.intent(BTC, 10 + CENT)), RiskRefusal.SYMBOL_DAILY_LOSS
        )
        mine = await world.guard.reserve(world.intent(BTC, Decimal(10)))
        require(isinstance(mine, Granted), f"BTC has 10 left of its own and got {mine}")
        _refused(await world.guard.reserve(world.intent(ETH, CENT)), RiskRefusal.SYMBOL_BUSY)
        return "BTC's loss and ETH's open trade are each its own"


def _refused(verdict: Verdict | Any, reason: RiskRefusal) -> None:
    is_so = isinstance(verdict, Refused) and verdict.reason is reason
    require(is_so, f"{reason} was due, and the answer was {verdict}")
