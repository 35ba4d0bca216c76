"""A full disk is an alarm and REDUCE_ONLY, once for each time, and never a crash."""

import pytest

from arb_ray.actors.disk_watch import DiskWatch
from arb_ray.domain.errors import StoreUnavailable
from tests.shell_world import Counts, Log


class World:
    def __init__(self):
        self.free, self.error, self.restrict_error = 1_000, None, None
        self.reasons, self.metrics, self.log = [], Counts(), Log()
        self.watch = DiskWatch(
            free_bytes=self.free_bytes,
            free_min_bytes=100,
            restrict=self.restrict,
            metrics=self.metrics,
            log=self.log,
        )

    def free_bytes(self):
        if self.error:
            raise self.error
        return self.free

    async def restrict(self, reason):
        if self.restrict_error:
            raise self.restrict_error
        self.reasons.append(reason)


@pytest.fixture
def world():
    return World()


async def test_with_room_nothing_is_restricted(world):
    await world.watch.check()
    assert world.reasons == []
    assert world.metrics.gauges == {"disk_full": 0.0, "disk_free_bytes": 1_000.0}
    world.free = 100
    await world.watch.check()
    assert world.metrics.gauges["disk_full"] == 0.0


async def test_without_room_entries_are_stopped_and_stay_so_whoever_resumes(world):
    world.free = 99
    await world.watch.check()
    world.free = 98
    await world.watch.check()
    # In the same words: what RiskGuard knows already it need not write down again.
    assert world.reasons == ["the disk of the spool has 99 bytes left, less than 100"] * 2
    assert [event for event, _ in world.log.said] == ["disk_full"]
    assert world.metrics.gauges["disk_full"] == 1.0


async def test_room_ends_the_need_and_the_next_one_has_its_own_reason(world):
    world.free = 99
    await world.watch.check()
    world.free = 1_000
    await world.watch.check()
    assert (world.watch.trouble, world.metrics.gauges["disk_full"]) == ("", 0.0)
    world.free = 1
    await world.watch.check()
    assert world.reasons[1:] == ["the disk of the spool has 1 bytes left, less than 100"]
    assert [event for event, _ in world.log.said] == ["disk_full", "disk_has_room", "disk_full"]


async def test_a_guard_that_does_not_hear_is_told_again(world):
    world.free, world.restrict_error = 1, StoreUnavailable("RiskGuard", "recovering")
    await world.watch.check()
    assert world.log.said[-1][0] == "restriction_waits"
    world.restrict_error = None
    await world.watch.check()
    assert len(world.reasons) == 1


async def test_a_spool_that_refuses_counts_as_full_until_it_takes_again(world):
    world.watch.note_refused("it holds 10 bytes")
    await world.watch.check()
    assert "takes no records: it holds 10 bytes" in world.watch.trouble
    world.watch.note_taken()
    await world.watch.check()
    assert world.watch.trouble == ""


async def test_a_disk_that_does_not_answer_counts_as_full(world):
    world.error = OSError(5, "Input/output error")
    await world.watch.check()
    assert "Input/output error" in world.reasons[0]
