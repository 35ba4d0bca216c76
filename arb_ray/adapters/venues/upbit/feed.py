"""
Upbit's feed: one socket, whole books, no sequence.

Each request replaces the whole subscription and is not acknowledged; a code that is unknown
or spelled wrongly is accepted in silence. So the proof of a subscription is the first frame
of each code, and a code that stays silent is asked for once more, with the full list.
"""

from __future__ import annotations

import msgspec

from arb_ray.adapters.venues.upbit import codec
from arb_ray.adapters.venues.upbit.endpoints import (
    BOOK_UNITS,
    MESSAGES_PER_MIN,
    MESSAGES_PER_S,
    PING_INTERVAL_S,
    WS_BASE,
    WS_PATH,
)
from arb_ray.domain.book import ConnectionAlive
from arb_ray.domain.errors import MalformedFrame
from arb_ray.domain.instrument import Instrument, VenueSymbol
from arb_ray.engine.book_builder import FullBookState, Outcome
from arb_ray.engine.clock_offset import ClockEstimate, ClockOffset
from arb_ray.engine.feed import (
    NOTHING,
    BookChange,
    ConnectionPlan,
    Effect,
    FeedCounters,
    FeedOptions,
    FeedOutput,
    PlanConnections,
    Resubscribe,
    bounded_count,
    by_venue_symbol,
    replace_dry,
)
from arb_ray.engine.market_event import (
    FullBook,
    MarketEvent,
    Ticker,
    TradePrint,
    UnknownMessage,
    VenueError,
)
from arb_ray.engine.subscription import Subscription

SOCKET = 0
"""The only plan: 855 codes were served on one socket (seen 2026-09)."""

RESUBSCRIBE_MAX = 1
"""Times that silent codes are asked for again on one connection. After that they are only
reported: a code that Upbit does not know stays silent for ever."""

_IGNORED = Outcome.IGNORED  # an enum's member costs a search each time that it is named


