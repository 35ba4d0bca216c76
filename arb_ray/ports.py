"""
What the core and the actors need from outside, as protocols.

Adapters implement them, ``arb_ray.app`` chooses which, tests hand in their own. All I/O is
async. Every method that changes something is idempotent under the id it carries: a call
that failed may have taken effect, so the caller repeats it or asks.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

import msgspec

from arb_ray.domain.board import BoardBook, Pulse
from arb_ray.domain.book import FundingUpdate, TickBatch
from arb_ray.domain.errors import LedgerViolation
from arb_ray.domain.instrument import InstrumentId, Symbol, Venue
from arb_ray.domain.ledger import Balance, Entry
from arb_ray.domain.money import Asset
from arb_ray.domain.order import OrderReport, OrderRequest
from arb_ray.domain.risk_books import RiskBooks
from arb_ray.domain.risk_intent import (
    Mark,
    ReserveIntent,
    RiskStatus,
    Settlement,
    Verdict,
)
from arb_ray.engine.risk import StateChange
from arb_ray.engine.risk_limits import RiskLimits


class Clock(Protocol):
    """Time, as data: the wall clock of a live run, or a recording's."""

    def now_ns(self) -> int:
        """Return ns UTC."""
        ...

    def mono_ns(self) -> int:
        """Return this process's monotonic clock; meaningless on another machine."""
        ...

    async def sleep_until_ns(self, due_ns: int, key: str) -> None:
        """Wait until ``now_ns()`` reaches ``due_ns``; ``key`` orders equal instants in a replay."""
        ...


class StoredTrade(msgspec.Struct, frozen=True):
    """An open trade as the journal knows it: its events, in order, still encoded."""

    trade_id: str
    symbol: Symbol
    events: tuple[bytes, ...]


class LedgerStore(Protocol):
    """
    The synchronous journal of strategies: nothing is acted on before it is here.

    What belongs to a live trade may be taken on the local disk while PostgreSQL is away
    (``SpooledLedger``): it is as durable, and in PostgreSQL only after ``flush``.

    Raises (all methods):
        StoreUnavailable: PostgreSQL did not take the write; nothing is known to have changed.
        OutcomeUnknown: The connection broke during the commit; repeat the call.
        LedgerViolation: A repeat of an id carries other content.
        Fenced: The symbol's owner epoch is not ours any more.
    """

    async def claim_symbol(self, symbol: Symbol, owner: str) -> int:
        """Become the owner of ``symbol``; return the new epoch, which fences older owners."""
        ...

    async def next_trade_number(self, symbol: Symbol) -> int:
        """Use up and return the next durable trade number of ``symbol``, starting at 1."""
        ...

    async def append_event(
        self, symbol: Symbol, owner_epoch: int, trade_id: str, seq: int, event: bytes
    ) -> None:
        """Append the trade's ``seq``-th event (from 0), msgspec JSON."""
        ...

    async def open_trade(self, symbol: Symbol) -> StoredTrade | None:
        """Return the trade of ``symbol`` that has not been closed, if there is one."""
        ...

    async def accept_order(self, symbol: Symbol, owner_epoch: int, order: OrderRequest) -> bool:
        """Store an order before it is sent; False when it was stored before."""
        ...

    async def report_order(
        self,
        symbol: Symbol,
        owner_epoch: int,
        order: OrderRequest,
        report: OrderReport,
        entries: Sequence[Entry],
    ) -> None:
        """
        Store the venue's last word with its fills and their postings, in one transaction.

        An order that was never accepted is stored with it: its id is used up.
        """
        ...

    async def find_report(self, client_order_id: str) -> OrderReport | None:
        """Return the stored last word on an order; None when there is none."""
        ...

    async def is_order_known(self, client_order_id: str) -> bool:
        """Tell whether an order was ever accepted."""
        ...

    async def post(self, symbol: Symbol, owner_epoch: int, entries: Sequence[Entry]) -> None:
        """Post entries that belong to no order (funding, perpetual settlement, dust)."""
        ...

    async def dust(self, asset: Asset) -> Mapping[Venue, Decimal]:
        """Return what closed trades have left of an asset, signed, by venue."""
        ...

    async def balances(self) -> Sequence[Balance]:
        """Return every balance of the environment: sums of postings."""
        ...

    async def flush(self) -> None:
        """Return when all that was taken is in PostgreSQL; raise StoreUnavailable until then."""
        ...

    async def close(self) -> None:
        """Give the connections back."""
        ...


