"""Leg B on USDT-M perpetuals: one run in which trades open and close, also on 1000PEPEUSDT."""

from __future__ import annotations

import subprocess
from decimal import Decimal

import msgspec
import pytest

from tests.e2e.ledger import read_ledger
from tests.e2e.runs import (
    END_TIMEOUT_S,
    PYTHON,
    ROOT,
    START_TIMEOUT_S,
    one_line_of_json,
    short_folder,
    submit,
)

pytestmark = pytest.mark.timeout(300)

RUN_S = 20
OPTIONS = (
    "--leg-b", "perp", "--preset", "lively", "--symbols", "BTC,ETH,XRP,PEPE", "--seed", "11",
    "--duration", f"{RUN_S}s", "--set", "strategy.basis_warm_up_s=2", "--json",
)  # fmt: skip


@pytest.fixture(scope="module")
def perp_run():
    with short_folder() as folder:
        with submit(folder / "data", *OPTIONS) as run:
            code = run.wait(START_TIMEOUT_S + RUN_S + END_TIMEOUT_S)
            assert code == 0, run.err
            assert "4 of 4 symbols live" in run.err
            summary, left = one_line_of_json(run), run.left_running()
        ledger = read_ledger(folder / "data")
        command = (
            PYTHON,
            "-m",
            "arb_ray.cli.main",
            "audit",
            "--data-dir",
            folder / "data",
            "--json",
        )
        audited = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        yield summary, left, ledger, audited


def test_trades_on_perpetuals_open_and_close(perp_run):
    summary, left, ledger, _ = perp_run
    assert (summary["errors"], left) == ([], [])
    assert summary["symbols"] == ["BTC", "ETH", "XRP", "PEPE"]
    assert set(summary["frames"]) == {"upbit", "binance_usdm"}
    assert summary["trades_opened"] == summary["trades_closed"] >= 1
    assert summary["open_positions"] == 0
    assert len(ledger.closed_trades()) == summary["trades_closed"]
    assert ledger.open_trades() == set()


def test_leg_b_is_filled_on_the_perpetuals_alone(perp_run):
    _, _, ledger, _ = perp_run
    venues = {row["instrument"].partition(":")[0] for row in ledger.fills}
    assert venues == {"upbit", "binance_usdm"}


def test_the_ledger_holds_and_the_parts_sum_to_the_profit(perp_run):
    summary, _, ledger, _ = perp_run
    assert ledger.problems() == []
    total = sum(Decimal(part) for part in summary["pnl_parts"].values())
    postings = sum(row["count"] for row in ledger.posting_counts)
    assert abs(total - Decimal(summary["realized_pnl_usdt"])) <= Decimal("1e-8") * postings


def test_the_audit_of_its_data_folder_finds_nothing_and_judges_everything(perp_run):
    audited = perp_run[3]
    assert (audited.returncode, audited.stderr) == (0, "")
    found = msgspec.json.decode(audited.stdout)
    assert found["is_clean"]
    rows = {check["name"]: check["rows"] for check in found["checks"]}
    assert rows["fills.fee"] == rows["fills.book"] == len(perp_run[2].fills) > 0
    assert all(check["unchecked"] == 0 for check in found["checks"])
