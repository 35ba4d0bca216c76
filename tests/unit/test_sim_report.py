"""The report on a simulated market: its numbers come with errors, its economics can be plugged in."""

import io

import msgspec
import pytest
from rich.console import Console

from arb_ray.cli.market import render, report
from arb_ray.domain.errors import BadInput


def test_a_report_is_json_and_a_table_and_counts_what_the_evaluator_says():
    asked = []

    def evaluate(symbol, u, n, f):
        asked.append(symbol)
        assert u[0][0][0] < u[1][0][0]
        assert 1_300 < f[0][0][0] < f[1][0][0] < 1_700
        return (1.0, -1.0) if symbol == "BTC" else None

    measured = report(hours=0.01, symbols=("BTC", "ETH"), days=1, evaluate=evaluate)
    assert len(asked) == 72
    edges = measured["edges"]
    assert (edges["samples"], edges["depth_short"]) == (36, 36)
    assert (edges["after_entry_fees_share"], edges["net_share"]) == (1.0, 0.0)
    assert msgspec.json.decode(msgspec.json.encode(measured))["preset"] == "calibrated"
    row = measured["table_c"]["ETH-BTC"]
    assert row["sim_se"] > row["real_se"] > 0
    assert abs(row["z"]) < 8
    page = io.StringIO()
    Console(file=page, width=120).print(render(measured))
    assert "A. Premium of BTC" in page.getvalue()
    with pytest.raises(BadInput, match="days at least 1"):
        report(days=0.5)