class GrantWrite(msgspec.Struct, frozen=True):
    """A yes that is to be written, with the entry that moves its money from FREE to HELD."""

    intent: ReserveIntent
    hold: Entry
    at_ns: int


class Settled(msgspec.Struct, frozen=True):
    """A settlement that is written."""

    is_new: bool  # False when it was settled before: a no-op
    released: Sequence[Balance] = ()  # what moved back to FREE


Decision = GrantWrite | Settlement
"""What RiskGuard writes, alone or with others in one commit."""

Outcome = Verdict | Settled | LedgerViolation
"""What became of a decision that was written with others: one that is violated is not written."""


class RiskStore(Protocol):
    """
    RiskGuard's durable half. Every write checks the lease's epoch in its own transaction.

    Raises (all methods): StoreUnavailable, OutcomeUnknown, Fenced, LedgerViolation.
    """

    async def take_lease(self, holder: str) -> int:
        """Take over as the one guard of the environment; return the new epoch."""
        ...

    async def renew_lease(self, epoch: int) -> None:
        """Prove that ``epoch`` still holds; raise Fenced when it does not."""
        ...

    async def load(
        self, epoch: int, day_start_ns: int, entries_since_ns: int, recent_count: int
    ) -> RiskBooks:
        """
        Rebuild from the ledger.

        Grants are those since ``entries_since_ns``; of the settlements before the day the
        last ``recent_count`` that traded come too: runs go on over midnight.
        """
        ...

    async def open_balances(self, epoch: int, opening: Entry) -> None:
        """Post the configured opening balances once per environment."""
        ...

    async def grant(self, epoch: int, intent: ReserveIntent, hold: Entry, at_ns: int) -> Verdict:
        """
        Write the reservation and its hold in one transaction, then answer.

        A repeat gives the first answer; a tombstone, an older owner epoch, or an open trade
        on the symbol gives Refused.
        """
        ...

    async def settle(self, epoch: int, settlement: Settlement) -> tuple[bool, Sequence[Balance]]:
        """
        Post or void a reservation, release what is still held for it, close its trade.

        Returns False when it was settled before (a no-op), and what moved back to FREE.
        """
        ...

    async def write(self, epoch: int, group: Sequence[Decision]) -> Sequence[Outcome]:
        """
        Write grants and settlements in one commit, in their order; no id occurs twice.

        Each is what ``grant`` or ``settle`` would make of it, but for one that the ledger
        contradicts: its outcome is the LedgerViolation, and the others are written. What is
        raised holds for all of them.
        """
        ...

    async def note_limits(self, epoch: int, limits: RiskLimits) -> None:
        """Write the limits that the guard of ``epoch`` decides by, for whoever audits it."""
        ...

    async def set_state(self, epoch: int, change: StateChange) -> None:
        """
        Write a risk event; the newest one is the state after a restart.

        One that flattens all holds until an operator's change to ACTIVE, whatever comes between;
        one that flattens a symbol changes no state, and holds until that trade has ended too.
        """
        ...

    async def close(self) -> None:
        """Give the connections back."""
        ...


class RiskClient(Protocol):
    """RiskGuard as a strategy sees it. No answer in time means no entry."""

    async def reserve(self, intent: ReserveIntent) -> Verdict:
        """Ask for room. Raises OutcomeUnknown when no answer came before the deadline."""
        ...

    async def settle(self, settlement: Settlement) -> None:
        """Post or void; repeated until it is answered."""
        ...

    async def mark(self, host: str, marks: Sequence[Mark]) -> RiskStatus:
        """Send current marks; learn the guard's state."""
        ...

    async def free(self) -> Sequence[Balance]:
        """Return every FREE balance by the guard's knowledge; a signal, not a promise."""
        ...


