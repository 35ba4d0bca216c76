"""
Double entry: every movement is an entry whose postings sum to zero per asset.

Ours are FREE, HELD (reserved for one trade), POSITION (a perpetual's open base, signed),
UNSETTLED (a perpetual's notional until it closes) and DUST. The others are counter-accounts,
so that each asset sums to zero over the whole ledger. Balances are sums of postings.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from decimal import Decimal

import msgspec

from arb_ray.domain.errors import LedgerViolation
from arb_ray.domain.instrument import Symbol, Venue
from arb_ray.domain.money import ZERO, Asset

SCHEMA = 1


class Account(enum.StrEnum):
    """The kinds of account that each venue and asset has."""

    FREE = "free"
    HELD = "held"
    POSITION = "position"
    UNSETTLED = "unsettled"
    DUST = "dust"
    MARKET = "market"
    FEES = "fees"
    FUNDING = "funding"
    OPENING = "opening"

    @property
    def is_ours(self) -> bool:
        """Tell our accounts from the counter-accounts."""
        return self in OUR_ACCOUNTS


OUR_ACCOUNTS = frozenset(
    {Account.FREE, Account.HELD, Account.POSITION, Account.UNSETTLED, Account.DUST},
)


class EntryKind(enum.StrEnum):
    """What an entry records."""

    OPENING = "opening"
    HOLD = "hold"
    RELEASE = "release"
    FILL = "fill"
    FUNDING = "funding"
    SETTLE_PERP = "settle_perp"
    DUST = "dust"


class Posting(msgspec.Struct, frozen=True):
    """An exact, signed amount of one asset on one account of one venue."""

    venue: Venue
    account: Account
    asset: Asset
    amount: Decimal


class Entry(msgspec.Struct, frozen=True):
    """
    A balanced set of postings. ``entry_id`` makes a repeat a no-op.

    Raises:
        LedgerViolation: The postings of some asset do not sum to zero.
    """

    entry_id: str
    kind: EntryKind
    symbol: Symbol | None
    trade_id: str | None
    at_ns: int
    postings: tuple[Posting, ...]

    def __post_init__(self) -> None:
        sums: defaultdict[Asset, Decimal] = defaultdict(lambda: ZERO)
        for posting in self.postings:
            sums[posting.asset] += posting.amount
        unbalanced = {asset: total for asset, total in sums.items() if total != 0}
        if unbalanced:
            raise LedgerViolation(self.entry_id, f"postings do not sum to zero: {unbalanced}")


class Balance(msgspec.Struct, frozen=True):
    """The sum of an account's postings."""

    venue: Venue
    account: Account
    asset: Asset
    amount: Decimal


class PnlParts(msgspec.Struct, frozen=True):
    """
    A trade's profit in USDT, split by cause; each part is computed by itself.

    ``spread`` is the edge at decision prices, ``slippage`` fill against decision price,
    ``fees`` is negative when paid, ``fx`` the revaluation of the entry's KRW.
    """

    spread: Decimal
    fx: Decimal
    fees: Decimal
    slippage: Decimal
    funding: Decimal

    @property
    def total(self) -> Decimal:
        """All parts together; meets the trade's postings within 1e-8 USDT a posting."""
        return self.spread + self.fx + self.fees + self.slippage + self.funding


NO_PNL = PnlParts(ZERO, ZERO, ZERO, ZERO, ZERO)
