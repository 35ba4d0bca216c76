"""Settings of the economics: when to trade, how much may be lost, what is owned at the start."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from arb_ray.app.settings_fields import (
    Bps,
    Count,
    Ms,
    Ratio,
    Seconds,
    SecondsOrZero,
    Section,
    Usdt,
    impossible,
    split_commas,
)
from arb_ray.engine.risk_limits import RiskLimits
from arb_ray.engine.strategy_params import StrategyParams

Amount = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
SignedBps = Annotated[float, Field(ge=-10_000, le=10_000, allow_inf_nan=False)]
PlainBps = Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False)]
PositiveBps = Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)]
NumberMs = Annotated[float, Field(ge=0, le=86_400_000, allow_inf_nan=False)]
PositiveMs = Annotated[float, Field(gt=0, le=86_400_000, allow_inf_nan=False)]
PositiveRatio = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Fractions = Annotated[
    tuple[PositiveRatio, ...], BeforeValidator(split_commas), Field(min_length=1, max_length=10)
]
UsdtOrZero = Annotated[Decimal, Field(ge=0, le=1_000_000_000)]
KrwOrZero = Annotated[Decimal, Field(ge=0, le=1_000_000_000_000)]


class StrategySettings(Section):
    """
    When an entry is worth it and when a trade ends; the same for every symbol.

    The keys are those of ``engine.strategy_params.StrategyParams``, which has further rules.
    """

    trade_notional_usdt: Amount = Field(description="Target size of each leg.")
    size_fractions: Fractions = Field(
        description="Sizes tried, as parts of the target; the one that earns most is taken. In "
        "an environment variable: separated by commas."
    )
    depth_share_max: PositiveRatio = Field(
        description="At most this part of the depth displayed on each side that is crossed."
    )
    perp_margin_ratio: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = Field(
        description="USDT that must be free for each USDT of a perpetual's notional."
    )
    min_net_bps: SignedBps = Field(
        description="Least net edge of an entry, after every cost of the way in and the way out."
    )
    plausible_cap_bps: PositiveBps = Field(
        description="A best-price edge above this is taken for an error and not traded."
    )
    slippage_allowance_bps: PlainBps = Field(
        description="Cost term: what the four fills may lose against the prices of the decision."
    )
    safety_buffer_bps: PlainBps = Field(description="Cost term: a margin for what is not modelled.")
    expected_hold_s: SecondsOrZero = Field(
        description="Holding time over which funding is expected to be paid (perp leg)."
    )
    funding_interval_s: Seconds = Field(
        description="Time between two fundings where the venue does not tell (perp leg)."
    )
    basis_half_life_s: Seconds = Field(
        description="Half-life of the rolling basis that the perp leg's exit is expected at."
    )
    basis_warm_up_s: SecondsOrZero = Field(
        description="A perpetual is not traded before its rolling basis is this old."
    )
    exit_premium_credit_max_bps: PlainBps = Field(
        description="A basis in our favour is believed up to here; beyond it, it is a regime."
    )
    premium_sample_ms: NumberMs = Field(
        description="Time between two samples of premium and basis."
    )
    max_age_a_ms: PositiveMs = Field(
        description="Oldest proof of life of Upbit's connection at which its books count."
    )
    max_age_b_ms: PositiveMs = Field(description="The same for Binance.")
    max_age_fx_ms: PositiveMs = Field(description="The same for KRW-USDT.")
    max_event_delay_b_ms: NumberMs = Field(
        description="Longest way from Binance's own stamp to our socket, where a stream carries "
        "one; 0 switches the check off."
    )
    max_clock_offset_ms: NumberMs = Field(
        description="Largest believable distance of a venue's clock from ours."
    )
    max_clock_skew_ms: NumberMs = Field(
        description="Largest uncertainty of the estimated distance, of either venue."
    )
    max_book_skew_ms: NumberMs = Field(
        description="Largest time between the instants at which both books were known right."
    )
    fx_min_krw: Amount = Field(description="A KRW-USDT price below this is taken for an error.")
    fx_max_krw: Amount = Field(description="A KRW-USDT price above this is taken for an error.")
    warm_up_s: SecondsOrZero = Field(
        description="No entry until a symbol's books have been seen for so long."
    )
    cool_down_s: SecondsOrZero = Field(
        description="After a trade was closed, its symbol pauses this long."
    )
    retry_cool_down_s: SecondsOrZero = Field(
        description="The same after an attempt that came to nothing."
    )
    evaluation_epsilon_bps: PlainBps = Field(
        description="Best prices that moved less since an evaluation without edge are not new, "
        "unless such a move could make an entry pay; 0: unless they moved at all."
    )
    reevaluate_after_ms: NumberMs = Field(
        description="An unmoved market is evaluated again after this long all the same."
    )
    take_profit_bps: SignedBps = Field(
        description="Leave when closing now would realize at least this, after all fees."
    )
    stop_loss_bps: PositiveBps = Field(
        description="Leave when closing now would lose this much; sizes the risk reservation."
    )
    reversal_bps: SignedBps = Field(
        description="Leave when the other direction's edge, before fees, reaches this."
    )
    max_hold_s: Seconds = Field(description="Leave after this, whatever the price.")
    depth_short_penalty_bps: PlainBps = Field(
        description="What is left of a position beyond the last displayed level is valued this "
        "much worse."
    )

    @model_validator(mode="after")
    def _limits_fit_together(self) -> Self:
        if self.fx_min_krw >= self.fx_max_krw:
            raise impossible(
                "fx_min_krw",
                f"{self.fx_min_krw:g} is not below fx_max_krw",
                f"Write a number below {self.fx_max_krw:g}",
            )
        if self.min_net_bps >= self.plausible_cap_bps:
            raise impossible(
                "min_net_bps",
                f"{self.min_net_bps:g} is not below plausible_cap_bps, so nothing could be traded",
                f"Write a number below {self.plausible_cap_bps:g}",
            )
        return self

    def to_params(self) -> StrategyParams:
        """Return what the engine takes. Raises BadConfig for a rule that only it knows."""
        return StrategyParams(**self.model_dump())


class ExecutionSettings(Section):
    """How orders reach for the market, and how long a yes is waited for."""

    entry_slippage_bps: Bps = Field(
        description="How far beyond its decision price an entry order still takes."
    )
    exit_slippage_bps: Bps = Field(
        description="The same for the first try of an exit; doubled with every further try."
    )
    exit_slippage_max_bps: Bps = Field(description="The furthest that a try of an exit reaches.")
    reserve_timeout_ms: Ms = Field(
        description="A yes of RiskGuard later than this is void, and counts as no answer."
    )

    @model_validator(mode="after")
    def _tries_grow(self) -> Self:
        if self.exit_slippage_bps > self.exit_slippage_max_bps:
            raise impossible(
                "exit_slippage_bps",
                f"{self.exit_slippage_bps} is above exit_slippage_max_bps",
                f"Write a number of at most {self.exit_slippage_max_bps}",
            )
        return self


class RiskSettings(Section):
    """What RiskGuard holds for all strategies together."""

    daily_loss_usdt: Usdt = Field(
        description="Realized loss of the UTC day plus every open trade's worst case never "
        "exceeds this; reaching it halts."
    )
    symbol_daily_loss_usdt: Usdt = Field(description="The same for one symbol.")
    drawdown_usdt: Usdt = Field(description="Fall from the day's best PnL at which entries stop.")
    trade_notional_usdt: Usdt = Field(description="Largest notional of one leg of one trade.")
    symbol_notional_usdt: Usdt = Field(description="Largest open notional of one symbol.")
    total_notional_usdt: Usdt = Field(description="Largest open notional of all symbols.")
    open_trades_count: Count = Field(description="Most trades open or pending at once.")
    entries_per_minute_count: Count = Field(description="Most entries granted in any minute.")
    consecutive_losses_count: Count = Field(
        description="Losing trades in a row after which entries pause."
    )
    loss_cool_down_s: Seconds = Field(description="Length of that pause.")
    mark_age_max_ms: Annotated[int, Field(ge=1_000, le=86_400_000)] = Field(
        description="An older mark of an open trade counts as max(reserved, last known)."
    )
    anomaly_window_count: Count = Field(
        description="Closed trades over which the anomalies below are judged."
    )
    win_rate_max_ratio: Ratio = Field(
        description="More winners than this among them betray a broken simulation: entries stop."
    )
    fees_min_bps: Bps = Field(
        description="Lower fees than this, per traded notional, betray one too."
    )
    lease_renew_interval_s: Seconds = Field(
        description="How often the guard proves that it is the one guard."
    )
    flatten_on_halt: bool = Field(
        description="Whether a halt, by the daily limit or an operator, also closes what is open."
    )

    def to_limits(self) -> RiskLimits:
        """Return what RiskGuard holds; how often it proves its lease is not a limit."""
        return RiskLimits(**self.model_dump(exclude={"lease_renew_interval_s"}))


class UpbitBalances(Section):
    """What is owned on Upbit when an environment is first opened."""

    cash_krw: KrwOrZero = Field(description="KRW.")
    inventory_notional_usdt: UsdtOrZero = Field(
        description="Coins of each symbol, by their value at the first price; sales need them."
    )


class BinanceSpotBalances(Section):
    """What is owned on Binance spot."""

    cash_usdt: UsdtOrZero = Field(description="USDT.")
    inventory_notional_usdt: UsdtOrZero = Field(
        description="Coins of each symbol, by their value at the first price; sales need them."
    )


class BinanceUsdmBalances(Section):
    """What is owned on Binance USDT-M: margin only, because a perpetual can be short."""

    cash_usdt: UsdtOrZero = Field(description="USDT, the margin.")


class BalancesSettings(Section):
    """
    Opening balances, posted once per environment.

    A later change does not change what the ledger holds.
    """

    upbit: UpbitBalances
    binance_spot: BinanceSpotBalances
    binance_usdm: BinanceUsdmBalances
