"""Double entry: every asset sums to zero, balances are sums, and fills explain them all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from tests.sim.checkers.orders import LEGS
from tests.sim.history import Commit, History

ZERO = Decimal(0)
OURS = {"free", "held", "position", "unsettled", "dust"}
MUST_END_EMPTY = {"held", "position", "unsettled"}


class LedgerChecker:
    """Its own sums of every posting, by account and by trade."""

    def __init__(self, history: History, orders: Any, trades: Any) -> None:
        self._history = history
        self._orders = orders
        self._trades = trades
        self._entries: dict[str, Any] = {}
        self._balances: defaultdict[tuple[str, str, str], Decimal] = defaultdict(lambda: ZERO)
        self._held: defaultdict[str, defaultdict[tuple[str, str], Decimal]] = defaultdict(
            lambda: defaultdict(lambda: ZERO)
        )
        self._opening: defaultdict[tuple[str, str], Decimal] = defaultdict(lambda: ZERO)
        self._granted: set[str] = set()
        self._ended: set[str] = set()

    # -- commits --------------------------------------------------------------------------

    def open_balances(self, commit: Commit, _epoch: int, entry: Any) -> None:
        if entry.entry_id not in self._entries:
            for posting in entry.postings:
                if str(posting.account) == "free":
                    self._opening[str(posting.venue), posting.asset] += posting.amount
        self._post([entry])

    def post(self, commit: Commit, _symbol: str, _epoch: int, entries: Iterable[Any]) -> None:
        self._post(entries)

    def report_order(
        self, commit: Commit, _symbol: str, _epoch: int, order: Any, report: Any, entries: Any
    ) -> None:
        if self._orders.sent[order.client_order_id].report is report:
            if len(entries) != len(report.fills):
                self._violated("fills", f"{order.client_order_id}: a fill without its entry")
            self._post(entries)

    def grant(self, commit: Commit, _epoch: int, intent: Any, hold: Any, _at_ns: int) -> None:
        if type(commit.result).__name__ != "Granted" or intent.trade_id in self._granted:
            return
        self._granted.add(intent.trade_id)
        self._check_dust(intent.trade_id)
        self._post([hold])
        for one in intent.holds:
            venue = str(one.venue)
            if self._balances[venue, "free", one.asset] < 0:
                self._violated("overdrawn", f"{intent.trade_id} held more {one.asset} than is free")
            if self._held[intent.trade_id][venue, one.asset] != one.amount:
                self._violated("hold", f"{intent.trade_id} asked for {one.amount} {one.asset}")

    def settle(self, commit: Commit, _epoch: int, settlement: Any) -> None:
        is_new, released = commit.result
        if not is_new:
            return
        trade_id = settlement.trade_id
        self._ended.add(trade_id)
        held = {key: amount for key, amount in self._held[trade_id].items() if amount}
        freed = {(str(one.venue), one.asset): one.amount for one in released}
        if held != freed:
            self._violated("release", f"{trade_id} held {held}, and {freed} came free")
        for (venue, asset), amount in freed.items():
            self._balances[venue, "held", asset] -= amount
            self._balances[venue, "free", asset] += amount
        if self._held[trade_id]:  # else it was never granted, and another may be open by now
            self._check_inventory(trade_id)

    def _legs(self, trade_id: str) -> list[dict[str, Any]]:
        story = self._trades.stories.get(trade_id)
        return [story.plan[key] for key in ("a", "b")] if story else []

    def _check_dust(self, trade_id: str) -> None:
        """A trade takes along what is there, all of it, but no more than its own size."""
        for leg in self._legs(trade_id):
            instrument = leg["leg"]["instrument"]
            found = self._balances[instrument["venue"], "dust", instrument["asset"]]
            most = Decimal(leg["qty"]) * Decimal(instrument["multiplier"])
            taken = self._trades.dust_taken(trade_id, instrument["id"])
            if taken != max(-most, min(found, most)):
                self._violated("dust", f"{trade_id} takes {taken} along, {found} are there")

    def _check_inventory(self, trade_id: str) -> None:
        """What trades leave of their asset is dust: the inventory itself is what it was."""
        for leg in self._legs(trade_id):
            venue, asset = (leg["leg"]["instrument"][key] for key in ("venue", "asset"))
            free = self._balances[venue, "free", asset]
            if free != self._opening[venue, asset]:
                self._violated("inventory", f"{trade_id} left {free} {asset} free at {venue}")

    def _post(self, entries: Iterable[Any]) -> None:
        for entry in entries:
            known = self._entries.get(entry.entry_id)
            if known is not None:
                if known.postings != entry.postings:
                    self._violated("once", f"{entry.entry_id} was posted with another content")
                continue
            self._entries[entry.entry_id] = entry
            if entry.trade_id in self._ended:
                self._violated("late", f"{entry.entry_id} was posted after its trade's end")
            sums: defaultdict[str, Decimal] = defaultdict(lambda: ZERO)
            for posting in entry.postings:
                venue, account = str(posting.venue), str(posting.account)
                sums[posting.asset] += posting.amount
                self._balances[venue, account, posting.asset] += posting.amount
                if account == "held" and entry.trade_id:
                    self._held[entry.trade_id][venue, posting.asset] += posting.amount
            if any(sums.values()):
                self._violated("zero", f"{entry.entry_id} sums to {dict(sums)}")

    # -- the end --------------------------------------------------------------------------

    def at_the_end(self, balances: Iterable[Any]) -> None:
        """The store's balances are these sums; what is ours is what the fills left."""
        found = {(str(b.venue), str(b.account), b.asset): b.amount for b in balances if b.amount}
        mine = {key: amount for key, amount in self._balances.items() if amount}
        if found != mine:
            differing = {
                key for key in found.keys() | mine.keys() if found.get(key) != mine.get(key)
            }
            self._violated("balances", f"{sorted(differing)} are not the sums of their postings")
        for (venue, account, asset), amount in sorted(mine.items()):
            if account in MUST_END_EMPTY:
                self._violated("empty", f"{amount} {asset} are left {account} at {venue}")
        ours: defaultdict[tuple[str, str], Decimal] = defaultdict(lambda: ZERO)
        for (venue, account, asset), amount in mine.items():
            if account in OURS:
                ours[venue, asset] += amount
        expected = self._expected()
        for key in sorted(ours.keys() | expected.keys()):
            if ours[key] != expected[key]:
                text = f"{key}: {ours[key]} on our accounts, the fills say {expected[key]}"
                self._violated("fills", text)

    def _expected(self) -> defaultdict[tuple[str, str], Decimal]:
        expected = self._opening.copy()
        for sent in self._orders.sent.values():
            instrument = LEGS[sent.order.instrument].instrument
            venue = str(instrument.venue)
            sign = 1 if str(sent.order.side) == "buy" else -1
            for fill in sent.report.fills if sent.report else ():
                expected[venue, instrument.asset] += sign * fill.qty * instrument.multiplier
                expected[venue, instrument.quote] -= sign * fill.qty * fill.price
                expected[venue, fill.fee.asset] -= fill.fee.amount
        for trade_id, story in self._trades.stories.items():
            if story.funding:
                instrument = story.plan["b"]["leg"]["instrument"]
                funding = self._trades.funding_usdt(trade_id)
                expected[instrument["venue"], instrument["quote"]] += funding
        return expected

    def _violated(self, check: str, text: str) -> None:
        self._history.violated(f"ledger.{check}", text)
