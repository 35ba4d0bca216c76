"""
What a look at the market costs: gates, prices over depth, a decision; and an update all in.

    python -m benchmarks.strategy --check
    python -m benchmarks.strategy --symbols 10 --repeats 5 --json

One process, no socket, no Ray: a strategy host of the program's own wiring, books of ten levels a
side, and batches in hand as a plane gives them. Figures are CPU time of this thread, so that other
processes cost them caches and clock and nothing else. All take turns in every round; medians over
the rounds are told. "Bare arithmetic" prices both directions at best prices from local variables:
the least that any strategy in Python does, and the yardstick for a machine that is busy.

"An update, nothing to do" is the whole way of a batch with one book from the host's door to its
answer, on a symbol on which nothing pays: view, freshness, bounds, counters, latency. "F" is one
KRW-USDT book, which concerns every symbol of the host.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import time
from collections.abc import Callable, Sequence

import msgspec
from rich.console import Console
from rich.table import Table

from arb_ray.actors.strategy_host import StrategyHost
from arb_ray.adapters.clock import SystemClock
from arb_ray.engine.evaluation import Evaluation
from arb_ray.engine.gates import (
    Standing,
    freshness_refusal,
    sanity_refusal,
    standing_refusal,
)
from arb_ray.engine.market_view import LiveBook, MarketView
from arb_ray.engine.spread import both_directions, target_qty
from arb_ray.engine.strategy import SymbolStrategy
from arb_ray.engine.strategy_params import GateLimits
from benchmarks.budgets import Verdict, add_outputs, at_most, count, finish, judged
from benchmarks.side_by_side import Contender, Figures, machine, side_by_side, versions
from benchmarks.strategy_stage import Market, settings_of, start_host

GATES_MAX_US = 2.0
"""All gates of an entry, on books that pass them (issue 6)."""

DECISION_MAX_US = 25.0
"""From three books of ten levels to an opportunity, over three sizes (issue 6)."""

UPDATE_MAX_US = 12.0
"""A batch of one book on a quiet symbol, from the host's door to its answer."""

CALLS = 2_000
UPDATES = 400
FX_UPDATES = 20
EDGE_BPS = 80

