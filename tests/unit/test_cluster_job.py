"""submit's job on the head: what it does when the world moves while it works."""

import msgspec
import pytest

from arb_ray import __version__
from arb_ray.actors import cluster, node_probe
from arb_ray.adapters.storage.session_store import Session, SessionTotals
from arb_ray.app import cluster_job
from arb_ray.app.cluster_wait import Readiness
from arb_ray.app.deployment import decode, encode
from arb_ray.app.job_lines import JobRequest
from arb_ray.app.kit import SUPERVISOR
from arb_ray.app.settings import load_settings
from tests.status_examples import status
from tests.unit.test_deploying import deployment


class Ray:
    """A cluster of names; ``asked`` answers the Supervisor's status."""

    names, ended = [], []
    asked = staticmethod(status)

    def __init__(self, *_):
        self.links = self

    async def call(self, name, method, *said, timeout_s):
        return Ray.asked()

    def forget(self, name):
        pass

    def present(self):
        return tuple(Ray.names)

    def end(self, name):
        Ray.ended.append(name)

    def start_supervisor(self, *_):
        pass


class Rows:
    def __init__(self, *rows):
        self.rows = list(rows)

    async def newest(self, after=0):
        return self.rows[-1] if self.rows else None

    async def append(self, stored):
        self.rows.append(stored)


class Runs:
    """The runs of the environment; this one is the only one."""

    def __init__(self):
        self.ended = 0

    async def refuse_elsewhere(self):
        pass

    async def end(self, now_ns):
        self.ended += 1


class Sessions:
    def __init__(self, *opened):
        self.opened = list(opened)  # what each look finds

    async def open(self, **_):
        return Session("s1", "sim", "lively", 1, 0, 0)

    async def current(self):
        return Session("running", "sim", "lively", 1, 0, 0)

    async def totals(self, _):
        return SessionTotals()

    async def open_symbols(self):
        return self.opened.pop(0) if len(self.opened) > 1 else self.opened[0]


@pytest.fixture
def world(monkeypatch):
    Ray.names, Ray.ended = [SUPERVISOR, "host:000@old"], []
    monkeypatch.setattr(cluster, "RayCluster", Ray)
    monkeypatch.setattr(cluster, "names_in", lambda _: tuple(Ray.names))
    monkeypatch.setattr(node_probe, "own_address", lambda: "10.0.0.9")
    monkeypatch.setattr(node_probe, "cpu_count", lambda: 2)
    monkeypatch.setattr(cluster_job._Job, "_look_at_nodes", lambda self: None)


def job(rows, sessions=None, **request):
    fields = {"env": "dev", "overrides": {}, "actor": "me"} | request
    settings = load_settings("dev", fields["overrides"])
    made = cluster_job._Job(JobRequest(**fields), settings, None)
    made._wanted, made._sessions = rows, sessions or Sessions(())
    made._runs = Runs()
    return made


async def test_a_stop_ends_the_supervisor_when_its_state_was_carried_out(world):
    rows = Rows(encode(deployment(), "me"))
    Ray.asked = staticmethod(
        lambda: status(code=__version__, deployment=2, stopped=2, errors=["of last week"])
    )
    ended = await job(rows, is_stop=True, flatten=True).stop()
    assert (ended.code, Ray.ended) == (0, [SUPERVISOR])
    after = decode(rows.rows[-1])
    assert (after.version, after.is_stopped, after.flatten) == (2, True, True)


async def test_a_stop_leaves_alone_what_a_submit_wants_that_came_after_it(world):
    rows = Rows(encode(deployment(), "me"))

    def stopped_and_overtaken():
        if len(rows.rows) == 2:
            before = decode(rows.rows[-1])
            rows.rows.append(
                encode(msgspec.structs.replace(before, version=3, is_stopped=False), "other")
            )
        return status(code=__version__, deployment=2, stopped=2)

    Ray.asked = staticmethod(stopped_and_overtaken)
    await job(rows, is_stop=True).stop()
    assert Ray.ended == []


async def test_what_went_wrong_in_a_stop_is_its_exit_code_and_told(world):
    rows = Rows(encode(deployment(), "me"))
    Ray.asked = staticmethod(
        lambda: status(code=__version__, stopped=2, errors=["old"], stop_errors=["new"])
    )
    ended = await job(rows, is_stop=True).stop()
    assert (ended.code, ended.result["errors"]) == (4, ["new"])


async def test_what_was_entered_between_the_plan_and_the_change_is_run_to_be_closed(
    world, monkeypatch
):
    first = deployment("BTC,SOL", source="sim")
    (sol,) = [pair for pair in first.pairs(first.settings()) if pair.symbol == "SOL"]
    opened = ((sol.symbol, (sol.a.id, sol.b.id)),)
    waited = []

    async def is_ready(_, wanted, *__):
        waited.append(wanted.version)
        return Readiness(seconds=1.0, live=1, gateway="", problems=())

    monkeypatch.setattr(cluster_job, "until_ready", is_ready)
    Ray.asked = staticmethod(lambda: status(code=__version__))
    rows = Rows(encode(first, "me"))
    ended = await job(
        rows, Sessions((), opened), overrides={"symbols": "BTC", "source": "sim"}
    ).submit()
    last = decode(rows.rows[-1])
    assert (ended.code, waited) == (0, [2, 3])
    assert decode(rows.rows[1]).symbols == ("BTC",)
    assert (last.symbols, last.leaving) == (("BTC", "SOL"), ("SOL",))


async def test_the_simulated_exchanges_are_where_the_head_is_now(world):
    rows = Rows()
    settings = job(rows, overrides={"source": "sim"})._with_exchanges()
    assert settings.venues.upbit.ws_url == "ws://10.0.0.9:8791"


async def test_a_dry_run_of_a_new_session_is_a_plan_of_a_new_session(world):
    said = {"dry_run": True}
    assert (await job(Rows(), **said)._session()).session_id == "running"
    assert (await job(Rows(), resume=False, **said)._session()).session_id == "(new)"
