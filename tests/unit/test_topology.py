"""What should run, and what must change so that it does."""

import pytest

from arb_ray.engine.topology import Role, difference, plan, symbols_by_host

SYMBOLS = [f"S{number:02d}" for number in range(10)]


def topology(config="c1", groups=(("BTC",), ("ETH", "XRP")), **changes):
    fields = {"groups": groups, "venues": ["upbit", "binance_spot"], "has_source": True}
    return plan("s1", config, **(fields | changes))


@pytest.mark.parametrize(
    ("how", "sizes"),
    [("1", [1] * 10), ("3", [3, 3, 2, 2]), ("100", [10]), ("auto", [4, 3, 3])],
)
def test_every_symbol_is_on_one_host_in_order(how, sizes):
    groups = symbols_by_host(SYMBOLS[::-1], how, 3)
    assert [len(group) for group in groups] == sizes
    assert [symbol for group in groups for symbol in group] == SYMBOLS


def test_automatic_groups_are_never_empty():
    assert symbols_by_host([], "auto", 3) == ()
    assert len(symbols_by_host(["A", "B"], "auto", 8)) == 2
    assert len(symbols_by_host(["A", "B"], "auto", 0)) == 1


def test_a_topology_has_its_singletons_a_feed_a_venue_and_the_hosts():
    wanted = topology()
    assert [len(wanted.of(role)) for role in Role] == [1, 1, 1, 2, 2, 1, 0]
    assert [host.symbols for host in wanted.of(Role.HOST)] == [("BTC",), ("ETH", "XRP")]
    assert not topology(has_source=False).of(Role.SOURCE)
    assert not topology(has_gateway=False).of(Role.GATEWAY)
    names = [actor.name for actor in wanted.actors]
    assert len(set(names)) == len(names)


def test_equal_wishes_have_equal_names_and_other_wishes_other_ones():
    assert topology() == topology()
    first, second = topology(), topology("c2")
    assert first.version != second.version
    assert first.of(Role.GATEWAY) == second.of(Role.GATEWAY)
    assert first.of(Role.HOST)[0].name != second.of(Role.HOST)[0].name


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
    wanted = plan("s2", "new", groups=(), venues=(), has_source=False)
    stop = difference(wanted, dict.fromkeys(present, True)).stop
    roles = [name.split(":")[0] for name in stop]
    order = ["gateway", "feed", "feed", "host", "host", "risk", "persistence", "source"]
    assert roles == order


def test_a_name_of_an_unknown_role_is_stopped_last():
    stop = difference(topology(), {"relic:1@x": True, "source:old@y": True}).stop
    assert stop == ("source:old@y", "relic:1@x")
