"""
RiskGuard's changes of state: in force at once where they are stricter, written in their order.

What cannot be written now is kept, and the lease's loop tries again.
"""

from __future__ import annotations

from typing import Any

import msgspec

from arb_ray.actors.guard_keeper import Keeper
from arb_ray.domain.errors import OutcomeUnknown, StoreUnavailable
from arb_ray.domain.risk_intent import RiskState, RiskStatus
from arb_ray.engine.risk import RiskBook, StateChange
from arb_ray.engine.risk_commands import Command
from arb_ray.ports import RiskStore


class StateChanges:
    """Writes what the book decided by itself, and what an operator ordered."""

    def __init__(self, keeper: Keeper, store: RiskStore, log: Any) -> None:
        self._keeper = keeper
        self._store = store
        self._log = log

    async def obey(self, command: Command) -> None:
        """Carry out an operator's command; the errors are those of ``RiskGuard.command``."""
        # Before anything can wait: the next intent is judged by it already.
        self._book.enforce(command.change(self._book))
        async with self._keeper.changing:
            await self._obey(command.change(self._book))

    async def _obey(self, change: StateChange) -> None:
        keeper, is_milder = self._keeper, change.state is RiskState.ACTIVE
        is_milder = is_milder and change.flatten_symbol is None
        self._book.enforce(change)  # a resume that was written meanwhile had ended it
        try:
            # The newest row is the state after a restart, so what came before goes first.
            await self._write()
            await self._store.set_state(keeper.epoch, change)
        except (StoreUnavailable, OutcomeUnknown) as error:
            if is_milder:
                raise
            self._log.warning("write_waits", what="risk command", cause=str(error))
            # Written twice when only the answer was lost, which says the same.
            keeper.changes.append(change)
        # What the book decided while this was written comes after it, here and in the ledger.
        keeper.changes.extend(self._book.take_state_changes())
        if change.flatten_symbol is None:
            self._book.set_state(change)
        for later in (change, *keeper.changes):
            self._book.enforce(later)

    async def write(self) -> None:
        """Write what the book decided by itself. Raises what keeps it from being written."""
        async with self._keeper.changing:
            await self._write()

    async def try_writing(self) -> None:
        """Write what the book decided by itself; what cannot be written now is kept."""
        try:
            await self.write()
        except (StoreUnavailable, OutcomeUnknown) as error:
            # It is in force already; the lease loop tries again.
            self._log.warning("write_waits", what="risk state", cause=str(error))

    async def _write(self) -> None:
        changes = self._keeper.changes
        changes.extend(self._book.take_state_changes())
        while changes:
            change = changes[0]
            await self._store.set_state(self._keeper.epoch, change)
            changes.popleft()
            self._log.warning("risk_state", state=change.state, reason=change.reason)

    @property
    def _book(self) -> RiskBook:
        assert self._keeper.book is not None
        return self._keeper.book

    def status(self, now_ns: int) -> RiskStatus:
        """Return the book's state, and how many changes are not written yet."""
        status = self._book.status(now_ns)
        count = self.unwritten_count
        return msgspec.structs.replace(status, unwritten=count) if count else status

    @property
    def unwritten_count(self) -> int:
        """How many changes are in force and not yet in PostgreSQL."""
        return len(self._keeper.changes) + self._book.has_state_changes
