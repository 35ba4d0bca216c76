"""Workers of a replay know how far the others are, and speak only when somebody waits."""

from hypothesis import given
from hypothesis import strategies as st

from arb_ray.app.replay_progress import Part, Progresses

START_NS = 1_790_000_000 * 10**9

instants = st.tuples(st.integers(0, 30 * 365 * 86_400 * 10**9), st.sampled_from(Part))


@given(st.lists(instants, min_size=2, max_size=20))
def test_points_are_in_the_order_of_instants_and_of_parts_within_one(drawn):
    progress = Progresses(START_NS, 1)
    points = [progress.point(START_NS + after_ns, part) for after_ns, part in sorted(drawn)]
    assert points == sorted(points)
    assert len(set(points)) == len(set(drawn))
    assert all(0 < point < 2**63 for point in points)


@given(instants)
def test_a_point_tells_its_instant(drawn):
    after_ns, part = drawn
    progress = Progresses(START_NS, 2)
    assert progress.at_ns(progress.point(START_NS + after_ns, part)) == START_NS + after_ns
    progress.reach(1, START_NS + after_ns, part)
    assert progress.of(1) == progress.point(START_NS + after_ns, part)
    assert progress.of(0) == 0


def test_who_is_not_waited_for_says_nothing():
    progress = Progresses(START_NS, 1)
    assert not progress.reach(0, START_NS + 5, Part.FRAME)


def test_who_passes_what_is_wanted_says_so_once():
    progress = Progresses(START_NS, 1)
    progress.want(progress.point(START_NS + 5, Part.LOOK))
    assert not progress.reach(0, START_NS + 4, Part.FRAME)
    assert not progress.reach(0, START_NS + 5, Part.LEARN)
    assert progress.reach(0, START_NS + 5, Part.LOOK)  # as far as some need
    assert progress.reach(0, START_NS + 5, Part.FRAME)  # and as far as all do
    assert not progress.reach(0, START_NS + 6, Part.FRAME)
    progress.want(progress.point(START_NS + 9, Part.MARK))
    assert progress.reach(0, START_NS + 12, Part.FRAME)
    progress.want(0)
    assert not progress.reach(0, START_NS + 20, Part.FRAME)
