"""What the chaos shim does to an actor's process, and that it does nothing unasked."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec
import pytest

from tests.chaos.world import SHIM
from tests.e2e.runs import ROOT

SCRIPT = """
import asyncio, json, os, time
from pathlib import Path
from arb_ray.actors import cluster

real_ns = time.clock_gettime_ns
folder = os.environ.get("CHAOS_CONTROL")

def off_s():
    return (time.time_ns() - real_ns(time.CLOCK_REALTIME)) / 1e9

def cast(spell):
    if folder is None:
        return
    path = Path(folder) / f"{os.getpid()}.json"
    path.unlink(missing_ok=True)
    if spell is not None:
        path.write_text(json.dumps(spell))
    taken = path.with_suffix(".taken")
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        time.sleep(0.02)
        if spell is None and off_s() < 1 or spell and taken.exists():
            if spell is None or taken.read_text() == str(path.stat().st_mtime_ns):
                return
    raise AssertionError("nobody took the spell")

ran = []

class Method:
    def remote(self, *args):
        ran.append(args)
        answer = asyncio.get_running_loop().create_future()
        answer.set_result("answer")
        return answer

class Handle:
    ping = Method()

async def call(what=None, delay_s=0.0):
    cast({"calls": {"what": what, "share": 1.0, "delay_s": delay_s}} if what else None)
    links = cluster.RayLinks("none")
    links._handles["one"] = Handle()
    before, began = len(ran), time.monotonic()
    try:
        answer = await links.wait(links.handle("one").ping.remote(), "one.ping", 0.6)
    except cluster.OutcomeUnknown:
        answer = "unknown"
    return {"answer": answer, "ran": len(ran) - before, "took_s": time.monotonic() - began}

cast({"wall_offset_ns": 7_000_000_000})
stepped, mono = off_s(), time.monotonic_ns() - real_ns(time.CLOCK_MONOTONIC)
cast(None)
print(json.dumps({
    "stepped_s": stepped, "mono_ns": mono, "healed_s": off_s(),
    "plain": asyncio.run(call()),
    "lost": asyncio.run(call("lost")),
    "answer": asyncio.run(call("answer")),
    "late": asyncio.run(call("late", 0.3)),
}))
"""


def run(**environment):
    path = os.pathsep.join((str(SHIM), str(ROOT)))
    environment = {**os.environ, "PYTHONPATH": path, **environment}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, cwd=ROOT, text=True,
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return msgspec.json.decode(done.stdout)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    return run(CHAOS_CONTROL=str(tmp_path_factory.mktemp("control")))


def test_the_wall_clock_steps_and_comes_back_while_the_monotonic_one_goes_on(told):
    assert told["stepped_s"] == pytest.approx(7, abs=0.1)
    assert abs(told["mono_ns"]) < 1e8
    assert told["healed_s"] == pytest.approx(0, abs=0.1)


def test_a_lost_call_never_runs_and_its_outcome_is_unknown(told):
    assert (told["lost"]["answer"], told["lost"]["ran"]) == ("unknown", 0)


def test_a_call_whose_answer_is_lost_has_run(told):
    assert (told["answer"]["answer"], told["answer"]["ran"]) == ("unknown", 1)


def test_a_late_call_runs_once_and_answers(told):
    assert (told["late"]["answer"], told["late"]["ran"]) == ("answer", 1)


def test_without_a_spell_a_call_is_a_call(told):
    assert (told["plain"]["answer"], told["plain"]["ran"]) == ("answer", 1)


def test_outside_a_chaos_world_the_shim_does_nothing():
    environment = dict(os.environ)
    environment.pop("CHAOS_CONTROL", None)
    told = run()
    assert abs(told["stepped_s"]) < 0.1
    assert told["lost"]["answer"] == told["answer"]["answer"] == "answer"
