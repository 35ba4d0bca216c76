"""Limits, intents and books for tests of RiskGuard's rules."""

from __future__ import annotations

from decimal import Decimal

from arb_ray.domain.instrument import Venue
from arb_ray.domain.ledger import NO_PNL, Account, Balance
from arb_ray.domain.opportunity import Direction
from arb_ray.domain.risk_books import RiskBooks, StoredReservation
from arb_ray.domain.risk_intent import (
    Hold,
    Mark,
    ReserveIntent,
    RiskState,
    SettleKind,
    Settlement,
)
from arb_ray.engine.risk import RiskBook
from arb_ray.engine.risk_limits import RiskLimits

D = Decimal
SECOND = 10**9
DAY = 86_400 * SECOND
NOON = 20_000 * DAY + DAY // 2

LIMITS = RiskLimits(
    daily_loss_usdt=D(100),
    symbol_daily_loss_usdt=D(60),
    drawdown_usdt=D(80),
    trade_notional_usdt=D(1000),
    symbol_notional_usdt=D(1000),
    total_notional_usdt=D(3000),
    open_trades_count=4,
    entries_per_minute_count=10,
    consecutive_losses_count=3,
    loss_cool_down_s=300.0,
    mark_age_max_ms=5000,
    anomaly_window_count=4,
    win_rate_max_ratio=0.9,
    fees_min_bps=D(1),
)


def books(**changes):
    fields = {
        "state": RiskState.ACTIVE,
        "state_reason": "",
        "open_reservations": (),
        "settled_today": (),
        "balances": (Balance(Venue.UPBIT, Account.FREE, "KRW", D(1_000_000)),),
        "entries_ns": (),
    }
    return RiskBooks(**(fields | changes))


def book(limits=LIMITS, now=NOON, **changes):
    return RiskBook(limits, 7, books(**changes), now)


def intent(number=1, symbol="BTC", worst="20", notional="500", krw="1000", **changes):
    fields = {
        "trade_id": f"test:{symbol}:{number}",
        "session_id": "s",
        "symbol": symbol,
        "owner_epoch": 1,
        "direction": Direction.LONG_A_SHORT_B,
        "worst_loss_usdt": D(worst),
        "notional_usdt": D(notional),
        "holds": (Hold(Venue.UPBIT, "KRW", D(krw)),),
        "asked_ns": NOON,
        "deadline_ns": NOON + 100 * DAY,
    }
    return ReserveIntent(**(fields | changes))


def settlement(asked, realized="0", *, closed=NOON, fees="1", notional="1000", void=False):
    return Settlement(
        trade_id=asked.trade_id,
        symbol=asked.symbol,
        kind=SettleKind.VOIDED if void else SettleKind.POSTED,
        parts=NO_PNL,
        realized_usdt=D(realized),
        fees_usdt=D(fees),
        notional_usdt=D(notional),
        closed_ns=closed,
    )


def mark(asked, pnl, at=NOON):
    return Mark(asked.trade_id, asked.symbol, D(pnl), at)


def stored(asked, at=NOON):
    return StoredReservation(asked, at)


def released(krw="1000"):
    return (Balance(Venue.UPBIT, Account.FREE, "KRW", D(krw)),)
