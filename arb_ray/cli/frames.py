"""
``arb-ray frames``: captured frames through the codecs and books, without sockets or Ray.

The rebuilt book's best bid and ask are compared with every bookTicker of the same update id,
whichever of the two came first: two accounts of one moment that the venue gave separately.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from arb_ray.adapters.storage.recordings import WS_SEND, RecordedFrame, read_recording
from arb_ray.adapters.venues.binance import codec as binance_codec
from arb_ray.adapters.venues.binance import rules as binance_rules
from arb_ray.adapters.venues.upbit import codec as upbit_codec
from arb_ray.adapters.venues.upbit import rules as upbit_rules
from arb_ray.app.exit_codes import ExitCode, sentence
from arb_ray.domain.book import Levels
from arb_ray.domain.errors import ArbError, BadInput, MalformedFrame
from arb_ray.domain.instrument import Venue, VenueSymbol
from arb_ray.engine.book_builder import Continuity, DiffBook, FullBookState, Outcome
from arb_ray.engine.clock_offset import ClockOffset
from arb_ray.engine.market_event import (
    BookDiff,
    FullBook,
    MarketEvent,
    MarkPrice,
    Ticker,
    TopOfBook,
    TradePrint,
    UnknownMessage,
    VenueError,
)

MAX_WAITING_TICKERS = 200_000
"""Per symbol: bookTickers that wait for the book, a quarter of an hour of the busiest. Beyond
it the oldest go uncompared."""

MAX_KEPT_TOPS = 20_000
"""Per symbol: tops of the book that wait for a late bookTicker; half an hour of diffs."""

CLOCK_WINDOW_NS = 2**62
"""One window over the whole file: a recording is short."""
CLOCK_SAMPLES = 100_000

FRAMES_PER_PROGRESS = 5_000

Top = tuple[float, float, float, float]
"""Best bid and its size, best ask and its size; zeros for an empty side."""


class FileReport(msgspec.Struct, frozen=True):
    """What one file (one venue of it) holds, as the JSON says it."""

    file: str
    venue: str
    frames: dict[str, int]  # by the venue's own names, REST replies included
    unknown: int
    malformed: int
    symbols: list[str]
    gaps: int  # breaks of sequence, and books that came out crossed
    books_rebuilt: int  # symbols whose book was put together
    compared: int
    mismatches: int
    clock_offset_ms: float  # venue's clock minus the recorder's: positive, recorder behind
    clock_jitter_ms: float  # median latency above the fastest frame's
    frames_per_s: float  # of this run, reading included

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found that exit code 1 stands for."""
        return not (self.gaps or self.mismatches or self.malformed)


class TopMatcher:
    """Pairs the book's top and the bookTicker of the same update id, in any order."""

    def __init__(self) -> None:
        self.compared = 0
        self.mismatches = 0
        self._tops: OrderedDict[int, Top] = OrderedDict()
        self._tickers: OrderedDict[int, list[Top]] = OrderedDict()

    def on_book(self, update_id: int, top: Top) -> None:
        """Take the book's top after ``update_id``."""
        for ticker in self._tickers.pop(update_id, ()):
            self._compare(top, ticker)
        # Ids only grow, so the book has passed whatever lies before this one.
        while self._tickers and next(iter(self._tickers)) < update_id:
            self._tickers.popitem(last=False)
        self._tops[update_id] = top
        if len(self._tops) > MAX_KEPT_TOPS:
            self._tops.popitem(last=False)

    def on_ticker(self, update_id: int, ticker: Top) -> None:
        """Take a bookTicker."""
        if (top := self._tops.get(update_id)) is not None:
            self._compare(top, ticker)
            return
        self._tickers.setdefault(update_id, []).append(ticker)
        if len(self._tickers) > MAX_WAITING_TICKERS:
            self._tickers.popitem(last=False)

    def _compare(self, top: Top, ticker: Top) -> None:
        self.compared += 1
        self.mismatches += top != ticker


class SymbolBook:
    """One symbol's book of a recording, by diffs or whole, and its comparison."""

    def __init__(self, rule: Continuity | None) -> None:
        self.matcher = TopMatcher()
        self.gaps = 0
        self.is_rebuilt = False
        # Recorded snapshots are of any size, and nothing is refreshed here.
        self._diffs = DiffBook(rule) if rule is not None else None
        self._whole = FullBookState()

    def take_diff(self, diff: BookDiff) -> None:
        """Apply a diff."""
        assert self._diffs is not None, "only Binance sends diffs"
        self._follow(self._diffs.apply(diff))

    def take_snapshot(self, snapshot: FullBook) -> None:
        """Start the book, unless it is running: then the diffs alone must carry it."""
        if self._diffs is None or self._diffs.is_synced:
            return
        self._follow(self._diffs.load(snapshot))
        for outcome in self._diffs.replay():
            self._follow(outcome)

    def take_whole(self, book: FullBook) -> None:
        """Take a whole book in place of the last one."""
        if self._whole.replace(book) is Outcome.APPLIED:
            self.is_rebuilt = True
            if book.update_id:
                self.matcher.on_book(book.update_id, _top_of(book.bids, book.asks))

    def take_ticker(self, top: TopOfBook) -> None:
        """Take a bookTicker."""
        self.matcher.on_ticker(top.update_id, (top.bid, top.bid_qty, top.ask, top.ask_qty))

    def _follow(self, outcome: Outcome) -> None:
        assert self._diffs is not None
        if outcome is Outcome.APPLIED:
            self.is_rebuilt = True
            self.matcher.on_book(self._diffs.update_id, _top_of(*self._diffs.core_top()))
        elif outcome in {Outcome.GAP, Outcome.CROSSED}:
            self.gaps += 1