NAMES = {
    "bare": "bare arithmetic, both directions at best prices",
    "gates": "gates only",
    "spread": "both directions at size over depth",
    "quiet": "evaluation, prices within bounds",
    "top": "evaluation, no edge at best prices",
    "decision": "full decision: an opportunity, three sizes",
    "update": "an update, nothing to do, all in",
    "batched": "the same, eight books a batch, each",
    "fx": "F within bounds, all symbols of the host",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, judge, tell; return the exit code."""
    said = _parser().parse_args(arguments)
    console = Console(stderr=True)
    before = machine()
    found = side_by_side(_contenders(said.symbols), repeats=said.repeats)
    verdicts = _judge(found)
    console.print(_table(said, found), judged(verdicts), highlight=False)
    told = {
        "symbols": said.symbols,
        "repeats": said.repeats,
        "unit": "us of CPU",
        "machine": before,
        "versions": versions("msgspec"),
        "figures": {name: msgspec.to_builtins(one) for name, one in found.items()},
    }
    return finish(said, told, verdicts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.strategy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--symbols", type=count, default=50, metavar="N", help="on the host (50)")
    parser.add_argument("--repeats", type=count, default=21, metavar="N", help="rounds (21)")
    add_outputs(parser)
    return parser


def _contenders(symbols: int) -> list[Contender]:
    host = asyncio.run(start_host(settings_of(symbols)))
    market = Market(list(host.runners.values()))
    for batch in market.opening():
        host.apply(batch)
    host.sweep()
    return [*_of_one_symbol(host, market), *_of_the_host(host, market)]


def _of_one_symbol(host: StrategyHost, market: Market) -> list[Contender]:
    """Return what is asked of one symbol's brain, on books of its own."""
    runner = next(iter(host.runners.values()))
    brain, view = runner.brain, MarketView([runner.pair], transit_allowance_ns=0)
    legs = (brain.pair.a, brain.pair.b, brain.pair.fx)
    standing = runner.standing
    assert standing is not None, "the host has swept"
    clock = SystemClock()

    def books(edge_bps: float) -> tuple[LiveBook, LiveBook, LiveBook]:
        fx, dear = legs[2].instrument, market.dear(legs[0].instrument, edge_bps)
        own = (dear, market.book(legs[1].instrument), market.fx_book())
        for leg, sides in zip(legs, own, strict=True):
            view.apply(market.batch([(leg.instrument, sides)]), clock.mono_ns(), host.parts.node)
        u, n = (view.books[leg.instrument.id] for leg in legs[:2])
        return u, n, view.books[fx.id]

    limits = GateLimits.of(brain.params)

    def gates() -> float:
        u, n, f = books(0)
        mono_ns = clock.mono_ns()
        return _spent_us(lambda: _gates(standing, u, n, f, mono_ns, limits), CALLS)

    def spread() -> float:
        u, n, f = ((book.bids, book.asks) for book in books(0))
        qty = target_qty(n, brain.params.trade_notional_usdt, 1.0)
        terms, symbol = brain.terms, brain.symbol

        def price() -> None:
            both_directions(u, n, f, qty, terms, symbol=symbol, at_ns=0)

        return _spent_us(price, CALLS)

    def evaluations(edge_bps: float, forget: bool, wanted: str) -> Callable[[], float]:
        # A quiet market that is not believed for any time is drawn anew at every look.
        believed_ms = 0.0 if forget else brain.params.reevaluate_after_ms
        params = msgspec.structs.replace(brain.params, reevaluate_after_ms=believed_ms)
        fresh = SymbolStrategy(brain.pair, params)

        def measure() -> float:
            books(edge_bps)
            now_ns, mono_ns = clock.now_ns(), clock.mono_ns()
            found = fresh.evaluate(view, now_ns, mono_ns, standing)
            found = found if forget else fresh.evaluate(view, now_ns, mono_ns, standing)
            assert _kind(found) == wanted, (found, wanted)

            return _spent_us(lambda: fresh.evaluate(view, now_ns, mono_ns, standing), CALLS)

        return measure

    def bare() -> float:
        u, n, f = books(0)
        prices = (u.bid, u.ask, n.bid, n.ask, f.bid, f.ask)
        return _spent_us(lambda: _bare(*prices), CALLS)

    return [
        Contender("bare", bare),
        Contender("gates", gates),
        Contender("spread", spread),
        Contender("quiet", evaluations(0, False, "repeat")),
        Contender("top", evaluations(0, True, "no_edge")),
        Contender("decision", evaluations(EDGE_BPS, True, "opportunity")),
    ]


def _of_the_host(host: StrategyHost, market: Market) -> list[Contender]:
    """Return what batches cost the whole host."""
    instruments = market.instruments()
    fx = market.pairs[0].fx.instrument
    venues = [[one for one in instruments if one.venue == first.venue] for first in instruments[:2]]
    turn = 0

    def restore() -> None:
        for batch in market.opening():
            host.apply(batch)
        host.sweep()

    def update() -> float:
        nonlocal turn
        restore()
        batches = []
        for _ in range(UPDATES):
            turn += 1
            one = instruments[turn % len(instruments)]
            batches.append(market.batch([(one, market.walk(one))]))
        return _applied_us(host, batches) / UPDATES

    def batched() -> float:
        nonlocal turn
        restore()
        batches = []
        for _ in range(UPDATES // 8):
            turn += 1
            these = venues[turn % 2]
            some = [these[(turn * 8 + i) % len(these)] for i in range(min(8, len(these)))]
            batches.append(market.batch([(one, market.walk(one)) for one in some]))
        return _applied_us(host, batches) / sum(len(batch.updates) for batch in batches)

    def fx_update() -> float:
        restore()
        batches = [market.batch([(fx, market.fx_book())]) for _ in range(FX_UPDATES)]
        return _applied_us(host, batches) / FX_UPDATES

    return [
        Contender("update", update),
        Contender("batched", batched),
        Contender("fx", fx_update),
    ]


def _applied_us(host: StrategyHost, batches: Sequence[object]) -> float:
    gc.collect()  # what building the batches left is not theirs to pay
    began = time.thread_time_ns()
    for batch in batches:
        host.apply(batch)  # type: ignore[arg-type]
    return (time.thread_time_ns() - began) / 1e3


def _spent_us(call: Callable[[], object], times: int) -> float:
    """Return the CPU time of one call, less that of an empty one."""
    idle = _loop_ns(_nothing, times)
    return max(0, _loop_ns(call, times) - idle) / times / 1e3


def _loop_ns(call: Callable[[], object], times: int) -> int:
    began = time.thread_time_ns()
    for _ in range(times):
        call()
    return time.thread_time_ns() - began


def _nothing() -> None:
    pass


def _gates(
    standing: Standing, u: LiveBook, n: LiveBook, f: LiveBook, mono_ns: int, limits: GateLimits
) -> object:
    return (
        standing_refusal(standing)
        or freshness_refusal(u, n, f, mono_ns, limits)
        or sanity_refusal(u, n, f, limits)
    )


def _bare(
    u_bid: float, u_ask: float, n_bid: float, n_ask: float, f_bid: float, f_ask: float
) -> bool:
    ab = n_bid * f_bid / u_ask - 1 - (u_ask - u_bid) / u_ask - (n_ask - n_bid) / n_bid
    ba = u_bid / (n_ask * f_ask) - 1 - (u_ask - u_bid) / u_bid - (n_ask - n_bid) / n_ask
    return ab > 0.003 or ba > 0.003


def _kind(found: Evaluation) -> str:
    if found.is_repeat:
        return "repeat"
    return "opportunity" if found.opportunity is not None else str(found.refusal)


def _judge(found: dict[str, Figures]) -> list[Verdict]:
    return [
        at_most(NAMES["gates"], found["gates"].median, GATES_MAX_US, "us"),
        at_most(NAMES["decision"], found["decision"].median, DECISION_MAX_US, "us"),
        at_most(NAMES["update"], found["update"].median, UPDATE_MAX_US, "us"),
    ]


def _table(said: argparse.Namespace, found: dict[str, Figures]) -> Table:
    load = ", ".join(f"{one:g}" for one in machine()["load"])
    title = f"CPU time, median of {said.repeats} rounds, {said.symbols} symbols (load {load})"
    table = Table(title=title)
    for column in ("", "us", "least", "most", "x bare"):
        table.add_column(column, justify="right" if column else "left")
    for name, title in NAMES.items():
        one = found[name]
        times = one.median / found["bare"].median
        cells = (f"{one.median:.2f}", f"{one.least:.2f}", f"{one.most:.2f}", f"{times:.1f}")
        table.add_row(title, *cells)
    return table


if __name__ == "__main__":
    sys.exit(main())