class UpbitFeed:
    """Upbit as a ``VenueFeed``; see there for the meaning of the methods."""

    def __init__(self, options: FeedOptions) -> None:
        self.counters = FeedCounters()
        self._options = options
        self._instruments = by_venue_symbol(options.instruments)
        self._books = {symbol: FullBookState() for symbol in self._instruments}
        self._offset = ClockOffset()
        codes = tuple(str(symbol) for symbol in self._instruments)
        self._plan = ConnectionPlan(
            SOCKET,
            "public",
            (options.ws_base or WS_BASE) + WS_PATH,
            codes,
            PING_INTERVAL_S,
            max_age_s=None,
            messages_per_s=MESSAGES_PER_S,
            messages_per_min=MESSAGES_PER_MIN,
        )
        self._connections = PlanConnections((self._plan,))
        self._subscriptions = self._connections.of_connection
        self._levels = 1 if options.depth_mode == "top" else options.depth_levels
        self._resubscribed: dict[int, int] = {}

    def plans(self) -> tuple[ConnectionPlan, ...]:
        """Return the one connection."""
        return (self._plan,)

    def subscribe_messages(self, plan: int) -> tuple[str, ...]:
        """Return the one request, which holds the full list."""
        assert plan == SOCKET
        wanted = self._options.depth_levels if self._options.depth_mode != "top" else 1
        units = next((count for count in BOOK_UNITS if count >= wanted), BOOK_UNITS[-1])
        codes = [f"{symbol}.{units}" for symbol in self._instruments]
        request: list[dict[str, object]] = [{"ticket": self._options.session}]
        request.append({"type": "orderbook", "codes": codes})
        if self._options.wants_trades:
            plain = [str(symbol) for symbol in self._instruments]
            request.append({"type": "trade", "codes": plain, "is_only_realtime": True})
        request.append({"format": self._options.wire_format})
        return (msgspec.json.encode(request).decode(),)

    def on_connected(self, plan: int, connection: int, now_ns: int) -> FeedOutput:
        """Start over, unless another socket still carries the books."""
        self._resubscribed[connection] = 0
        if self._connections.open(plan, connection, now_ns):
            for book in self._books.values():
                book.reset()
        return NOTHING

    def on_disconnected(self, plan: int, connection: int, now_ns: int) -> FeedOutput:
        """Void the books that no remaining connection has delivered."""
        self._connections.close(plan, connection)
        self._resubscribed.pop(connection, None)
        left = [subscription for _, subscription in self._connections.of(plan)]
        voided = []
        for symbol, instrument in self._instruments.items():
            if not any(subscription.has_delivered(symbol) for subscription in left):
                self._books[symbol].reset()
                voided.append(BookChange(instrument.id, plan, 0, 0, now_ns, (), ()))
        return FeedOutput(books=tuple(voided))

    def whole_book_of(self, raw: bytes) -> bytes | None:
        """Name the stream whose older frames this one makes superfluous."""
        return codec.whole_book_of(raw)

    def on_alive(self, plan: int, connection: int, now_ns: int) -> None:
        """Note a pong."""
        if (subscription := self._connections.get(plan, connection)) is not None:
            subscription.on_alive(now_ns)

    def on_frame(
        self, plan: int, connection: int, raw: bytes | str, recv_wall_ns: int, recv_mono_ns: int
    ) -> FeedOutput:
        """Take one frame."""
        subscription = self._subscriptions.get(connection)
        if subscription is None:
            return NOTHING  # a frame that was under way when its socket was given up
        self.counters.frames += 1
        subscription.on_alive(recv_mono_ns)
        try:
            events = codec.decode(raw)
        except MalformedFrame as fault:
            self.counters.note_malformed(fault, recv_wall_ns)
            return NOTHING
        if len(events) == 1:
            change = self._take(events[0], subscription, recv_wall_ns, recv_mono_ns)
            return NOTHING if change is None else FeedOutput((change,))
        taken = [self._take(event, subscription, recv_wall_ns, recv_mono_ns) for event in events]
        changes = tuple([change for change in taken if change is not None])
        return FeedOutput(changes) if changes else NOTHING

    def _take(
        self, event: MarketEvent, subscription: Subscription, wall_ns: int, mono_ns: int
    ) -> BookChange | None:
        if type(event) is FullBook:  # nearly all are
            self.counters.count_kind("orderbook")
            return self._take_book(event, subscription, wall_ns, mono_ns)
        self.counters.count_kind(codec.kind_of(event))
        match event:
            case TradePrint() | Ticker():
                if not event.is_snapshot:
                    self._offset.observe(event.exchange_ns, wall_ns, mono_ns)
            case VenueError():
                self.counters.note_error(event, wall_ns)  # the socket's close follows
            case UnknownMessage():
                bounded_count(self.counters.unknown, event.kind)
            case _:
                pass  # a heartbeat or a reply: counted above, and proof of life already
        return None

    def _take_book(
        self, book: FullBook, subscription: Subscription, wall_ns: int, mono_ns: int
    ) -> BookChange | None:
        symbol = book.venue_symbol
        instrument = self._instruments.get(symbol)
        if instrument is None:
            self.counters.unlisted += 1
            return None
        # A snapshot's stamp is the book's last change, which may be minutes ago.
        if not book.is_snapshot:
            self._offset.observe(book.exchange_ns, wall_ns, mono_ns)
        subscription.on_delivery(symbol, mono_ns)
        state = self._books[symbol]
        if state.replace(book) is _IGNORED:
            self.counters.ignored += 1
            return None
        return self._change(instrument, state, wall_ns, mono_ns)

    def _change(
        self, instrument: Instrument, state: FullBookState, wall_ns: int, mono_ns: int
    ) -> BookChange:
        bids, asks = state.top(self._levels)
        return BookChange(
            instrument.id, SOCKET, state.shown_exchange_ns, wall_ns, mono_ns, bids, asks
        )

    def on_snapshot(
        self, venue_symbol: VenueSymbol, raw: bytes | str, recv_wall_ns: int, recv_mono_ns: int
    ) -> FeedOutput:
        """Never asked for: Upbit's frames are whole books."""
        raise AssertionError(f"no snapshot was asked for {venue_symbol}")

    def on_snapshot_failed(self, venue_symbol: VenueSymbol, now_ns: int) -> None:
        """Never asked for: Upbit's frames are whole books."""
        raise AssertionError(f"no snapshot was asked for {venue_symbol}")

    def on_tick(self, now_ns: int) -> FeedOutput:
        """Ask once more, with the full list, where codes stay silent; replace a dry socket."""
        dry_after_s = self._options.dry_after_s
        effects: list[Effect] = []
        effects.extend(replace_dry(self._connections, self.counters, now_ns, dry_after_s))
        for connection, subscription in self._connections.of(SOCKET):
            silent = subscription.silent(now_ns, self._options.silent_after_s)
            if silent and self._resubscribed[connection] < RESUBSCRIBE_MAX:
                self._resubscribed[connection] += 1
                self.counters.resubscribed += 1
                reason = f"silent: {', '.join(silent[:5])} ({len(silent)} in all)"
                messages = self.subscribe_messages(SOCKET)
                effects.append(Resubscribe(SOCKET, connection, messages, reason))
        return FeedOutput(effects=tuple(effects)) if effects else NOTHING

    def alive(self, now_ns: int) -> tuple[ConnectionAlive, ...]:
        """Return the socket's liveness."""
        return self._connections.alive(now_ns)

    def silent(self, now_ns: int) -> tuple[str, ...]:
        """Return the codes that never delivered."""
        return self._connections.silent(now_ns, self._options.silent_after_s)

    def clock(self) -> ClockEstimate:
        """Return Upbit's clock minus ours."""
        return self._offset.estimate()
