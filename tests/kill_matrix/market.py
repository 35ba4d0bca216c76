"""The market of a cell: one symbol, and books that the stage sets at both venues."""

from __future__ import annotations

from decimal import Decimal

from arb_ray.domain.instrument import Pair
from tests.kill_matrix.cells import Script
from tests.risk_world import LIMITS
from tests.signal_market import F_BOOK, N_BOOK, U_CHEAP, U_FAIR, book, perp_pair, spot_pair

D = Decimal

BOOKS = {
    # what the stage calls a book -> feed, leg, levels
    "u_cheap": ("upbit", "a", U_CHEAP),
    "u_fair": ("upbit", "a", U_FAIR),
    # The same prices with a fifth of a trade on show, so that a leg fills in part.
    "u_fair_thin": ("upbit", "a", book(2_798_000.0, 2_800_000.0, size=0.05, levels=1)),
    "f": ("upbit", "fx", F_BOOK),
    "n": ("binance", "b", N_BOOK),
    "n_thin": ("binance", "b", book(1999.9, 2000.1, size=0.05, levels=1)),
}

START = {"upbit": ("u_fair", "f"), "binance": ("n",)}

OVERRIDES = {
    "strategy.warm_up_s": 0,
    "strategy.basis_warm_up_s": 0,
    "strategy.premium_sample_ms": 10,
    "strategy.cool_down_s": 0.05,
    "strategy.retry_cool_down_s": 0.05,
    "strategy.reevaluate_after_ms": 20,
    "strategy.stop_loss_bps": 100,
    # A trade that was evened out at a loss has no profit to take: time ends it.
    "strategy.max_hold_s": 1.5,
    "strategy.take_profit_bps": 3,
    "venues.upbit.order_latency_median_ms": 10,
    "venues.upbit.order_latency_p99_ms": 20,
    "venues.binance_spot.order_latency_median_ms": 20,
    "venues.binance_spot.order_latency_p99_ms": 40,
    "venues.binance_usdm.order_latency_median_ms": 20,
    "venues.binance_usdm.order_latency_p99_ms": 40,
}

RIVAL_LOSS_USDT = D(6)

CELL_LIMITS = type(LIMITS)(
    **{
        **{field: getattr(LIMITS, field) for field in LIMITS.__struct_fields__},
        # One trade's worst case (some 8 USDT) fits, and the rival's beside it does not.
        "daily_loss_usdt": D(12),
        "symbol_daily_loss_usdt": D(12),
        "drawdown_usdt": D(1000),
        "open_trades_count": 10,
        "entries_per_minute_count": 1000,
        "consecutive_losses_count": 1000,
        "anomaly_window_count": 1000,
    }
)


def pair_of(script: Script) -> Pair:
    """Return the one pair of a cell."""
    return perp_pair() if script is Script.PERP else spot_pair()


GATES = {
    # script -> the write before which the market is set anew, and the books then
    Script.HEDGED: ("append_event", "EdgeConfirmed", {"binance": "n_thin"}),
    Script.UNWOUND: ("append_event", "ExitDecided", {"upbit": "u_fair_thin"}),
    Script.UNANSWERED: ("append_event", "Signal", {}),
    Script.GONE: ("append_event", "ReserveAnswered", {"upbit": "u_fair"}),
}