class VenueCheck:
    """Everything that one venue said in one file."""

    def __init__(self, venue: Venue) -> None:
        self.frames_total = 0
        self.unknown_kinds: Counter[str] = Counter()
        self.faults: list[MalformedFrame] = []  # the first few, for people
        self._venue = venue
        self._frames: Counter[str] = Counter()
        self._malformed = 0
        self._books: dict[VenueSymbol, SymbolBook] = {}
        self._clock = ClockOffset(CLOCK_WINDOW_NS, CLOCK_SAMPLES)
        self._kind_of: Callable[[MarketEvent], str] = binance_codec.kind_of
        self._rule: Continuity | None = Continuity.SPOT
        if venue is Venue.UPBIT:
            self._kind_of, self._rule = upbit_codec.kind_of, None
        elif venue is Venue.BINANCE_USDM:
            self._rule = Continuity.USDM

    def take(self, frame: RecordedFrame) -> None:
        """Take the next frame of the file."""
        self.frames_total += 1
        try:
            if frame.request is None:
                for event in self._decode(frame.raw):
                    self._take_event(event, frame.recv_ns)
            else:
                self._take_reply(frame.request, frame.raw)
        except MalformedFrame as fault:
            self._malformed += 1
            if len(self.faults) < 5:
                self.faults.append(fault)

    def report(self, file: str, seconds: float) -> FileReport:
        """Sum up."""
        clock = self._clock.estimate()
        books = self._books.values()
        return FileReport(
            file=file,
            venue=self._venue,
            frames=dict(sorted(self._frames.items())),
            unknown=self.unknown_kinds.total(),
            malformed=self._malformed,
            symbols=sorted(self._books),
            gaps=sum(book.gaps for book in books),
            books_rebuilt=sum(book.is_rebuilt for book in books),
            compared=sum(book.matcher.compared for book in books),
            mismatches=sum(book.matcher.mismatches for book in books),
            clock_offset_ms=round(clock.offset_ms, 3),
            clock_jitter_ms=round(clock.jitter_ms, 3),
            frames_per_s=round(self.frames_total / seconds, 1) if seconds > 0 else 0.0,
        )

    def _decode(self, raw: str) -> tuple[MarketEvent, ...]:
        if self._venue is Venue.UPBIT:
            return upbit_codec.decode(raw)
        return binance_codec.decode(raw, self._venue)

    def _book(self, symbol: VenueSymbol) -> SymbolBook:
        book = self._books.get(symbol)
        if book is None:
            book = self._books[symbol] = SymbolBook(self._rule)
        return book

    def _take_event(self, event: MarketEvent, recv_ns: int) -> None:
        if isinstance(event, UnknownMessage):
            self.unknown_kinds[event.kind] += 1
            return
        self._frames[self._kind_of(event)] += 1
        match event:
            case BookDiff():
                self._book(event.venue_symbol).take_diff(event)
            case TopOfBook():
                self._book(event.venue_symbol).take_ticker(event)
            case FullBook():
                self._book(event.venue_symbol).take_whole(event)
            case TradePrint() | Ticker() | MarkPrice():
                self._book(event.venue_symbol)  # the symbol was seen
            case _:
                return
        # A snapshot is stamped with the moment of its last change, which may be long ago.
        if not getattr(event, "is_snapshot", False):
            # A recording has no monotonic stamps: its clock is taken for one that nobody set.
            self._clock.observe(event.exchange_ns, recv_ns, recv_ns)

    def _take_reply(self, request: str, raw: str) -> None:
        if request == WS_SEND:
            self._frames[WS_SEND] += 1
            return
        address = urlsplit(request.removeprefix("GET "))
        name = address.path.rpartition("/")[2]
        if self._is_refusal(raw):
            self._frames["REST error"] += 1
            return
        match self._venue, name:
            case Venue.UPBIT, "all":
                upbit_rules.parse_markets(raw)
                name = "market/all"
            case Venue.UPBIT, "instruments":
                upbit_rules.parse_ticks(raw)
            case ((Venue.BINANCE_SPOT | Venue.BINANCE_USDM), "exchangeInfo"):
                binance_rules.parse_exchange_info(raw, self._venue)
            case ((Venue.BINANCE_SPOT | Venue.BINANCE_USDM), "depth"):
                symbol = VenueSymbol("".join(parse_qs(address.query).get("symbol", [])))
                snapshot = binance_codec.decode_snapshot(raw, symbol, self._venue)
                self._book(symbol).take_snapshot(snapshot)
            case _:
                pass  # a reply that needs no reading here is counted by its name
        self._frames[f"REST {name}"] += 1

    def _is_refusal(self, raw: str) -> bool:
        # Replies are recorded whatever their status; an error has a short body of its own.
        if not raw.startswith("{") or len(raw) > 2_000:
            return False
        try:
            return any(isinstance(event, VenueError) for event in self._decode(raw))
        except MalformedFrame:
            return False  # the reader of that reply will say what is wrong


