"""The report on a simulated market: its numbers come with errors, its verdict can fall either way."""

import io
import math
import random
import statistics

import msgspec
import pytest
from rich.console import Console

from arb_ray.adapters.venues.sim.coins import top_assets
from arb_ray.adapters.venues.sim.exchange import ORIGIN_NS
from arb_ray.adapters.venues.sim.instruments import BinanceBook, UpbitBook
from arb_ray.adapters.venues.sim.market import Market
from arb_ray.adapters.venues.sim.presets import CALIBRATED, LIVELY
from arb_ray.app import market_report, market_sheet
from arb_ray.app.market_edges import _Pair, count_edges, terms_at, verdict
from arb_ray.app.market_errors import bootstrap_error, compare
from arb_ray.cli.market_tables import render
from arb_ray.domain.errors import BadInput


def edges_of(preset, *, symbols=10, minutes=8, leg_b="spot"):
    names = top_assets(symbols)
    market = Market(preset, 5, names, ORIGIN_NS)
    return count_edges(market, names, minutes / 60, 2.0, leg_b, 1_000.0)


def test_calibrated_edges_are_rarer_than_both_bounds():
    edges = edges_of(CALIBRATED)
    assert edges["samples"] == 10 * 8 * 60  # none was too large for the books
    assert edges["after_entry_fees_share"] < 0.02
    assert edges["net_share"] < 0.002
    said = verdict(edges)
    assert not said["is_exceeded"]
    assert said["sentence"].startswith("Within both bounds.")


def test_lively_edges_exceed_both_bounds_so_the_check_can_fail():
    edges = edges_of(LIVELY, minutes=6)
    assert edges["after_entry_fees_share"] > 0.02
    assert edges["net_share"] > 0.002
    assert verdict(edges)["exceeded"] == ["after_entry_fees", "net"]


def test_a_share_above_its_bound_by_less_than_its_error_is_not_exceeded():
    edges = {"after_entry_fees_share": 0.021, "after_entry_fees_share_se": 0.001,
             "net_share": 0.01, "net_share_se": 0.001}  # fmt: skip
    assert verdict(edges)["exceeded"] == ["net"]


def test_best_prices_are_the_books_own():
    market = Market(CALIBRATED, 2, ("ETH",), ORIGIN_NS)
    upbit, binance = UpbitBook(market, "ETH"), BinanceBook(market, "ETH", is_perp=True, rate=0.0)
    for step in range(40_000, 40_400, 7):
        for book in (upbit, binance):
            shown = book.book_at(step)[1]
            assert book.touch_at(step) == (shown.bids[0][0], shown.asks[0][0])


def test_a_forced_premium_is_an_edge_and_is_walked():
    market = Market(CALIBRATED, 2, ("BTC",), ORIGIN_NS)
    pair, fx = _Pair(market, "BTC", "spot", 1_000.0), UpbitBook(market, "USDT")
    asked = []

    def evaluate(symbol, u, n, f):
        asked.append((len(u[0]), len(n[1])))

    assert pair.sample(fx, 5_000, evaluate)[0] < 0
    assert not asked
    market.force_premium("BTC", 5_010, 5_050, 120.0)
    assert pair.sample(fx, 5_020, evaluate) is None
    assert asked == [(20, 20)]
    after_fees, net = pair.sample(fx, 5_020, None)
    assert 85 < after_fees < 110
    assert after_fees - 35 < net < after_fees - 15


def test_a_perpetual_knows_its_fee_its_basis_and_its_multiplier():
    market = Market(CALIBRATED, 2, ("BTC", "PEPE"), ORIGIN_NS)
    spot, perp = (terms_at(market, "BTC", 50_000, leg) for leg in ("spot", "perp"))
    assert (spot.fee_b_bps, spot.basis_bps) == (10.0, 0.0)
    assert perp.fee_b_bps == 5.0
    assert perp.basis_bps == market.slow_premium_bps("BTC", 24_000) + 3.7
    assert terms_at(market, "PEPE", 50_000, "perp").multiplier_b == 1_000
    assert edges_of(CALIBRATED, symbols=3, minutes=1, leg_b="perp")["samples"] == 180


def test_an_error_grows_with_the_series_memory():
    rng = random.Random(3)
    white = [rng.gauss(0, 1) for _ in range(2_000)]
    slow, value = [], 0.0
    for draw in white:
        value = 0.95 * value + math.sqrt(1 - 0.95**2) * draw
        slow.append(value)
    assert bootstrap_error(statistics.fmean, white, 1) == pytest.approx(1 / math.sqrt(2_000), 0.3)
    # The mean of n such draws is known as that of n (1 - 0.95) / (1 + 0.95) of them.
    assert 0.09 < bootstrap_error(statistics.fmean, slow, 100) < 0.22


def test_what_the_sheet_says_is_an_interval():
    assert compare(4.5, 0.1, (4.2, 4.8), 0.1).z == 0
    assert compare(5.0, 0.3, (4.2, 4.6), 0.4).z == pytest.approx(0.8)
    assert compare(4.0, 0.3, (4.2, 4.6), 0.4).z == pytest.approx(-0.4)
    assert compare(2.0, 0.0, (1.0, 1.0), 0.0).z is None


def test_the_sheets_rows_contradict_each_other_whatever_is_simulated():
    rng = random.Random(1)
    series = [[rng.gauss(0, size) for _ in range(500)] for size in (1, 2, 3, 4)]
    mean = [statistics.fmean(row) for row in zip(*series, strict=True)]
    rest = [[a - b for a, b in zip(one, mean, strict=True)] for one in series]
    square = lambda one: statistics.fmean([x * x for x in one])  # noqa: E731
    # The identity behind the claim holds for any four series ...
    whole = statistics.fmean(map(square, series))
    assert whole == pytest.approx(square(mean) + statistics.fmean(map(square, rest)))
    # ... and the sheet's own numbers, read as kindly as they can be, do not meet it.
    assert market_sheet.change_by_returns_bps() > 1.08 * market_sheet.change_by_premia_bps()


def test_a_report_is_json_and_tables(monkeypatch):
    monkeypatch.setattr(market_report, "F_WINDOWS", 2)
    monkeypatch.setattr(market_report, "F_SEARCH_DAYS", 7)
    monkeypatch.setattr(market_sheet, "F_MINUTES", 1)
    told = []
    measured = market_report.report(
        hours=1 / 60, symbols=("BTC",), days=1, tell=lambda done, total, what: told.append(what)
    )
    assert len(set(told)) == 4
    decoded = msgspec.json.decode(msgspec.json.encode(measured))
    assert (decoded["preset"], decoded["edges"]["samples"]) == ("calibrated", 60)
    row = measured["table_c"]["ETH-BTC"]
    assert row.sim_se > row.real_se > 0
    assert measured["table_c"]["Upbit ETH"].is_contradicted
    assert measured["table_f"]["perp ETH"]["spread p95, ticks"].sim == 1
    page = io.StringIO()
    Console(file=page, width=120).print(render(measured))
    for words in ("A. Premium of BTC", "F. perp ETH", "Upbit ETH*", "errors off", "bounds"):
        assert words in page.getvalue()
    with pytest.raises(BadInput, match="days at least 1"):
        market_report.report(days=0.5)
