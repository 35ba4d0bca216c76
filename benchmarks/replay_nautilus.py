"""
nautilus_trader's backtest over quotes, run by itself: its packages need not be beside ours.

    python replay_nautilus.py UPDATES.json

The file holds ``[[instrument, at_ns, bid, ask, size], ...]``. The strategy keeps the newest quote
of each instrument and works out both directions' edge of the coin that moved. One line of JSON
tells the CPU seconds of the run, how often the strategy was called, and the version.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import nautilus_trader
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.config import LoggingConfig
from nautilus_trader.model.currencies import BTC, USDT
from nautilus_trader.model.data import QuoteTick
from nautilus_trader.model.enums import AccountType, OmsType
from nautilus_trader.model.identifiers import InstrumentId, Symbol, Venue
from nautilus_trader.model.instruments import CurrencyPair
from nautilus_trader.model.objects import Money, Price, Quantity
from nautilus_trader.trading.strategy import Strategy

PRECISION = 4
FX = "KRWUSDT.UPBIT"


class Edges(Strategy):  # type: ignore[misc]  # untyped where it is not installed
    """Prices both directions at best prices at every quote, and finds that nothing pays."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names
        self.quotes: dict[str, tuple[float, float]] = {}
        self.calls = self.found = 0

    def on_start(self) -> None:
        """Ask for every quote."""
        for name in self.names:
            self.subscribe_quote_ticks(InstrumentId.from_str(name))

    def on_quote_tick(self, tick: QuoteTick) -> None:
        """Look at what moved."""
        self.calls += 1
        name = str(tick.instrument_id)
        self.quotes[name] = (float(tick.bid_price), float(tick.ask_price))
        if name == FX:
            return  # as ours: F alone, within its bounds, is no reason to look
        coin = name.partition(".")[0]
        u, n = self.quotes.get(f"{coin}.UPBIT"), self.quotes.get(f"{coin}.BINANCE")
        f = self.quotes.get(FX)
        if u is None or n is None or f is None:
            return
        ab = n[0] * f[0] / u[1] - 1 - (u[1] - u[0]) / u[1] - (n[1] - n[0]) / n[0]
        ba = u[0] / (n[1] * f[1]) - 1 - (u[1] - u[0]) / u[0] - (n[1] - n[0]) / n[1]
        if ab > 0.0037 or ba > 0.0037:
            self.found += 1


def main(path: Path) -> None:
    """Run once and tell."""
    rows = json.loads(path.read_text())
    names = sorted({row[0] for row in rows})
    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True)))
    for venue in ("UPBIT", "BINANCE"):
        engine.add_venue(
            venue=Venue(venue),
            oms_type=OmsType.NETTING,
            account_type=AccountType.CASH,
            base_currency=None,
            starting_balances=[Money(1_000_000, USDT)],
        )
    for name in names:
        engine.add_instrument(_instrument(name))
    engine.add_data([_quote(*row) for row in rows])
    strategy = Edges(names)
    engine.add_strategy(strategy)
    began = time.process_time()
    engine.run()
    told = {
        "cpu_s": time.process_time() - began,
        "calls": strategy.calls,
        "version": nautilus_trader.__version__,
    }

    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def _instrument(name: str) -> CurrencyPair:
    unit = 10**-PRECISION
    return CurrencyPair(
        instrument_id=InstrumentId.from_str(name),
        raw_symbol=Symbol(name.partition(".")[0]),
        base_currency=BTC,
        quote_currency=USDT,
        price_precision=PRECISION,
        size_precision=PRECISION,
        price_increment=Price(unit, PRECISION),
        size_increment=Quantity(unit, PRECISION),
        ts_event=0,
        ts_init=0,
    )


def _quote(name: str, at_ns: int, bid: float, ask: float, size: float) -> QuoteTick:
    amount = Quantity(size, PRECISION)
    return QuoteTick(
        InstrumentId.from_str(name),
        Price(bid, PRECISION),
        Price(ask, PRECISION),
        amount,
        amount,
        at_ns,
        at_ns,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
