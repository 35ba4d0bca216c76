"""What the supervisor leaves with Persistence says what the actors said."""

import json
from decimal import Decimal

from arb_ray.actors.snapshots import system_snapshot
from arb_ray.engine.session_snapshot import Counts
from arb_ray.engine.state_document import document_flaw
from arb_ray.engine.status import FeedStatus, HostStatus, SymbolRow, SystemStatus


def status():
    rows = [
        SymbolRow("BTC", phase="holding", premium_bps=12.5, mark_usdt=Decimal("-0.5")),
        SymbolRow("ETH", premium_bps=-3.0, realized_usdt=Decimal("1.25")),
    ]
    hosts = {
        "host:0": HostStatus(True, "", ["BTC"], ["BTC"], decisions=5, trades_opened=2, rows=rows),
        "host:1": HostStatus(True, "", ["XRP"], ["XRP"], decisions=7, open_positions=1),
    }
    feeds = {"feed:upbit": FeedStatus(True, "", "upbit", True, "v1", frames=42)}
    return SystemStatus(
        "s1", "t1", False, [], hosts, feeds, {"state": "halted"}, {}, {}, {}, [], ["one error"]
    )


def test_session_and_guard_get_a_row_each_with_the_sums():
    rows, _ = system_snapshot(status(), 99, 7)
    by_table = {row.table: row for row in rows}

    assert set(by_table) == {"session_snapshots", "risk_guard_snapshots"}
    assert {(row.at_ns, row.session_id, row.symbol) for row in rows} == {(99, "s1", "")}
    session = by_table["session_snapshots"].payload
    assert (session["decisions"], session["trades_opened"], session["open_positions"]) == (12, 2, 1)
    assert session["frames"] == {"upbit": 42}
    assert session["errors"] == ["one error"]
    assert by_table["risk_guard_snapshots"].payload == {"state": "halted"}


def test_the_four_documents_hold_what_is_open_and_every_symbol_s_premium():
    _, states = system_snapshot(status(), 99, 7)
    data = {category: json.loads(text) for category, text in states.items()}

    assert set(data) == {"session", "positions", "metrics", "risk_guard"}
    assert all((one["at_ns"], one["version"]) == (99, 7) for one in data.values())
    assert [document_flaw(text) for text in states.values()] == [""] * 4
    assert list(data["positions"]["data"]) == ["BTC"]
    assert data["positions"]["data"]["BTC"]["mark_usdt"] == "-0.5"
    assert data["metrics"]["data"]["ETH"]["premium_bps"] == -3.0
    assert data["metrics"]["data"]["ETH"]["realized_usdt"] == "1.25"


def test_what_the_session_counted_before_its_present_run_is_in_its_sums():
    told = status()
    told.carried = Counts(100, 20, 30, 40, {"upbit": 1_000, "binance_spot": 5})
    told.feeds["feed:upbit:2"] = FeedStatus(True, "", "upbit", True, "v2", frames=8)
    told.hosts["host:1"].opportunities = 3
    told.hosts["host:1"].trades_closed = 4
    rows, _ = system_snapshot(told, 99, 7)
    (session,) = [row.payload for row in rows if row.table == "session_snapshots"]
    sums = ("decisions", "opportunities", "trades_opened", "trades_closed")
    assert [session[name] for name in sums] == [112, 23, 32, 44]
    assert session["frames"] == {"upbit": 1_050, "binance_spot": 5}
    assert session["open_positions"] == 1, "of the present run alone"
