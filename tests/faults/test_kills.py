"""
Workers are killed and frozen in a run, one after another; the run goes on and ends well.

What that may cost is stated here: the victim's own counters, a trade that was asked for and
not granted, and seconds. What it may not cost: the books, a position, the clean end. How many
seconds is not for a test, which runs beside others: benchmarks/recovery.py measures it.
"""

from __future__ import annotations

import time

import msgspec
import psutil
import pytest

from arb_ray.adapters.storage.process import free_port
from benchmarks.recovered import Fault, births, missing_yet
from tests.e2e.ledger import read_ledger
from tests.e2e.runs import END_TIMEOUT_S, one_line_of_json, short_folder, submit

pytestmark = pytest.mark.timeout(600)

KILLED = {
    "ray::StrategyHostActor": "host",
    "ray::RiskGuardActor": "risk",
    "ray::FeedActor": "feed",
}
# The supervisor first: what it had noted of the others would end with it.
FROZEN = {"ray::SupervisorActor": "supervisor", "ray::RiskGuardActor": "risk"}
HEALTH_TIMEOUT_S = 5
BACK_WITHIN_S = 30.0
"""A bound for a test on a busy machine, and no promise."""


class Killed(msgspec.Struct):
    """What became of a run whose workers were killed and frozen."""

    back_after_s: dict[str, float]
    replaced_after_s: dict[str, float]
    code: int
    summary: dict
    err: str
    left: list[str]
    ledger: object


@pytest.fixture(scope="module")
def survivor():
    """One run, two freezes, three kills."""
    with (
        short_folder() as folder,
        submit(
            folder / "data",
            *("--json", "--seed", "5"),
            *("--set", f"topology.health_timeout_s={HEALTH_TIMEOUT_S}"),
            gateway=free_port(),
        ) as run,
    ):
        run.until_live()
        run.until(has_traded, "a trade")
        replaced_after_s = {
            title: strike_and_wait(run, title, role, psutil.Process.suspend)
            for title, role in FROZEN.items()
        }
        back_after_s = {
            title: strike_and_wait(run, title, role, psutil.Process.kill)
            for title, role in KILLED.items()
        }
        decided = decisions(run.status())
        run.until(lambda r: decisions(r.status()) > decided, "decisions after the last kill")
        run.interrupt()
        code = run.wait(END_TIMEOUT_S)
        left = run.left_running()
        ledger = read_ledger(folder / "data")
        summary = one_line_of_json(run)
        yield Killed(back_after_s, replaced_after_s, code, summary, run.err, left, ledger)


def has_traded(run):
    status = run.status()
    return status and any(host.trades_opened for host in status.hosts.values())


def decisions(status):
    return sum(host.decisions for host in status.hosts.values()) if status else 0


def strike_and_wait(run, title, role, strike):
    """Kill or freeze the oldest worker with this title; return the seconds until all is whole."""
    status = run.until(lambda r: r.status(), "a status")
    named = {name: at for name, at in births(status).items() if name.startswith(f"{role}:")}
    victim = run.family.titled(title)[0]
    fault, begun = Fault(time.time_ns(), named), time.monotonic()
    strike(victim)
    run.until(
        lambda r: not victim.is_running() and is_whole(r, fault),
        f"recovery of {title}",
        timeout_s=BACK_WITHIN_S,
    )
    return time.monotonic() - begun


def is_whole(run, fault):
    """The replacement answers, every symbol is live with younger books, RiskGuard grants."""
    seen_ns, status = time.time_ns(), run.status()
    return status is not None and not missing_yet(status, fault, seen_ns)


def test_each_killed_worker_comes_back(survivor):
    assert set(survivor.back_after_s) == set(KILLED)


def test_each_frozen_worker_is_ended_and_replaced_after_the_health_time_out(survivor):
    assert set(survivor.replaced_after_s) == set(FROZEN)
    # It was not taken for frozen because something else held its answer up.
    assert min(survivor.replaced_after_s.values()) > HEALTH_TIMEOUT_S - 1


def test_the_run_ends_cleanly_and_tells_of_the_kills(survivor):
    assert survivor.code == 4, survivor.err
    told = " ".join(survivor.summary["errors"])
    assert all(f"{role}:" in told for role in ("host", "risk", "feed")), told
    assert "Traceback" not in survivor.err
    assert survivor.left == []


def test_no_position_is_left_open(survivor):
    assert survivor.summary["open_positions"] == 0
    assert survivor.ledger.open_trades() == set()


def test_the_books_hold_after_every_kill(survivor):
    assert survivor.ledger.problems() == []
    assert survivor.summary["trades_closed"] == len(survivor.ledger.closed_trades()) > 0
