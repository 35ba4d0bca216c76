"""A feed's batch whose answer is lost must not cost its host the books."""

import asyncio
import time

import pytest

from arb_ray.actors.cluster import RayLinks, StrategyHostActor
from arb_ray.actors.wire import pack
from arb_ray.app.settings import load_settings
from arb_ray.domain.book import TickBatch
from arb_ray.domain.errors import OutcomeUnknown, PlaneUnavailable

HEARTBEAT = TickBatch(1, "feed:upbit", 1, "node", 0, 0.0, 0.0, (), ())


class Host:
    """An actor handle whose method runs and whose answer never comes."""

    def __init__(self):
        self.deliver = self

    def remote(self, batch):
        return asyncio.get_running_loop().create_future()


async def test_a_lost_answer_is_given_up_before_the_hosts_books_are_stale(monkeypatch):
    links = RayLinks("nowhere")
    monkeypatch.setattr(links, "handle", lambda name: Host())
    strategy = load_settings("dev").strategy
    stale_s = min(strategy.max_age_a_ms, strategy.max_age_b_ms) / 1e3
    began_s = time.monotonic()
    with pytest.raises(OutcomeUnknown):
        await links.sink("host:000").deliver(HEARTBEAT)
    # Less than all of it: the next batch needs its time too.
    assert time.monotonic() - began_s < 0.7 * float(stale_s)


class Answering:
    """An actor handle that notes which method was called, and answers."""

    def __init__(self):
        self.called = []

    def __getattr__(self, method):
        return Answer(self.called, method)


class Answer:
    def __init__(self, called, method):
        self.called, self.method = called, method

    def remote(self, batch):
        self.called.append((self.method, batch))
        answer = asyncio.get_running_loop().create_future()
        answer.set_result(7)
        return answer


async def test_a_host_is_called_for_itself_or_for_its_whole_node(monkeypatch):
    links, handle = RayLinks("nowhere"), Answering()
    monkeypatch.setattr(links, "handle", lambda name: handle)
    assert await links.sink("host:000").deliver(HEARTBEAT) == 7
    assert await links.relay("host:000").deliver(HEARTBEAT) == 7
    assert handle.called == [("deliver", pack(HEARTBEAT)), ("relay", pack(HEARTBEAT))]


async def test_ticks_of_elsewhere_are_laid_down_or_refused_by_the_actor():
    shell = object.__new__(StrategyHostActor)

    class Inner:
        async def relay(self, batch):
            if batch != b"fits":
                raise PlaneUnavailable("no board")
            return 5

    shell._inner = Inner()
    assert await shell.relay(b"fits") == 5
    with pytest.raises(PlaneUnavailable):
        await shell.relay(b"another")
