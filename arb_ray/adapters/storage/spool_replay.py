"""
Spools brought into the books: in order, once, and what the books refuse kept for a person.

A record that PostgreSQL refuses for good (the epoch of another owner, another content under
its id) goes to the reconciliation folder, and so does what follows it of the same trade.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from arb_ray.adapters.storage.prompt_calls import PromptCalls
from arb_ray.adapters.storage.spool_records import AnyWrite, decode_write
from arb_ray.domain.errors import BadInput, Fenced, LedgerViolation
from arb_ray.ports import LedgerStore

Refusal = Fenced | LedgerViolation


class WriteSpool(Protocol):
    """Records on local disk, in order (``Spool``)."""

    @property
    def name(self) -> str:
        """What its kept records are filed under."""
        ...

    @property
    def pending(self) -> int:
        """Records that are not replayed."""
        ...

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        ...

    async def append(self, payload: bytes) -> int:
        """Store durably. Raises StoreUnavailable at the bound, or when the disk refuses."""
        ...

    async def replay(self, deliver: Callable[[bytes], Awaitable[None]]) -> int:
        """Hand over in order; what ``deliver`` raises ends it before the acknowledgement."""
        ...


class KeptRecords(Protocol):
    """What the books refused (``Reconciliation``)."""

    @property
    def files(self) -> Sequence[str]:
        """Names of what waits for a person."""
        ...

    def is_broken(self, write: AnyWrite) -> bool:
        """Tell whether an earlier record of the same trade and epoch was refused."""
        ...

    async def keep(self, spool: str, payload: bytes, write: AnyWrite | None, reason: str) -> None:
        """Keep a record durably. Raises StoreUnavailable."""
        ...


class SpoolPlace(Protocol):
    """The spools of a node (``NodeSpools``)."""

    @property
    def reconciliation(self) -> KeptRecords:
        """What was refused."""
        ...

    async def open_own(self) -> WriteSpool:
        """Return this process's spool."""
        ...

    async def left(self) -> Sequence[WriteSpool]:
        """Lock and return spools with records that gone processes left."""
        ...

    def others_with_records(self) -> Sequence[str]:
        """Name other processes' spools that hold records."""
        ...

    async def remove(self, spool: WriteSpool) -> None:
        """Close a spool; an empty one goes."""
        ...


class Replayer:
    """Replays spools of one place into one ledger."""

    def __init__(
        self, ledger: LedgerStore, place: SpoolPlace, calls: PromptCalls, log: Any
    ) -> None:
        self._ledger = ledger
        self._place = place
        self._calls = calls
        self._log = log

    async def replay(
        self, spool: WriteSpool, on_refusal: Callable[[Refusal], None] = lambda _refusal: None
    ) -> None:
        """
        Replay all that is pending; tell of each refusal once its record is kept.

        Raises:
            StoreUnavailable, OutcomeUnknown: The rest stays for the next time.
        """

        async def deliver(payload: bytes) -> None:
            refusal = await self._deliver(spool, payload)
            if refusal is not None:
                on_refusal(refusal)

        count = await spool.replay(deliver)
        if count:
            self._log.warning("spool_replayed", spool=spool.name, records=count)

    async def _deliver(self, spool: WriteSpool, payload: bytes) -> Refusal | None:
        try:
            write = decode_write(payload)
        except BadInput as error:
            await self._keep(spool, payload, None, str(error))
            return LedgerViolation(spool.name, str(error))
        if self._place.reconciliation.is_broken(write):
            # Half a story is never booked.
            await self._keep(spool, payload, write, "it follows a record that was refused")
            return LedgerViolation(write.trade_id, "an earlier record of it was refused")
        try:
            await self._calls.answer(write.write(self._ledger), "a spooled write")
        except (Fenced, LedgerViolation) as error:
            await self._keep(spool, payload, write, str(error))
            return error
        return None

    async def _keep(
        self, spool: WriteSpool, payload: bytes, write: AnyWrite | None, reason: str
    ) -> None:
        await self._place.reconciliation.keep(spool.name, payload, write, reason)
        self._log.error(
            "record_refused",
            spool=spool.name,
            symbol=write.symbol if write else "",
            trade_id=write.trade_id if write else "",
            cause=reason,
        )
