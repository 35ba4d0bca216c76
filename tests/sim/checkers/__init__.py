"""
Independent judges of a life: they read what was committed, and share no code with the engine.

Each keeps its own, slower books. A rule is written down here a second time, from DESIGN and
not from the code, so that an error would have to be made twice to pass.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from tests.sim.checkers.ledger import LedgerChecker
from tests.sim.checkers.orders import OrderChecker
from tests.sim.checkers.risk import RiskChecker
from tests.sim.checkers.trades import TradeChecker
from tests.sim.history import Commit, History


class Checkers:
    """All of them, and a fingerprint of the life."""

    def __init__(self, history: History, offsets_ns: Mapping[str, int]) -> None:
        self.risk = RiskChecker(history, offsets_ns)
        self.trades = TradeChecker(history, self.risk)
        self.orders = OrderChecker(history, self.risk, self.trades, offsets_ns)
        self.trades.orders = self.orders
        self.ledger = LedgerChecker(history, self.orders, self.trades)
        self.commits = 0
        self.digest = 0
        history.watch(self._see, self.risk.answered)

    def _see(self, commit: Commit) -> None:
        self.commits += 1
        told = f"{commit.now_ns} {commit.process} {commit.method}".encode()
        if commit.method == "append_event":
            told += commit.arguments[4]
        self.digest = zlib.crc32(told, self.digest)
        # Orders before trades before risk: a settlement is judged while its trade is open.
        for checker in (self.orders, self.ledger, self.trades, self.risk):
            rule = getattr(checker, commit.method, None)
            if rule is not None:
                rule(commit, *commit.arguments)

    def at_the_end(self, balances: Iterable[Any]) -> None:
        """Judge what is left when everything is closed."""
        self.ledger.at_the_end(balances)
        self.risk.at_the_end()
