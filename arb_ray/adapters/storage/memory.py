"""
The ledger and the risk store in one process's memory, for replays.

Same answers as PostgreSQL's, nothing durable: a replay that crashes is run again. Repeats
are no-ops here too, so that a replay takes the same paths as a live run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec

from arb_ray.domain.errors import Fenced, LedgerViolation
from arb_ray.domain.instrument import Symbol, Venue
from arb_ray.domain.ledger import Account, Balance, Entry
from arb_ray.domain.money import ZERO, Asset
from arb_ray.domain.order import OrderReport, OrderRequest
from arb_ray.domain.risk_books import RiskBooks, StoredReservation
from arb_ray.domain.risk_intent import (
    Granted,
    Refused,
    ReserveIntent,
    RiskRefusal,
    RiskState,
    SettleKind,
    Settlement,
    Verdict,
)
from arb_ray.engine.postings import release_entry
from arb_ray.engine.risk import GUARD, StateChange, substance
from arb_ray.engine.risk_limits import RiskLimits
from arb_ray.ports import Decision, GrantWrite, Outcome, Settled, StoredTrade

AccountKey = tuple[Venue, Account, Asset]


class MemoryStore:
    """Implements ``LedgerStore`` and ``RiskStore`` over the same dictionaries."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self._balances: defaultdict[AccountKey, Decimal] = defaultdict(lambda: ZERO)
        self._held: defaultdict[str, defaultdict[tuple[Venue, Asset], Decimal]] = defaultdict(
            lambda: defaultdict(lambda: ZERO)
        )
        self._owners: dict[Symbol, int] = {}
        self._numbers: defaultdict[Symbol, int] = defaultdict(int)
        self._events: defaultdict[str, list[bytes]] = defaultdict(list)
        self._orders: dict[str, OrderRequest] = {}
        self._reports: dict[str, OrderReport] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._intents: dict[str, StoredReservation] = {}
        self._open: dict[Symbol, str] = {}
        self.settlements: dict[str, Settlement] = {}
        self.limits: dict[int, RiskLimits] = {}
        self._epoch = 0
        self._state = StateChange(RiskState.ACTIVE, "start", "", 0)
        self._is_flattening_all = False
        self._flatten: dict[Symbol, str] = {}  # by symbol, the trade to close
        self._resumed_ns = 0

    # -- LedgerStore ---------------------------------------------------------------------

    async def claim_symbol(self, symbol: Symbol, owner: str) -> int:
        """Raise the symbol's owner epoch."""
        self._owners[symbol] = self._owners.get(symbol, 0) + 1
        return self._owners[symbol]

    async def next_trade_number(self, symbol: Symbol) -> int:
        """Use up the next number."""
        self._numbers[symbol] += 1
        return self._numbers[symbol]

    async def append_event(
        self, symbol: Symbol, owner_epoch: int, trade_id: str, seq: int, event: bytes
    ) -> None:
        """Append, or recognise a repeat."""
        self._check_owner(symbol, owner_epoch)
        events = self._events[trade_id]
        if seq < len(events):
            if events[seq] != event:
                raise LedgerViolation(f"{trade_id}/{seq}", "another event is stored there")
            return
        assert seq == len(events), "events are appended in order"
        events.append(event)

    async def open_trade(self, symbol: Symbol) -> StoredTrade | None:
        """Return the symbol's open trade with its events."""
        trade_id = self._open.get(symbol)
        if trade_id is None:
            return None
        return StoredTrade(trade_id, symbol, tuple(self._events[trade_id]))

    async def accept_order(self, symbol: Symbol, owner_epoch: int, order: OrderRequest) -> bool:
        """Store an order once."""
        self._check_owner(symbol, owner_epoch)
        if order.client_order_id in self._orders:
            return False
        self._orders[order.client_order_id] = order
        return True

    async def report_order(
        self,
        symbol: Symbol,
        owner_epoch: int,
        order: OrderRequest,
        report: OrderReport,
        entries: Sequence[Entry],
    ) -> None:
        """Store the last word and its postings once; the order too, if it was never accepted."""
        self._check_owner(symbol, owner_epoch)
        self._orders.setdefault(order.client_order_id, order)
        if order.client_order_id in self._reports:
            return
        self._reports[order.client_order_id] = report
        self._post(entries)

    async def find_report(self, client_order_id: str) -> OrderReport | None:
        """Return the last word, if there is one."""
        return self._reports.get(client_order_id)

    async def is_order_known(self, client_order_id: str) -> bool:
        """Tell whether the order was accepted."""
        return client_order_id in self._orders

    async def post(self, symbol: Symbol, owner_epoch: int, entries: Sequence[Entry]) -> None:
        """Post entries once each."""
        self._check_owner(symbol, owner_epoch)
        self._post(entries)

    async def dust(self, asset: Asset) -> Mapping[Venue, Decimal]:
        """Return what closed trades have left of an asset, by venue."""
        return {
            venue: amount
            for venue in Venue
            if (amount := self._balances.get((venue, Account.DUST, asset)))
        }

    async def balances(self) -> Sequence[Balance]:
        """Return all balances."""
        return tuple(Balance(*key, amount) for key, amount in sorted(self._balances.items()))

    async def flush(self) -> None:
        """Nothing waits."""

    async def close(self) -> None:
        """Nothing to give back."""

    # -- RiskStore -----------------------------------------------------------------------

    async def take_lease(self, holder: str) -> int:
        """Raise the guard's epoch."""
        self._epoch += 1
        return self._epoch

    async def renew_lease(self, epoch: int) -> None:
        """Check the epoch."""
        self._check_epoch(epoch)

    async def load(
        self, epoch: int, day_start_ns: int, entries_since_ns: int, recent_count: int
    ) -> RiskBooks:
        """Return what the guard starts from."""
        self._check_epoch(epoch)
        posted = [one for one in self.settlements.values() if one.kind is SettleKind.POSTED]
        before = [
            one for one in posted if one.closed_ns < day_start_ns and one.notional_usdt > ZERO
        ]
        return RiskBooks(
            state=self._state.state,
            state_reason=self._state.reason,
            open_reservations=tuple(
                stored
                for trade_id, stored in self._intents.items()
                if trade_id not in self.settlements
            ),
            settled_today=tuple(one for one in posted if one.closed_ns >= day_start_ns),
            balances=tuple(await self.balances()),
            entries_ns=tuple(
                stored.granted_ns
                for stored in self._intents.values()
                if stored.granted_ns >= entries_since_ns
            ),
            settled_before=tuple(before[max(0, len(before) - recent_count) :]),
            resumed_ns=self._resumed_ns,
            state_actor=self._state.actor,
            state_since_ns=self._state.at_ns,
            is_flattening_all=self._is_flattening_all,
            flatten=tuple(
                symbol
                for symbol, trade_id in sorted(self._flatten.items())
                if self._open.get(symbol) == trade_id
            ),
            reserved_usdt={
                trade_id: stored.intent.worst_loss_usdt
                for trade_id, stored in self._intents.items()
            },
        )

    async def open_balances(self, epoch: int, opening: Entry) -> None:
        """Post the opening balances once."""
        self._check_epoch(epoch)
        self._post([opening])

    async def grant(self, epoch: int, intent: ReserveIntent, hold: Entry, at_ns: int) -> Verdict:
        """Write a reservation and its hold; a known id is answered whoever owns the symbol."""
        self._check_epoch(epoch)
        refusal: RiskRefusal | None = None
        known = self._verdicts.get(intent.trade_id)
        if intent.trade_id in self.settlements:
            return Refused(intent.trade_id, RiskRefusal.TOMBSTONE)
        if known is not None:
            first = self._intents.get(intent.trade_id)
            if first is not None and substance(first.intent) != substance(intent):
                raise LedgerViolation(intent.trade_id, "another reservation has this id")
            return known
        if self._owners.get(intent.symbol, 0) != intent.owner_epoch:
            refusal = RiskRefusal.FENCED_OWNER
        elif intent.symbol in self._open:
            refusal = RiskRefusal.SYMBOL_BUSY
        if refusal is not None:
            return Refused(intent.trade_id, refusal)
        verdict = Granted(intent.trade_id, epoch, at_ns)
        self._verdicts[intent.trade_id] = verdict
        self._intents[intent.trade_id] = StoredReservation(intent, at_ns)
        self._open[intent.symbol] = intent.trade_id
        self._post([hold])
        return verdict

    async def settle(self, epoch: int, settlement: Settlement) -> tuple[bool, Sequence[Balance]]:
        """Settle once; move what is still held back to free."""
        self._check_epoch(epoch)
        trade_id = settlement.trade_id
        if trade_id in self.settlements:
            return False, ()
        self.settlements[trade_id] = settlement
        if self._open.get(settlement.symbol) == trade_id:
            del self._open[settlement.symbol]
        held = [
            Balance(venue, Account.HELD, asset, amount)
            for (venue, asset), amount in sorted(self._held[trade_id].items())
            if amount
        ]
        if held:
            entry = release_entry(trade_id, settlement.symbol, held, settlement.closed_ns)
            self._post([entry])
        return True, tuple(msgspec.structs.replace(one, account=Account.FREE) for one in held)

    async def write(self, epoch: int, group: Sequence[Decision]) -> Sequence[Outcome]:
        """Write decisions one after the other; nothing can come between them here."""
        self._check_epoch(epoch)
        return [await self._write_one(epoch, one) for one in group]

    async def _write_one(self, epoch: int, one: Decision) -> Outcome:
        try:
            if isinstance(one, GrantWrite):
                return await self.grant(epoch, one.intent, one.hold, one.at_ns)
            return Settled(*await self.settle(epoch, one))
        except LedgerViolation as error:
            return error

    async def note_limits(self, epoch: int, limits: RiskLimits) -> None:
        """Keep what the guard decides by."""
        self._check_epoch(epoch)
        self.limits[epoch] = limits

    async def set_state(self, epoch: int, change: StateChange) -> None:
        """Keep the newest state, and orders to flatten beside the trades that they are for."""
        self._check_epoch(epoch)
        if change.flatten_symbol is not None:
            if trade_id := self._open.get(change.flatten_symbol):
                self._flatten[change.flatten_symbol] = trade_id
            return
        self._state = change
        self._is_flattening_all = self._is_flattening_all or change.is_flattening_all
        if change.state is RiskState.ACTIVE and change.actor != GUARD:
            self._resumed_ns = change.at_ns
            self._is_flattening_all = False
            self._flatten.clear()

    # -- inside --------------------------------------------------------------------------

    def _check_owner(self, symbol: Symbol, owner_epoch: int) -> None:
        current = self._owners.get(symbol, 0)
        if current != owner_epoch:
            raise Fenced(f"strategy {symbol}", owner_epoch, current)

    def _check_epoch(self, epoch: int) -> None:
        if epoch != self._epoch:
            raise Fenced("RiskGuard", epoch, self._epoch)

    def _post(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            known = self.entries.get(entry.entry_id)
            if known is not None:
                if known.postings != entry.postings:
                    raise LedgerViolation(entry.entry_id, "another entry has this id")
                continue
            self.entries[entry.entry_id] = entry
            for posting in entry.postings:
                key = (posting.venue, posting.account, posting.asset)
                self._balances[key] += posting.amount
                if posting.account is Account.HELD and entry.trade_id:
                    self._held[entry.trade_id][posting.venue, posting.asset] += posting.amount
