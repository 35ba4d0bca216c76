"""
The writes of a live trade as records of a spool: what to repeat, under which owner epoch.

A record holds the call's arguments whole, so that replaying it is making the same call: its
ids make a repeat a no-op, and its epoch is checked as it would have been at first.
"""

from __future__ import annotations

import msgspec

from arb_ray.domain.errors import BadInput
from arb_ray.domain.instrument import Symbol
from arb_ray.domain.ledger import Entry
from arb_ray.domain.order import OrderReport, OrderRequest
from arb_ray.ports import LedgerStore

SCHEMA = 1
NO_TRADE = ""


class SpooledWrite(msgspec.Struct, frozen=True, kw_only=True):
    """One write that PostgreSQL has not confirmed."""

    symbol: Symbol
    owner_epoch: int
    schema: int = SCHEMA

    @property
    def trade_id(self) -> str:
        """Return the trade that it belongs to; what a refusal of it takes along."""
        raise NotImplementedError

    async def write(self, ledger: LedgerStore) -> None:
        """Make the call."""
        raise NotImplementedError


class EventWrite(SpooledWrite, frozen=True, tag="event", kw_only=True):
    """``append_event``."""

    of_trade: str
    seq: int
    event: str  # the journal's JSON, as text: a person may have to read it

    @property
    def trade_id(self) -> str:
        """Return the event's trade."""
        return self.of_trade

    async def write(self, ledger: LedgerStore) -> None:
        """Append it."""
        data = self.event.encode()
        await ledger.append_event(self.symbol, self.owner_epoch, self.of_trade, self.seq, data)


class OrderWrite(SpooledWrite, frozen=True, tag="order", kw_only=True):
    """``accept_order``."""

    order: OrderRequest

    @property
    def trade_id(self) -> str:
        """Return the order's trade."""
        return self.order.trade_id

    async def write(self, ledger: LedgerStore) -> None:
        """Store it."""
        await ledger.accept_order(self.symbol, self.owner_epoch, self.order)


class ReportWrite(SpooledWrite, frozen=True, tag="report", kw_only=True):
    """``report_order``."""

    order: OrderRequest
    report: OrderReport
    entries: tuple[Entry, ...]

    @property
    def trade_id(self) -> str:
        """Return the order's trade."""
        return self.order.trade_id

    async def write(self, ledger: LedgerStore) -> None:
        """Store it."""
        await ledger.report_order(
            self.symbol, self.owner_epoch, self.order, self.report, self.entries
        )


class PostWrite(SpooledWrite, frozen=True, tag="post", kw_only=True):
    """``post``."""

    entries: tuple[Entry, ...]

    @property
    def trade_id(self) -> str:
        """Return the entries' trade."""
        return next((entry.trade_id for entry in self.entries if entry.trade_id), NO_TRADE)

    async def write(self, ledger: LedgerStore) -> None:
        """Post them."""
        await ledger.post(self.symbol, self.owner_epoch, self.entries)


AnyWrite = EventWrite | OrderWrite | ReportWrite | PostWrite

_decoder = msgspec.json.Decoder(AnyWrite)


def encode_write(write: AnyWrite) -> bytes:
    """Return a record's payload."""
    return msgspec.json.encode(write)


def decode_write(payload: bytes) -> AnyWrite:
    """
    Read a record's payload.

    Raises:
        BadInput: It is none, or of a schema that this code does not know.
    """
    try:
        write: AnyWrite = _decoder.decode(payload)
    except msgspec.DecodeError as error:
        raise BadInput("a spool's record", str(error), "Reconcile it by hand.") from error
    if write.schema != SCHEMA:
        raise BadInput(
            "a spool's record", f"it has schema {write.schema}", f"This code reads {SCHEMA}."
        )
    return write
