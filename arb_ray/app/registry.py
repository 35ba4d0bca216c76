"""
The registry of coins: which symbol of which venue is which asset.

Read from ``config/instruments.yaml``. Trading rules and fees are not here: they come from
the venue, or from its dated fallback table, when the strategy starts.
"""

from __future__ import annotations

import datetime as dt
import difflib
import os
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from pydantic import Field, ValidationError

from arb_ray.app.config_files import config_dir, read_yaml
from arb_ray.app.settings_errors import BadSettings
from arb_ray.app.settings_fields import Section
from arb_ray.domain.errors import BadConfig, BadInput
from arb_ray.domain.instrument import Instrument, InstrumentId, Kind, Symbol, Venue, VenueSymbol
from arb_ray.domain.money import KRW, USDT, Asset

NS_PER_S = 1_000_000_000
LegB = Literal["spot", "perp"]

UpbitMarket = Annotated[str, Field(pattern=r"^KRW-[A-Z0-9]{1,20}$")]
BinanceSymbol = Annotated[str, Field(pattern=r"^[A-Z0-9]{1,20}USDT$")]


class Coin(Section):
    """One entry of the file."""

    name: str = Field(min_length=1, max_length=100)
    rank: int = Field(ge=1, le=10_000)
    upbit: UpbitMarket | None = None
    binance_spot: BinanceSymbol | None = None
    binance_usdm: BinanceSymbol | None = None
    multiplier: int = Field(default=1, ge=1, le=1_000_000)
    valid_from: dt.date | None = None
    note: str = Field(default="", max_length=500)

    @property
    def valid_from_ns(self) -> int:
        """First instant of the meaning, ns UTC; 0 where none came before."""
        if self.valid_from is None:
            return 0
        midnight = dt.datetime.combine(self.valid_from, dt.time(), tzinfo=dt.UTC)
        return int(midnight.timestamp()) * NS_PER_S


class FxEntry(Section):
    """The market that converts."""

    upbit: UpbitMarket


class Synthetic(Section):
    """How coins of the simulated exchanges are named: the prefix and three digits or more."""

    prefix: str = Field(pattern=r"^[A-Z]{2,10}$")
    max_count: int = Field(ge=0, le=10_000)

    def symbols(self) -> tuple[Symbol, ...]:
        """Return all of them, in order."""
        return tuple(Symbol(f"{self.prefix}{n:03d}") for n in range(1, self.max_count + 1))


class RegistryFile(Section):
    """The whole file."""

    version: Literal[1] = Field(alias="schema")
    fx: FxEntry
    synthetic: Synthetic
    refused: dict[str, str]
    instruments: dict[Annotated[str, Field(pattern=r"^[A-Z0-9]{1,20}$")], Coin]


class PairInstruments(msgspec.Struct, frozen=True):
    """The three markets of one symbol: Upbit, Binance, and the conversion."""

    symbol: Symbol
    a: Instrument
    b: Instrument
    fx: Instrument
    present: frozenset[InstrumentId] | None = None  # in a recording; None: all are

    def has(self, instrument: InstrumentId) -> bool:
        """Tell whether frames of this instrument will come."""
        return self.present is None or instrument in self.present


def absent_instruments(pairs: Iterable[PairInstruments]) -> frozenset[InstrumentId]:
    """Return the instruments of which no frame will come, because a recording lacks them."""
    return frozenset(
        instrument.id
        for pair in pairs
        for instrument in (pair.a, pair.b, pair.fx)
        if not pair.has(instrument.id)
    )


