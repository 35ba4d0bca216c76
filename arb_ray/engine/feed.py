"""
The feed of one venue as a pure protocol object: frames in, book changes and effects out.

The feed actor owns the sockets and the clock and obeys; a ``VenueFeed`` (one per venue, in
the venue's folder) knows what to ask for and what the answers mean. A *plan* is a connection
that is wanted, numbered from 0; a *connection* is one socket that serves it, numbered by the
actor. During a rotation one plan has two connections, and both feed the same books: what
comes twice is ignored by sequence or stamp.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Protocol

import msgspec

from arb_ray.domain.book import ConnectionAlive, FundingUpdate, Levels
from arb_ray.domain.errors import MalformedFrame
from arb_ray.domain.instrument import Instrument, InstrumentId, VenueSymbol
from arb_ray.engine.clock_offset import ClockEstimate
from arb_ray.engine.market_event import VenueError
from arb_ray.engine.subscription import Subscription

DepthMode = Literal["diff", "partial", "top"]
"""Where Binance's books come from: diffs with a REST snapshot and bookTicker on top, whole
20-level books with bookTicker on top, or bookTicker alone. Upbit always sends whole books."""

MAX_KINDS = 64
"""Distinct names that a counter keeps; further ones are counted under ``OTHER``."""
OTHER = "(other)"

MAX_EXCERPTS = 20
"""Complaints waiting to be logged; the oldest go first, all are counted."""

MAX_CONNECTIONS_PER_PLAN = 4
"""Two in a rotation, and room for a mistake; a fifth is a bug of the caller."""


class FeedOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What one feed is to watch; ``ws_base`` of "" means the real venue."""

    instruments: tuple[Instrument, ...]
    depth_mode: DepthMode = "diff"
    depth_levels: int = 15  # published per side
    ws_base: str = ""  # scheme, host and port, e.g. "ws://127.0.0.1:8701"
    wire_format: Literal["DEFAULT", "SIMPLE", "JSON_LIST", "SIMPLE_LIST"] = "DEFAULT"
    wants_trades: bool = False  # public trades too; a recording should hold them
    depth_interval_ms: int = 100  # Binance; how often a depth stream sends
    streams_per_connection: int = 1_024  # Binance; more open another connection
    silent_after_s: float = 10.0  # a code without data for so long after the request
    dry_after_s: float = 60.0  # no code at all delivers for so long: the socket is replaced
    snapshot_levels: int = 1_000
    snapshot_retry_s: float = 1.0  # between requests for one symbol, doubled up to 30 s
    session: str = "arb_ray"  # names our requests at the venue (Upbit's ticket)

    def __post_init__(self) -> None:
        assert self.depth_levels > 0
        assert self.snapshot_levels >= self.depth_levels
        assert min(self.silent_after_s, self.dry_after_s, self.snapshot_retry_s) > 0
        assert self.streams_per_connection > 0


class ConnectionPlan(msgspec.Struct, frozen=True):
    """One wanted connection, with the venue's limits that the socket must keep."""

    plan: int
    name: str  # for logs and labels, e.g. "public-0"
    url: str
    codes: tuple[str, ...]  # what must deliver on it
    ping_interval_s: float
    max_age_s: float | None  # rotate by overlap before this; None: the venue sets no limit
    messages_per_s: int  # that we may send, pings counted
    messages_per_min: int | None = None


class BookChange(msgspec.Struct, frozen=True, gc=False):
    """The newest book of one instrument; empty sides say that it must not be used."""

    instrument: InstrumentId
    plan: int
    exchange_ns: int
    recv_wall_ns: int
    recv_mono_ns: int
    bids: Levels
    asks: Levels


class Effect(msgspec.Struct, frozen=True, tag=True):
    """An order to the shell."""


class FetchSnapshot(Effect, frozen=True, tag=True):
    """Fetch a REST book; answer with ``on_snapshot`` or ``on_snapshot_failed``, always."""

    venue_symbol: VenueSymbol


class Rotate(Effect, frozen=True, tag=True):
    """Replace this connection by overlap."""

    plan: int
    connection: int
    reason: str


class Resubscribe(Effect, frozen=True, tag=True):
    """Send these messages on this connection."""

    plan: int
    connection: int
    messages: tuple[str, ...]
    reason: str


class FeedOutput(msgspec.Struct, frozen=True, gc=False):
    """What one call brought about, in order."""

    books: tuple[BookChange, ...] = ()
    funding: tuple[FundingUpdate, ...] = ()
    effects: tuple[Effect, ...] = ()


