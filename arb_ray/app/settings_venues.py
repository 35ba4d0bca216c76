"""Settings of the three markets: where they are, what is read, how a line is kept alive."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from arb_ray.app.settings_fields import (
    Bps,
    Bytes,
    Count,
    Ms,
    Seconds,
    Section,
    impossible,
    one_of,
)

WsUrl = Annotated[str, Field(pattern=r"^wss?://[^\s/]+", max_length=500)]
RestUrl = Annotated[str, Field(pattern=r"^https?://[^\s/]+", max_length=500)]
LatencyMs = Annotated[Decimal, Field(gt=0, le=60_000)]


class VenueSettings(Section):
    """What all venues have in common."""

    enabled: bool = Field(
        description="Whether the venue may be used. Leg B's venue is chosen by `leg_b`; the other "
        "Binance market is never connected."
    )
    ws_url: WsUrl = Field(
        description="Base address of the market data WebSocket. Sources `sim` and `recorded` "
        "put their own address in its place."
    )
    rest_url: RestUrl = Field(
        description="Base address of the REST API, for market lists, rules and snapshots."
    )
    order_latency_median_ms: LatencyMs = Field(
        description="Median time from decision to arrival of a paper order at the venue."
    )
    order_latency_p99_ms: LatencyMs = Field(
        description="99th percentile of the same; draws follow the log-normal through both."
    )
    taker_fee_bps: Bps | None = Field(
        description="Taker fee of your account. `null` takes the dated table of the venue's "
        "public fee for accounts without a tier."
    )
    connect_timeout_s: Seconds = Field(description="An attempt to connect ends after this.")
    ping_interval_s: Seconds = Field(
        description="How often we ping. Upbit cuts an idle line after 60 s, Binance pings itself."
    )
    silence_timeout_s: Seconds = Field(
        description="A connection on which nothing arrived for so long, not even the answer to a "
        "ping, is cut and made anew."
    )
    subscribe_timeout_s: Seconds = Field(
        description="A subscribed symbol that never delivered is reported after this."
    )
    backoff_initial_ms: Ms = Field(description="First wait before a reconnect, with jitter.")
    backoff_max_s: Seconds = Field(description="Longest wait between reconnects; they never end.")
    backoff_reset_s: Seconds = Field(
        description="A connection that lived so long starts the next backoff from the beginning."
    )
    alarm_after_failures_count: Count = Field(
        description="Failed attempts in a row after which each further one is logged as an error."
    )
    rotation_s: Seconds = Field(
        description="Age at which a connection is replaced by an overlapping one. Binance ends "
        "every connection at 24 h."
    )
    frame_max_bytes: Bytes = Field(
        description="A larger frame ends the connection, because a reader must have a bound."
    )
    transport: Literal["auto", "websockets", "picows"] = Field(
        description="The library that reads the WebSocket. `auto` takes `picows` where it is "
        "installed (`pip install 'arb_ray[fast]'`), which costs a fraction, else `websockets`."
    )
    rest_timeout_s: Seconds = Field(description="A REST request ends after this.")

    @model_validator(mode="after")
    def _bounds_fit_together(self) -> Self:
        if self.order_latency_p99_ms < self.order_latency_median_ms:
            raise impossible(
                "order_latency_p99_ms",
                f"{self.order_latency_p99_ms} is below the median",
                f"Write a number of at least {self.order_latency_median_ms}, "
                "the value of order_latency_median_ms",
            )
        if self.backoff_initial_ms > self.backoff_max_s * 1_000:
            raise impossible(
                "backoff_initial_ms",
                f"{self.backoff_initial_ms} ms is longer than backoff_max_s",
                f"Write a number of at most {self.backoff_max_s * 1_000:g}",
            )
        if self.silence_timeout_s <= self.ping_interval_s:
            raise impossible(
                "silence_timeout_s",
                f"{self.silence_timeout_s:g} s ends a quiet connection before its first ping",
                f"Write a number above {self.ping_interval_s:g}, the value of ping_interval_s",
            )
        return self


class UpbitSettings(VenueSettings):
    """Upbit sends whole books, so there are no diffs to choose."""

    depth_mode: Literal["partial", "top"] = Field(
        description="`partial` reads `depth_levels` levels of each side, `top` only the best."
    )
    depth_levels: Annotated[int, one_of(1, 5, 15, 30)] = Field(
        description="Levels of each side, from those that Upbit serves."
    )
    frame_format: Literal["DEFAULT", "SIMPLE"] = Field(
        description="Long keys or short ones; SIMPLE is a third of the bytes."
    )
    rest_requests_per_s_count: Count = Field(
        description="Own bound on REST requests a second, below Upbit's; Binance counts weights, "
        "whose bound it tells itself."
    )


class BinanceSettings(VenueSettings):
    """What Binance spot and USDT-M have in common."""

    depth_mode: Literal["diff", "partial", "top"] = Field(
        description="`diff` keeps the whole book from a snapshot and diffs, `partial` reads 5, 10 "
        "or 20 levels, `top` reads bookTicker, the fastest and shallowest."
    )
    depth_levels: Annotated[int, Field(ge=1, le=1_000)] = Field(
        description="Levels of each side that a book update carries to the strategies."
    )
    streams_per_connection_count: Annotated[int, Field(ge=1, le=1_024)] = Field(
        description="More streams than this open another connection. Binance's bound is 1024."
    )

    @model_validator(mode="after")
    def _levels_are_served(self) -> Self:
        if self.depth_mode == "partial" and self.depth_levels not in (5, 10, 20):
            raise impossible(
                "depth_levels",
                f"{self.depth_levels} levels are not served in depth_mode partial",
                "Write 5, 10 or 20, or set depth_mode to diff",
            )
        return self


class BinanceSpotSettings(BinanceSettings):
    """Binance spot."""

    diff_interval_ms: Annotated[int, one_of(100, 1000)] = Field(
        description="How often Binance sends depth, from the intervals it serves."
    )


class BinanceUsdmSettings(BinanceSettings):
    """Binance USDT-M perpetuals."""

    diff_interval_ms: Annotated[int, one_of(100, 250, 500)] = Field(
        description="How often Binance sends depth, from the intervals it serves."
    )


class VenuesSettings(Section):
    """The three markets."""

    upbit: UpbitSettings
    binance_spot: BinanceSpotSettings
    binance_usdm: BinanceUsdmSettings
