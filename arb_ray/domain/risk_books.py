"""What RiskGuard starts from: the ledger's word on reservations, settlements and balances."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import msgspec

from arb_ray.domain.instrument import Symbol
from arb_ray.domain.ledger import Balance
from arb_ray.domain.risk_intent import ReserveIntent, RiskState, Settlement


class StoredReservation(msgspec.Struct, frozen=True):
    """A granted reservation without an outcome."""

    intent: ReserveIntent
    granted_ns: int


class RiskBooks(msgspec.Struct, frozen=True):
    """Everything RiskGuard needs to start: rebuilt from the ledger each time."""

    state: RiskState
    state_reason: str
    open_reservations: tuple[StoredReservation, ...]
    settled_today: tuple[Settlement, ...]  # in commit order
    balances: tuple[Balance, ...]
    entries_ns: tuple[int, ...]  # grant times of the last minute, oldest first, over midnight too
    settled_before: tuple[Settlement, ...] = ()  # the last that traded before today, oldest first
    resumed_ns: int = 0  # when an operator last resumed; 0 when none ever did
    state_actor: str = ""  # who brought the state, "" when nobody ever did
    state_since_ns: int = 0
    # An operator's orders to flatten that no resume has ended since.
    is_flattening_all: bool = False
    flatten: tuple[Symbol, ...] = ()  # symbols whose trade of that moment is still open
    # By trade, what those of ``settled_today`` had reserved: what they lost beyond it is a gap.
    reserved_usdt: Mapping[str, Decimal] = msgspec.field(default_factory=dict)