class Registry:
    """Answers which coins there are and what the venues call them."""

    def __init__(self, file: RegistryFile) -> None:
        self._coins = {Symbol(symbol): coin for symbol, coin in file.instruments.items()}
        self._refused = file.refused
        self._synthetic = frozenset(file.synthetic.symbols())
        self._ranked = sorted(self._coins, key=lambda symbol: self._coins[symbol].rank)
        self._fx = _upbit(Asset("USDT"), file.fx.upbit, 0)

    @property
    def symbols(self) -> tuple[Symbol, ...]:
        """All real coins, best rank first."""
        return tuple(self._ranked)

    @property
    def fx(self) -> Instrument:
        """KRW-USDT on Upbit."""
        return self._fx

    def coin(self, symbol: Symbol) -> Coin:
        """Return a real coin's entry. Raises BadInput."""
        if symbol not in self._coins:
            raise self._unknown(symbol, synthetic=False)
        return self._coins[symbol]

    def top(
        self, count: int, leg_b: LegB = "spot", *, synthetic: bool = False
    ) -> tuple[Symbol, ...]:
        """
        Return the first ``count`` coins that trade on both legs, best rank first.

        With ``synthetic``, coins of the simulated exchanges fill up what real ones lack.

        Raises:
            BadInput: There are not so many.
        """
        real = [symbol for symbol in self._ranked if self._missing_leg(symbol, leg_b) is None]
        names = real + (sorted(self._synthetic) if synthetic else [])
        if not 1 <= count <= len(names):
            problem = f"{count} coins were asked for, and the registry has {len(names)}"
            mend = f"Write a number from 1 to {len(names)}"
            if not synthetic:
                mend += "; source sim has more"
            raise BadInput("symbols", problem, mend)
        return tuple(names[:count])

    def wanted(self, symbols: str, leg_b: LegB, *, synthetic: bool = False) -> tuple[Symbol, ...]:
        """
        Return what the setting ``symbols`` names: ``"top:20"`` or ``"BTC,ETH"``.

        Raises:
            BadInput: A symbol is unknown, written twice, or lacks one of the legs.
        """
        if symbols.startswith("top:"):
            return self.top(int(symbols.removeprefix("top:")), leg_b, synthetic=synthetic)
        names = tuple(Symbol(name) for name in symbols.split(","))
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise BadInput("symbols", f"{', '.join(twice)} is written twice", "Write it once")
        self.instruments_for(names, leg_b, synthetic=synthetic)
        return names

    def instruments_for(
        self, symbols: Sequence[Symbol], leg_b: LegB, *, synthetic: bool = False
    ) -> tuple[PairInstruments, ...]:
        """
        Return the markets of each symbol.

        Raises:
            BadInput: A symbol is unknown, or is not traded on one of the legs.
        """
        return tuple(self._pair(symbol, leg_b, synthetic=synthetic) for symbol in symbols)

    def _pair(self, symbol: Symbol, leg_b: LegB, *, synthetic: bool) -> PairInstruments:
        if synthetic and symbol in self._synthetic:
            coin = Coin(
                name=symbol,
                rank=1,
                upbit=f"KRW-{symbol}",
                binance_spot=f"{symbol}USDT",
                binance_usdm=f"{symbol}USDT",
            )
        elif symbol in self._coins:
            coin = self._coins[symbol]
        else:
            raise self._unknown(symbol, synthetic=synthetic)
        missing = self._missing_leg(symbol, leg_b) if symbol in self._coins else None
        if missing:
            mend = "Leave it out, or choose the other leg_b"
            raise BadInput("symbols", f"{symbol} has no market on {missing}", mend)
        asset, valid_from_ns = Asset(symbol), coin.valid_from_ns
        assert coin.upbit is not None, "a missing leg was refused above"
        a = _upbit(asset, coin.upbit, valid_from_ns)
        b = _binance_spot(asset, coin) if leg_b == "spot" else _binance_usdm(asset, coin)
        return PairInstruments(symbol, a, b, self._fx)

    def _missing_leg(self, symbol: Symbol, leg_b: LegB) -> Venue | None:
        coin = self._coins[symbol]
        if coin.upbit is None:
            return Venue.UPBIT
        if leg_b == "spot":
            return Venue.BINANCE_SPOT if coin.binance_spot is None else None
        return Venue.BINANCE_USDM if coin.binance_usdm is None else None

    def _unknown(self, symbol: Symbol, *, synthetic: bool) -> BadInput:
        if symbol in self._refused:
            mend = "Choose another symbol"
            return BadInput(
                "symbols", f"{symbol} is not traded: {self._refused[symbol].rstrip('.')}", mend
            )
        if symbol in self._synthetic and not synthetic:
            problem = f"{symbol} is a coin of the simulated exchanges"
            return BadInput("symbols", problem, "Use it with source sim, or choose a real coin")
        near = difflib.get_close_matches(symbol, self._ranked, n=3, cutoff=0.5)
        problem = f"{symbol} is not in the registry"
        if near:
            return BadInput("symbols", problem, f"Did you mean {' or '.join(near)}?")
        return BadInput(
            "symbols",
            problem,
            f"Choose from config/instruments.yaml: {', '.join(self._ranked[:8])}, …",
        )


