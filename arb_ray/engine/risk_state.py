"""
The state that RiskGuard is in: how strict, since when, by whom, and which trades must close.

A stricter state is in force at once; a milder one is an operator's decision alone.
"""

from __future__ import annotations

import msgspec

from arb_ray.domain.instrument import Symbol
from arb_ray.domain.risk_books import RiskBooks
from arb_ray.domain.risk_intent import RiskState
from arb_ray.engine.risk_limits import RiskLimits
from arb_ray.engine.risk_room import Reservations

GUARD = "guard"
GAP_LOSS = "gap_loss"

_SEVERITY = {RiskState.ACTIVE: 0, RiskState.REDUCE_ONLY: 1, RiskState.HALTED: 2}


class StateChange(msgspec.Struct, frozen=True):
    """A change of state, the book's own (``GUARD``) or an operator's; the guard writes it down."""

    state: RiskState
    reason: str
    actor: str
    at_ns: int
    is_flattening_all: bool = False
    flatten_symbol: Symbol | None = None  # an order to close its trade; the state stays


class BookState(Reservations):
    """Reservations, and what is allowed beside them."""

    def __init__(self, limits: RiskLimits, books: RiskBooks, now_ns: int) -> None:
        super().__init__(limits, books, now_ns)
        self._state = books.state
        self._reason = books.state_reason
        self._actor = books.state_actor
        self._since_ns = books.state_since_ns
        self._changes: list[StateChange] = []
        self._flatten: set[Symbol] = set(books.flatten)
        self._is_flattening_all = books.is_flattening_all

    def _raise_state(self, state: RiskState, reason: str, now_ns: int) -> None:
        change = StateChange(state, reason, GUARD, now_ns)
        if self.is_stricter(state):
            self._take_state(change)
            self._changes.append(change)

    def _take_state(self, change: StateChange) -> None:
        self._state, self._reason = change.state, change.reason
        self._actor, self._since_ns = change.actor, change.at_ns

    @property
    def state(self) -> RiskState:
        """The state in force."""
        return self._state

    def is_stricter(self, state: RiskState) -> bool:
        """Tell whether ``state`` allows less than what is in force."""
        return _SEVERITY[state] > _SEVERITY[self._state]

    def enforce(self, change: StateChange) -> None:
        """Put in force what is written, may be, or will be: never a milder state."""
        if change.flatten_symbol is not None:
            if self.has_trade(change.flatten_symbol):
                self._flatten.add(change.flatten_symbol)
            return
        if self.is_stricter(change.state):
            self._take_state(change)
        self._is_flattening_all = self._is_flattening_all or change.is_flattening_all

    def _set_state(self, change: StateChange) -> None:
        self._take_state(change)
        self._is_flattening_all = self._is_flattening_all or change.is_flattening_all
        if change.state is RiskState.ACTIVE:
            self._flatten.clear()
            self._is_flattening_all = False

    def _inherit_state(self, former: BookState) -> None:
        """Go on by ``former`` unless what is in force here is more severe; open trades stay so."""
        self._flatten |= former._flatten & {held.intent.symbol for held in self._open.values()}
        self._is_flattening_all = self._is_flattening_all or former._is_flattening_all
        if _SEVERITY[former._state] >= _SEVERITY[self._state]:
            self._state, self._reason = former._state, former._reason
            self._actor, self._since_ns = former._actor, former._since_ns

    @property
    def must_flatten_whatever_is_set(self) -> bool:
        """
        Tell whether an order or a gap closes everything, ``flatten_on_halt`` or not.

        Read from what is durable, so that a restarted guard goes on.
        """
        # An operator may write any word: a gap is what the guard itself calls so.
        is_gap = self._actor == GUARD and self._reason.startswith(GAP_LOSS)
        return self._is_flattening_all or (self._state is RiskState.HALTED and is_gap)

    @property
    def has_state_changes(self) -> bool:
        """Tell whether there is a change that nobody has taken to write it down."""
        return bool(self._changes)

    def take_state_changes(self) -> tuple[StateChange, ...]:
        """Return, once, the changes that the book made by itself."""
        changes, self._changes = tuple(self._changes), []
        return changes

    def _must_flatten_all(self) -> bool:
        is_halted = self._state is RiskState.HALTED
        return self.must_flatten_whatever_is_set or (is_halted and self._limits.flatten_on_halt)
