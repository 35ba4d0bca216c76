"""
The demonstration, as a stranger runs it; then what a run leaves, and how the next goes on.

A run costs some forty seconds, so few of them serve many tests: the fixtures below are a
story, in which each chapter needs the one before.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import subprocess
import sys
from decimal import Decimal

import msgspec
import pytest

from arb_ray.adapters.storage.embedded_postgres import EmbeddedPostgres
from arb_ray.adapters.storage.process import free_port, is_port_free
from tests.e2e.ledger import read_ledger
from tests.e2e.runs import (
    END_TIMEOUT_S,
    ROOT,
    START_TIMEOUT_S,
    Run,
    one_line_of_json,
    short_folder,
    submit,
)

pytestmark = pytest.mark.timeout(600)

KEYS = [
    "session_id",
    "env",
    "source",
    "preset",
    "seed",
    "symbols",
    "duration_s",
    "frames",
    "book_updates",
    "decisions",
    "conflated",
    "opportunities",
    "refusals",
    "trades_opened",
    "trades_closed",
    "open_positions",
    "realized_pnl_usdt",
    "pnl_parts",
    "fees_usdt",
    "risk",
    "tick_to_decision_ms",
    "snapshots_written",
    "redis",
    "postgres",
    "errors",
]
MONEY = re.compile(r"-?\d+\.\d{8}")
VENUES = {"upbit", "binance_spot"}
JSON_RUN_S = 20
"""Long enough for some trades, and nothing needs more."""


class Ended(msgspec.Struct):
    """A run that is over."""

    code: int
    out: str
    err: str
    left: list[str]
    summary: dict = {}


def finish(run, timeout_s, *, as_json=True) -> Ended:
    code = run.wait(timeout_s)
    summary = one_line_of_json(run) if as_json else {}
    return Ended(code, run.out, run.err, run.left_running(), summary)


@pytest.fixture(scope="module")
def demo_folder():
    with short_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def data_dir():
    """The data folder of the whole story; its neighbours are what runs leave in TMPDIR."""
    with short_folder() as folder:
        yield folder / "data"


# -- make demo ------------------------------------------------------------------------------


def set_up_already():
    """The words that keep make from touching the venv in which the tests run, where needed."""
    stamp = ROOT / ".venv" / ".installed"
    parts = [(ROOT / name).read_bytes() for name in ("requirements/dev.txt", "pyproject.toml")]
    wanted = f"{hashlib.sha256(b''.join(parts)).hexdigest()} {ROOT}"
    is_current = stamp.exists() and stamp.read_text().strip() == wanted
    return () if is_current else ("--old-file=setup",)


@pytest.fixture(scope="module")
def demo(demo_folder):
    """The very command of the README, on a terminal."""
    folder = demo_folder
    environment = {"TMPDIR": str(folder), "TERM": "xterm", "COLUMNS": "160", "LINES": "60"}
    # What `make test ARGS=...` was told is for pytest, and a make below it would inherit it.
    environment |= {"MAKEFLAGS": "", "MAKEOVERRIDES": "", "ARGS": ""}
    command = ("make", *set_up_already(), "demo", "DURATION=12s")
    with Run(command, folder, environment=environment, on_terminal=True) as run:
        yield finish(run, START_TIMEOUT_S + 12 + END_TIMEOUT_S, as_json=False), folder


def test_the_demo_shows_twenty_symbols_and_ends_well(demo):
    ended, _ = demo
    assert ended.code == 0, ended.err
    assert "20 of 20 symbols live" in ended.err
    assert re.search(r"20 symbols for 12 s, dev, source sim", ended.out)
    assert "NOT A REAL MARKET" in ended.out
    assert re.search(r"upbit [1-9][\d,]* frames, [1-9]", ended.out)
    assert re.search(r"binance_spot [1-9][\d,]* frames, [1-9]", ended.out)
    assert re.search(r"Decisions +[1-9]", ended.out)
    assert not re.search(r"^ *\d+ errors?:", ended.out, re.MULTILINE)
    assert "Traceback" not in ended.out + ended.err


def test_the_demo_takes_the_terminal_and_gives_it_back(demo):
    ended, _ = demo
    taken, given = "\x1b[?1049h", "\x1b[?1049l"
    assert ended.out.count(taken) == ended.out.count(given) == 1
    assert ended.out.index(given) < ended.out.index("Session ")


def test_the_demo_leaves_no_process_and_no_folder(demo):
    ended, folder = demo
    assert ended.left == []
    assert list(folder.iterdir()) == []


# -- one run with --json --------------------------------------------------------------------


@pytest.fixture(scope="module")
def json_run(data_dir):
    """The demo's twin for scripts; its data stay."""
    gateway = free_port()
    with submit(
        data_dir, "--duration", f"{JSON_RUN_S}s", "--seed", "11", "--json", gateway=gateway
    ) as run:
        run.until_live()
        # The Gateway answers before the Supervisor has noted that it is there.
        run.until(lambda r: (status := r.status()) and not status.missing, "a whole run")
        ports = sockets_of(run)
        ended = finish(run, JSON_RUN_S + END_TIMEOUT_S)
        yield ended, data_dir, ports


