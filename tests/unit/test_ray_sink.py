"""A feed's batch whose answer is lost must not cost its host the books."""

import asyncio
import time

import pytest

from arb_ray.actors.cluster import RayLinks
from arb_ray.app.settings import load_settings
from arb_ray.domain.book import TickBatch
from arb_ray.domain.errors import OutcomeUnknown

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
