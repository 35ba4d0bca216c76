"""What one symbol's strategy is told, checked once, with limits already in nanoseconds."""

from __future__ import annotations

import math

import msgspec

from arb_ray.domain.errors import BadConfig

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000


class StrategyParams(msgspec.Struct, frozen=True, kw_only=True):
    """
    The settings of one strategy; every unit is in the name.

    Basis points are of the entry notional. Raises BadConfig with the path of the key.
    """

    # Size
    trade_notional_usdt: float = 500.0
    size_fractions: tuple[float, ...] = (1.0, 0.5, 0.25)
    """Sizes tried, as parts of the target; the one that earns most USDT is taken."""
    depth_share_max: float = 0.5
    """At most this part of the depth displayed on each side that is crossed."""
    perp_margin_ratio: float = 1.0
    """USDT that must be free per USDT of perpetual notional."""

    # Edge
    min_net_bps: float = 3.0
    plausible_cap_bps: float = 300.0
    """A best-price edge beyond this is a phantom until proved, and is refused."""
    slippage_allowance_bps: float = 2.0
    safety_buffer_bps: float = 2.0
    expected_hold_s: float = 600.0
    funding_interval_s: float = 28_800.0
    basis_half_life_s: float = 1_800.0
    basis_warm_up_s: float = 300.0
    """A perpetual is not traded before its rolling basis is this old."""
    exit_premium_credit_max_bps: float = 10.0
    """A basis in our favour is believed up to here: beyond it, it is a regime, not a basis."""
    premium_sample_ms: float = 1_000.0

    # Freshness and clocks
    max_age_a_ms: float = 3_000.0
    max_age_b_ms: float = 3_000.0
    max_age_fx_ms: float = 5_000.0
    max_event_delay_b_ms: float = 2_000.0
    """
    From Binance's own stamp to our socket, where the stream carries one; 0 switches it off.
    Upbit's stamp is a book's last change, not the event's sending, so it is not used so.
    """
    max_clock_offset_ms: float = 5_000.0
    max_clock_skew_ms: float = 1_000.0
    """Uncertainty of the estimated clock offset of either feed."""
    max_book_skew_ms: float = 3_000.0
    """Between the instants at which U and N were last known to be right."""
    fx_min_krw: float = 900.0
    fx_max_krw: float = 2_500.0

    # Pace
    warm_up_s: float = 5.0
    cool_down_s: float = 10.0
    """After a trade was closed."""
    retry_cool_down_s: float = 1.0
    """After an attempt came to nothing, so that refusals do not burn trade numbers."""
    evaluation_epsilon_bps: float = 5.0
    """
    Best prices that moved less than this since an evaluation without edge are not new. A move
    that could make an entry pay is always new.
    """
    reevaluate_after_ms: float = 1_000.0
    """An unmoved market is evaluated again after this long all the same."""

    # Exit
    take_profit_bps: float = 3.0
    stop_loss_bps: float = 60.0
    reversal_bps: float = 0.0
    """Edge of the reverse direction, before fees, at which waiting does not pay any more."""
    max_hold_s: float = 3_600.0
    depth_short_penalty_bps: float = 100.0
    """Beyond the last displayed level, what is left of a position is valued this much worse."""

    def __post_init__(self) -> None:
        for key in self.__struct_fields__:
            value = getattr(self, key)
            if key != "size_fractions" and (not math.isfinite(value) or value < 0):
                if key in MAY_BE_NEGATIVE and math.isfinite(value):
                    continue
                raise BadConfig(f"strategy.{key}", f"{value} is impossible", "Write 0 or more")
        for key in MUST_BE_POSITIVE:
            if getattr(self, key) <= 0:
                raise BadConfig(f"strategy.{key}", "it is zero", "Write more than 0")
        fractions = self.size_fractions
        if not fractions or any(not 0 < fraction <= 1 for fraction in fractions):
            mend = "Write a list of parts in (0, 1], such as [1, 0.5, 0.25]"
            raise BadConfig("strategy.size_fractions", f"{list(fractions)} is impossible", mend)
        if self.depth_share_max > 1:
            mend = "Write a part in (0, 1]"
            raise BadConfig("strategy.depth_share_max", "more than the whole depth", mend)
        if self.fx_min_krw >= self.fx_max_krw:
            problem = f"{self.fx_min_krw} is not below fx_max_krw"
            raise BadConfig("strategy.fx_min_krw", problem, "Write the lower bound here")
        if self.min_net_bps >= self.plausible_cap_bps:
            problem = f"{self.min_net_bps} is not below plausible_cap_bps"
            raise BadConfig("strategy.min_net_bps", problem, "No edge could ever pass; lower it")


MAY_BE_NEGATIVE = frozenset({"min_net_bps", "take_profit_bps", "reversal_bps"})

MUST_BE_POSITIVE = (
    "trade_notional_usdt",
    "depth_share_max",
    "plausible_cap_bps",
    "funding_interval_s",
    "basis_half_life_s",
    "max_age_a_ms",
    "max_age_b_ms",
    "max_age_fx_ms",
    "stop_loss_bps",
    "max_hold_s",
)


class GateLimits(msgspec.Struct, frozen=True):
    """The bounds of the book gates, converted once so that a gate is one comparison."""

    max_age_a_ns: int
    max_age_b_ns: int
    max_age_fx_ns: int
    max_event_delay_b_ns: int  # 0: not checked
    max_clock_offset_ms: float
    max_clock_skew_ms: float
    max_book_skew_ns: int
    fx_min_krw: float
    fx_max_krw: float

    @classmethod
    def of(cls, params: StrategyParams) -> GateLimits:
        """Convert the parameters' limits."""
        return cls(
            int(params.max_age_a_ms * NS_PER_MS),
            int(params.max_age_b_ms * NS_PER_MS),
            int(params.max_age_fx_ms * NS_PER_MS),
            int(params.max_event_delay_b_ms * NS_PER_MS),
            params.max_clock_offset_ms,
            params.max_clock_skew_ms,
            int(params.max_book_skew_ms * NS_PER_MS),
            params.fx_min_krw,
            params.fx_max_krw,
        )
