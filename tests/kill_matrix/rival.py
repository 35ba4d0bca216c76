"""Somebody who asks for room beside the trade's, again and again: the limit holds one of the two."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from arb_ray.adapters.storage.ledger_store import PostgresLedgerStore
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.domain.errors import ArbError
from arb_ray.domain.instrument import Symbol
from arb_ray.domain.ledger import NO_PNL
from arb_ray.domain.opportunity import Direction
from arb_ray.domain.risk_intent import (
    Granted,
    ReserveIntent,
    RiskRefusal,
    SettleKind,
    Settlement,
    Verdict,
)
from tests.kill_matrix.market import RIVAL_LOSS_USDT
from tests.kill_matrix.rpc import RpcClient

SYMBOL = Symbol("BTC")
ASK_EVERY_S = 0.05
LITTLE_USDT = Decimal("0.01")
ZERO = Decimal(0)


class Rival:
    """A guard that has forgotten the trade would say yes to it, and the audit would see that."""

    def __init__(self, folder: Path, dsn: str, env: str) -> None:
        self.refused = 0
        self.has_heard_a_book = asyncio.Event()  # a guard answered by its ledger, since cleared
        self._folder, self._dsn, self._env = folder, dsn, env
        self._number = self._epoch = 0
        self._open: set[str] = set()

    async def run(self, is_open: Callable[[], bool]) -> None:
        """Ask for as long as the trade is open; give back what was granted otherwise."""
        await self._claim()
        client = RpcClient(str(self._folder / "guard.sock"), 1.0)
        while True:
            await asyncio.sleep(ASK_EVERY_S)
            if not is_open():
                await self.give_back()
                continue
            intent = self._intent(RIVAL_LOSS_USDT)
            self._open.add(intent.trade_id)
            try:
                verdict: Verdict = await client.call("reserve", intent)
            except ArbError:
                continue
            if isinstance(verdict, Granted):
                await self.give_back()
            else:
                self._open.discard(intent.trade_id)
                self.refused += verdict.reason is RiskRefusal.DAILY_LOSS
                if verdict.reason is RiskRefusal.STORE:
                    continue  # it does not know its ledger yet
            self.has_heard_a_book.set()

    async def ask_a_guard_of_the_past(self, socket: str) -> list[str]:
        """
        Return what it granted, which may be nothing.

        So little is asked for that only its fence can be what keeps a guard from it.
        """
        granted = []
        client = RpcClient(str(self._folder / socket), 2.0)
        for _ in range(3):
            intent = self._intent(LITTLE_USDT)
            with contextlib.suppress(ArbError):
                if isinstance(await client.call("reserve", intent), Granted):
                    self._open.add(intent.trade_id)
                    granted.append(intent.trade_id)
        client.close()
        return granted

    async def give_back_all(self) -> None:
        """Void until it is answered."""
        while self._open:
            await self.give_back()
            await asyncio.sleep(ASK_EVERY_S)

    async def give_back(self) -> None:
        """Void what was, or may have been, granted."""
        client = RpcClient(str(self._folder / "guard.sock"), 1.0)
        for trade_id in tuple(self._open):
            void = Settlement(
                trade_id, SYMBOL, SettleKind.VOIDED, NO_PNL, ZERO, ZERO, ZERO, time.time_ns(), "rival"
            )  # fmt: skip
            with contextlib.suppress(ArbError):
                await client.call("settle", void)
                self._open.discard(trade_id)
        client.close()

    async def _claim(self) -> None:
        postgres = Postgres(self._dsn, size=1)
        store = PostgresLedgerStore(postgres, self._env)
        while not self._epoch:
            try:
                self._epoch = await store.claim_symbol(SYMBOL, "rival")
            except ArbError:
                await asyncio.sleep(ASK_EVERY_S)
        await postgres.close()

    def _intent(self, worst_loss_usdt: Decimal) -> ReserveIntent:
        self._number += 1
        now_ns = time.time_ns()
        return ReserveIntent(
            trade_id=f"{self._env}:{SYMBOL}:{self._number}",
            session_id="cell",
            symbol=SYMBOL,
            owner_epoch=self._epoch,
            direction=Direction.LONG_A_SHORT_B,
            worst_loss_usdt=worst_loss_usdt,
            notional_usdt=Decimal(100),
            holds=(),
            asked_ns=now_ns,
            deadline_ns=now_ns + 10**9,
        )
