"""
Workers are killed in the middle of a run, one after another; the run goes on and ends well.

What a kill may cost is stated here: the killed actor's own counters, a trade that was asked
for and not granted, and seconds. What it may not cost: the books, a position, the clean end.
"""

from __future__ import annotations

import time

import msgspec
import pytest

from arb_ray.adapters.storage.process import free_port
from tests.e2e.ledger import read_ledger
from tests.e2e.runs import END_TIMEOUT_S, one_line_of_json, short_folder, submit

pytestmark = pytest.mark.timeout(600)

VICTIMS = ("ray::StrategyHostActor", "ray::RiskGuardActor", "ray::FeedActor")
BACK_WITHIN_S = 45.0


class Killed(msgspec.Struct):
    """What became of a run whose workers were killed."""

    back_after_s: dict[str, float]
    code: int
    summary: dict
    err: str
    left: list[str]
    ledger: object


@pytest.fixture(scope="module")
def survivor():
    """One run, three kills."""
    with (
        short_folder() as folder,
        submit(folder / "data", "--json", "--seed", "5", gateway=free_port()) as run,
    ):
        run.until_live()
        run.until(has_traded, "a trade")
        back_after_s = {title: kill_and_wait(run, title) for title in VICTIMS}
        decided = decisions(run.status())
        run.until(lambda r: decisions(r.status()) > decided, "decisions after the last kill")
        run.interrupt()
        code = run.wait(END_TIMEOUT_S)
        left = run.left_running()
        ledger = read_ledger(folder / "data")
        yield Killed(back_after_s, code, one_line_of_json(run), run.err, left, ledger)


def has_traded(run):
    status = run.status()
    return status and any(host.trades_opened for host in status.hosts.values())


def decisions(status):
    return sum(host.decisions for host in status.hosts.values()) if status else 0


def kill_and_wait(run, title):
    """Kill the oldest worker with this title; return the seconds until all is well again."""
    victim = run.family.titled(title)[0]
    begun = time.monotonic()
    victim.kill()
    run.until(
        lambda r: victim.pid not in {p.pid for p in r.family.titled(title)} and is_whole(r),
        f"recovery from the end of {title}",
        timeout_s=BACK_WITHIN_S,
    )
    return time.monotonic() - begun


def is_whole(run):
    """Every actor answers anew and every symbol is live, seen twice: once may be old news."""
    for _ in range(2):
        status = run.status()
        if status is None or status.missing or not status.risk.get("ready"):
            return False
        if not all(actor.ready for actor in (*status.hosts.values(), *status.feeds.values())):
            return False
        if sum(len(host.live) for host in status.hosts.values()) != 20:
            return False
        time.sleep(1)
    return True


def test_each_killed_worker_comes_back(survivor):
    assert set(survivor.back_after_s) == set(VICTIMS)
    assert all(seconds < BACK_WITHIN_S for seconds in survivor.back_after_s.values())


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
