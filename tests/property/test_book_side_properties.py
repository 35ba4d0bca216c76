"""A side with a small window shows what a plain dict would, whatever is merged and asked."""

from hypothesis import given
from hypothesis import strategies as st

from arb_ray.engine.book_side import BookSide

PRICES = st.integers(1, 60).map(float)
CHANGES = st.lists(st.tuples(PRICES, st.sampled_from([0.0, 1.0, 2.5])), max_size=12)
STEPS = st.lists(st.tuples(CHANGES, st.integers(1, 30)), max_size=12)


@given(
    sign=st.sampled_from([1, -1]),
    window=st.integers(1, 6),
    levels=st.dictionaries(PRICES, st.sampled_from([1.0, 3.0]), max_size=40),
    steps=STEPS,
    goes_on=st.booleans(),
    limit=st.integers(5, 60),
)
def test_a_side_shows_the_best_of_a_plain_dict(sign, window, levels, steps, goes_on, limit):
    side, plain = BookSide(sign, window), dict(levels)
    side.load(tuple(levels.items()), goes_on=goes_on)
    horizon = min((price * sign for price in plain), default=None) if goes_on else None
    for changes, depth in steps:
        side.merge(changes)
        for price, size in changes:
            if size:
                plain[price] = size
            else:
                plain.pop(price, None)
        excess = len(plain) - limit
        assert side.trim(limit, 2) == (excess if excess > 2 else 0)
        ordered = sorted(plain.items(), key=lambda level: -level[0] * sign)
        if excess > 2:
            ordered = ordered[:limit]
            plain = dict(ordered)
            horizon = max(horizon if horizon is not None else -1e9, ordered[-1][0] * sign)
        assert len(side) == len(plain)
        assert side.best_key == (ordered[0][0] * sign if ordered else float("-inf"))
        shown = side.best(depth)
        assert shown == tuple(ordered[: len(shown)])
        assert len(shown) >= min(depth, len(ordered))
        if horizon is not None:
            known = sum(price * sign >= horizon for price in plain)
            assert side.knows(depth) == (known >= depth)


def test_what_is_shown_is_the_same_object_until_a_change_touches_it():
    side = BookSide(1)
    side.load(tuple((float(price), 1.0) for price in range(1, 101)), goes_on=False)
    before = side.best(10)
    side.merge([(50.0, 2.0), (3.0, 0.0), (90.5, 1.0)])
    assert side.best(10) is before
    side.merge([(91.0, 2.0)])
    assert side.best(10) is not before
    assert side.best(10)[-1] == (91.0, 2.0)
