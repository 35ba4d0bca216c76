"""Persistence and the Supervisor frozen together: the Gateway is the second who watches."""

import asyncio

from arb_ray.actors import supervisor_watch
from arb_ray.actors.gateway import Gateway
from arb_ray.actors.gateway_actions import Actions
from arb_ray.app import kit
from arb_ray.app.settings import load_settings
from benchmarks.recovery import KILL_S_MAX
from tests.shell_world import Ends, Log


class Links:
    """A supervisor that answers until it is frozen, and again once it was started anew."""

    def __init__(self):
        self.is_frozen, self.restarts = False, []

    async def ping(self, name, timeout_s):
        return not self.is_frozen

    def restart(self, name):
        self.restarts.append(name)


async def test_the_gateway_has_a_supervisor_started_that_persistence_did_not(monkeypatch):
    monkeypatch.setattr(supervisor_watch, "INTERVAL_S", 0.01)
    links, ends = Links(), Ends()
    gateway = Gateway(
        host="127.0.0.1",
        port=0,
        ask_supervisor=None,
        ask_guard=None,
        actions=Actions(None, None, Log()),
        metrics_page=None,
        log=Log(),
        watch=kit.supervisor_watch(links, Log(), 0.2),
        loops=ends.loops,
    )
    gateway.start()
    await asyncio.sleep(0.3)
    assert links.restarts == []
    links.is_frozen = True
    await asyncio.sleep(0.5)
    assert links.restarts == [kit.SUPERVISOR]
    await gateway.stop()
    assert ends.ended == []


def test_the_second_watch_gives_the_first_ones_supervisor_time_to_be_back():
    settings = load_settings("dev")
    timeout_s = settings.topology.health_timeout_s
    back_s = timeout_s + KILL_S_MAX
    assert supervisor_watch.SECOND_WATCH_FACTOR * timeout_s > back_s