def load_registry(folder: Path | None = None) -> Registry:
    """
    Read ``instruments.yaml`` of the config folder.

    Raises:
        BadConfig: The file cannot be read, or an entry is impossible; all problems at once.
    """
    path = (config_dir(os.environ) if folder is None else folder) / "instruments.yaml"
    try:
        file = RegistryFile.model_validate(read_yaml(path))
    except ValidationError as error:
        problems = [
            BadConfig(
                f"{path.name}: {'.'.join(str(part) for part in detail['loc'])}",
                detail["msg"],
                "Correct the entry; the head of the file tells what each key means",
            )
            for detail in error.errors()
        ]
    else:
        problems = _impossible_entries(file, path.name)
    if len(problems) > 1:
        raise BadSettings(tuple(problems))
    if problems:
        raise problems[0]
    return Registry(file)


def _impossible_entries(file: RegistryFile, name: str) -> list[BadConfig]:
    problems = []
    seen: dict[tuple[str, object], str] = {}
    for symbol, coin in file.instruments.items():
        place = f"{name}: instruments.{symbol}"
        for key in ("rank", "upbit", "binance_spot", "binance_usdm"):
            value = getattr(coin, key)
            other = seen.setdefault((key, value), symbol)
            if value is not None and other != symbol:
                problem = f"{value} belongs to {other} already"
                problems.append(BadConfig(f"{place}.{key}", problem, "One coin each"))
        # 1INCH begins with a figure too, so only powers of ten from 1000 on are multipliers.
        written = re.match(r"10{3,6}(?=[A-Z])", coin.binance_usdm or "")
        multiplier = int(written.group()) if written else 1
        if multiplier != coin.multiplier:
            problem = f"{coin.multiplier} does not fit the symbol {coin.binance_usdm}"
            problems.append(BadConfig(f"{place}.multiplier", problem, f"Write {multiplier}"))
        if symbol in file.refused:
            problems.append(BadConfig(place, "is in the list `refused` too", "Keep one of them"))
    return problems


def _upbit(asset: Asset, market: str, valid_from_ns: int) -> Instrument:
    return Instrument(
        id=InstrumentId(f"{Venue.UPBIT}:{asset}-{KRW}"),
        asset=asset,
        quote=KRW,
        venue=Venue.UPBIT,
        kind=Kind.SPOT,
        venue_symbol=VenueSymbol(market),
        valid_from_ns=valid_from_ns,
    )


def _binance_spot(asset: Asset, coin: Coin) -> Instrument:
    assert coin.binance_spot is not None, "a missing leg was refused before"
    return Instrument(
        id=InstrumentId(f"{Venue.BINANCE_SPOT}:{asset}-{USDT}"),
        asset=asset,
        quote=USDT,
        venue=Venue.BINANCE_SPOT,
        kind=Kind.SPOT,
        venue_symbol=VenueSymbol(coin.binance_spot),
        valid_from_ns=coin.valid_from_ns,
    )


def _binance_usdm(asset: Asset, coin: Coin) -> Instrument:
    assert coin.binance_usdm is not None, "a missing leg was refused before"
    return Instrument(
        id=InstrumentId(f"{Venue.BINANCE_USDM}:{asset}-{USDT}-PERP"),
        asset=asset,
        quote=USDT,
        venue=Venue.BINANCE_USDM,
        kind=Kind.PERP,
        venue_symbol=VenueSymbol(coin.binance_usdm),
        multiplier=Decimal(coin.multiplier),
        valid_from_ns=coin.valid_from_ns,
    )
