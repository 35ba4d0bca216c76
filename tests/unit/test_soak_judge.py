"""The soak benchmark must see growth, and must not see it where there is none."""

import random

import pytest

from arb_ray.engine.latency import LatencyHistogram
from benchmarks import soak
from benchmarks.family import Member
from benchmarks.report_plots import plots_of
from benchmarks.soak_judge import delays_of, judge_soak, slope_per_min, warm_up_s
from benchmarks.soak_run import End, Sample
from tests.status_examples import feed, host, persistence, status, symbol_row

DURATION_S = 600.0
CLEAN = End(0, 1.0, [], {"errors": []}, "")


def member(pid, uss_mib, *, label="ray::FeedActor", handles=40):
    return Member(pid, label, uss_mib + 20, uss_mib, uss_mib + 60, handles, 1.0)


def run_of(members_at, seen=None):
    return [Sample(at, members_at(at), seen) for at in range(0, 600, 5)]


def run_with(status_at):
    return [Sample(at, [member(1, 50)], status_at(at)) for at in range(0, 600, 5)]


def test_a_steady_run_keeps_every_budget():
    assert missed(run_with(lambda _: status())) == set()


def test_a_queue_that_grows_is_found():
    grown = missed(run_with(lambda at: status(feeds={"f": feed("upbit", queue=at // 30)})))
    assert {"feeds' queues"} <= grown


def test_rows_that_pile_up_are_found():
    found = missed(run_with(lambda at: status(persistence=persistence(buffered=10 * at))))
    assert {"rows waiting for PostgreSQL", "most rows waiting"} <= found


@pytest.mark.parametrize("count", ["spooled", "snapshots_dropped"])
def test_one_spooled_or_dropped_row_is_found(count):
    found = missed(run_with(lambda at: status(persistence=persistence(**{count: 1}))))
    assert found == {"rows spooled or dropped"}


@pytest.mark.parametrize("age", ["age_a_ms", "age_b_ms"])
def test_one_old_book_is_found(age):
    def status_at(at):
        rows = [symbol_row("BTC", **{age: 3_001.0 if at == 300 else 10.0})]
        return status(hosts={"h": host(["BTC"], rows=rows)})

    assert missed(run_with(status_at)) == {"oldest book"}


def test_a_symbol_that_lost_its_book_is_found():
    gone = host(["BTC", "ETH"], live=["ETH"])
    assert missed(run_with(lambda _: status(hosts={"h": gone}))) == {"symbols without a book"}


def delayed(growth):
    """Return a status by time whose host decides once a second, later and later by ``growth``."""
    delays = LatencyHistogram()
    told = []
    for at in range(600):
        delays.add(round(4_000_000 * (1 + growth * at / 600)))
        told.append((delays.sparse(), delays.max_ns))

    def status_at(at):
        counts, max_ns = told[int(at)]
        return status(hosts={"h": host(["BTC"], latency_counts=counts, latency_max_ns=max_ns)})

    return status_at


def test_a_delay_that_creeps_up_is_found():
    assert missed(run_with(delayed(2.0))) == {"growth of the delay's p99"}
    assert missed(run_with(delayed(0.1))) == set()


def test_delays_are_those_between_two_statuses():
    (first, *_, last) = delays_of(run_with(delayed(1.0)))
    assert first.at_s == 5
    assert first.p99_ms == pytest.approx(4.0, rel=0.06)
    assert last.p50_ms == pytest.approx(8.0, rel=0.06)


def test_the_series_has_memory_and_delay_and_a_bound():
    samples = run_with(delayed(1.0))
    series = soak._series(samples * 4)
    assert len(series) <= soak.SERIES_MAX
    first, *_, last = soak._series(samples)
    assert first == {"at_s": 0, "pss_mib": 70}  # before it there is nothing to compare with
    assert last["pss_mib"] == 70
    assert last["p99_ms"] == pytest.approx(8.0, rel=0.06)
    assert {one.name for one in plots_of("soak", {"series": series})} == {
        "soak_memory",
        "soak_delay",
    }


@pytest.mark.parametrize(
    ("options", "minutes"),
    [
        ([], 10),
        (["--minutes", "3"], 3),
        (["--hours", "24"], 1440),
        (["--hours=1", "--minutes=5"], 65),
    ],
)
def test_minutes_and_hours_add_up(options, minutes):
    assert soak._duration_s(soak._parser().parse_args(options)) == minutes * 60


def test_a_loop_that_is_late_is_found():
    late = host(["BTC"], loop_lag_ms=300.0)
    assert missed(run_with(lambda _: status(hosts={"h": late}))) == {"loop lag of hosts, p95"}


def missed(samples, end=CLEAN):
    return {one.name for one in judge_soak(samples, DURATION_S, end) if not one.is_kept}


@pytest.mark.parametrize("per_min", [0.0, 0.4, 3.0, -2.0])
def test_the_slope_is_found_under_noise_and_outliers(per_min):
    noise = random.Random(1)
    points = [(at, 100 + at / 60 * per_min + noise.gauss(0, 0.3)) for at in range(0, 600, 5)]
    points[7], points[60] = (35, 900.0), (300, 0.0)
    assert slope_per_min(points) == pytest.approx(per_min, abs=0.1)


def test_too_few_points_have_no_slope():
    assert slope_per_min([]) == slope_per_min([(0, 1)]) == slope_per_min([(0, 1), (5, 9)]) == 0


def test_a_short_run_keeps_time_to_judge():
    assert (warm_up_s(600), warm_up_s(180)) == (120, 60)


def test_growth_in_the_warm_up_is_not_judged():
    samples = run_of(lambda at: [member(1, 50 + min(at, 120))])
    assert not missed(samples) & {"memory of one process", "memory of all"}


def test_a_leak_in_one_process_is_found():
    samples = run_of(lambda at: [member(1, 50 + at / 60), member(2, 50)])
    assert "memory of one process" in missed(samples)
    assert "memory of all" not in missed(samples)


def test_small_leaks_everywhere_are_found_in_the_sum():
    samples = run_of(lambda at: [member(pid, 50 + 0.4 * at / 60) for pid in range(6)])
    assert "memory of one process" not in missed(samples)
    assert "memory of all" in missed(samples)


def test_a_restarted_process_is_another_one():
    samples = run_of(lambda at: [member(1 if at < 300 else 2, 50 if at < 300 else 58)])
    assert "memory of one process" not in missed(samples)


def test_the_servers_of_postgresql_are_judged_together():
    def members(at):
        return [member(at * 10 + i, 5, label="postgres") for i in range(1 + at // 60)]

    assert "memory of one process" in missed(run_of(members))


def test_handles_that_are_never_closed_are_found():
    samples = run_of(lambda at: [member(1, 50, handles=40 + at // 60)])
    assert "open handles of one process" in missed(samples)


def test_too_much_memory_at_one_moment_is_found():
    samples = run_of(lambda at: [member(1, 4_000 if at == 300 else 50)])
    assert missed(samples) & {"memory of all, shared parts once"}


def test_a_gateway_that_never_answers_is_found():
    assert "statuses missed" in missed(run_of(lambda at: [member(1, 50)]))


def test_an_unclean_end_is_found():
    samples = run_of(lambda at: [member(1, 50)])
    end = End(4, 1.0, ["12 ray raylet"], {"errors": ["one"]}, "")
    assert {"exit code", "errors told", "processes left running"} <= missed(samples, end)
    assert "errors told" in missed(samples, End(0, 1.0, [], {}, ""))