def sockets_of(run):
    """The ports on which any process of the run listens."""
    listening = set()
    for process in run.family.processes():
        listening |= {c.laddr.port for c in process.net_connections() if c.status == "LISTEN"}
    return listening


@pytest.fixture(scope="module")
def first_ledger(json_run):
    """The ledger after the first run; the later runs ask for it, so that it is read before."""
    return read_ledger(json_run[1])


def test_the_json_line_has_the_promised_keys_and_money_as_text(json_run):
    summary = json_run[0].summary
    assert list(summary) == KEYS
    assert (summary["env"], summary["source"]) == ("dev", "sim")
    assert (summary["preset"], summary["seed"]) == ("lively", 11)
    assert set(summary["pnl_parts"]) == {"spread", "fx", "fees", "slippage", "funding"}
    assert set(summary["risk"]) == {"state", "daily_loss_usdt", "daily_limit_usdt", "gap_loss_usdt"}
    assert set(summary["tick_to_decision_ms"]) == {"p50", "p99", "max"}
    amounts = [
        summary["realized_pnl_usdt"],
        summary["fees_usdt"],
        *summary["pnl_parts"].values(),
        summary["risk"]["daily_loss_usdt"],
        summary["risk"]["daily_limit_usdt"],
    ]
    assert all(isinstance(amount, str) and MONEY.fullmatch(amount) for amount in amounts), amounts


def test_the_run_was_whole(json_run):
    ended, _, _ = json_run
    summary = ended.summary
    assert (ended.code, summary["errors"]) == (0, []), ended.err
    assert len(summary["symbols"]) == len(set(summary["symbols"])) == 20
    assert summary["duration_s"] == pytest.approx(JSON_RUN_S, abs=3)
    assert set(summary["frames"]) == set(summary["book_updates"]) == VENUES
    assert all(count > 0 for count in (*summary["frames"].values(), summary["decisions"]))
    assert summary["trades_opened"] >= 1
    assert summary["snapshots_written"] > 0
    assert (summary["redis"], summary["postgres"]) == ("up", "up")
    assert summary["open_positions"] == 0
    assert summary["trades_closed"] == summary["trades_opened"]


def test_nothing_of_the_run_is_left(json_run):
    ended, _, ports = json_run
    assert ended.left == []
    assert len(ports) >= 6  # PostgreSQL, Valkey, three exchanges, the Gateway, and Ray's own
    # Ray's agent has a fixed port, which another Ray of these tests may have taken by now.
    assert [port for port in sorted(ports - {52_365}) if not is_port_free(port)] == []


