"""
An operator at work on a real run, by the commands only: halt, resume, flatten, status.

One run serves all tests. What the commands answered is kept, and held against what the ledger
says afterwards: no yes after a halt's answer, also with the Supervisor dead.
"""

from __future__ import annotations

import stat
import subprocess
import sys
import time

import msgspec
import pytest

from arb_ray.adapters.storage.process import free_port
from tests.e2e.ledger import read_ledger
from tests.e2e.runs import END_TIMEOUT_S, ROOT, short_folder, submit

pytestmark = pytest.mark.timeout(600)

QUIET_S = 4.0
"""So long nothing may be granted after a halt; the lively market asks several times a second."""

CLOSED_WITHIN_S = 40.0


class Told(msgspec.Struct):
    """What a command said, and when it had said it."""

    code: int
    out: str
    err: str
    ended_ns: int
    took_s: float

    @property
    def json(self):
        return msgspec.json.decode(self.out)


class Story(msgspec.Struct):
    """The run, told in the order of its events."""

    healthy: Told
    mode: int
    wrong: Told
    without_trade: Told
    symbol: str
    flattened: Told
    went_on: object
    halt: Told
    halted: Told
    resumed: Told
    halt_without_supervisor: Told
    code: int
    err: str
    leaks: list[str]
    files_left: list[str]
    ledger: object


def arb_ray(data_dir, *arguments) -> Told:
    """Run a command as a person does, in a process of its own."""
    command = (sys.executable, "-m", "arb_ray.cli.main", *arguments, "--data-dir", str(data_dir))
    begun = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    took_s = time.monotonic() - begun
    return Told(done.returncode, done.stdout, done.stderr, time.time_ns(), took_s)


@pytest.fixture(scope="module")
def story():
    with (
        short_folder() as folder,
        submit(folder / "data", "--seed", "5", gateway=free_port()) as run,
    ):
        data_dir = folder / "data"

        def call(*arguments):
            return arb_ray(data_dir, *arguments)

        run.until_live()
        left = data_dir / "gateway.json"
        token = msgspec.json.decode(left.read_bytes())["token"]
        mode = stat.S_IMODE(left.stat().st_mode)
        healthy = run.until(lambda _: (t := call("status")).code == 0 and t, "a healthy status")
        wrong = call("halt", "--reason", "x" * 501)
        without_trade = call("flatten", "--symbol", "NONE")

        flattened, symbol = None, ""
        while flattened is None or flattened.code != 0:  # a trade may end while it is asked
            symbol = run.until(held_symbol, "a held trade")
            flattened = call("flatten", "--symbol", symbol, "--reason", "odd book", "--json")
        run.until(lambda r: symbol not in r.status().risk["flatten"], "the end of that trade")
        went_on = run.status()

        run.until(held_symbol, "a held trade")
        halt = call("halt", "--reason", "looks odd", "--actor", "ann", "--json")
        time.sleep(QUIET_S)
        run.until(lambda r: r.status().risk["open_trades"] == 0, "a flat book", CLOSED_WITHIN_S)
        halted = call("status")
        before = opened(run)
        resumed = call("resume", "--reason", "seen", "--actor", "ann", "--json")
        run.until(lambda r: opened(r) > before, "a trade after the resume")

        (supervisor,) = run.family.titled("ray::SupervisorActor")
        supervisor.kill()
        halt_without_supervisor = call("halt", "--reason", "all is odd", "--json")
        time.sleep(QUIET_S)
        leaks = where_it_leaks(run, folder, token)
        run.until(lambda r: r.status() is not None, "the supervisor's return")
        run.interrupt()
        code = run.wait(END_TIMEOUT_S)
        leaks += files_with(data_dir, token)
        files_left = [path.name for path in data_dir.iterdir()]
        yield Story(
            healthy,
            mode,
            wrong,
            without_trade,
            symbol,
            flattened,
            went_on,
            halt,
            halted,
            resumed,
            halt_without_supervisor,
            code,
            run.err,
            leaks,
            files_left,
            read_ledger(data_dir),
        )


