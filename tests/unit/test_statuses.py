"""What an actor lacks, as the supervisor has heard it."""

import pytest

from arb_ray.actors.statuses import Statuses
from arb_ray.actors.wire import pack
from arb_ray.engine.topology import Role, WantedActor
from tests.status_examples import feed, host


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (None, "unheard"),
        (host(["BTC"], ready=False), "unready"),
        (host(["BTC", "ETH"], live=["BTC"]), "books"),
        (host(["BTC"], live=["BTC"]), ""),
    ],
)
def test_what_a_host_lacks_is_told_in_a_word(told, why):
    statuses = Statuses()
    actor = WantedActor(Role.HOST, "000", ("BTC",), "v")
    if told is not None:
        statuses.take(actor, pack(told))
    assert statuses.lacks(actor.name) == why


def test_what_feeds_and_singletons_lack_is_told_in_a_word():
    statuses = Statuses()
    upbit = WantedActor(Role.FEED, "upbit", (), "v")
    guard = WantedActor(Role.RISK, "main", (), "v")
    persistence = WantedActor(Role.PERSISTENCE, "main", (), "v")
    statuses.take(persistence, {"ready": True, "postgres": "down"})
    assert statuses.lacks(persistence.name) == "store"
    statuses.take(upbit, pack(feed("upbit", ready=False)))
    statuses.take(guard, {"ready": False})
    assert [statuses.lacks(one.name) for one in (upbit, guard)] == ["unready"] * 2
    statuses.take(upbit, pack(feed("upbit")))
    statuses.take(guard, {"ready": True})
    assert [statuses.lacks(one.name) for one in (upbit, guard)] == ["", ""]
