"""
Binance's feed, spot or USD-M: combined streams, diffs with a REST snapshot, bookTicker.

Books travel on ``/stream`` (spot) or ``/public/stream`` (USD-M); USD-M's mark price has a
path of its own, because a stream on the wrong path is silent. All streams of one symbol share
a connection. Times of quiet are normal here: a stream sends nothing when nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from arb_ray.adapters.venues.binance import codec
from arb_ray.adapters.venues.binance.endpoints import (
    PING_INTERVAL_S,
    ROTATE_AFTER_S,
    STREAMS_PER_CONNECTION_MAX,
    endpoints_of,
)
from arb_ray.adapters.venues.binance.market_book import NS_PER_S, MarketBook
from arb_ray.domain.book import ConnectionAlive, FundingUpdate
from arb_ray.domain.errors import MalformedFrame
from arb_ray.domain.instrument import Venue, VenueSymbol
from arb_ray.engine.book_builder import Continuity
from arb_ray.engine.clock_offset import ClockEstimate, ClockOffset
from arb_ray.engine.feed import (
    NOTHING,
    BookChange,
    ConnectionPlan,
    Effect,
    FeedCounters,
    FeedOptions,
    FeedOutput,
    FetchSnapshot,
    PlanConnections,
    Resubscribe,
    Rotate,
    bounded_count,
    by_venue_symbol,
    replace_dry,
)
from arb_ray.engine.market_event import (
    BookDiff,
    ControlReply,
    FullBook,
    MarketEvent,
    MarkPrice,
    ServerShutdown,
    TopOfBook,
    TradePrint,
    UnknownMessage,
    VenueError,
)
from arb_ray.engine.subscription import Subscription

PARTIAL_LEVELS = (5, 10, 20)
"""Levels that partial depth is served with."""

STREAMS_PER_MESSAGE = 200
"""Keeps a SUBSCRIBE message near 5 kB; the venue names no bound."""

QUIET_SNAPSHOT_AFTER_S = 3.0
"""A symbol without a diff for so long after connecting is quiet: its snapshot is fetched
without waiting for one, the subscription being in force by then."""

QUIET_AFTER_GRANT_S = 0.25
"""The same once the venue has granted every stream of the connection. The streams then lack
nothing, and only an active symbol's first diff, due within two of its intervals of 100 ms, is
still waited for; a snapshot that is too old all the same is fetched again."""

RESUBSCRIBE_MAX = 1
"""Times that silent streams are asked for again on one connection; a quiet symbol's stay
silent, so more would be noise."""


class BinanceFeed:
    """One of Binance's markets as a ``VenueFeed``; see there for the meaning of the methods."""

    def __init__(self, venue: Venue, options: FeedOptions) -> None:
        self.counters = FeedCounters()
        self._venue = venue
        self._options = options
        self._instruments = by_venue_symbol(options.instruments)
        self._offset = ClockOffset()
        self._depth_channel = _depth_channel(venue, options)
        self._plans = self._make_plans()
        self._plan_of = {code: plan.plan for plan in self._plans for code in plan.codes}
        rule = Continuity.SPOT if venue is Venue.BINANCE_SPOT else Continuity.USDM
        self._markets = {
            symbol: MarketBook(
                instrument,
                self._plan_of[_code(symbol, "bookTicker")],
                rule,
                options,
                self.counters,
                top_code=_code(symbol, "bookTicker"),
                depth_code=_code(symbol, self._depth_channel),
            )
            for symbol, instrument in self._instruments.items()
        }
        self._connections = PlanConnections(self._plans)
        self._subscriptions = self._connections.of_connection
        self._connected_ns: dict[int, int] = {}  # by plan, while it has a connection
        self._granted_ns: dict[int, int] = {}  # by plan: when all its streams were in force
        self._ungranted: dict[int, int] = {}  # requests without an answer, by connection
        self._resubscribed: dict[int, int] = {}  # by connection
        self._leaving: set[int] = set()  # connections that announced their end

    def plans(self) -> tuple[ConnectionPlan, ...]:
        """Return the connections, public ones first."""
        return self._plans

    def subscribe_messages(self, plan: int) -> tuple[str, ...]:
        """Return the requests for all streams but the first, which stands in the address."""
        codes = self._plans[plan].codes
        trades: tuple[str, ...] = ()
        if self._options.wants_trades:
            # Not among what must deliver: a coin may rightly go an hour without a trade.
            traded = [market for market in self._markets.values() if market.plan == plan]
            trades = tuple(_code(m.instrument.venue_symbol, TRADE_CHANNEL) for m in traded)
        return _subscribe((*codes[1:], *trades), first_id=1)

    def on_connected(self, plan: int, connection: int, now_ns: int) -> FeedOutput:
        """Start over, unless another socket still carries the books."""
        self._resubscribed[connection] = 0
        self._ungranted[connection] = len(self.subscribe_messages(plan))
        if self._connections.open(plan, connection, now_ns):
            self._connected_ns[plan] = now_ns
            self._granted_ns.pop(plan, None)
            for market in self._markets_of(plan):
                market.reset()
        return NOTHING

    def on_disconnected(self, plan: int, connection: int, now_ns: int) -> FeedOutput:
        """Void the plan's books when its last connection is gone."""
        self._resubscribed.pop(connection, None)
        self._ungranted.pop(connection, None)
        self._leaving.discard(connection)
        if not self._connections.close(plan, connection):
            return NOTHING
        self._connected_ns.pop(plan, None)
        self._granted_ns.pop(plan, None)
        voided = []
        for market in self._markets_of(plan):
            market.reset()
            voided.append(market.void(now_ns))
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
        counters = self.counters
        counters.frames += 1
        subscription.on_alive(recv_mono_ns)
        try:
            (event,) = codec.decode(raw, self._venue)
        except MalformedFrame as fault:
            counters.note_malformed(fault, recv_wall_ns)
            return NOTHING
        # First, and not by pattern: nearly all frames are books, thousands a second.
        if isinstance(event, (TopOfBook, BookDiff, FullBook)):
            return self._take_book(event, subscription, recv_wall_ns, recv_mono_ns)
        counters.count_kind(codec.kind_of(event))
        match event:
            case MarkPrice():
                subscription.on_delivery(_code(event.venue_symbol, MARK_CHANNEL), recv_mono_ns)
                return self._take_mark(event)
            case TradePrint():
                self._offset.observe(event.exchange_ns, recv_wall_ns, recv_mono_ns)
                return NOTHING  # wanted for recordings only
            case _:
                if isinstance(event, ControlReply) and event.ok:
                    self._note_grant(plan, connection, recv_mono_ns)
                return self._take_control(plan, connection, event, recv_wall_ns)

    def _take_book(
        self,
        event: BookDiff | FullBook | TopOfBook,
        subscription: Subscription,
        wall_ns: int,
        mono_ns: int,
    ) -> FeedOutput:
        counters = self.counters
        if event.exchange_ns:
            self._offset.observe(event.exchange_ns, wall_ns, mono_ns)
        market = self._markets.get(event.venue_symbol)
        if market is None:
            counters.count_kind(codec.kind_of(event))
            counters.unlisted += 1
            return NOTHING
        if type(event) is TopOfBook:
            counters.count_kind("bookTicker")
            subscription.on_delivery(market.top_code, mono_ns)
            is_changed = market.take_top(event)
        elif type(event) is BookDiff:
            counters.count_kind("depthUpdate")
            subscription.on_delivery(market.depth_code, mono_ns)
            is_changed = market.take_diff(event)
        else:
            assert type(event) is FullBook
            counters.count_kind("partialDepth")
            subscription.on_delivery(market.depth_code, mono_ns)
            is_changed = market.take_whole(event)
        if is_changed and not market.need.is_pending:
            return FeedOutput((market.change(wall_ns, mono_ns),))
        return self._output(market, is_changed=is_changed, wall_ns=wall_ns, mono_ns=mono_ns)

    def _take_mark(self, mark: MarkPrice) -> FeedOutput:
        instrument = self._instruments.get(mark.venue_symbol)
        if instrument is None:
            self.counters.unlisted += 1
            return NOTHING
        update = FundingUpdate(
            instrument.id,
            mark.mark_price,
            mark.funding_rate,
            mark.next_funding_ns,
            mark.exchange_ns,
        )
        return FeedOutput(funding=(update,))

    def _take_control(
        self, plan: int, connection: int, event: MarketEvent, wall_ns: int
    ) -> FeedOutput:
        match event:
            case ServerShutdown():
                self.counters.shutdowns += 1
                if connection not in self._leaving:
                    self._leaving.add(connection)
                    return FeedOutput(effects=(Rotate(plan, connection, "serverShutdown"),))
            case ControlReply(ok=False):
                self.counters.note_refused(event.id, event.text, wall_ns)
            case VenueError():
                self.counters.note_error(event, wall_ns)
            case UnknownMessage():
                bounded_count(self.counters.unknown, event.kind)
            case _:
                pass  # a request was granted: counted already
        return NOTHING

    def _note_grant(self, plan: int, connection: int, now_ns: int) -> None:
        # A refusal is no grant: all then wait as long as if nothing had been said.
        self._ungranted[connection] -= 1
        if self._ungranted[connection] == 0:
            self._granted_ns.setdefault(plan, now_ns)

    def on_snapshot(
        self, venue_symbol: VenueSymbol, raw: bytes | str, recv_wall_ns: int, recv_mono_ns: int
    ) -> FeedOutput:
        """Take a REST book; of a symbol that is not ours (a recording holds them) only count."""
        market = self._markets.get(venue_symbol)
        if market is None:
            self.counters.unlisted += 1
            return NOTHING
        try:
            snapshot = codec.decode_snapshot(raw, venue_symbol, self._venue)
        except MalformedFrame as fault:
            self.counters.note_malformed(fault, recv_wall_ns)
            self.on_snapshot_failed(venue_symbol, recv_mono_ns)
            return NOTHING
        if market.plan not in self._connected_ns:
            market.need.answered(recv_mono_ns)
            market.need.forget()
            return NOTHING  # the connection went while the request was under way
        is_changed = market.take_snapshot(snapshot, recv_mono_ns)
        return self._output(
            market, is_changed=is_changed, wall_ns=recv_wall_ns, mono_ns=recv_mono_ns
        )

    def on_snapshot_failed(self, venue_symbol: VenueSymbol, now_ns: int) -> None:
        """Wait, then ask again."""
        self.counters.snapshot_failures += 1
        if (market := self._markets.get(venue_symbol)) is not None:
            market.need.failed(now_ns)

    def on_tick(self, now_ns: int) -> FeedOutput:
        """Ask for due snapshots, for silent streams once more, and replace dry sockets."""
        dry_after_s = self._options.dry_after_s
        effects: list[Effect] = []
        effects.extend(replace_dry(self._connections, self.counters, now_ns, dry_after_s))
        for market in self._markets.values():
            if self._is_quiet(market, now_ns):
                market.need.want()
            effects.extend(self._snapshot_effects(market, now_ns))
        for plan in self._plans:
            effects.extend(self._resubscribe_silent(plan.plan, now_ns))
        return FeedOutput(effects=tuple(effects)) if effects else NOTHING

    def _is_quiet(self, market: MarketBook, now_ns: int) -> bool:
        if self._options.depth_mode != "diff" or market.is_usable:
            return False
        since_ns = self._connected_ns.get(market.plan, now_ns)
        granted_ns = self._granted_ns.get(market.plan, now_ns)
        return now_ns - since_ns >= int(
            QUIET_SNAPSHOT_AFTER_S * NS_PER_S
        ) or now_ns - granted_ns >= int(QUIET_AFTER_GRANT_S * NS_PER_S)

    def _resubscribe_silent(self, plan: int, now_ns: int) -> Iterable[Effect]:
        for connection, subscription in self._connections.of(plan):
            silent = subscription.silent(now_ns, self._options.silent_after_s)
            if silent and self._resubscribed[connection] < RESUBSCRIBE_MAX:
                self._resubscribed[connection] += 1
                self.counters.resubscribed += 1
                reason = f"silent: {', '.join(silent[:5])} ({len(silent)} in all)"
                messages = _subscribe(silent, first_id=RESUBSCRIBE_FIRST_ID)
                yield Resubscribe(plan, connection, messages, reason)

    def _snapshot_effects(self, market: MarketBook, now_ns: int) -> tuple[Effect, ...]:
        if market.plan in self._connected_ns and market.need.ask(now_ns):
            return (FetchSnapshot(market.instrument.venue_symbol),)
        return ()

    def _output(
        self, market: MarketBook, *, is_changed: bool, wall_ns: int, mono_ns: int
    ) -> FeedOutput:
        effects = self._snapshot_effects(market, mono_ns)
        books: tuple[BookChange, ...] = ()
        if is_changed:
            books = (market.change(wall_ns, mono_ns),)
        return FeedOutput(books=books, effects=effects) if books or effects else NOTHING

    def alive(self, now_ns: int) -> tuple[ConnectionAlive, ...]:
        """Return each plan's liveness."""
        return self._connections.alive(now_ns)

    def silent(self, now_ns: int) -> tuple[str, ...]:
        """Return the streams that never delivered; a quiet symbol's may be right."""
        return self._connections.silent(now_ns, self._options.silent_after_s)

    def clock(self) -> ClockEstimate:
        """Return Binance's clock minus ours."""
        return self._offset.estimate()

    def _markets_of(self, plan: int) -> Iterable[MarketBook]:
        return (market for market in self._markets.values() if market.plan == plan)

    def _make_plans(self) -> tuple[ConnectionPlan, ...]:
        where = endpoints_of(self._venue)
        channels = ["bookTicker"]
        if self._options.depth_mode != "top":
            channels.append(self._depth_channel)
        plans: list[ConnectionPlan] = []
        self._add_plans(plans, "public", where.public_path, channels)
        if where.market_path:
            self._add_plans(plans, "market", where.market_path, [MARK_CHANNEL])
        return tuple(plans)

    def _add_plans(
        self, plans: list[ConnectionPlan], name: str, path: str, channels: list[str]
    ) -> None:
        where = endpoints_of(self._venue)
        bound = min(self._options.streams_per_connection, STREAMS_PER_CONNECTION_MAX)
        with_trades = self._options.wants_trades and name == "public"
        per_connection = max(bound // (len(channels) + with_trades), 1)
        symbols = list(self._instruments)
        for start in range(0, len(symbols), per_connection):
            part = symbols[start : start + per_connection]
            codes = tuple(_code(symbol, channel) for symbol in part for channel in channels)
            # An address needs a stream; the others follow by SUBSCRIBE, which is acknowledged.
            base = self._options.ws_base or where.ws_base
            plans.append(
                ConnectionPlan(
                    len(plans),
                    f"{name}-{start // per_connection}",
                    f"{base}{path}?streams={codes[0]}",
                    codes,
                    PING_INTERVAL_S,
                    ROTATE_AFTER_S,
                    where.limits.messages_per_s,
                )
            )


MARK_CHANNEL = "markPrice@1s"
TRADE_CHANNEL = "trade"
RESUBSCRIBE_FIRST_ID = 1_001
"""Tells the replies apart from those of the first subscription."""


def _depth_channel(venue: Venue, options: FeedOptions) -> str:
    # The default interval has no suffix: 1000 ms on spot, 250 ms on USD-M.
    default_ms = 1_000 if venue is Venue.BINANCE_SPOT else 250
    is_default = options.depth_interval_ms == default_ms
    suffix = "" if is_default else f"@{options.depth_interval_ms}ms"
    if options.depth_mode != "partial":
        return f"depth{suffix}"
    served = (levels for levels in PARTIAL_LEVELS if levels >= options.depth_levels)
    return f"depth{next(served, PARTIAL_LEVELS[-1])}{suffix}"


def _code(symbol: VenueSymbol, channel: str) -> str:
    return f"{symbol.lower()}@{channel}"


def _subscribe(codes: tuple[str, ...], first_id: int) -> tuple[str, ...]:
    messages = []
    for index, start in enumerate(range(0, len(codes), STREAMS_PER_MESSAGE)):
        params = list(codes[start : start + STREAMS_PER_MESSAGE])
        message = {"method": "SUBSCRIBE", "params": params, "id": first_id + index}
        messages.append(msgspec.json.encode(message).decode())
    return tuple(messages)
