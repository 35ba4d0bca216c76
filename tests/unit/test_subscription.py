from __future__ import annotations

import math

from arb_ray.engine.subscription import Subscription

S = 1_000_000_000


def test_a_code_that_never_delivers_is_silent_after_the_wait() -> None:
    subscription = Subscription(["A", "B", "A"])
    subscription.on_connected(0)
    assert subscription.codes == ("A", "B")
    assert subscription.on_delivery("A", 1 * S)
    assert subscription.silent(9 * S, after_s=10) == ()
    assert subscription.silent(10 * S, after_s=10) == ("B",)


def test_nothing_is_silent_while_the_connection_is_down() -> None:
    subscription = Subscription(["A"])
    assert subscription.silent(99 * S, after_s=10) == ()
    subscription.on_connected(0)
    subscription.on_disconnected()
    assert subscription.silent(99 * S, after_s=10) == ()


def test_staleness_is_the_connections_age_once_the_code_has_delivered() -> None:
    subscription = Subscription(["A", "B"])
    subscription.on_connected(0)
    subscription.on_delivery("A", 1 * S)
    subscription.on_alive(5 * S)
    assert subscription.staleness_ms("A", 5 * S + 7_000_000) == 7.0
    assert subscription.unchanged_ms("A", 6 * S) == 5_000.0
    assert math.isinf(subscription.staleness_ms("B", 5 * S))
    assert math.isinf(subscription.unchanged_ms("B", 5 * S))
    subscription.on_disconnected()
    assert math.isinf(subscription.staleness_ms("A", 5 * S))


def test_a_reconnect_forgets_what_was_delivered() -> None:
    subscription = Subscription(["A"])
    subscription.on_connected(0)
    subscription.on_delivery("A", 1 * S)
    subscription.on_connected(20 * S)
    assert not subscription.has_delivered("A")
    assert subscription.silent(30 * S, after_s=10) == ("A",)


def test_a_new_request_replaces_the_whole_subscription() -> None:
    subscription = Subscription(["A", "B"])
    subscription.on_connected(0)
    subscription.on_delivery("B", 1 * S)
    subscription.replace(["B", "C"], 5 * S)
    assert subscription.codes == ("B", "C")
    assert subscription.has_delivered("B")
    assert not subscription.on_delivery("A", 6 * S)  # an old frame that was under way
    assert subscription.silent(14 * S, after_s=10) == ()
    assert subscription.silent(15 * S, after_s=10) == ("C",)


def test_a_connection_can_be_alive_and_dry_or_stalled() -> None:
    subscription = Subscription(["A"])
    subscription.on_connected(0)
    subscription.on_alive(50 * S)
    assert subscription.is_dry(61 * S, after_s=60)
    assert not subscription.is_stalled(61 * S, after_s=40)
    assert subscription.is_stalled(91 * S, after_s=40)
    subscription.on_delivery("A", 61 * S)
    assert not subscription.is_dry(62 * S, after_s=60)


def test_an_old_pong_does_not_make_the_connection_older() -> None:
    subscription = Subscription(["A"])
    subscription.on_connected(0)
    subscription.on_frame(5 * S)
    subscription.on_alive(4 * S)
    assert subscription.alive_age_ms(5 * S) == 0.0
