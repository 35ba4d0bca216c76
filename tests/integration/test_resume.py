"""Positions outlive kill -9 of everything, are taken up whole, and can all be left."""

from tests.resume.run import resume


async def test_every_position_is_taken_up_after_the_kill_of_everything():
    done = await resume(25)
    assert done.faults == ()
    assert 0 < done.seconds < 60, "the bound for a busy machine; tests.resume has the budget"
