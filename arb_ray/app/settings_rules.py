"""Rules that settings must keep across sections, each told with what to write instead."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from arb_ray.domain.errors import BadConfig

if TYPE_CHECKING:
    from arb_ray.app.settings import Settings

BPS = 10_000


def no_run_replays() -> BadConfig:
    """Return the error of a run with source replay, which is a command of its own."""
    return BadConfig(
        "source",
        "replay is not for submit: it runs captured frames without sockets, as fast as it goes",
        "Use arb-ray replay FILE..., or write sim, paper or recorded",
    )


def broken_rules(settings: Settings, *, wants_secrets: bool = True) -> list[BadConfig]:
    """Return every rule that ``settings`` break; an empty list when they keep all."""
    rules = (*RULES, _stores_have_passwords) if wants_secrets else RULES
    return [problem for rule in rules for problem in rule(settings)]


def _venues_of_both_legs(settings: Settings) -> Iterator[BadConfig]:
    leg_b = "binance_spot" if settings.leg_b == "spot" else "binance_usdm"
    for venue in ("upbit", leg_b):
        if not getattr(settings.venues, venue).enabled:
            yield BadConfig(
                f"venues.{venue}.enabled",
                f"is false, but leg_b {settings.leg_b} trades there",
                "Write true, or choose the other leg_b",
            )


def _a_trade_fits_its_limits(settings: Settings) -> Iterator[BadConfig]:
    strategy, risk = settings.strategy, settings.risk
    if strategy.trade_notional_usdt > risk.trade_notional_usdt:
        yield BadConfig(
            "strategy.trade_notional_usdt",
            f"{strategy.trade_notional_usdt:g} is more than risk.trade_notional_usdt, "
            "so RiskGuard would refuse every entry",
            f"Write a number of at most {risk.trade_notional_usdt}",
        )
    for key in ("symbol_notional_usdt", "total_notional_usdt"):
        if getattr(risk, key) < strategy.trade_notional_usdt:
            yield BadConfig(
                f"risk.{key}",
                f"{getattr(risk, key):g} is less than strategy.trade_notional_usdt, "
                "so RiskGuard would refuse every entry",
                f"Write a number of at least {strategy.trade_notional_usdt:g}",
            )
    stop_loss_usdt = strategy.trade_notional_usdt * strategy.stop_loss_bps / BPS
    if stop_loss_usdt >= min(risk.symbol_daily_loss_usdt, risk.daily_loss_usdt):
        yield BadConfig(
            "strategy.stop_loss_bps",
            f"a stop would lose {stop_loss_usdt:g} USDT, which is all that risk.daily_loss_usdt or "
            "risk.symbol_daily_loss_usdt allow, so RiskGuard would refuse every entry",
            "Write a smaller stop_loss_bps or trade_notional_usdt",
        )


def _recordings_are_named(settings: Settings) -> Iterator[BadConfig]:
    if settings.source == "replay" and not settings.recording.files:
        yield no_run_replays()
    elif settings.source == "recorded" and not settings.recording.files:
        yield BadConfig(
            "recording.files",
            f"is empty, but source {settings.source} plays recordings",
            "Name at least one file, with --recording on the command line",
        )


def _stores_have_passwords(settings: Settings) -> Iterator[BadConfig]:
    if settings.env == "dev":
        return
    for name, store in (("postgres", settings.postgres), ("redis", settings.redis)):
        if store.embedded and settings.env == "prod":
            yield BadConfig(
                f"{name}.embedded",
                "is true, but prod keeps its records in a server of its own",
                "Write false, and the server's host",
            )
        elif not store.embedded and store.password is None:
            yield BadConfig(
                f"{name}.password",
                f"is missing, and {settings.env} needs it",
                f"Put it into the secret file arb_{name}__password (in /run/secrets or the "
                f"folder of ARB_SECRETS_DIR), or set ARB_{name.upper()}__PASSWORD",
            )


def _a_cluster_is_named(settings: Settings) -> Iterator[BadConfig]:
    if settings.env == "dev":
        return
    if settings.ray.address is None:
        yield BadConfig(
            "ray.address",
            f"is null, but {settings.env} never starts a cluster by itself",
            "Write auto on a node of the cluster, or the address of its head",
        )
    if settings.ray.auth_mode != "token":
        yield BadConfig(
            "ray.auth_mode",
            "is disabled, which lets anyone who reaches the cluster run code on it",
            "Write token, and start every node with RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH",
        )


def _an_open_gateway_has_a_token(settings: Settings) -> Iterator[BadConfig]:
    gateway = settings.gateway
    if gateway.enabled and not _is_loopback(gateway.host) and gateway.token is None:
        yield BadConfig(
            "gateway.host",
            f"is {gateway.host}, which others can reach, but there is no gateway.token",
            "Write 127.0.0.1, or put a token into the secret file arb_gateway__token",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


RULES: tuple[Callable[[Settings], Iterator[BadConfig]], ...] = (
    _venues_of_both_legs,
    _a_trade_fits_its_limits,
    _recordings_are_named,
    _a_cluster_is_named,
    _an_open_gateway_has_a_token,
)
