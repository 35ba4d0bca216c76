"""
RiskGuard's decisions as ``arb.write_decisions`` takes them, and what its answers mean.

The function (migration 0010) writes any number of them in one round trip. What a repeat of
an id has to agree on is judged here, by the contents that the ledger kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, TypeAlias

import asyncpg
import msgspec

from arb_ray.adapters.storage.ledger_store import digest_of
from arb_ray.domain.errors import LedgerViolation
from arb_ray.domain.instrument import Venue
from arb_ray.domain.ledger import Account, Balance
from arb_ray.domain.money import Asset
from arb_ray.domain.risk_intent import (
    SCHEMA,
    Granted,
    Refused,
    ReserveIntent,
    RiskRefusal,
    SettleKind,
    Settlement,
    Verdict,
)
from arb_ray.engine.risk import substance
from arb_ray.ports import Decision, GrantWrite, Outcome, Settled

Row: TypeAlias = "asyncpg.Record"

WRITE = "SELECT * FROM arb.write_decisions($1, $2, $3::jsonb)"


def encoded(group: Sequence[Decision]) -> str:
    """Return the decisions as the function's JSON; money travels as text."""
    return msgspec.json.encode([_fields(one) for one in group]).decode()


def _fields(one: Decision) -> dict[str, Any]:
    return _of_grant(one) if isinstance(one, GrantWrite) else _of_settlement(one)


def _of_grant(one: GrantWrite) -> dict[str, Any]:
    intent, hold = one.intent, one.hold
    return {
        "kind": "grant",
        "schema": SCHEMA,
        "trade_id": intent.trade_id,
        "symbol": intent.symbol,
        "session_id": intent.session_id,
        "owner_epoch": intent.owner_epoch,
        "worst_loss_usdt": intent.worst_loss_usdt,
        "notional_usdt": intent.notional_usdt,
        "at_ns": one.at_ns,
        "intent": msgspec.json.encode(intent).decode(),
        "entry_id": hold.entry_id,
        "entry_kind": hold.kind,
        "digest": digest_of(hold).hex(),
        "lines": [
            (line, posting.venue, posting.account, posting.asset, posting.amount)
            for line, posting in enumerate(hold.postings)
        ],
    }


def _of_settlement(one: Settlement) -> dict[str, Any]:
    parts = one.parts
    return {
        "kind": "settlement",
        "schema": SCHEMA,
        "trade_id": one.trade_id,
        "symbol": one.symbol,
        "outcome": one.kind,
        "closed_ns": one.closed_ns,
        "exit_reason": one.exit_reason,
        "notional_usdt": one.notional_usdt,
        "realized_usdt": one.realized_usdt,
        "spread_usdt": parts.spread,
        "fx_usdt": parts.fx,
        "fees_usdt": parts.fees,
        "slippage_usdt": parts.slippage,
        "funding_usdt": parts.funding,
        "content": msgspec.json.encode(one).decode(),
    }


def meaning(one: Decision, row: Row) -> Outcome:
    """Return what an answer's row means for its decision."""
    if row["answer"] == "violated":
        return LedgerViolation(_id_of(one), row["said"])
    if isinstance(one, GrantWrite):
        return _verdict(one.intent, row)
    return _settled(one, row)


def _id_of(one: Decision) -> str:
    return one.intent.trade_id if isinstance(one, GrantWrite) else one.trade_id


def _verdict(intent: ReserveIntent, row: Row) -> Verdict | LedgerViolation:
    """Return the first answer to this id, if there was one before."""
    trade_id, answer = intent.trade_id, row["answer"]
    if answer == "refused":
        return msgspec.json.decode(row["said"], type=Refused)
    if answer == "fenced_owner":
        return Refused(trade_id, RiskRefusal.FENCED_OWNER, f"the owner is {row['said_epoch']}")
    if answer != "granted":
        return Refused(trade_id, RiskRefusal.TOMBSTONE, f"it was {answer} before")
    if row["first_intent"] is not None:
        first = msgspec.json.decode(row["first_intent"], type=ReserveIntent)
        if substance(first) != substance(intent):
            return LedgerViolation(trade_id, "another reservation has this id")
    return Granted(trade_id, row["said_epoch"], row["said_ns"])


def _settled(one: Settlement, row: Row) -> Settled | LedgerViolation:
    """Accept a repeat that says the same; a void repeats whatever ended without a trade."""
    answer = row["answer"]
    if answer == "settled":
        return Settled(is_new=True, released=_free(row["said"]))
    if one.kind is SettleKind.VOIDED and answer in {"voided", "refused"}:
        return Settled(is_new=False)
    if answer == one.kind.value:
        first = msgspec.json.decode(row["said"], type=Settlement)
        if (first.parts, first.realized_usdt) == (one.parts, one.realized_usdt):
            return Settled(is_new=False)
    return LedgerViolation(one.trade_id, f"it was {answer} with other content")


def _free(held: str | None) -> tuple[Balance, ...]:
    return tuple(
        Balance(Venue(venue), Account.FREE, Asset(asset), Decimal(amount))
        for venue, asset, amount in msgspec.json.decode(held or "[]")
    )
