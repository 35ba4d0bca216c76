"""
The panic of 2024-12-03 meets a real run: a third down on Upbit within seconds, trades open.

The simulated exchanges script it; what is judged is what an accountant finds afterwards. One
run serves all tests.
"""

from __future__ import annotations

import urllib.error
import urllib.request

import msgspec
import psutil
import pytest

from arb_ray.adapters.storage.process import free_port
from tests.e2e.ledger import read_ledger
from tests.e2e.runs import END_TIMEOUT_S, short_folder, submit

pytestmark = pytest.mark.timeout(300)

SPEED = 600
"""The panic's first half hour in less than three seconds."""


class Story(msgspec.Struct):
    """The run, told in the order of its events."""

    halted: dict
    after: dict
    code: int
    summary: dict
    ledger: object


@pytest.fixture(scope="module")
def story():
    with (
        short_folder() as folder,
        submit(
            folder / "data", "--seed", "5", "--json", "--set", "risk.open_trades_count=3",
            gateway=free_port(),
        ) as run,
    ):  # fmt: skip
        run.until_live()
        # Bought on Upbit: that is the side that falls.
        run.until(lambda r: holds_upbit(r.status()), "a trade that has bought on Upbit")
        panic(run)
        halted = run.until(halt_of, "a halt")
        after = run.until(lambda r: halt_of(r, open_trades=0), "a flat book", 60)
        run.interrupt()
        code = run.wait(END_TIMEOUT_S)
        summary = msgspec.json.decode(run.out.splitlines()[-1])
        yield Story(halted, after, code, summary, read_ledger(folder / "data"))


def holds_upbit(status):
    if status is None:
        return False
    held = {row.symbol for host in status.hosts.values() for row in host.rows
            if row.phase == "holding"}  # fmt: skip
    newest = {
        line.symbol: line.direction
        for host in status.hosts.values()
        for line in host.recent_trades
        if line.what == "opened"
    }
    return any(newest.get(symbol, "").lower() == "long_a_short_b" for symbol in held)


def halt_of(run, open_trades=None):
    status = run.status()
    risk = status.risk if status else {}
    if risk.get("state") != "halted" or open_trades not in {None, risk.get("open_trades")}:
        return None
    return risk


def panic(run):
    """Post the fault to the exchanges' own door, wherever it listens."""
    (source,) = run.family.titled("ray::SourceActor")
    ports = {
        c.laddr.port
        for c in psutil.Process(source.pid).net_connections("tcp")
        if c.status == psutil.CONN_LISTEN
    }
    body = msgspec.json.encode({"kind": "stress", "speed": SPEED, "duration_s": 60})
    for port in sorted(ports):
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/sim/faults",
            data=body,
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(asked, timeout=5) as answer:  # loopback, plain HTTP
                assert answer.status == 200
                return
        except (urllib.error.URLError, OSError, ValueError):
            continue
    raise AssertionError(f"none of {sorted(ports)} is the exchanges' door")


def test_the_panic_halts_and_everything_is_flattened(story):
    assert story.halted["reason"].startswith("gap_loss: ")
    assert story.halted["actor"] == "guard"
    assert story.ledger.open_trades() == set()
    assert (story.after["state"], story.after["open_trades"]) == ("halted", 0)


def test_what_was_lost_beyond_the_reservations_is_a_number_everywhere(story):
    reserved = {row["trade_id"]: row["worst_loss_usdt"] for row in story.ledger.reservations}
    beyond = {
        row["trade_id"]: -row["realized_usdt"] - reserved[row["trade_id"]]
        for row in story.ledger.trades
        if row["outcome"] == "posted" and -row["realized_usdt"] > reserved[row["trade_id"]]
    }
    assert beyond
    told = f"{sum(beyond.values()):.8f}"
    assert story.summary["risk"]["gap_loss_usdt"] == told
    assert story.summary["risk"]["state"] == "halted"


def test_nothing_was_granted_after_the_halt_and_the_books_hold(story):
    halted_ns = story.halted["since_ns"]
    late = [row for row in story.ledger.reservations if row["granted_ns"] > halted_ns]
    assert late == []
    assert story.ledger.problems() == []