class Snapshot(msgspec.Struct, frozen=True):
    """
    One row for Persistence: ``table`` is one of the four snapshot tables.

    Who makes a row encodes its payload once (``encoded``); what passes it on only copies text.
    """

    table: str
    at_ns: int
    session_id: str
    symbol: str  # "" where the row is about no symbol
    payload: Mapping[str, Any] | str  # plain JSON with money as text, or its text
    is_event: bool = False  # it tells what happened once: no newer row says the same

    @property
    def text(self) -> str:
        """The payload as JSON text."""
        if isinstance(self.payload, str):
            return self.payload
        return msgspec.json.encode(self.payload).decode()

    def encoded(self) -> Snapshot:
        """Return the same row with its payload as text."""
        if isinstance(self.payload, str):
            return self
        return msgspec.structs.replace(self, payload=self.text)


class Quarantined(msgspec.Struct, frozen=True):
    """A stored snapshot that failed its check when it was read."""

    table: str
    session_id: str
    at_ns: int
    reason: str
    found_ns: int


SPOOL: Final = "spool"
"""The ``store`` of a StoreUnavailable that a spool's disk raised, and not PostgreSQL."""

Damage: TypeAlias = Callable[[Mapping[str, Any], int], str]
"""Tells in words why a payload of a time cannot be what was written; empty when it can."""


class SnapshotStore(Protocol):
    """Batched, append-only snapshots; ``batch_id`` makes a repeat a no-op."""

    async def write_batch(self, batch_id: str, rows: Sequence[Snapshot]) -> int:
        """COPY a batch in one transaction; return the rows written (0 on a repeat)."""
        ...

    async def newest(
        self, table: str, session_id: str, symbol: str, damage: Damage, before_ns: int | None = None
    ) -> tuple[Mapping[str, Any], int] | None:
        """Return the newest sound payload and its time; damaged ones are quarantined for good."""
        ...

    async def quarantined(self, since_ns: int) -> Sequence[Quarantined]:
        """Return what was found damaged after ``since_ns``, by whoever read it; oldest first."""
        ...

    async def close(self) -> None:
        """Give the connections back."""
        ...


class StateStore(Protocol):
    """Fast, disposable state (Redis). Nothing that only it knows may matter."""

    @property
    def fallback_cause(self) -> str:
        """Return why memory stands in for it; empty while it is there."""
        ...

    async def put_state(self, session_id: str, states: Mapping[str, bytes]) -> None:
        """Write all categories of a session at once, with their time to live."""
        ...

    async def put_metric(self, symbol: Symbol, metric_type: str, payload: bytes) -> None:
        """Write one metric document of a symbol."""
        ...

    async def ping_ms(self) -> float:
        """Return the round trip. Raises StoreUnavailable."""
        ...

    async def close(self) -> None:
        """Give the connections back."""
        ...


class TickSink(Protocol):
    """Where a feed's batches go: one strategy host."""

    async def deliver(self, batch: TickBatch) -> int:
        """
        Hand over a batch; at most one call is in flight per sink.

        Returns the host's birth stamp: another one than before says that it knows no books.
        """
        ...


class BookBoard(Protocol):
    """
    Where a feed's newest books lie for the hosts of its own node; nothing waits or queues.

    A write replaces what was there at once and as a whole, also when its writer dies in it.
    """

    def reach(self, host: str) -> str:
        """Find a host; return why it cannot be woken here, or nothing when it can."""
        ...

    def leave(self, host: str) -> None:
        """Wake a host no more."""
        ...

    def put_pulse(self, pulse: Pulse) -> None:
        """Replace what is told of the feed."""
        ...

    def put_book(self, instrument: InstrumentId, book: BoardBook) -> None:
        """Replace an instrument's book."""
        ...

    def put_funding(self, funding: FundingUpdate) -> None:
        """Replace an instrument's funding."""
        ...

    def ring(self, hosts: Iterable[str], now_mono_ns: int) -> bool:
        """Wake those who sleep; return whether ``ring_missed`` has something to do soon."""
        ...

    def ring_missed(self, now_mono_ns: int) -> bool:
        """Wake who fell asleep over what was published; return whether one is still awake."""
        ...

    def close(self) -> None:
        """Take the board away."""
        ...