NOTHING = FeedOutput()


class Complaint(msgspec.Struct, frozen=True):
    """Something to log: a malformed frame's bounded excerpt, or a venue's error."""

    recv_wall_ns: int
    kind: str  # "malformed", "venue_error" or "refused"
    problem: str
    excerpt: str


class FeedCounters:
    """What has happened since the feed was made; read it, do not write it."""

    def __init__(self) -> None:
        self.frames = 0
        self.by_kind: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self.unlisted = 0  # data for a symbol that is not ours
        self.malformed = 0
        self.venue_errors = 0
        self.refused = 0  # control messages that the venue refused
        self.ignored = 0  # older than the book, or repeats
        self.gaps = 0
        self.crossed = 0
        self.resyncs = 0  # books brought back after a gap, a cross or a reconnect
        self.refreshes = 0  # snapshots fetched because the market left the known levels
        self.snapshots = 0
        self.snapshot_failures = 0
        self.resubscribed = 0
        self.shutdowns = 0
        self.dry = 0  # connections replaced because nothing came on them
        self.complaints: deque[Complaint] = deque(maxlen=MAX_EXCERPTS)

    def count_kind(self, kind: str) -> None:
        """Count one well-formed message."""
        if kind in self.by_kind:
            self.by_kind[kind] += 1
        else:
            bounded_count(self.by_kind, kind)

    def note_malformed(self, fault: MalformedFrame, recv_wall_ns: int) -> None:
        """Count a malformed frame and keep its excerpt for the log."""
        self.malformed += 1
        self.complaints.append(Complaint(recv_wall_ns, "malformed", fault.problem, fault.excerpt))

    def note_error(self, error: VenueError, recv_wall_ns: int) -> None:
        """Count an error message of the venue."""
        self.venue_errors += 1
        self._complain(recv_wall_ns, "venue_error", error.name, error.message)

    def note_refused(self, message_id: str, text: str, recv_wall_ns: int) -> None:
        """Count a control message that was refused."""
        self.refused += 1
        self._complain(recv_wall_ns, "refused", message_id, text)

    def _complain(self, recv_wall_ns: int, kind: str, problem: str, text: str) -> None:
        self.complaints.append(Complaint(recv_wall_ns, kind, problem[:200], text[:200]))

    def take_complaints(self) -> tuple[Complaint, ...]:
        """Hand over what is to be logged, once."""
        taken = tuple(self.complaints)
        self.complaints.clear()
        return taken


class VenueFeed(Protocol):
    """
    One venue's feed. All times are ns: ``recv_wall_ns`` UTC, the others monotonic.

    No method raises for anything that a venue sends.
    """

    counters: FeedCounters

    def plans(self) -> tuple[ConnectionPlan, ...]:
        """Return the connections that are wanted, by number."""
        ...

    def subscribe_messages(self, plan: int) -> tuple[str, ...]:
        """Return what to send, in full and in order, on each new connection of ``plan``."""
        ...

    def on_connected(self, plan: int, connection: int, now_ns: int) -> FeedOutput:
        """A socket is open; send ``subscribe_messages``."""
        ...

    def on_frame(
        self, plan: int, connection: int, raw: bytes | str, recv_wall_ns: int, recv_mono_ns: int
    ) -> FeedOutput:
        """Take one frame as it left the socket."""
        ...

    def whole_book_of(self, raw: bytes) -> bytes | None:
        """
        Name the book of which a frame tells all, without parsing it; None where it does not.

        Of two such frames of one connection and one name the older one need not be taken.
        """
        ...

    def on_alive(self, plan: int, connection: int, now_ns: int) -> None:
        """A pong came."""
        ...

    def on_disconnected(self, plan: int, connection: int, now_ns: int) -> FeedOutput:
        """A socket is gone; books that nothing carries any more come out empty."""
        ...

    def on_snapshot(
        self, venue_symbol: VenueSymbol, raw: bytes | str, recv_wall_ns: int, recv_mono_ns: int
    ) -> FeedOutput:
        """Take the answer to a ``FetchSnapshot``."""
        ...

    def on_snapshot_failed(self, venue_symbol: VenueSymbol, now_ns: int) -> None:
        """There is no answer to a ``FetchSnapshot``; ``on_tick`` will ask again."""
        ...

    def on_tick(self, now_ns: int) -> FeedOutput:
        """Do what is due by time; call it about once a second."""
        ...

    def alive(self, now_ns: int) -> tuple[ConnectionAlive, ...]:
        """Return each plan's liveness, ``connection`` being the plan's number."""
        ...

    def silent(self, now_ns: int) -> tuple[str, ...]:
        """Return the codes that were asked for long enough ago and never delivered."""
        ...

    def clock(self) -> ClockEstimate:
        """Return the venue's clock minus ours."""
        ...


