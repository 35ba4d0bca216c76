"""What a start owes to the trades that the last one left open."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from arb_ray.app.registry import PairInstruments, load_registry
from arb_ray.app.settings import Settings
from arb_ray.domain.errors import BadInput
from arb_ray.domain.instrument import InstrumentId, Symbol

DIGEST_BYTES = 65_536
"""So much of each recording goes into its identity: it holds the first stamps and prices."""

OpenTrades = Iterable[tuple[Symbol, tuple[InstrumentId, InstrumentId]]]


def market_identity(settings: Settings) -> str:
    """Return what tells this market from another of its source: preset, or the recordings."""
    if settings.source == "sim":
        return settings.sim.preset
    if settings.source != "recorded":
        return ""
    digest = hashlib.sha256()
    for name in sorted(settings.recording.files):
        path = Path(name)
        with path.open("rb") as file:
            digest.update(f"{path.name}:{path.stat().st_size}:".encode())
            digest.update(file.read(DIGEST_BYTES))
    return digest.hexdigest()[:16]


def market_words(settings: Settings) -> str:
    """Return what a session's snapshots say of their market."""
    return f"{settings.source}/{market_identity(settings)}/{settings.leg_b}"


def with_open_trades(
    settings: Settings, pairs: Sequence[PairInstruments], open_trades: OpenTrades
) -> tuple[PairInstruments, ...]:
    """
    Return the pairs to run: those asked for, and those whose trades must still be closed.

    Raises:
        BadInput: A trade is open on markets that this configuration does not run, so nothing
            in it could close the trade.
    """
    running = {pair.symbol: pair for pair in pairs}
    for symbol, legs in open_trades:
        pair = running.get(symbol) or _pair_of(settings, symbol)
        found = None if pair is None else (pair.a.id, pair.b.id)
        if pair is None or found != legs:
            raise BadInput(
                f"symbol {symbol}",
                f"a trade is open on {' and '.join(legs)}, which this run would not trade",
                "Start once more as the run that opened it (same source and leg_b), "
                "with session.on_stop exit",
            )
        running[symbol] = pair
    return tuple(running.values())


def _pair_of(settings: Settings, symbol: Symbol) -> PairInstruments | None:
    if settings.source == "recorded":
        return None  # recordings are asked for by symbol, and hold what they hold
    try:
        (pair,) = load_registry().instruments_for(
            [symbol], settings.leg_b, synthetic=settings.source == "sim"
        )
    except BadInput:
        return None
    return pair
