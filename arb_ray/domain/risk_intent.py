"""What a strategy asks of RiskGuard, and what RiskGuard can answer."""

from __future__ import annotations

import enum
from decimal import Decimal

import msgspec

from arb_ray.domain.instrument import Symbol, Venue
from arb_ray.domain.ledger import PnlParts
from arb_ray.domain.money import ZERO, Asset
from arb_ray.domain.opportunity import Direction

SCHEMA = 1


class RiskState(enum.StrEnum):
    """Who may do what: everything, exits only, or exits only until an operator resumes."""

    ACTIVE = "active"
    REDUCE_ONLY = "reduce_only"
    HALTED = "halted"


class Hold(msgspec.Struct, frozen=True):
    """Cash or inventory that moves from free to held when the reservation is granted."""

    venue: Venue
    asset: Asset
    amount: Decimal


class ReserveIntent(msgspec.Struct, frozen=True):
    """
    A request for room to lose.

    ``trade_id`` is a pure function of environment, symbol and durable trade number; it names
    the reservation too, and a refused attempt uses the number up. A yes after
    ``deadline_ns`` is void. ``owner_epoch`` fences a strategy that was doubled.
    """

    trade_id: str
    session_id: str
    symbol: Symbol
    owner_epoch: int
    direction: Direction
    worst_loss_usdt: Decimal
    notional_usdt: Decimal
    holds: tuple[Hold, ...]
    asked_ns: int
    deadline_ns: int
    schema: int = SCHEMA


class RiskRefusal(enum.StrEnum):
    """Why RiskGuard said no."""

    NOT_ACTIVE = "not_active"
    DAILY_LOSS = "daily_loss"
    SYMBOL_DAILY_LOSS = "symbol_daily_loss"
    DRAWDOWN = "drawdown"
    TRADE_NOTIONAL = "trade_notional"
    TOTAL_NOTIONAL = "total_notional"
    SYMBOL_NOTIONAL = "symbol_notional"
    OPEN_TRADES = "open_trades"
    ENTRY_RATE = "entry_rate"
    COOL_DOWN = "cool_down"
    SYMBOL_BUSY = "symbol_busy"
    BALANCE = "balance"
    DEADLINE = "deadline"
    TOMBSTONE = "tombstone"
    FENCED_OWNER = "fenced_owner"
    STORE = "store"


class Granted(msgspec.Struct, frozen=True, tag=True):
    """Room is held under ``trade_id``, durably, by the guard of ``epoch``."""

    trade_id: str
    epoch: int
    granted_ns: int


class Refused(msgspec.Struct, frozen=True, tag=True):
    """Nothing is held under ``trade_id``, and nothing ever will be."""

    trade_id: str
    reason: RiskRefusal
    detail: str = ""


Verdict = Granted | Refused


class SettleKind(enum.StrEnum):
    """How a reservation ends: its trade was closed, or never began."""

    POSTED = "posted"
    VOIDED = "voided"


class Settlement(msgspec.Struct, frozen=True):
    """
    The end of a reservation.

    ``realized_usdt`` and ``parts`` belong to the day of ``closed_ns``. The void of an
    unknown id leaves a tombstone that refuses a later reserve of the same id.
    """

    trade_id: str
    symbol: Symbol
    kind: SettleKind
    parts: PnlParts
    realized_usdt: Decimal
    fees_usdt: Decimal
    notional_usdt: Decimal
    closed_ns: int
    exit_reason: str = ""
    schema: int = SCHEMA


class Mark(msgspec.Struct, frozen=True):
    """A strategy's estimate of what its open trade would realize now, in USDT."""

    trade_id: str
    symbol: Symbol
    pnl_usdt: Decimal
    at_ns: int


class RiskStatus(msgspec.Struct, frozen=True):
    """What every strategy must know of the guard; sent back with each batch of marks."""

    state: RiskState
    reason: str
    epoch: int
    flatten: tuple[Symbol, ...]  # close these trades now
    flatten_all: bool
    day: str  # the UTC day that the figures below belong to, YYYY-MM-DD
    realized_usdt: Decimal
    daily_loss_usdt: Decimal  # max(0, -net realized PnL of the day)
    reserved_usdt: Decimal  # worst cases of open and pending trades
    daily_limit_usdt: Decimal
    open_trades: int
    at_ns: int
    actor: str = ""  # who brought the state: "guard", an operator, or "" when nobody has
    since_ns: int = 0  # when
    unwritten: int = 0  # changes that are in force and not yet in PostgreSQL
    gap_loss_usdt: Decimal = ZERO  # what trades lost that day beyond their reservations
