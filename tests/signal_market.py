"""A pair, its books and the batches that bring them, for tests of the signal engine."""

from decimal import Decimal

from arb_ray.domain.book import SCHEMA, BookUpdate, ConnectionAlive, FundingUpdate, TickBatch
from arb_ray.domain.instrument import (
    FeeAsset,
    FeeSchedule,
    Instrument,
    InstrumentId,
    Kind,
    Leg,
    Pair,
    Symbol,
    TickBand,
    TradingRules,
    Venue,
    VenueSymbol,
)
from arb_ray.domain.money import KRW, USDT, Asset
from arb_ray.engine.gates import FreeBalances, Standing
from arb_ray.engine.market_view import MarketView
from arb_ray.engine.strategy_params import StrategyParams

MS = 1_000_000
S = 1_000_000_000
T0 = 1_790_000_000 * S
NODE = "node-1"
ALIVE = (ConnectionAlive(0, 0, True),)

U_ID = InstrumentId("upbit:ETH-KRW")
N_ID = InstrumentId("binance_spot:ETH-USDT")
P_ID = InstrumentId("binance_usdm:ETH-USDT-PERP")
F_ID = InstrumentId("upbit:USDT-KRW")


def _leg(ident, asset, quote, venue, kind, bps, fee_asset, min_notional, multiplier=1):
    rules = TradingRules(
        (TickBand(Decimal(0), Decimal("0.01")),),
        Decimal("0.0001"),
        Decimal("0.0001"),
        Decimal(0),
        Decimal(min_notional),
    )
    instrument = Instrument(
        ident, Asset(asset), quote, venue, kind, VenueSymbol(ident), Decimal(multiplier)
    )
    return Leg(instrument, rules, FeeSchedule(Decimal(bps), fee_asset))


FX_LEG = _leg(F_ID, "USDT", KRW, Venue.UPBIT, Kind.SPOT, 5, FeeAsset.QUOTE, 5000)


def spot_pair():
    a = _leg(U_ID, "ETH", KRW, Venue.UPBIT, Kind.SPOT, 5, FeeAsset.QUOTE, 5000)
    b = _leg(N_ID, "ETH", USDT, Venue.BINANCE_SPOT, Kind.SPOT, 10, FeeAsset.RECEIVED, 5)
    return Pair(Symbol("ETH"), a, b, FX_LEG)


def perp_pair(multiplier=1):
    a = _leg(U_ID, "ETH", KRW, Venue.UPBIT, Kind.SPOT, 5, FeeAsset.QUOTE, 5000)
    b = _leg(P_ID, "ETH", USDT, Venue.BINANCE_USDM, Kind.PERP, 5, FeeAsset.QUOTE, 5, multiplier)
    return Pair(Symbol("ETH"), a, b, FX_LEG)


def book(bid, ask, size=10.0, levels=3, step=0.0001):
    """Levels that worsen by ``step`` (a ratio) each, all of one size."""
    bids = tuple((bid * (1 - step * i), size) for i in range(levels))
    asks = tuple((ask * (1 + step * i), size) for i in range(levels))
    return bids, asks


F_BOOK = book(1399.0, 1400.0, size=1e6)
N_BOOK = book(1999.9, 2000.1)
U_FAIR = book(2_798_000.0, 2_800_000.0)
U_CHEAP = book(2_778_000.0, 2_780_000.0)  # some 64 bps under what N and F's bid are worth
U_DEAR = book(2_830_000.0, 2_832_000.0)

RICH = FreeBalances(krw_a=1e9, base_a=1e3, usdt_b=1e6, base_b=1e3)
READY = Standing(balances=RICH)


def params(**changes):
    return StrategyParams(**{"warm_up_s": 0.0, "basis_warm_up_s": 0.0, **changes})


class Market:
    """A view that is fed by hand, on a clock that moves by hand."""

    def __init__(self, pair, transit_allowance_ns=0):
        self.pair = pair
        self.view = MarketView([pair], transit_allowance_ns=transit_allowance_ns)
        self.now_ns, self.mono_ns = T0, 1_000 * S
        self.seq = 0

    def tick(self, seconds):
        self.now_ns += int(seconds * S)
        self.mono_ns += int(seconds * S)

    def put(self, u=None, n=None, f=None, **kwargs):
        by_leg = (
            (self.pair.a, u, "upbit"),
            (self.pair.b, n, "binance"),
            (self.pair.fx, f, "upbit"),
        )
        changed = []
        for leg, sides, feed in by_leg:
            if sides is not None:
                self.seq += 1
                update = make_update(leg.instrument.id, self.seq, sides, self.now_ns)
                changed += self.apply(make_batch(feed, [update], self.mono_ns, **kwargs))
        return changed

    def alive(self, *feeds, is_up=True):
        for feed in feeds:
            line = (ConnectionAlive(0, 0, is_up),)
            self.apply(make_batch(feed, [], self.mono_ns, alive=line))

    def fund(self, rate, due_in_s):
        due = self.now_ns + int(due_in_s * S)
        funding = FundingUpdate(self.pair.b.instrument.id, 2000.0, rate, due, self.now_ns)
        self.apply(make_batch("binance", [], self.mono_ns, funding=(funding,)))

    def apply(self, batch):
        return self.view.apply(batch, self.mono_ns, NODE)


def make_update(instrument, seq, sides, recv_ns=T0, epoch=1, connection=0, exchange_ns=0, age_ns=0):
    bids, asks = sides
    return BookUpdate(instrument, epoch, seq, connection, recv_ns, exchange_ns, age_ns, bids, asks)


def make_batch(
    feed,
    updates,
    sent_mono_ns=0,
    epoch=1,
    node=NODE,
    schema=SCHEMA,
    offset_ms=0.0,
    skew_ms=0.0,
    alive=ALIVE,
    funding=(),
):
    return TickBatch(
        schema, feed, epoch, node, sent_mono_ns, offset_ms, skew_ms, tuple(alive),
        tuple(updates), tuple(funding),
    )  # fmt: skip