def held_symbol(run):
    """A symbol whose trade holds, the youngest: it will not end by itself at once."""
    rows = [row for host in run.status().hosts.values() for row in host.rows]
    return next((row.symbol for row in rows if row.phase == "holding"), "")


def opened(run):
    return sum(host.trades_opened for host in run.status().hosts.values())


def where_it_leaks(run, folder, token) -> list[str]:
    """Command lines, logs of Ray and ours, and Ray's own files."""
    found = [
        f"command line of {process.pid}"
        for process in run.family.processes()
        if token in " ".join(process.cmdline())
    ]
    return found + files_with(folder, token)


def files_with(folder, token) -> list[str]:
    return [
        str(path)
        for path in folder.rglob("*")
        if path.is_file() and path.name != "gateway.json" and token.encode() in path.read_bytes()
    ]


def granted_between(story, from_ns, until_ns):
    return [
        row["trade_id"]
        for row in story.ledger.reservations
        if from_ns < row["recorded_ns"] < until_ns
    ]


def test_a_run_leaves_its_address_for_its_owner_and_takes_it_away(story):
    assert story.mode == 0o600
    assert "gateway.json" not in story.files_left
    assert story.leaks == []


def test_status_is_one_healthy_screen(story):
    assert "arb_ray is healthy, ready" in story.healthy.out
    assert "20 of 20 live" in story.healthy.out
    assert "ticks     through shared memory" in story.healthy.out


def test_what_cannot_be_done_is_one_sentence_and_code_2(story):
    assert story.wrong.code == story.without_trade.code == 2
    assert "501 characters" in story.wrong.err
    assert "no trade is open" in story.without_trade.err


def test_flattening_a_symbol_closes_its_trade_and_stops_nobody(story):
    assert story.flattened.json["risk"]["flatten"] == [story.symbol]
    assert story.flattened.json["risk"]["state"] == "active"
    assert story.went_on.risk["state"] == "active"
    reasons = {row["symbol"]: row["exit_reason"] for row in story.ledger.trades}
    told = [row for row in story.ledger.trades if row["exit_reason"] == "risk_flatten"]
    assert story.symbol in {row["symbol"] for row in told}, reasons


def test_no_yes_is_given_after_the_answer_to_a_halt(story):
    assert story.halt.code == 0, story.halt.err
    risk = story.halt.json["risk"]
    assert (risk["state"], risk["reason"], risk["actor"]) == ("halted", "looks odd", "ann")
    resumed_ns = story.resumed.json["risk"]["since_ns"]
    assert granted_between(story, story.halt.ended_ns, resumed_ns) == []
    assert resumed_ns - story.halt.ended_ns > QUIET_S * 1e9
    assert "halted" in story.halted.out
    assert "by ann: looks odd" in story.halted.out


def test_a_halt_is_answered_within_a_second_or_so_of_the_command(story):
    # The command's own start is in it: a Python process on a busy machine.
    assert story.halt.took_s < 5.0


def test_entries_go_on_after_a_resume(story):
    assert story.resumed.json["risk"]["state"] == "active"
    halted_ns = story.halt_without_supervisor.json["risk"]["since_ns"]
    assert granted_between(story, story.resumed.json["risk"]["since_ns"], halted_ns) != []


def test_a_halt_needs_no_supervisor(story):
    assert story.halt_without_supervisor.code == 0, story.halt_without_supervisor.err
    assert granted_between(story, story.halt_without_supervisor.ended_ns, 2**63) == []


def test_the_ledger_has_every_command_with_who_and_why(story):
    told = [
        (row["state"], row["reason"], row["actor"], row["flatten"])
        for row in story.ledger.risk_events
        if row["actor"] != "guard"
    ]
    me = told[0][2]
    assert "@" in me
    assert told == [
        ("active", "odd book", me, story.symbol),
        ("halted", "looks odd", "ann", None),
        ("active", "seen", "ann", None),
        ("halted", "all is odd", me, None),
    ]


def test_the_books_hold_and_the_run_ends_flat(story):
    assert story.code in {0, 4}, story.err
    assert "Traceback" not in story.err
    assert story.ledger.problems() == []
    assert story.ledger.open_trades() == set()
