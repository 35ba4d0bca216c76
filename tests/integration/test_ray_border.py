"""The border to Ray, on a real one: births, deaths, errors, and the right to the last word."""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import time
import urllib.request

import psutil
import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from arb_ray.actors import cluster
from arb_ray.domain.errors import Fenced, OutcomeUnknown, StoreUnavailable
from arb_ray.domain.risk_intent import Granted, Refused
from arb_ray.engine.topology import Role, WantedActor
from tests.ray_sample import SampleKit
from tests.risk_world import intent
from tests.signal_market import U_FAIR, U_ID, make_batch, make_update

NAMESPACE = "border"
PATIENCE_S = 60.0

pytestmark = pytest.mark.filterwarnings("default")  # Ray's own warnings are not ours to mend


@pytest.fixture(scope="session")
def local_ray():
    """One Ray on this machine, in a folder with a name short enough for its sockets."""
    asked = {
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_metrics_report_interval_ms": "2000",
    }
    folder = tempfile.mkdtemp(prefix="arb-ray-", dir="/tmp")
    with pytest.MonkeyPatch.context() as environment:
        for name, value in asked.items():
            environment.setenv(name, value)
        cluster.start_local(
            {
                "num_cpus": 2,
                "include_dashboard": False,
                "object_store_memory": 80_000_000,
                "namespace": NAMESPACE,
                "_temp_dir": folder,
            }
        )
        yield
        cluster.disconnect()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def actors(local_ray, tmp_path):
    return cluster.RayCluster(NAMESPACE, SampleKit(str(tmp_path)))


@pytest.fixture
async def started(actors):
    """Starts actors of this test alone, and ends them with it."""
    names = []

    def start(role=Role.PERSISTENCE, key="sample"):
        wanted = WantedActor(role, key, (), os.urandom(4).hex())
        actors.start(wanted)
        names.append(wanted.name)
        return wanted

    yield start
    await asyncio.gather(*(actors.stop(name) for name in names))


async def pid_of(actors, wanted):
    """Ask until it answers: a process takes its time to be born."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await actors.links.call(wanted.name, "pid", timeout_s=PATIENCE_S)
        except OutcomeUnknown:
            assert time.monotonic() < deadline, f"{wanted.name} never answered"
            await asyncio.sleep(0.1)


async def another_pid(actors, wanted, former):
    deadline = time.monotonic() + PATIENCE_S
    while (pid := await pid_of(actors, wanted)) == former:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    return pid


async def test_an_actor_is_adopted_when_its_name_exists(actors, started, tmp_path):
    wanted = started()
    pid = await pid_of(actors, wanted)
    actors.start(wanted)
    assert await pid_of(actors, wanted) == pid
    assert wanted.name in actors.present()
    assert await actors.ping(wanted.name, PATIENCE_S)
    assert (tmp_path / "sample").read_text() == f"born {pid}\nloop {pid}\n"


async def test_a_killed_process_is_started_again_and_its_loop_runs(actors, started, tmp_path):
    wanted = started()
    first = await pid_of(actors, wanted)
    os.kill(first, signal.SIGKILL)
    second = await another_pid(actors, wanted, first)
    assert (tmp_path / "sample").read_text().splitlines() == [
        f"born {first}", f"loop {first}", f"born {second}", f"loop {second}",
    ]  # fmt: skip


async def test_a_loop_that_ends_takes_its_process_along_and_lives_again(actors, started, tmp_path):
    wanted = started()
    first = await pid_of(actors, wanted)
    with contextlib.suppress(OutcomeUnknown):  # the process may be gone before its answer
        await actors.links.call(wanted.name, "end_loop", timeout_s=PATIENCE_S)
    second = await another_pid(actors, wanted, first)
    assert f"loop {second}" in (tmp_path / "sample").read_text()


async def test_errors_arrive_as_what_they_are_and_bugs_as_unknown_outcomes(actors, started):
    wanted = started()
    await pid_of(actors, wanted)
    with pytest.raises(Fenced) as caught:
        await actors.links.call(wanted.name, "fail", "typed", timeout_s=PATIENCE_S)
    assert (type(caught.value), caught.value.args) == (Fenced, ("RiskGuard", 1, 2))
    with pytest.raises(OutcomeUnknown, match="a bug over there"):
        await actors.links.call(wanted.name, "fail", "bug", timeout_s=PATIENCE_S)


async def test_silence_and_death_are_unknown_outcomes(actors, started):
    wanted = started()
    pid = await pid_of(actors, wanted)
    with pytest.raises(OutcomeUnknown):
        await actors.links.call(wanted.name, "sleep", 60, timeout_s=0.05)
    call = asyncio.create_task(actors.links.call(wanted.name, "sleep", 60, timeout_s=PATIENCE_S))
    await asyncio.sleep(0.2)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(OutcomeUnknown):
        await call
    with pytest.raises(OutcomeUnknown):
        await actors.links.call("persistence:nobody@0", "pid", timeout_s=1.0)
    assert not await actors.ping("persistence:nobody@0", 1.0)


async def test_stop_lets_an_actor_finish_and_then_ends_it(actors, started, tmp_path):
    wanted = started()
    pid = await pid_of(actors, wanted)
    await actors.stop(wanted.name)
    assert (tmp_path / "sample").read_text().splitlines()[-1] == f"stop {pid}"
    deadline = time.monotonic() + PATIENCE_S
    # Ray is told of the end and goes about it: on a busy machine the name stays a while.
    while psutil.pid_exists(pid) or wanted.name in actors.present():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    with pytest.raises(OutcomeUnknown):
        await actors.links.call(wanted.name, "pid", timeout_s=5.0)
    await actors.stop(wanted.name)  # a second time does nothing


def exported_by_ray():
    """Read the node's own export, as Prometheus does."""
    (node,) = ray.nodes()
    with urllib.request.urlopen(
        f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=10
    ) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {
            (sample.name, sample.labels.get("actor")): sample.value
            for family in families
            for sample in family.samples
            if sample.name.startswith("ray_arb_") and not sample.name.endswith("_bucket")
        }


