"""Recorded frames in one order of time, ready for a replay."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec

from arb_ray.actors.lockstep import CONNECTION, FrameIn
from arb_ray.adapters.storage.recordings import RecordedFrame, Wants, read_recording
from arb_ray.app.feeds import instruments_of, make_venue_feed
from arb_ray.app.registry import PairInstruments
from arb_ray.app.settings import Settings
from arb_ray.domain.errors import BadInput
from arb_ray.domain.instrument import InstrumentId, Venue, VenueSymbol

SAME_RUN_NS = 60 * 10**9
"""Files that begin within a minute of each other were recorded together and keep their distance;
others start each at its own first frame."""

PRICE_FRAMES_MAX = 20_000


class ReplayFrame(msgspec.Struct, frozen=True):
    """A frame at its time on the replay's clock."""

    at_ns: int
    venue: Venue
    raw: str
    snapshot_of: str = ""

    def to_feed(self) -> FrameIn:
        """Return what a feed is given."""
        return FrameIn(self.at_ns, self.raw, self.snapshot_of)


def read_frames(files: Sequence[Path], wants: Wants | None = None) -> Iterator[ReplayFrame]:
    """
    Merge the files by time; sent messages and replies other than books are left out.

    A frame that is not wanted comes all the same, with ``LEFT_OUT`` for its text.
    """
    first_ns = {file: _first_ns(file) for file in files}
    origin_ns = min(first_ns.values())
    streams = []
    for index, file in enumerate(files):
        together = first_ns[file] - origin_ns <= SAME_RUN_NS
        shift_ns = 0 if together else origin_ns - first_ns[file]
        streams.append(_keyed(file, index, shift_ns, wants))
    for _, _, _, frame in heapq.merge(*streams):
        yield frame


def _keyed(
    file: Path, index: int, shift_ns: int, wants: Wants | None
) -> Iterator[tuple[int, int, int, ReplayFrame]]:
    # Receive stamps may step back by a hair within a file; its own order is kept.
    last_ns = 0
    with read_recording(file, wants) as frames:
        for line, frame in enumerate(frames):
            replayed = _to_replay(file, frame, shift_ns)
            if replayed is None:
                continue
            if replayed.at_ns < last_ns:
                replayed = msgspec.structs.replace(replayed, at_ns=last_ns)
            last_ns = replayed.at_ns
            yield (last_ns, index, line, replayed)


def _to_replay(file: Path, frame: RecordedFrame, shift_ns: int) -> ReplayFrame | None:
    try:
        venue = Venue(frame.venue)
    except ValueError as error:
        raise BadInput(
            str(file), f"names an unknown venue {frame.venue!r}", f"Known: {', '.join(Venue)}"
        ) from error
    at_ns = frame.recv_ns + shift_ns
    if frame.request is None:
        return ReplayFrame(at_ns, venue, frame.raw)
    target = urlsplit(frame.request.partition(" ")[2])
    if not target.path.endswith("/depth"):
        return None
    symbol = parse_qs(target.query).get("symbol", [""])[0]
    return ReplayFrame(at_ns, venue, frame.raw, symbol) if symbol else None


def _first_ns(file: Path) -> int:
    with read_recording(file) as frames:
        for frame in frames:
            return frame.recv_ns
    raise BadInput(str(file), "holds no frame", "Name another recording")


def first_prices(
    settings: Settings, files: Sequence[Path], pairs: Sequence[PairInstruments]
) -> Mapping[str, Decimal]:
    """Return what one unit of each asset cost at first, USDT, for the opening inventory."""
    mids = _first_mids(settings, files, pairs)
    fx = mids.get(pairs[0].fx.id)
    prices: dict[str, Decimal] = {}
    for pair in pairs:
        krw, usdt = mids.get(pair.a.id), mids.get(pair.b.id)
        if usdt is not None:
            prices[pair.symbol] = usdt / pair.b.multiplier
        elif krw is not None and fx is not None:
            prices[pair.symbol] = krw / fx
    return prices


def _first_mids(
    settings: Settings, files: Sequence[Path], pairs: Sequence[PairInstruments]
) -> dict[InstrumentId, Decimal]:
    feeds = {
        venue: make_venue_feed(settings, venue, pairs, "replay")
        for venue in Venue
        if instruments_of(venue, pairs)
    }
    wanted = {i for pair in pairs for i in (pair.a.id, pair.b.id, pair.fx.id) if pair.has(i)}
    mids: dict[InstrumentId, Decimal] = {}
    for feed in feeds.values():
        for plan in feed.plans():
            feed.on_connected(plan.plan, CONNECTION, 0)
    for count, frame in enumerate(read_frames(files)):
        watching = feeds.get(frame.venue)
        if watching is None:
            continue
        if frame.snapshot_of:
            symbol = VenueSymbol(frame.snapshot_of)
            output = watching.on_snapshot(symbol, frame.raw, frame.at_ns, frame.at_ns)
        else:
            output = watching.on_frame(0, CONNECTION, frame.raw, frame.at_ns, frame.at_ns)
        for change in output.books:
            if change.bids and change.asks and change.instrument not in mids:
                mid = (Decimal(repr(change.bids[0][0])) + Decimal(repr(change.asks[0][0]))) / 2
                mids[change.instrument] = mid
        if len(mids) >= len(wanted) or count >= PRICE_FRAMES_MAX:
            break
    return mids