def test_the_ledger_holds_and_agrees_with_the_summary(json_run, first_ledger):
    summary = json_run[0].summary
    assert first_ledger.problems() == []
    assert first_ledger.session_ids() == [summary["session_id"]]
    assert first_ledger.open_trades() == set()
    assert len(first_ledger.closed_trades()) == summary["trades_closed"]
    realized = sum(row["realized_usdt"] for row in first_ledger.trades if row["realized_usdt"])
    assert Decimal(summary["realized_pnl_usdt"]) == pytest.approx(realized, abs=Decimal("1e-8"))


def test_the_parts_of_the_profit_sum_to_it(json_run, first_ledger):
    summary = json_run[0].summary
    total = sum(Decimal(part) for part in summary["pnl_parts"].values())
    postings = sum(row["count"] for row in first_ledger.posting_counts)
    gap = abs(total - Decimal(summary["realized_pnl_usdt"]))
    assert gap <= Decimal("1e-8") * postings
    assert Decimal(summary["fees_usdt"]) == -Decimal(summary["pnl_parts"]["fees"])


# -- Ctrl-C ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def interrupted(json_run, first_ledger):
    """A second session on the same data, without a set time, ended by Ctrl-C."""
    folder = json_run[1]
    with submit(folder, "--new-session", "--json") as run:
        run.until_live()
        run.until(lambda r: r.err.count("frames/s") >= 2, "some seconds of trading")
        run.interrupt()
        yield finish(run, END_TIMEOUT_S), folder


def test_ctrl_c_stops_cleanly_and_sums_up(interrupted):
    ended, _ = interrupted
    assert (ended.code, ended.summary["errors"]) == (0, []), ended.err
    assert "clean stop done" in ended.err
    assert "Traceback" not in ended.err
    assert ended.summary["decisions"] > 0
    assert ended.summary["open_positions"] == 0
    assert ended.left == []


def test_a_new_session_is_another_one(json_run, interrupted):
    assert interrupted[0].summary["session_id"] != json_run[0].summary["session_id"]
    assert "(new)" in interrupted[0].err


# -- kill -9, and the start after it --------------------------------------------------------


@pytest.fixture(scope="module")
def backups():
    """A folder that neither data folder holds."""
    with short_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def killed(interrupted, backups):
    """The session goes on; while trades are open it is backed up, and then its owner is killed."""
    folder, gateway = interrupted[1], free_port()
    # Out of reach, so that a trade which is open now is still open at the kill.
    never = ("--set", "strategy.take_profit_bps=1000")
    # What the clean stops closed at a loss, one after another, could pause every entry.
    entered = ("--set", "risk.consecutive_losses_count=1000")
    with submit(folder, "--resume", "--json", *never, *entered, gateway=gateway) as run:
        run.until_live()
        run.until(is_trading, "an open trade")
        decided = decisions(run)
        arb_ray("db", "backup", "--to", backups, "--dsn", dsn_below(folder))
        run.until(lambda r: decisions(r) > decided, "a decision during the backup")
        run.process.kill()
        run.process.wait()
        left = run.left_running()
        ledger = read_ledger(folder) if not left else None
        yield left, run.err, ledger, folder


def is_trading(run):
    status = run.status()
    rows = [row for host in status.hosts.values() for row in host.rows] if status else []
    return any(row.phase == "holding" for row in rows)


def decisions(run):
    status = run.status()
    return sum(host.decisions for host in status.hosts.values()) if status else 0


def dsn_below(folder):
    """Return the owner's login to the PostgreSQL that runs in a data folder."""
    port = msgspec.json.decode((folder / "postgres" / "postgres.server.json").read_bytes())["port"]
    password = (folder / "postgres" / "password").read_text().strip()
    return f"postgresql://arb:{password}@127.0.0.1:{port}/arb"


