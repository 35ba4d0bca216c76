"""
hftbacktest over quotes, run by itself: its packages need not be beside ours.

    python replay_hftbacktest.py UPDATES.json

The file holds ``[[instrument, at_ns, bid, ask, size], ...]``. The strategy is compiled, as
hftbacktest's are: at each feed it looks which best prices moved, and works out both directions'
edge of that coin. One line of JSON tells the CPU seconds of the run without the compilation, how
many quotes the strategy saw move, and the version.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from hftbacktest import BacktestAsset, HashMapMarketDepthBacktest
from hftbacktest.types import (
    BUY_EVENT,
    DEPTH_EVENT,
    EXCH_EVENT,
    LOCAL_EVENT,
    SELL_EVENT,
    event_dtype,
)
from numba import njit

TICK = 10**-4
LOT = 10**-4
FX = "KRWUSDT.UPBIT"
FOREVER_NS = 10**15
FEED = 2
"""What ``wait_next_feed`` returns for a feed."""


def edges(backtest: Any, assets: int) -> tuple[int, int]:
    """Price both directions of a coin when one of its quotes moves; F is the last asset."""
    # Assets 2k and 2k + 1 are a coin's markets, and the last one is F.
    bids, asks = np.zeros(assets), np.zeros(assets)
    moved = found = 0
    while backtest.wait_next_feed(False, FOREVER_NS) == FEED:
        for number in range(assets):
            depth = backtest.depth(number)
            bid, ask = depth.best_bid, depth.best_ask
            if not bid > 0 or not ask > 0 or (bid == bids[number] and ask == asks[number]):
                continue
            bids[number], asks[number] = bid, ask
            moved += 1
            u = number - number % 2
            f_bid, f_ask = bids[assets - 1], asks[assets - 1]
            if number == assets - 1 or bids[u] == 0 or bids[u + 1] == 0 or f_bid == 0:
                continue
            u_bid, u_ask, n_bid, n_ask = bids[u], asks[u], bids[u + 1], asks[u + 1]
            u_wide, n_wide = u_ask - u_bid, n_ask - n_bid
            ab = n_bid * f_bid / u_ask - 1 - u_wide / u_ask - n_wide / n_bid
            ba = u_bid / (n_ask * f_ask) - 1 - u_wide / u_bid - n_wide / n_ask
            if ab > 0.0037 or ba > 0.0037:
                found += 1
    return moved, found


def main(path: Path) -> None:
    """Run twice, the first time to compile, and tell of the second."""
    rows = json.loads(path.read_text())
    coins = sorted({row[0].partition(".")[0] for row in rows} - {FX.partition(".")[0]})
    names = [f"{coin}.{venue}" for coin in coins for venue in ("UPBIT", "BINANCE")] + [FX]
    data = {name: _events([row for row in rows if row[0] == name]) for name in names}
    compiled: Any = njit(edges)
    cpu_s, moved = 0.0, 0
    for _ in range(2):
        backtest = HashMapMarketDepthBacktest([_asset(data[name]) for name in names])
        began = time.process_time()
        moved, _ = compiled(backtest, len(names))
        cpu_s = time.process_time() - began
        backtest.close()
    told = {"cpu_s": cpu_s, "calls": moved, "version": version("hftbacktest")}
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def _events(rows: list[tuple[str, int, float, float, float]]) -> Any:
    """Return the changes of both best prices, those of a quote at one instant."""
    changes: list[tuple[int, int, float, float]] = []
    last: dict[int, float] = {}
    for _, at_ns, bid, ask, size in rows:
        for side, price in ((BUY_EVENT, bid), (SELL_EVENT, ask)):
            if last.get(side, price) != price:
                changes.append((side, at_ns, last[side], 0.0))
            changes.append((side, at_ns, price, size))
            last[side] = price
    events = np.zeros(len(changes), event_dtype)
    events["ev"] = [DEPTH_EVENT | EXCH_EVENT | LOCAL_EVENT | side for side, *_ in changes]
    events["exch_ts"] = events["local_ts"] = [at_ns for _, at_ns, *_ in changes]
    events["px"] = [price for _, _, price, _ in changes]
    events["qty"] = [size for *_, size in changes]
    return events


def _asset(events: Any) -> Any:
    return (
        BacktestAsset()
        .data(events)
        .linear_asset(1.0)
        .constant_order_latency(0, 0)
        .no_partial_fill_exchange()
        .trading_value_fee_model(0.0005, 0.0005)
        .tick_size(TICK)
        .lot_size(LOT)
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
