"""What an operator can tell RiskGuard, as changes of its book."""

from __future__ import annotations

from typing import NamedTuple

from arb_ray.domain.errors import BadInput
from arb_ray.domain.instrument import Symbol
from arb_ray.domain.risk_intent import RiskState
from arb_ray.engine.risk import GUARD, RiskBook, StateChange

FLATTEN = "flatten"
"""The command, and how the reason of the state begins that it brings."""

RESTRICT = "restrict"
"""The system's own command: no entries from now on, and never milder than what is in force."""

REASON_MAX = 1_000
"""Characters of a reason that carries the one before; the risk events have each in full."""

COMMANDS = {
    "halt": RiskState.HALTED,
    "resume": RiskState.ACTIVE,
    "reduce": RiskState.REDUCE_ONLY,
    FLATTEN: RiskState.REDUCE_ONLY,
    RESTRICT: RiskState.REDUCE_ONLY,
}


class Command(NamedTuple):
    """What an operator says; what it changes depends on the book of the moment."""

    verb: str
    reason: str
    actor: str
    at_ns: int
    symbol: Symbol

    def change(self, book: RiskBook) -> StateChange:
        """Return the change that it asks of ``book`` now. Raises BadInput."""
        return change_asked_for(book, *self)

    def is_in_force(self, book: RiskBook) -> bool:
        """Tell whether it is a restriction that ``book`` is under already, for this reason."""
        if self.verb != RESTRICT:
            return False
        status = book.status(self.at_ns)
        return status.state is not RiskState.ACTIVE and self.reason in status.reason


def change_asked_for(
    book: RiskBook, verb: str, reason: str, actor: str, now_ns: int, symbol: Symbol
) -> StateChange:
    """
    Return the change that a command asks for; only a resume ends an order to flatten all.

    Raises:
        BadInput: There is no such command, or no trade is open on ``symbol``.
    """
    if verb not in COMMANDS or (symbol and verb != FLATTEN):
        what = f"command {verb!r}" + (f" for {symbol!r}" if symbol else "")
        raise BadInput(what, "it is unknown", f"Known: {', '.join(COMMANDS)}")
    if actor == GUARD:
        raise BadInput("actor", f"{GUARD} is RiskGuard's own name", "Say who you are")
    before = book.status(now_ns)
    if symbol:
        if not book.has_trade(symbol):
            # An order that waits for the next trade would close it as soon as it opens.
            raise BadInput(f"flatten {symbol}", "no trade is open on it", "Nothing was done")
        return StateChange(book.state, reason, actor, now_ns, flatten_symbol=symbol)
    if verb not in (FLATTEN, RESTRICT):
        is_flattening = book.must_flatten_whatever_is_set and verb != "resume"
        return StateChange(COMMANDS[verb], reason, actor, now_ns, is_flattening)
    reason = f"{FLATTEN}: {reason}" if verb == FLATTEN else reason
    if before.state is not RiskState.ACTIVE:
        # What stopped entries first is still what an operator must know before a resume.
        reason = f"{reason} ({before.state} before: {before.reason})"[:REASON_MAX]
    state = RiskState.HALTED if book.state is RiskState.HALTED else RiskState.REDUCE_ONLY
    is_flattening = verb == FLATTEN or book.must_flatten_whatever_is_set
    return StateChange(state, reason, actor, now_ns, is_flattening_all=is_flattening)