def arb_ray(*words):
    """Run a command of ours; it must end with 0."""
    command = [sys.executable, "-m", "arb_ray.cli.main", *map(str, words)]
    done = subprocess.run(
        command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_kill_9_leaves_nothing_running(killed):
    assert killed[0] == []


def test_resume_continues_the_session(interrupted, killed):
    assert f"session {interrupted[0].summary['session_id']} (resumed)" in killed[1]


def test_the_books_hold_after_kill_9(killed):
    assert killed[2].problems() == []
    assert killed[2].open_trades(), "nothing was open, so the next tests would prove nothing"


@pytest.fixture(scope="module")
def resumed(killed):
    """The start after the kill, with nothing said about sessions."""
    folder = killed[3]
    with submit(folder, "--duration", "3s", "--json") as run:
        ended = finish(run, START_TIMEOUT_S + END_TIMEOUT_S)
        yield ended, read_ledger(folder)


def test_the_next_start_resumes_the_session_by_itself(interrupted, resumed):
    ended, ledger = resumed
    assert ended.summary["session_id"] == interrupted[0].summary["session_id"]
    assert len(ledger.session_ids()) == 2
    assert (ended.code, ended.summary["errors"], ended.left) == (0, [], []), ended.err


def test_the_next_start_knows_that_the_run_before_crashed(killed, interrupted, resumed):
    assert "ended without a clean stop" in resumed[0].err
    count = len(killed[2].open_positions())
    assert f"{count} open positions are taken up" in resumed[0].err
    assert "ended without a clean stop" not in killed[1], "the one before that had a clean stop"
    assert "ended without a clean stop" not in interrupted[0].err


def test_the_session_s_counts_go_on(resumed):
    assert "counts begin anew" not in resumed[0].err


def test_what_was_open_at_the_kill_is_closed_by_the_next_run(killed, resumed):
    was_open = killed[2].open_trades()
    ended, ledger = resumed
    assert ledger.open_trades() == set()
    assert ended.summary["open_positions"] == 0
    closed = {row["trade_id"] for row in ledger.trades if row["status"] == "closed"}
    assert was_open <= closed
    assert ledger.problems() == []


# -- the same session on another machine, from its backup -----------------------------------


@pytest.fixture(scope="module")
def moved(killed, backups):
    """The backup in a fresh server below a fresh data folder, and a run on it: docs/RUNBOOK.md."""
    (backup,) = backups.iterdir()
    with short_folder() as folder:
        data = folder / "data"
        told = asyncio.run(restored_into(data, backup))
        before = read_ledger(data)
        with submit(data, "--duration", "3s", "--json") as run:
            ended = finish(run, START_TIMEOUT_S + END_TIMEOUT_S)
            yield told, before, ended, read_ledger(data)


async def restored_into(data, backup):
    async with EmbeddedPostgres(data / "postgres"):
        words = ("db", "restore", "--from", backup, "--dsn", dsn_below(data))
        return await asyncio.to_thread(arb_ray, *words)


def test_a_backup_of_a_trading_run_restores_equal_and_audited(moved, killed):
    told, before, _, _ = moved
    assert "All equal." in told
    assert before.problems() == []
    assert before.open_positions(), "nothing was open, so the next tests would prove nothing"
    assert {row["trade_id"] for row in before.trades} <= {
        row["trade_id"] for row in killed[2].trades
    }


def test_a_moved_session_goes_on_with_its_positions(moved, interrupted):
    _, before, ended, _ = moved
    assert (ended.code, ended.summary["errors"], ended.left) == (0, [], []), ended.err
    assert ended.summary["session_id"] == interrupted[0].summary["session_id"]
    assert f"{len(before.open_positions())} open positions are taken up" in ended.err
    assert "ended without a clean stop" in ended.err
    assert "counts begin anew" not in ended.err


def test_what_was_open_in_the_backup_is_closed_by_the_moved_run(moved):
    _, before, ended, after = moved
    assert after.open_trades() == set()
    assert ended.summary["open_positions"] == 0
    closed = {row["trade_id"] for row in after.trades if row["status"] == "closed"}
    assert before.open_trades() <= closed
    assert after.problems() == []
