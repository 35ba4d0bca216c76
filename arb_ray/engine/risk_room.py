"""
The room that open and pending trades take: reservations, the money free beside them, marks.

What of it counts against which limit is said in ``engine.risk``.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from decimal import Decimal

import msgspec

from arb_ray.domain.instrument import Symbol, Venue
from arb_ray.domain.ledger import Account, Balance
from arb_ray.domain.money import ZERO, Asset
from arb_ray.domain.risk_books import RiskBooks
from arb_ray.domain.risk_intent import Mark, ReserveIntent
from arb_ray.engine.risk_limits import NS_PER_MS, RiskLimits


class Reservation(msgspec.Struct):
    """A trade that is open or pending, and the newest that is known of its loss."""

    intent: ReserveIntent
    granted_ns: int
    mark: Mark | None = None

    @property
    def loss_usdt(self) -> Decimal:
        """Current loss by the last mark, however old it is."""
        return max(ZERO, -self.mark.pnl_usdt) if self.mark else ZERO

    @property
    def exposure_usdt(self) -> Decimal:
        """What the trade counts for. A stale mark's loss stays, and never less than reserved."""
        return max(self.intent.worst_loss_usdt, self.loss_usdt)


class Reservations:
    """Who holds how much room, by what was granted, given back and marked."""

    def __init__(self, limits: RiskLimits, books: RiskBooks, now_ns: int) -> None:
        self._limits = limits
        self._open: dict[str, Reservation] = {}
        self._owner_epochs: dict[Symbol, int] = {}
        self._free: defaultdict[tuple[Venue, Asset], Decimal] = defaultdict(lambda: ZERO)
        self._entries_ns: deque[int] = deque(books.entries_ns)
        # Trades that are older than this book and have not told of their loss since.
        self._unheard = {stored.intent.trade_id for stored in books.open_reservations}
        self._unheard_until_ns = now_ns + limits.mark_age_max_ms * NS_PER_MS
        self._add_free(books.balances)
        for stored in books.open_reservations:
            self._open[stored.intent.trade_id] = Reservation(stored.intent, stored.granted_ns)
            self._note_owner(stored.intent)

    def is_granted(self, trade_id: str) -> bool:
        """Tell whether room is taken under ``trade_id``."""
        return trade_id in self._open

    def has_trade(self, symbol: Symbol) -> bool:
        """Tell whether a trade on ``symbol`` is open or pending."""
        return any(held.intent.symbol == symbol for held in self._open.values())

    def unheard_count(self, now_ns: int) -> int:
        """Return of how many older trades the loss is awaited before anything is granted."""
        return len(self._unheard & self._open.keys()) if now_ns < self._unheard_until_ns else 0

    def free(self, venue: Venue, asset: Asset) -> Decimal:
        """Return what is free by the book's knowledge."""
        return self._free.get((venue, asset), ZERO)

    def free_balances(self) -> tuple[Balance, ...]:
        """Return every FREE balance: a signal for strategies, which ask before they trade."""
        return tuple(
            Balance(venue, Account.FREE, asset, amount)
            for (venue, asset), amount in sorted(self._free.items())
        )

    def stale_marks(self, now_ns: int) -> tuple[str, ...]:
        """Return open trades whose mark is missing or too old to be believed."""
        oldest_ns = now_ns - self._limits.mark_age_max_ms * NS_PER_MS
        return tuple(
            trade_id
            for trade_id, held in self._open.items()
            if (held.mark.at_ns if held.mark else held.granted_ns) < oldest_ns
        )

    def _marked_loss_usdt(self) -> Decimal:
        return sum((held.loss_usdt for held in self._open.values()), ZERO)

    def _exposure_usdt(self) -> Decimal:
        return sum((held.exposure_usdt for held in self._open.values()), ZERO)

    def _add_free(self, balances: Iterable[Balance]) -> None:
        for balance in balances:
            if balance.account is Account.FREE:
                self._free[balance.venue, balance.asset] += balance.amount

    def _note_owner(self, intent: ReserveIntent) -> None:
        known = self._owner_epochs.get(intent.symbol, 0)
        self._owner_epochs[intent.symbol] = max(known, intent.owner_epoch)

    def _take(self, intent: ReserveIntent, granted_ns: int) -> None:
        self._open[intent.trade_id] = Reservation(intent, granted_ns)
        self._entries_ns.append(granted_ns)
        self._note_owner(intent)
        for hold in intent.holds:
            self._free[hold.venue, hold.asset] -= hold.amount

    def _give_back(self, trade_id: str) -> None:
        held = self._open.pop(trade_id)
        for hold in held.intent.holds:
            self._free[hold.venue, hold.asset] += hold.amount
        if held.granted_ns in self._entries_ns:  # else it is older than the minute that counts
            self._entries_ns.remove(held.granted_ns)
