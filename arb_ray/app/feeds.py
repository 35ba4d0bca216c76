"""Feeds put together: protocol object, sockets with the venue's limits, REST, recording."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from arb_ray.adapters.storage.recordings import WS_SEND, RecordingWriter
from arb_ray.adapters.telemetry.logs import get_log
from arb_ray.adapters.transport.backoff import BackoffPolicy
from arb_ray.adapters.transport.http import Reply, RestClient
from arb_ray.adapters.transport.rate_limit import Window
from arb_ray.adapters.transport.websocket import ConnectionPolicy, ReconnectingWebSocket
from arb_ray.adapters.venues.binance import rest as binance_rest
from arb_ray.adapters.venues.binance.endpoints import CONNECTS_PER_5_MIN, snapshot_request
from arb_ray.adapters.venues.binance.feed import BinanceFeed
from arb_ray.adapters.venues.upbit.endpoints import CONNECTS_PER_S
from arb_ray.adapters.venues.upbit.feed import UpbitFeed
from arb_ray.app.registry import PairInstruments
from arb_ray.app.settings import Settings
from arb_ray.app.venue_rest import rest_client
from arb_ray.domain.errors import ArbError
from arb_ray.domain.instrument import Instrument, Venue, VenueSymbol
from arb_ray.engine.feed import ConnectionPlan, FeedOptions, VenueFeed

LOG = get_log("arb_ray.app.feeds")

SNAPSHOT_LEVELS = 1_000
"""Levels of a REST book: what the feeds' books are told to expect, too."""

UPBIT_TEXT_PING = "PING"
"""Answered with a status frame every ten seconds, so that a quiet line proves alive by data
(docs.upbit.com, "Connection Management")."""

PINGS_PER_S_SPARE = 1
"""One message a second of the venue's bound is left to the library's own pongs."""


def instruments_of(venue: Venue, pairs: Sequence[PairInstruments]) -> tuple[Instrument, ...]:
    """Return what a venue's feed subscribes to; Upbit's includes KRW-USDT."""
    found = {
        instrument.id: instrument
        for pair in pairs
        for instrument in (pair.a, pair.b, pair.fx)
        if instrument.venue is venue and pair.has(instrument.id)
    }
    return tuple(found.values())


def make_venue_feed(
    settings: Settings, venue: Venue, pairs: Sequence[PairInstruments], session_id: str
) -> VenueFeed:
    """Return the protocol object of a venue."""
    section = getattr(settings.venues, venue)
    common: dict[str, Any] = {
        "instruments": instruments_of(venue, pairs),
        "depth_mode": section.depth_mode,
        "depth_levels": section.depth_levels,
        "ws_base": section.ws_url,
        "silent_after_s": section.subscribe_timeout_s,
        "session": session_id,
        "snapshot_levels": SNAPSHOT_LEVELS,
        # A recording should hold what others want of it. Upbit's ticker is left out: it says
        # again what books and trades say, and nothing here reads it.
        "wants_trades": settings.recording.record_dir is not None,
    }
    if venue is Venue.UPBIT:
        return UpbitFeed(FeedOptions(**common, wire_format=section.frame_format))
    options = FeedOptions(
        **common,
        depth_interval_ms=section.diff_interval_ms,
        streams_per_connection=section.streams_per_connection_count,
    )
    return BinanceFeed(venue, options)


def make_socket(
    settings: Settings, venue: Venue, plan: ConnectionPlan, handler: Any
) -> ReconnectingWebSocket:
    """Return the reconnecting socket of one planned connection."""
    section = getattr(settings.venues, venue)
    messages = [Window(max(plan.messages_per_s - PINGS_PER_S_SPARE, 1), 1.0)]
    if plan.messages_per_min is not None:
        messages.append(Window(plan.messages_per_min, 60.0))
    if venue is Venue.UPBIT:
        connects: tuple[Window, ...] = (Window(CONNECTS_PER_S, 1.0),)
    else:
        connects = (Window(CONNECTS_PER_5_MIN, 300.0),)
    ping_interval_s = min(section.ping_interval_s, plan.ping_interval_s)
    policy = ConnectionPolicy(
        venue=venue,
        url=plan.url,
        connect_timeout_s=section.connect_timeout_s,
        ping_interval_s=ping_interval_s,
        text_ping=UPBIT_TEXT_PING if venue is Venue.UPBIT else None,
        text_ping_interval_s=ping_interval_s,
        silence_timeout_s=section.silence_timeout_s,
        max_frame_bytes=section.frame_max_bytes,
        transport=section.transport,
        backoff=BackoffPolicy(
            initial_s=section.backoff_initial_ms / 1e3,
            maximum_s=section.backoff_max_s,
            stable_s=section.backoff_reset_s,
        ),
        connect_windows=connects,
        message_windows=tuple(messages),
        max_age_s=min(plan.max_age_s, section.rotation_s) if plan.max_age_s else None,
        alarm_after_failures=section.alarm_after_failures_count,
    )
    return ReconnectingWebSocket(policy, handler)


