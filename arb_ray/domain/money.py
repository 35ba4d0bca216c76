"""Amounts, and the only ways to combine them."""

from __future__ import annotations

import enum
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_HALF_EVEN, Decimal
from typing import NewType

import msgspec

from arb_ray.domain.errors import AssetMismatch

Asset = NewType("Asset", str)
"""Upper-case name of what is owned, as we spell it: ``"BTC"``, ``"KRW"``, ``"USDT"``."""

Price = NewType("Price", Decimal)
"""Quote units per one venue unit of base, on the instrument's tick grid."""

Qty = NewType("Qty", Decimal)
"""Base amount, never negative, on a lot grid. Direction lives in ``Side``."""

KRW = Asset("KRW")
USDT = Asset("USDT")

ZERO = Decimal(0)
BPS = Decimal(10_000)
USDT_QUANTUM = Decimal("1e-8")

FLOAT_DIGITS_EXACT = 15
"""A decimal text of at most this many significant digits survives a trip through float64."""

SIZE_DECIMALS = 8
"""Both venues write sizes with at most eight decimals."""


class Side(enum.StrEnum):
    """Direction of an order in the base asset."""

    BUY = "buy"
    SELL = "sell"

    @property
    def opposite(self) -> Side:
        """The side that undoes this one."""
        return Side.SELL if self is Side.BUY else Side.BUY

    @property
    def sign(self) -> int:
        """``+1`` for a buy, ``-1`` for a sell: what happens to the base balance."""
        return 1 if self is Side.BUY else -1


class Money(msgspec.Struct, frozen=True):
    """
    An exact amount of one asset.

    ``amount`` is in whole units of ``asset`` (BTC, not satoshi) and may be negative.
    It is a Decimal from the venue's text to the NUMERIC column; a float never gets in.
    """

    amount: Decimal
    asset: Asset

    def __post_init__(self) -> None:
        assert isinstance(self.amount, Decimal), "build from str or int, never from float"
        assert self.amount.is_finite()

    def __add__(self, other: Money) -> Money:
        self._same_asset(other)
        return Money(self.amount + other.amount, self.asset)

    def __sub__(self, other: Money) -> Money:
        self._same_asset(other)
        return Money(self.amount - other.amount, self.asset)

    def __neg__(self) -> Money:
        return Money(-self.amount, self.asset)

    def _same_asset(self, other: Money) -> None:
        if self.asset != other.asset:
            raise AssetMismatch(self.asset, other.asset)


def floor_to(value: Decimal, step: Decimal) -> Decimal:
    """Round down onto the grid of ``step``, so that no more is sent than was reserved."""
    assert step > 0
    return (value / step).to_integral_value(rounding=ROUND_DOWN) * step


def ceil_to(value: Decimal, step: Decimal) -> Decimal:
    """Round up onto the grid of ``step``."""
    assert step > 0
    return (value / step).to_integral_value(rounding=ROUND_CEILING) * step


def to_usdt(amount_krw: Decimal, krw_per_usdt: Decimal) -> Decimal:
    """Value KRW in USDT, quantised to 1e-8, half-even (DESIGN section 1)."""
    assert krw_per_usdt > 0
    return (amount_krw / krw_per_usdt).quantize(USDT_QUANTUM, rounding=ROUND_HALF_EVEN)


def exact_price(value: float) -> Price:
    """
    Return the decimal that the venue wrote and ``value`` came from.

    Exact for every text of at most 15 significant digits, which every price of both
    venues is; the shortest decimal that reads back as ``value`` is then the text itself.
    """
    return Price(Decimal(repr(value)))


def exact_qty(value: float) -> Qty:
    """
    Return the displayed size behind ``value``, never more than the venue displayed.

    Exact below ten million, where eight decimals are at most 15 digits. A larger size (PEPE
    by the billion) may have had more digits than a float keeps, so it is cut below its 15th:
    a paper fill never takes a crumb that was not there, and leaves at most 2 in 10^14.
    """
    amount = Decimal(repr(value))
    if amount.adjusted() + 1 + SIZE_DECIMALS <= FLOAT_DIGITS_EXACT:
        return Qty(amount)
    unit = Decimal(1).scaleb(amount.adjusted() - FLOAT_DIGITS_EXACT + 1)
    return Qty(floor_to(amount, unit) - unit)