class TickSource(Protocol):
    """What a host reads of its node's boards."""

    missed: int  # books overwritten before this host looked
    unknown: int  # boards of a schema that this version does not read

    @property
    def boards(self) -> int:
        """How many boards are read."""
        ...

    @property
    def torn(self) -> int:
        """How many reads were refused because the writer was in the middle of it."""
        ...

    def open(self, born_ns: int) -> int:
        """Let feeds find this host; return the descriptor of its bell. Raises PlaneUnavailable."""
        ...

    def neighbours(self) -> Sequence[str]:
        """Return the hosts that can be rung on this node, this one among them."""
        ...

    def watch(self, instruments: Iterable[InstrumentId]) -> None:
        """Read these from now on; what lies there of them counts as new."""
        ...

    def hear(self) -> None:
        """Take up what was rung; nobody need ring until ``sleep``."""
        ...

    def wake(self) -> None:
        """Say that nobody need ring until ``sleep``."""
        ...

    def sleep(self, looked_mono_ns: int) -> None:
        """Ask to be rung for what comes; ``looked_mono_ns`` is when the last look began."""
        ...

    def look(self, *, is_all: bool = False) -> Sequence[TickBatch]:
        """Return what is new, one batch a feed; ``is_all`` looks everywhere, new boards too."""
        ...

    def close(self) -> None:
        """Take the bell down."""
        ...


class SnapshotSink(Protocol):
    """
    Where actors leave rows for Persistence; never waits.

    Under pressure only the newest statistic of each table and symbol stays; a row that is an
    event stays. At the bound the oldest goes, statistics first.
    """

    def put(self, row: Snapshot) -> None:
        """Leave one row."""
        ...


@runtime_checkable
class Metrics(Protocol):
    """Counters and gauges by declared name; labels as keywords."""

    def inc(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        ...

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        ...

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add a sample to a histogram; per batch or per sample, never per tick."""
        ...

    def unset(self, name: str, **labels: str) -> None:
        """Export a gauge no more until it is set again: its value is not known now."""
        ...


class MetricKind(enum.StrEnum):
    """What can be done with a metric."""

    COUNTER = "counter"  # only grows; inc
    GAUGE = "gauge"  # the value of now; set
    HISTOGRAM = "histogram"  # a distribution; observe, per batch or sample, never per tick


class MetricReading(msgspec.Struct, frozen=True):
    """One series as it stands, for an exporter."""

    name: str  # as exported, without a counter's suffix
    kind: MetricKind
    help: str
    labels: Mapping[str, str]  # ``actor`` among them
    buckets: tuple[float, ...] = ()
    value: float = 0.0  # a counter's total, a gauge's value
    samples: tuple[float, ...] = ()  # of a histogram, since the last reading; some, not all


class MetricsSource(Metrics, Protocol):
    """A process' metrics as those who export them see them."""

    def exposition(self) -> bytes:
        """Return all values in Prometheus' text format."""
        ...

    def pieces(self) -> Iterable[bytes]:
        """Return the same in pieces; between two of them an event loop may turn."""
        ...

    def readings(self) -> Iterable[MetricReading]:
        """Return every series; a histogram's samples are handed out once."""
        ...


class BookView(Protocol):
    """The newest books of a host, read by paper execution when an order arrives."""

    def levels(self, instrument: InstrumentId) -> tuple[Any, Any] | None:
        """Return ``(bids, asks)`` or None when the book is not there."""
        ...

    def is_fresh(self, instrument: InstrumentId) -> bool:
        """Tell whether the book's connection proved alive recently enough to fill against."""
        ...


class Execution(Protocol):
    """Orders by client id. The paper one is durable before it answers."""

    async def submit(self, owner_epoch: int, order: OrderRequest) -> OrderReport:
        """Send once, and wait for the venue's last word (immediate-or-cancel)."""
        ...

    async def query(self, owner_epoch: int, order: OrderRequest) -> OrderReport | None:
        """Ask for an order; None means that it was never accepted."""
        ...

    async def withdraw(self, owner_epoch: int, order: OrderRequest) -> OrderReport:
        """
        Return the last word on an order, and see to it that there is one.

        An order that was never accepted is accepted and cancelled at once: a submission that
        is still on its way finds its id used.
        """
        ...