async def test_an_actors_metrics_are_in_its_answer_and_in_rays_export(actors, started):
    wanted = started()
    await pid_of(actors, wanted)
    told = (await actors.links.metrics(wanted.name, PATIENCE_S)).decode()
    assert 'arb_errors_logged_total{actor="persistence:sample"} 0.0' in told
    wished = {
        ("ray_arb_errors_logged_total", "persistence:sample"): 3.0,
        ("ray_arb_reserve_ms_count", "host:sample"): 2.0,
    }  # a histogram's sum is approximate there

    host = started(Role.HOST, "sample")
    await pid_of(actors, host)
    for _ in range(3):
        await actors.links.call(wanted.name, "count", "errors_logged", timeout_s=PATIENCE_S)
    for value in (4.0, 6.0):
        await actors.links.call(host.name, "sample", "reserve_ms", value, timeout_s=PATIENCE_S)
    deadline = time.monotonic() + PATIENCE_S
    while not wished.items() <= (exported := exported_by_ray()).items():
        assert time.monotonic() < deadline, exported
        await asyncio.sleep(0.5)
    assert exported[("ray_arb_loop_time_ms", "host:sample")] >= 0
    # A gauge stays: it is set again before Ray forgets it, after two report intervals.
    await asyncio.sleep(5.0)
    assert ("ray_arb_loop_time_ms", "host:sample") in exported_by_ray()


async def test_messages_cross_as_bytes_and_come_out_as_they_were(actors, started):
    guard = started(Role.RISK, "guard")
    host = started(Role.HOST, "host")
    await asyncio.gather(pid_of(actors, guard), pid_of(actors, host))
    risk = cluster.RayRisk(actors.links, guard.name, PATIENCE_S)
    asked = intent()
    assert await risk.reserve(asked) == Granted(asked.trade_id, 3, asked.deadline_ns)
    assert isinstance(await risk.reserve(intent(symbol="NO")), Refused)
    with pytest.raises(StoreUnavailable):
        await risk.reserve(intent(symbol="AWAY"))
    batch = make_batch("upbit", [make_update(U_ID, 1, U_FAIR)])
    assert await actors.links.sink(host.name).deliver(batch) > 100
