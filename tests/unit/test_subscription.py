from __future__ import annotations

from arb_ray.engine.subscription import Subscription

S = 1_000_000_000


def test_a_code_that_never_delivers_is_silent_after_the_wait() -> None:
    subscription = Subscription(["A", "B", "A", "C"], 0)
    subscription.on_delivery("A", 1 * S)
    assert subscription.silent(10 * S - 1, after_s=10) == ()
    assert subscription.silent(10 * S, after_s=10) == ("B", "C")
    assert (subscription.has_delivered("A"), subscription.has_delivered("B")) == (True, False)


def test_a_connection_can_be_alive_and_dry() -> None:
    subscription = Subscription(["A"], 0)
    subscription.on_alive(50 * S)
    assert subscription.is_dry(61 * S, after_s=60)
    assert subscription.last_alive_ns == 50 * S
    subscription.on_delivery("A", 61 * S)
    assert not subscription.is_dry(62 * S, after_s=60)


def test_an_old_pong_does_not_make_the_connection_older() -> None:
    subscription = Subscription(["A"], 0)
    subscription.on_alive(5 * S)
    subscription.on_alive(4 * S)
    assert subscription.last_alive_ns == 5 * S


def test_data_that_nobody_asked_for_proves_nothing() -> None:
    subscription = Subscription(["A"], 0)
    subscription.on_delivery("B", 1 * S)
    assert not subscription.has_delivered("B")
    assert subscription.is_dry(61 * S, after_s=60)
