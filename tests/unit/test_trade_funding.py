"""Funding: once an instant, on what was open at it, and posted again at a restart."""

from arb_ray.engine import trade_events as ev
from arb_ray.engine.trade import resume_effects, step
from tests.unit.test_trade import ID, PLAN, D, exit_decided, funding_at, holding, orders_in, report


def test_funding_is_paid_by_longs_once_per_instant():
    trade = holding()  # short on the perpetual
    event = ev.FundingPaid(at_ns=50, funding_ns=48, mark_price=D(70000), rate=D("0.0001"))
    trade, (post,) = step(trade, event)
    assert trade.funding[0].amount_usdt == PLAN.b.qty * 70000 * D("0.0001")
    assert post.entries[0].entry_id == f"funding:{ID}:48"
    assert step(trade, event) == (trade, ())


def test_funding_is_paid_on_what_was_open_at_its_instant():
    trade = holding()
    filled_ns = max(fill.at_ns for done in trade.finished for fill in done.report.fills)

    def paid_at(funding_ns):
        return ev.FundingPaid(
            at_ns=filled_ns + 9, funding_ns=funding_ns, mark_price=D(70000), rate=D("0.0001")
        )

    assert step(trade, paid_at(filled_ns - 1)) == (trade, ())
    after, _ = step(trade, paid_at(filled_ns))
    assert after.funding[0].amount_usdt > 0


def test_funding_waits_for_an_order_that_may_have_closed_the_position_before_its_instant():
    trade, effects = step(holding(), exit_decided(holding()))
    a, b = orders_in(effects)
    funding_ns = b.decided_ns + 10
    paid = ev.FundingPaid(
        at_ns=funding_ns + 1, funding_ns=funding_ns, mark_price=D(70000), rate=D("0.0001")
    )
    trade, effects = step(trade, paid)
    assert effects == ()
    assert step(trade, paid) == (trade, ())
    before, effects = step(trade, report(b, at_ns=funding_ns - 1))
    assert (before.funding, before.funding_waiting, effects) == ((), (), ())
    after, (post,) = step(trade, report(b, at_ns=funding_ns + 1))
    assert post.entries[0].entry_id == f"funding:{ID}:{funding_ns}"
    assert after.funding[0].amount_usdt > 0
    settling, effects = step(after, report(a, at_ns=funding_ns + 2))
    assert settling.settlement.parts.funding == after.funding[0].amount_usdt
    assert post.entries[0] in effects[0].entries


def test_each_instant_posts_its_own_funding_alone():
    trade, _ = step(holding(), funding_at(50))
    trade, (post,) = step(trade, funding_at(60))
    assert [entry.entry_id for entry in post.entries] == [f"funding:{ID}:60"]
    assert [paid.funding_ns for paid in trade.funding] == [50, 60]


def test_an_order_that_was_decided_at_a_funding_instant_is_waited_for():
    trade, effects = step(holding(), exit_decided(holding()))
    _, b = orders_in(effects)
    waiting, effects = step(trade, funding_at(b.decided_ns))
    assert (len(waiting.funding_waiting), effects) == (1, ())
    booked, _ = step(trade, funding_at(b.decided_ns - 1))
    assert (booked.funding_waiting, len(booked.funding)) == ((), 1)


def test_what_was_booked_of_funding_is_posted_again_at_a_restart():
    trade, (post,) = step(holding(), funding_at(50))
    assert resume_effects(trade) == (post,)
    exiting, effects = step(trade, exit_decided(trade))
    queries = [ev.QueryOrder(order.client_order_id, 0) for order in orders_in(effects)]
    assert resume_effects(exiting) == (post, *queries)
