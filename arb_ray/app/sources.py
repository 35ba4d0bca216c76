"""The embedded exchanges of a session: simulated, or recorded frames served again."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from arb_ray.adapters.venues.sim.exchange import SimConfig, SimExchanges
from arb_ray.adapters.venues.sim.recorded import RecordedConfig, RecordedExchanges
from arb_ray.app.session_facts import SessionFacts
from arb_ray.app.settings import Settings


async def serve_source(
    settings: Settings, session: SessionFacts, symbols: Sequence[str]
) -> SimExchanges | RecordedExchanges:
    """Start the servers on the host and ports that the venues' addresses name."""
    upbit, spot, usdm = (
        urlsplit(venue.ws_url).port or 0
        for venue in (
            settings.venues.upbit,
            settings.venues.binance_spot,
            settings.venues.binance_usdm,
        )
    )
    host = urlsplit(settings.venues.upbit.ws_url).hostname or "127.0.0.1"
    exchanges: SimExchanges | RecordedExchanges
    if settings.source == "sim":
        exchanges = SimExchanges(
            SimConfig(
                preset=settings.sim.preset,
                seed=session.seed,
                symbols=tuple(symbols),
                origin_ns=session.origin_ns,
                rate=settings.sim.rate_ratio,
                host=host,
                upbit_port=upbit,
                binance_spot_port=spot,
                binance_usdm_port=usdm,
            )
        )
    else:
        exchanges = RecordedExchanges(
            RecordedConfig(
                files=tuple(settings.recording.files),
                speed=settings.recording.speed_ratio,
                host=host,
                upbit_port=upbit,
                binance_spot_port=spot,
                binance_usdm_port=usdm,
            )
        )
    await exchanges.start()
    return exchanges