class PlanConnections:
    """The live connections of every plan, each with its own proof of delivery."""

    def __init__(self, plans: Sequence[ConnectionPlan]) -> None:
        self._codes = [plan.codes for plan in plans]
        self._live: list[dict[int, Subscription]] = [{} for _ in plans]
        self.of_connection: dict[int, Subscription] = {}  # the live ones; read it only
        self._told_dry: set[int] = set()  # connections, live ones only

    def open(self, plan: int, connection: int, now_ns: int) -> bool:
        """Add a connection; True when it is the plan's only one, so nothing was carried over."""
        live = self._live[plan]
        assert len(live) < MAX_CONNECTIONS_PER_PLAN, "connections are closed when they are lost"
        is_only = not live
        live[connection] = Subscription(self._codes[plan], now_ns)
        self.of_connection[connection] = live[connection]
        return is_only

    def close(self, plan: int, connection: int) -> bool:
        """Drop a connection; True when the plan has none left."""
        self._live[plan].pop(connection, None)
        self.of_connection.pop(connection, None)
        self._told_dry.discard(connection)
        return not self._live[plan]

    def get(self, plan: int, connection: int) -> Subscription | None:
        """Return a live connection's subscription; None for one that is gone."""
        return self._live[plan].get(connection)

    def of(self, plan: int) -> Iterator[tuple[int, Subscription]]:
        """Iterate over a plan's live connections, oldest first."""
        return iter(tuple(self._live[plan].items()))

    def alive(self, now_ns: int) -> tuple[ConnectionAlive, ...]:
        """Return each plan's liveness: that of its connection which spoke last."""
        return tuple(self._plan_alive(plan, now_ns) for plan in range(len(self._live)))

    def _plan_alive(self, plan: int, now_ns: int) -> ConnectionAlive:
        live = self._live[plan].values()
        last_ns = max((subscription.last_alive_ns for subscription in live), default=0)
        return ConnectionAlive(plan, max(now_ns - last_ns, 0) if live else 0, bool(live))

    def silent(self, now_ns: int, after_s: float) -> tuple[str, ...]:
        """Return the codes that no live connection of their plan has delivered."""
        missing: list[str] = []
        for live in self._live:
            if live:
                silences = [set(sub.silent(now_ns, after_s)) for sub in live.values()]
                missing.extend(sorted(set.intersection(*silences)))
        return tuple(missing)

    def newly_dry(self, now_ns: int, after_s: float) -> tuple[tuple[int, int], ...]:
        """Return (plan, connection) of those that answer pings and bring no data, once each."""
        dry = [
            (plan, connection)
            for plan, live in enumerate(self._live)
            for connection, subscription in live.items()
            if connection not in self._told_dry and subscription.is_dry(now_ns, after_s)
        ]
        self._told_dry.update(connection for _, connection in dry)
        return tuple(dry)


def replace_dry(
    connections: PlanConnections, counters: FeedCounters, now_ns: int, after_s: float
) -> tuple[Rotate, ...]:
    """Return a rotation for each connection on which nothing has come for ``after_s``."""
    dry = connections.newly_dry(now_ns, after_s)
    counters.dry += len(dry)
    return tuple(Rotate(plan, socket, f"no data for {after_s:g} s") for plan, socket in dry)


def by_venue_symbol(instruments: Iterable[Instrument]) -> dict[VenueSymbol, Instrument]:
    """Index instruments by the venue's own spelling; two of one name are a bug."""
    index: dict[VenueSymbol, Instrument] = {}
    for instrument in instruments:
        assert instrument.venue_symbol not in index, "one instrument per venue symbol"
        index[instrument.venue_symbol] = instrument
    return index


def bounded_count(counter: Counter[str], name: str) -> None:
    """Count ``name``, or ``OTHER`` once the counter holds ``MAX_KINDS`` names."""
    if name not in counter and len(counter) >= MAX_KINDS:
        name = OTHER
    counter[name] += 1
