"""
What can be watched and traded in recordings: the instruments whose frames they hold.

A symbol with one leg only is watched, not traded; its missing leg is named all the same, so
that the gates say ``book_missing`` and nothing else is special about it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import msgspec

from arb_ray.adapters.storage.recordings import read_recording
from arb_ray.adapters.venues.binance import codec as binance_codec
from arb_ray.adapters.venues.upbit import codec as upbit_codec
from arb_ray.app.registry import PairInstruments, load_registry
from arb_ray.app.settings import Settings
from arb_ray.domain.errors import BadInput, MalformedFrame
from arb_ray.domain.instrument import Instrument, InstrumentId, Kind, Symbol, Venue, VenueSymbol
from arb_ray.domain.money import KRW, USDT, Asset
from arb_ray.engine.market_event import BookDiff, FullBook, MarketEvent, TopOfBook

FRAMES_LOOKED_AT = 20_000
"""Frames of each file in which its symbols are looked for; at 30 a second that is ten minutes."""


class Contents(msgspec.Struct):
    """What recordings hold: symbols with books by venue, and the richest form of Binance's."""

    symbols: dict[Venue, set[VenueSymbol]]
    has_diffs: set[Venue]
    has_full_books: set[Venue]

    def depth_modes(self) -> dict[str, str]:
        """Return the settings that read Binance's books from what is there."""
        modes: dict[str, str] = {}
        for venue in (Venue.BINANCE_SPOT, Venue.BINANCE_USDM):
            if venue in self.has_diffs:
                modes[f"venues.{venue}.depth_mode"] = "diff"
            elif venue in self.symbols and venue not in self.has_full_books:
                modes[f"venues.{venue}.depth_mode"] = "top"
        return modes


def contents_of(files: Iterable[Path]) -> Contents:
    """Look into the files. Raises BadInput."""
    found = Contents(defaultdict(set), set(), set())
    for file in files:
        with read_recording(file) as frames:
            for frame in islice(frames, FRAMES_LOOKED_AT):
                if frame.request is None:
                    venue = _venue(file, frame.venue)
                    for event in _events_in(venue, frame.raw):
                        _note(found, venue, event)
    return found


def _note(found: Contents, venue: Venue, event: MarketEvent) -> None:
    if isinstance(event, FullBook | BookDiff | TopOfBook):
        found.symbols[venue].add(event.venue_symbol)
    if isinstance(event, BookDiff):
        found.has_diffs.add(venue)
    elif isinstance(event, FullBook):
        found.has_full_books.add(venue)


def _venue(file: Path, name: str) -> Venue:
    try:
        return Venue(name)
    except ValueError as error:
        known = ", ".join(Venue)
        raise BadInput(str(file), f"names an unknown venue {name!r}", f"Known: {known}") from error


def _events_in(venue: Venue, raw: str) -> tuple[MarketEvent, ...]:
    try:
        if venue is Venue.UPBIT:
            return upbit_codec.decode(raw)
        return binance_codec.decode(raw, venue)
    except MalformedFrame:
        return ()  # the feed counts it and shows an excerpt


def recorded_depth(settings: Settings) -> dict[str, str]:
    """Return the settings that fit the recordings; none for other sources."""
    if settings.source not in ("recorded", "replay"):
        return {}
    return contents_of(Path(file) for file in settings.recording.files).depth_modes()


def pairs_of_recordings(settings: Settings) -> tuple[PairInstruments, ...]:
    """
    Return a pair for every asset of the recordings, with what is there in ``present``.

    Raises:
        BadInput: A file cannot be read, or nothing in it is quoted in KRW or USDT.
    """
    held = contents_of(Path(file) for file in settings.recording.files).symbols
    present: defaultdict[Symbol, dict[Venue, Instrument]] = defaultdict(dict)
    for venue_name, codes in held.items():
        for code in codes:
            found = _instrument(Venue(venue_name), code)
            if found is not None and found.asset != USDT:
                present[Symbol(found.asset)][found.venue] = found
    if not present:
        raise BadInput(
            "recording.files", "they hold no market in KRW or USDT", "Name other recordings"
        )
    fx = load_registry().fx
    has_fx = fx.venue_symbol in held.get(Venue.UPBIT, ())
    pairs = [_pair(settings, symbol, legs, fx, has_fx=has_fx) for symbol, legs in present.items()]
    return tuple(sorted(_chosen(settings, pairs), key=lambda pair: pair.symbol))


def _chosen(settings: Settings, pairs: list[PairInstruments]) -> Iterable[PairInstruments]:
    if settings.symbols.startswith("top:"):
        return pairs[: int(settings.symbols.removeprefix("top:"))]
    wanted = settings.symbols.split(",")
    known = {str(pair.symbol) for pair in pairs}
    missing = [symbol for symbol in wanted if symbol not in known]
    if missing:
        raise BadInput(
            "symbols",
            f"{missing[0]} is not in the recordings",
            f"Choose from {', '.join(sorted(known))}",
        )
    return [pair for pair in pairs if pair.symbol in wanted]


def _pair(
    settings: Settings,
    symbol: Symbol,
    legs: dict[Venue, Instrument],
    fx: Instrument,
    *,
    has_fx: bool,
) -> PairInstruments:
    first_b = Venue.BINANCE_SPOT if settings.leg_b == "spot" else Venue.BINANCE_USDM
    other_b = Venue.BINANCE_USDM if settings.leg_b == "spot" else Venue.BINANCE_SPOT
    a = legs.get(Venue.UPBIT)
    b = legs.get(first_b) or legs.get(other_b)
    present = [found.id for found in (a, b) if found is not None]
    if has_fx:
        present.append(fx.id)
    return PairInstruments(
        symbol,
        a or _upbit(Asset(symbol)),
        b or _binance(first_b, Asset(symbol)),
        fx,
        frozenset(present),
    )


def _instrument(venue: Venue, code: VenueSymbol) -> Instrument | None:
    """Return the instrument of a recorded code; None when it is quoted in something else."""
    if venue is Venue.UPBIT:
        quote, _, asset = code.partition("-")
        return _upbit(Asset(asset)) if quote == KRW else None
    if not code.endswith("USDT"):
        return None
    return _binance(venue, Asset(code.removesuffix("USDT")))


def _upbit(asset: Asset) -> Instrument:
    return Instrument(
        InstrumentId(f"upbit:{asset}-KRW"),
        asset,
        KRW,
        Venue.UPBIT,
        Kind.SPOT,
        VenueSymbol(f"KRW-{asset}"),
    )


def _binance(venue: Venue, asset: Asset) -> Instrument:
    is_perp = venue is Venue.BINANCE_USDM
    suffix = "-PERP" if is_perp else ""
    return Instrument(
        InstrumentId(f"{venue}:{asset}-USDT{suffix}"),
        asset,
        USDT,
        venue,
        Kind.PERP if is_perp else Kind.SPOT,
        VenueSymbol(f"{asset}USDT"),
    )