class Recording:
    """Writes what a feed received, in the recordings' format."""

    def __init__(self, writer: RecordingWriter) -> None:
        self._writer = writer

    @classmethod
    def maybe(cls, settings: Settings, venue: Venue) -> Recording | None:
        """Return a recording when the settings ask for one."""
        section = settings.recording
        if section.record_dir is None:
            return None
        writer = RecordingWriter(
            section.record_dir, str(venue), file_bytes_max=section.file_max_bytes
        )
        return cls(writer)

    def frame(self, recv_ns: int, raw: bytes | str) -> None:
        """Write a received frame."""
        self._writer.append(recv_ns, raw)

    def sent(self, at_ns: int, raw: str) -> None:
        """Write a message that we sent."""
        self._writer.append(at_ns, raw, WS_SEND)

    def reply(self, reply: Reply) -> None:
        """Write a REST reply."""
        if reply.status == 200:
            self._writer.append(reply.recv_wall_ns, reply.body, reply.request)

    def flush(self) -> None:
        """Bring what is buffered to the disk."""
        self._writer.flush()

    def close(self) -> None:
        """End the file."""
        self._writer.close()


class SnapshotFetcher:
    """Fetches REST books for a feed, by one client that knows the venue's present limit."""

    def __init__(self, settings: Settings, venue: Venue, recording: Recording | None) -> None:
        self._settings = settings
        self._venue = venue
        self._recording = recording
        self._opening = asyncio.Lock()
        self._client: RestClient | None = None

    async def __call__(self, venue_symbol: VenueSymbol) -> bytes:
        """Return a raw book. Raises ArbError, as ``binance_rest.fetch_snapshot`` does."""
        assert self._venue is not Venue.UPBIT, "Upbit sends whole books"
        client = await self._open(venue_symbol)
        return await binance_rest.fetch_snapshot(client, self._venue, venue_symbol, SNAPSHOT_LEVELS)

    @property
    def used_ratio(self) -> float:
        """The used part of the venue's REST budget."""
        return self._client.used_ratio(binance_rest.WEIGHT_GROUP) if self._client else 0.0

    async def close(self) -> None:
        """Close the client."""
        if self._client is not None:
            await self._client.close()

    async def _open(self, venue_symbol: VenueSymbol) -> RestClient:
        async with self._opening:
            if self._client is None:
                on_reply = self._recording.reply if self._recording else None
                client = rest_client(self._settings, self._venue, on_reply)
                self._client = await client.__aenter__()
                await self._learn_limit(self._client, venue_symbol)
            return self._client

    async def _learn_limit(self, client: RestClient, venue_symbol: VenueSymbol) -> None:
        """Take over the weight a minute that exchangeInfo grants."""
        try:
            told = await binance_rest.fetch_weight_per_min(client, self._venue, venue_symbol)
        except ArbError as error:
            LOG.warning("rest_limit_unknown", venue=str(self._venue), cause=str(error))
            return
        if told is not None:
            # Below one book's weight nothing could be fetched at all.
            _, heaviest = snapshot_request(self._venue, SNAPSHOT_LEVELS)
            budget = client.budget(binance_rest.WEIGHT_GROUP)
            budget.set_count(max(told, heaviest), binance_rest.WEIGHT_WINDOW_S)


def snapshot_fetcher(
    settings: Settings, venue: Venue, recording: Recording | None
) -> tuple[SnapshotFetcher, Callable[[], Awaitable[None]]]:
    """Return how a feed fetches a REST book, and how it closes the client."""
    fetcher = SnapshotFetcher(settings, venue, recording)
    return fetcher, fetcher.close
