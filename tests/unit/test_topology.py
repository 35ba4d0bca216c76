"""What should run, and what must change so that it does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_ray.engine.topology import Digests, Role, difference, plan, symbols_by_host

SYMBOLS = [f"S{number:02d}" for number in range(10)]


GROUPS = {"000": ("BTC",), "001": ("ETH", "XRP")}


def topology(host="h1", groups=GROUPS, **changes):
    fields = {
        "groups": groups,
        "venues": ["upbit", "binance_spot"],
        "served": ("BTC", "ETH", "XRP"),
    }
    return plan("s1", Digests(host=host), **(fields | changes))


def names(wanted):
    return {actor.name for actor in wanted.actors}


@pytest.mark.parametrize(
    ("how", "sizes"),
    [("1", [1] * 10), ("3", [3, 3, 2, 2]), ("100", [10]), ("auto", [4, 3, 3])],
)
def test_every_symbol_is_on_one_host_in_order(how, sizes):
    groups = symbols_by_host(SYMBOLS[::-1], how, 3)
    assert list(groups) == [f"{number:03d}" for number in range(len(sizes))]
    assert [len(group) for group in groups.values()] == sizes
    assert [symbol for group in groups.values() for symbol in group] == SYMBOLS


def test_automatic_groups_are_never_empty():
    assert symbols_by_host([], "auto", 3) == {}
    assert len(symbols_by_host(["A", "B"], "auto", 8)) == 2
    assert len(symbols_by_host(["A", "B"], "auto", 0)) == 1


def test_a_topology_has_its_singletons_a_feed_a_venue_and_the_hosts():
    wanted = topology()
    assert [len(wanted.of(role)) for role in Role] == [1, 1, 1, 2, 2, 1, 0]
    assert [host.symbols for host in wanted.of(Role.HOST)] == [("BTC",), ("ETH", "XRP")]
    assert not topology(served=()).of(Role.SOURCE)
    assert not topology(has_gateway=False).of(Role.GATEWAY)
    assert len(names(wanted)) == len(wanted.actors)


def test_equal_wishes_have_equal_names_and_other_wishes_other_ones():
    assert topology() == topology()
    first, second = topology(), topology("h2")
    assert first.version != second.version
    hosts = {actor.name for actor in (*first.of(Role.HOST), *second.of(Role.HOST))}
    assert len(hosts) == 4
    assert names(first) - hosts == names(second) - hosts


@pytest.mark.parametrize(
    ("digests", "roles"),
    [
        (Digests(host="h1", gateway="x"), {Role.GATEWAY}),
        (Digests(host="h1", persistence="x"), {Role.PERSISTENCE}),
        (Digests(host="h1", source="x"), {Role.SOURCE}),
        (Digests(host="h1", feeds={"upbit": "x"}), {Role.FEED}),
        (Digests(host="h1", everyone="x"), set(Role) - {Role.SUPERVISOR}),
    ],
)
def test_a_digest_renames_its_own_role_and_no_other(digests, roles):
    wanted = plan(
        "s1", digests, groups=GROUPS, venues=["upbit", "binance_spot"], served=("BTC", "ETH", "XRP")
    )
    renamed = {actor.role for actor in wanted.actors if actor.name not in names(topology())}
    assert renamed == roles
    if roles == {Role.FEED}:
        assert len(names(wanted) - names(topology())) == 1


def test_a_symbol_that_leaves_renames_its_host_alone():
    before = topology()
    after = topology(leaving=("XRP",))
    assert {name.split("@")[0] for name in names(after) - names(before)} == {"host:001"}


symbols = st.lists(st.sampled_from(SYMBOLS), unique=True, min_size=1)


@given(symbols, symbols, st.sampled_from(["1", "2", "4", "auto"]), st.integers(1, 4))
def test_a_symbol_that_stays_keeps_its_host(before, after, how, hosts):
    first = symbols_by_host(before, how, hosts)
    second = symbols_by_host(after, how, hosts, first)
    assert sorted(symbol for group in second.values() for symbol in group) == sorted(after)
    place = {symbol: key for key, group in first.items() for symbol in group}
    for key, group in second.items():
        assert group
        assert all(place.get(symbol, key) == key for symbol in group)
        if how != "auto":
            assert len(group) <= int(how)


def test_a_new_symbol_goes_to_the_host_that_has_the_fewest():
    before = {"000": ("A", "B"), "001": ("C",)}
    assert symbols_by_host(["A", "B", "C", "D"], "auto", 2, before)["001"] == ("C", "D")
    assert symbols_by_host(["A", "B", "C", "D"], "1", 2, {"000": ("A",), "002": ("C",)}) == {
        "000": ("A",),
        "001": ("B",),
        "002": ("C",),
        "003": ("D",),
    }


def test_the_difference_applied_leaves_no_difference():
    wanted = topology()
    change = difference(wanted, {})
    assert change.start == wanted.actors
    assert change.stop == ()
    change = difference(wanted, {actor.name: True for actor in wanted.actors})
    assert change.start == change.stop == ()


def test_the_dead_are_started_and_survivors_left_alone():
    wanted = topology()
    present = {actor.name: actor.role is not Role.FEED for actor in wanted.actors}
    change = difference(wanted, present)
    assert change.start == wanted.of(Role.FEED)
    assert change.stop == ()


def test_consumers_stop_before_what_they_consume():
    present = [actor.name for actor in topology("old").actors]
    wanted = plan("s2", Digests(everyone="new"), groups={}, venues=())
    stop = difference(wanted, dict.fromkeys(present, True)).stop
    roles = [name.split(":")[0] for name in stop]
    order = ["gateway", "feed", "feed", "host", "host", "risk", "persistence", "source"]
    assert roles == order


def test_a_name_of_an_unknown_role_is_stopped_last():
    stop = difference(topology(), {"relic:1@x": True, "source:old@y": True}).stop
    assert stop == ("source:old@y", "relic:1@x")
