"""The worked example of docs/STRATEGY.md, computed again from its own tables."""

import re
from pathlib import Path

import pytest

from arb_ray.domain.instrument import Kind
from arb_ray.domain.opportunity import Direction
from arb_ray.engine.exits import ExitRules, ExitTerms, OpenPosition, closing
from arb_ray.engine.spread import CostTerms, both_directions
from tests.signal_market import params, spot_pair

DOC = (Path(__file__).parents[2] / "docs" / "STRATEGY.md").read_text()
QTY = 0.25


def table(name):
    lines = DOC.split(f"<!-- example: {name} -->")[1].strip().split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def books():
    found = {"U": ([], []), "N": ([], []), "F": ([], [])}
    for book, side, price, size in table("books"):
        found[book][side == "ask"].append((float(price), float(size)))
    return {name: (tuple(bids), tuple(asks)) for name, (bids, asks) in found.items()}


def priced():
    b = books()
    terms = CostTerms.of(spot_pair(), params(slippage_allowance_bps=2.0, safety_buffer_bps=2.0))
    return both_directions(b["U"], b["N"], b["F"], QTY, terms, symbol="ETH", at_ns=0)


def test_edge_table_is_what_the_engine_computes():
    def figures(found):
        costs = found.costs
        return {
            "gross": found.gross_bps,
            "entry fees": costs.entry_fees_bps,
            "after entry fees": found.after_entry_fees_bps,
            "exit fees": costs.exit_fee_a_bps + costs.exit_fee_b_bps,
            "exit spread": costs.exit_spread_bps,
            "slippage allowance": costs.slippage_allowance_bps,
            "expected exit premium": costs.expected_exit_premium_bps,
            "expected funding": costs.expected_funding_bps,
            "safety buffer": costs.safety_buffer_bps,
            "net": found.net_bps,
        }

    ab, ba = (figures(found) for found in priced())
    rows = table("edge")
    assert [row[0] for row in rows] == list(ab)
    for name, written_ab, written_ba in rows:
        assert f"{ab[name]:.2f}" == written_ab, name
        assert f"{ba[name]:.2f}" == written_ba, name


def test_amounts_in_the_text_are_what_the_engine_computes():
    ab, _ = priced()
    assert ab.price_a * QTY == pytest.approx(695_350)
    assert ab.notional_usdt == pytest.approx(499.99)
    assert ab.notional_usdt * ab.fx_krw == pytest.approx(698_986.02)
    for amount in ("695,350 KRW", "499.99 USDT", "698,986.02 KRW"):
        assert amount in DOC


def test_closing_table_is_what_the_engine_computes():
    b = books()
    entry_krw, entry_usdt = (
        float(re.search(pattern, DOC)[1].replace(",", ""))
        for pattern in (r"([\d,.]+) KRW out", r"([\d,.]+) USDT in")
    )
    ab, _ = priced()
    assert entry_krw == pytest.approx(ab.price_a * QTY * 1.0005)
    assert entry_usdt == pytest.approx(ab.notional_usdt * 0.999)
    position = OpenPosition(
        "t", "ETH", Direction.LONG_A_SHORT_B, QTY, ab.notional_usdt, -entry_krw, entry_usdt,
        ab.fx_mid_krw, 0, Kind.SPOT, ExitRules.of(params()),
    )  # fmt: skip
    rows = table("closing")
    assert len(rows) == 2
    for moment, u_bid, usdt, bps in rows:
        u = (((float(u_bid), 1.0),), ((float(u_bid) + 1_000, 1.0),))
        value = closing(
            position,
            u,
            b["N"],
            (b["F"][0][0][0] + b["F"][1][0][0]) / 2,
            ExitTerms.of(spot_pair(), params()),
        )
        assert f"{value.net_usdt:.4f}" == usdt, moment
        assert f"{value.net_usdt / ab.notional_usdt * 1e4:.2f}" == bps, moment


def test_every_setting_that_the_text_names_exists():
    fields = set(params().__struct_fields__)
    named = set(re.findall(r"`([a-z_]+_(?:bps|s|max|fractions))`", DOC))
    assert named
    assert named <= fields