def run(files: Sequence[str | Path], *, json: bool) -> int:
    """
    Check recordings and print what they hold.

    With ``json`` stdout gets one line, an object; otherwise a table. Progress and complaints
    go to stderr.

    Returns:
        0 when all is well, 1 on any gap, mismatch or malformed frame, 3 when a file cannot
        be read.
    """
    errors = Console(stderr=True)
    reports: list[FileReport] = []
    try:
        with Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=errors,
            transient=True,
            disable=not errors.is_terminal,
        ) as progress:
            for file in files:
                reports.extend(_check_file(Path(file), progress, errors))
    except ArbError as fault:
        errors.print(
            f"arb-ray frames: {sentence(fault)}", markup=False, highlight=False, soft_wrap=True
        )
        return ExitCode.UNAVAILABLE
    if json:
        sys.stdout.write(msgspec.json.encode({"files": reports}).decode() + "\n")
    else:
        _print_table(reports)
    return ExitCode.CLEAN if all(report.is_clean for report in reports) else ExitCode.FOUND


def _check_file(path: Path, progress: Progress, errors: Console) -> list[FileReport]:
    checks: dict[str, VenueCheck] = {}
    task = progress.add_task(path.name, total=None)
    begin_s = time.perf_counter()
    with read_recording(path) as recording:
        for count, frame in enumerate(recording, 1):
            check = checks.get(frame.venue)
            if check is None:
                check = checks[frame.venue] = VenueCheck(_venue_of(frame.venue, path))
            check.take(frame)
            if count % FRAMES_PER_PROGRESS == 0:
                progress.update(task, description=f"{path.name}: {count:,} frames")
        truncated = recording.truncated
    seconds = time.perf_counter() - begin_s
    progress.update(task, visible=False)
    if truncated is not None:
        _tell(errors, f"warning: {truncated}")
    for venue, check in checks.items():
        for fault in check.faults:
            _tell(errors, f"{path.name}: {fault}")
        if check.unknown_kinds:
            kinds = ", ".join(f"{kind} {n}" for kind, n in check.unknown_kinds.most_common(10))
            _tell(errors, f"{path.name}: {venue} sent types that arb_ray does not read: {kinds}")
    return [check.report(str(path), seconds) for check in checks.values()]


def _venue_of(name: str, path: Path) -> Venue:
    try:
        return Venue(name)
    except ValueError:
        names = ", ".join(Venue)
        raise BadInput(str(path), f"venue {name[:40]!r} is unknown", f"Known: {names}") from None


def _top_of(bids: Levels, asks: Levels) -> Top:
    bid, bid_qty = bids[0] if bids else (0.0, 0.0)
    ask, ask_qty = asks[0] if asks else (0.0, 0.0)
    return bid, bid_qty, ask, ask_qty


def _tell(errors: Console, text: str) -> None:
    errors.print(text, markup=False, highlight=False, soft_wrap=True)


def _print_table(reports: Sequence[FileReport]) -> None:
    table = Table(show_header=False, title="Recorded frames", title_justify="left")
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for report in reports:
        for row in _rows(report):
            table.add_row(*row)
        table.add_section()
    Console().print(table)


def _rows(report: FileReport) -> Iterator[tuple[str, str]]:
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in report.frames.items())
    behind = "recorder behind" if report.clock_offset_ms > 0 else "recorder ahead, or latency"
    yield report.venue, f"[bold]{escape(Path(report.file).name)}[/bold]"
    yield "frames", f"{escape(kinds)}; {_marked(report.malformed)} malformed"
    yield "unknown", f"{report.unknown:,}"
    yield "books", f"{report.books_rebuilt} of {len(report.symbols)} symbols rebuilt"
    yield "gaps", _marked(report.gaps)
    yield (
        "compared",
        f"{report.compared:,} with bookTicker, {_marked(report.mismatches)} mismatches",
    )
    yield (
        "clock",
        f"{report.clock_offset_ms:+,.1f} ms ({behind}), jitter {report.clock_jitter_ms:.1f}",
    )
    yield "speed", f"{report.frames_per_s:,.0f} frames/s"


def _marked(faults: int) -> str:
    return f"[bold red]{faults:,}[/bold red]" if faults else "0"
