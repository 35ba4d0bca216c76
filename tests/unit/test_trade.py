"""Single moves of the trade machine, where the exact answer matters."""

from decimal import Decimal

import pytest
from msgspec.structs import replace

from arb_ray.domain.errors import BadInput, InvalidTransition
from arb_ray.domain.ledger import Account
from arb_ray.domain.money import Money, Price, Qty, Side
from arb_ray.domain.opportunity import Direction
from arb_ray.domain.order import Fill, OrderReport, OrderStatus, Purpose
from arb_ray.domain.risk_intent import Granted, Refused, RiskRefusal, SettleKind
from arb_ray.engine import trade_events as ev
from arb_ray.engine.trade import replay, resume_effects, step
from arb_ray.engine.trade_orders import wanted
from arb_ray.engine.trade_plan import LegKey, OrderPrice, TradeLimits
from arb_ray.engine.trade_state import Idle, Phase
from tests import trade_world as tw

D = Decimal
PLAN = tw.make_plan(tw.BTC_PERP)
ID = PLAN.trade_id


def run(*events, trade=None):
    trade, effects = trade or Idle(), ()
    for event in events:
        trade, effects = step(trade, event)
    return trade, effects


def signal(plan=PLAN):
    return ev.Signal(at_ns=0, plan=plan)


def granted(at_ns=5):
    return ev.ReserveAnswered(at_ns=at_ns, verdict=Granted(ID, 1, at_ns))


def entering(plan=PLAN):
    return run(signal(plan), granted(), ev.EdgeConfirmed(at_ns=10))


def report(order, fraction="1", at_ns=20, price=None):
    qty = Qty(order.qty * D(fraction))
    if not qty:
        return ev.OrderReported(
            at_ns=at_ns,
            report=OrderReport(order.client_order_id, OrderStatus.CANCELLED, (), at_ns),
        )
    asset = "KRW" if order.instrument.startswith("upbit") else "USDT"
    fill = Fill(
        f"{order.client_order_id}:0",
        order.client_order_id,
        Price(price or order.decision_price),
        qty,
        Money(D("0"), asset),
        at_ns,
        (),
    )
    status = OrderStatus.FILLED if qty == order.qty else OrderStatus.PARTIAL
    return ev.OrderReported(
        at_ns=at_ns, report=OrderReport(order.client_order_id, status, (fill,), at_ns)
    )


def holding(plan=PLAN):
    trade, effects = entering(plan)
    return run(*(report(effect.order) for effect in effects), trade=trade)[0]


def exit_decided(trade, at_ns=100, fx="1400"):
    prices = {w.key: tw.order_price(PLAN.leg(w.key), w.side, p) for w, p in priced(trade)}
    return ev.ExitDecided(
        at_ns=at_ns,
        reason=ev.ExitReason.TAKE_PROFIT,
        price_a=prices.get("a"),
        price_b=prices.get("b"),
        fx_mid_krw=D(fx),
        mark_usdt=D(69000),
    )


def priced(trade):
    nominal = dict(zip("ab", tw.prices_of(tw.BTC_PERP), strict=True))
    return [(w, nominal[w.key]) for w in wanted(trade)]


def retry(trade, *, a=True, b=True, at_ns=200):
    prices = {w.key: tw.order_price(PLAN.leg(w.key), w.side, p) for w, p in priced(trade)}
    return ev.Retry(
        at_ns=at_ns,
        price_a=prices.get("a") if a else None,
        price_b=prices.get("b") if b else None,
        mark_usdt=D(69000),
    )


def orders_in(effects):
    return [effect.order for effect in effects if isinstance(effect, ev.SubmitOrder)]


def unknown(order, at_ns=20):
    lost = OrderReport(order.client_order_id, OrderStatus.UNKNOWN, (), at_ns)
    return ev.OrderReported(at_ns=at_ns, report=lost)


def never_accepted(order, at_ns):
    return ev.QueryAnswered(at_ns=at_ns, client_order_id=order.client_order_id, report=None)


def funding_at(funding_ns):
    return ev.FundingPaid(
        at_ns=funding_ns + 1, funding_ns=funding_ns, mark_price=D(70000), rate=D("0.0001")
    )


def test_a_signal_asks_for_the_room_that_was_planned():
    trade, effects = run(signal())
    assert trade.phase is Phase.RESERVING
    assert effects == (ev.ReserveRisk(PLAN.intent),)
    assert PLAN.intent.worst_loss_usdt == PLAN.worst_loss_usdt


def test_a_yes_on_the_deadline_counts_and_a_later_one_is_voided():
    in_time, effects = run(signal(), granted(PLAN.deadline_ns))
    assert in_time.phase is Phase.CONFIRMING
    assert effects == (ev.ConfirmEdge(ID),)
    late, (settle,) = run(signal(), granted(PLAN.deadline_ns + 1))
    assert late.phase is Phase.SETTLING
    assert settle.settlement.kind is SettleKind.VOIDED


def test_no_answer_is_voided_because_room_may_be_held():
    _, (settle,) = run(signal(), ev.ReserveUnanswered(at_ns=9))
    assert (settle.settlement.kind, settle.settlement.trade_id) == (SettleKind.VOIDED, ID)


def test_a_no_uses_the_number_up():
    refused = ev.ReserveAnswered(at_ns=5, verdict=Refused(ID, RiskRefusal.DAILY_LOSS))
    trade, _ = run(signal(), refused)
    assert trade == Idle(PLAN.number)
    with pytest.raises(InvalidTransition, match="no rule for Signal in idle"):
        step(trade, signal())


def test_a_verdict_about_another_trade_changes_nothing():
    before, _ = run(signal())
    other = ev.ReserveAnswered(at_ns=5, verdict=Granted("test:BTC:99", 1, 5))
    assert step(before, other) == (before, ())


def test_no_trade_opens_while_one_is_live():
    trade, _ = entering()
    with pytest.raises(InvalidTransition, match="no rule for Signal in entering"):
        step(trade, signal(tw.make_plan(number=2)))


def test_both_legs_are_sent_at_once_as_planned():
    _, effects = entering()
    a, b = orders_in(effects)
    assert (a.client_order_id, b.client_order_id) == (f"{ID}:0", f"{ID}:1")
    assert (a.qty, a.side, a.limit_price) == (PLAN.a.qty, Side.BUY, PLAN.a.price.limit)
    assert (b.qty, b.side, b.decision_price) == (PLAN.b.qty, Side.SELL, PLAN.b.price.decision)
    assert {a.purpose, b.purpose} == {Purpose.ENTRY}


def test_alike_fills_are_held_and_sent_home_with_new_ids():
    trade = holding()
    assert (trade.phase, trade.net_base) == (Phase.HOLDING, 0)
    trade, effects = step(trade, exit_decided(trade))
    a, b = orders_in(effects)
    assert (a.side, a.qty, b.side, b.qty) == (Side.SELL, PLAN.a.qty, Side.BUY, PLAN.b.qty)
    assert (a.client_order_id, b.client_order_id) == (f"{ID}:2", f"{ID}:3")
    assert (trade.phase, a.purpose) == (Phase.EXITING, Purpose.EXIT)


def test_the_money_of_a_round_trip_by_hand():
    """Bought and sold at the same prices without fees: only the KRW changed its worth."""
    trade = holding()
    trade, effects = step(trade, exit_decided(trade, fx="1400"))
    trade, effects = run(*(report(o) for o in orders_in(effects)), trade=trade)
    settlement = effects[-1].settlement
    krw = -PLAN.a.qty * PLAN.a.price.decision
    fx = krw * (1 / D(1400) - 1 / D(1380))
    assert abs(settlement.parts.fx - fx) < D("1e-15")
    assert abs(settlement.parts.spread + fx) < D("1e-15"), "the exit is worth less in USDT"
    assert abs(settlement.realized_usdt) < D("1e-7")
    assert settlement.exit_reason == "take_profit"


def test_unalike_fills_are_undone_on_the_leg_that_filled_more():
    trade, effects = entering()
    a, b = orders_in(effects)
    trade, effects = run(report(a), report(b, "0"), trade=trade)
    assert trade.phase is Phase.HEDGING
    assert effects == (ev.RequestRetry(ID, 1, 0),)
    trade, effects = step(trade, retry(trade))
    (undo,) = orders_in(effects)
    assert (undo.instrument, undo.side, undo.qty) == (a.instrument, Side.SELL, a.qty)
    assert (undo.purpose, undo.client_order_id) == (Purpose.HEDGE, f"{ID}:2")
    trade, effects = step(trade, report(undo))
    assert trade.phase is Phase.SETTLING
    assert effects[-1].settlement.exit_reason == "evened_out"


def test_the_other_leg_is_completed_when_the_fuller_one_has_no_price():
    trade, effects = entering()
    a, b = orders_in(effects)
    trade, _ = run(report(a), report(b, "0"), trade=trade)
    trade, effects = step(trade, retry(trade, a=False))
    (complete,) = orders_in(effects)
    assert (complete.instrument, complete.side, complete.qty) == (b.instrument, Side.SELL, b.qty)
    assert complete.purpose is Purpose.ENTRY
    trade, _ = step(trade, report(complete))
    assert (trade.phase, trade.net_base) == (Phase.HOLDING, 0)


def test_nothing_filled_settles_with_zero():
    trade, effects = entering()
    a, b = orders_in(effects)
    trade, (settle,) = run(report(a, "0"), report(b, "0"), trade=trade)
    assert settle.settlement.kind is SettleKind.POSTED
    assert (settle.settlement.realized_usdt, settle.settlement.notional_usdt) == (0, 0)


def test_a_short_exit_is_unwound_until_it_is_done():
    trade = holding()
    trade, effects = step(trade, exit_decided(trade))
    a, b = orders_in(effects)
    trade, effects = run(report(a), report(b, "0"), trade=trade)
    assert trade.phase is Phase.UNWINDING
    for attempt, wait_ms in enumerate((0, 250, 500, 1000, 2000), start=1):
        assert effects[0] == ev.RequestRetry(ID, attempt, wait_ms)
        trade, effects = step(trade, retry(trade, b=False))
    assert [e.kind for e in effects if isinstance(e, ev.Note)] == []
    trade, effects = step(trade, retry(trade))
    (unwind,) = orders_in(effects)
    assert (unwind.purpose, unwind.side, unwind.qty) == (Purpose.UNWIND, Side.BUY, b.qty)
    trade, _ = step(trade, report(unwind))
    assert trade.phase is Phase.SETTLING


def test_waiting_is_bounded_never_ends_and_is_reported():
    trade, effects = entering()
    a, b = orders_in(effects)
    trade, effects = run(report(a), report(b, "0"), trade=trade)
    notes = []
    for _ in range(200):
        trade, effects = step(trade, retry(trade, a=False, b=False))
        notes += [e for e in effects if isinstance(e, ev.Note)]
        assert effects[0].wait_ms <= 30_000
    assert (trade.phase, trade.attempts) == (Phase.HEDGING, 201)
    assert len(notes) == 40


def test_one_venue_alone_is_never_closed_beyond_the_net_exposure():
    trade = holding()
    trade, effects = step(trade, exit_decided(trade))
    a, b = orders_in(effects)
    trade, _ = run(report(a, "0"), report(b, "0"), trade=trade)
    alone, effects = step(trade, retry(trade, a=False))
    assert orders_in(effects) == []
    assert alone.phase is Phase.UNWINDING
    _, effects = step(trade, retry(trade))
    assert len(orders_in(effects)) == 2


def test_one_venue_alone_evens_the_legs_out():
    trade = holding()
    trade, effects = step(trade, exit_decided(trade))
    a, b = orders_in(effects)
    trade, _ = run(report(a, "0.5"), report(b, "0"), trade=trade)
    _, effects = step(trade, retry(trade, a=False))
    (order,) = orders_in(effects)
    excess = PLAN.a.qty / 2  # the short leg is this much larger; the lot is 0.001
    assert (order.instrument, order.side) == (b.instrument, Side.BUY)
    assert order.qty == D("0.003") <= excess


def test_an_exit_needs_both_prices():
    trade = holding()
    event = exit_decided(trade)
    one_sided = ev.ExitDecided(
        at_ns=1,
        reason=event.reason,
        price_a=event.price_a,
        price_b=None,
        fx_mid_krw=event.fx_mid_krw,
        mark_usdt=event.mark_usdt,
    )
    after, (note,) = step(trade, one_sided)
    assert (after, note.kind) == (trade, "exit_unpriced")


def test_a_price_for_the_wrong_side_is_no_price():
    trade, effects = entering()
    a, b = orders_in(effects)
    trade, _ = run(report(a), report(b, "0"), trade=trade)
    wrong = OrderPrice(Side.BUY, PLAN.a.price.decision, PLAN.a.price.limit)
    event = ev.Retry(at_ns=1, price_a=wrong, price_b=None, mark_usdt=D(1))
    _, effects = step(trade, event)
    assert orders_in(effects) == []


def test_a_doubled_report_counts_once():
    trade, effects = entering()
    a, _ = orders_in(effects)
    once, _ = step(trade, report(a))
    twice, effects = step(once, report(a))
    assert (twice, effects) == (once, ())


def test_no_answer_is_asked_for_and_not_assumed():
    trade, effects = entering()
    a, _ = orders_in(effects)
    trade, effects = step(trade, unknown(a))
    assert effects == (ev.QueryOrder(a.client_order_id, 0),)
    assert a in trade.working
    answer = ev.QueryAnswered(at_ns=30, client_order_id=a.client_order_id, report=report(a).report)
    trade, _ = step(trade, answer)
    assert a not in trade.working


def test_an_entry_that_was_never_accepted_is_sent_again_only_while_it_is_young():
    trade, effects = entering()
    a, _ = orders_in(effects)
    trade, _ = step(trade, unknown(a))
    born, ttl = a.decided_ns, PLAN.limits.entry_ttl_ns
    _, effects = step(trade, never_accepted(a, born + ttl))
    again = ev.SubmitOrder(a, is_repeat=True)
    assert effects == (again,), "the very same order, under the same id"
    waiting, effects = step(trade, never_accepted(a, born + ttl + 1))
    assert effects == (ev.WithdrawOrder(a),), "a submission may still be on its way"
    assert a in waiting.working
    dead, _ = step(waiting, report(a, "0"))
    assert a not in dead.working
    assert step(dead, report(a)) == (dead, ()), "whatever is said of it later is ignored"


def test_an_exit_that_was_never_accepted_is_sent_again_at_any_age():
    trade = holding()
    trade, effects = step(trade, exit_decided(trade))
    a, _ = orders_in(effects)
    _, effects = step(trade, never_accepted(a, a.decided_ns + 10**15))
    assert effects == (ev.SubmitOrder(a, is_repeat=True),)


def test_the_first_flatten_wins_and_repeats_change_nothing():
    trade = holding()
    trade, _ = step(trade, exit_decided(trade))
    assert step(trade, exit_decided(holding())) == (trade, ())


def test_resuming_asks_before_anything_is_sent():
    reserving, _ = run(signal())
    assert resume_effects(reserving) == (ev.ReserveRisk(PLAN.intent),)
    trade, effects = entering()
    queries = [ev.QueryOrder(order.client_order_id, 0) for order in orders_in(effects)]
    assert list(resume_effects(trade)) == queries
    assert resume_effects(holding()) == ()
    a, b = orders_in(effects)
    hedging, _ = run(report(a), report(b, "0"), trade=trade)
    assert resume_effects(hedging) == (ev.RequestRetry(ID, 1, 0),)
    settling, effects = run(report(a, "0"), report(b, "0"), trade=trade)
    assert resume_effects(settling) == effects
    assert resume_effects(Idle(3)) == ()


def test_the_settlement_is_repeated_until_it_is_taken():
    settling, _ = run(signal(), ev.ReserveUnanswered(at_ns=9))
    other = ev.Settled(at_ns=10, trade_id="test:BTC:99")
    assert step(settling, other) == (settling, ())
    assert step(settling, ev.Settled(at_ns=10, trade_id=ID)) == (Idle(1), ())


def test_a_restart_keeps_the_limits_of_the_trade():
    limits = TradeLimits(D(1), D(2), D(3), 4, 5)
    plan = tw.make_plan(limits=limits)
    event = ev.decode_event(ev.encode_event(ev.Signal(at_ns=0, plan=plan)))
    assert event.plan == plan
    assert event.plan.limits.entry_ttl_ns == 5


def test_money_is_text_in_the_journal():
    text = ev.encode_event(signal()).decode()
    assert f'"qty":"{PLAN.a.qty}"' in text
    assert f'"fx_mid_krw":"{PLAN.fx_mid_krw}"' in text


def test_a_schema_from_the_future_is_refused():
    row = ev.encode_event(ev.EdgeConfirmed(at_ns=1, schema=2))
    with pytest.raises(BadInput, match="schema 2"):
        ev.decode_event(row)
    with pytest.raises(BadInput, match="trade event"):
        ev.decode_event(b'{"type":"Nonsense"}')


def test_the_direction_decides_the_sides():
    plan = tw.make_plan(tw.BTC_SPOT, Direction.LONG_B_SHORT_A)
    assert (plan.a.side, plan.b.side) == (Side.SELL, Side.BUY)


def test_dust_goes_out_with_the_trade_and_is_never_held_alone():
    plan = tw.make_plan(tw.BTC_PERP, dust_a=D("0.0002"))  # 14 USDT
    orders = {order.key: order.qty for order in wanted(holding(plan))}
    bare = {order.key: order.qty for order in wanted(holding())}
    assert orders == bare | {LegKey.A: bare[LegKey.A] + D("0.0002")}

    trade, _ = entering(plan)
    for order in trade.working:
        trade, _ = step(trade, report(order, "0"))
    assert trade.phase is Phase.SETTLING
    assert trade.entries == (), "what was not sold stays where it was"


def test_what_a_trade_took_along_leaves_the_dust_account():
    plan = tw.make_plan(tw.BTC_PERP, dust_a=D("0.0002"))
    trade = holding(plan)
    trade, effects = step(trade, exit_decided(trade))
    for order in orders_in(effects):
        trade, _ = step(trade, report(order, at_ns=110))
    moved = {
        (posting.venue, posting.asset): posting.amount
        for entry in trade.entries
        for posting in entry.postings
        if posting.account is Account.DUST
    }
    assert moved == {(plan.a.leg.instrument.venue, "BTC"): -plan.dust_a}


def test_a_leg_that_was_rejected_leaves_nothing_of_the_other_one():
    trade, _ = entering()
    order_a, order_b = trade.working
    trade, _ = step(trade, report(order_a))
    refused = OrderReport(order_b.client_order_id, OrderStatus.REJECTED, (), 20, "venue is down")
    trade, effects = step(trade, ev.OrderReported(at_ns=20, report=refused))
    assert trade.phase is Phase.HEDGING
    assert effects == (ev.RequestRetry(ID, 1, 0),)
    trade, effects = step(trade, retry(trade))
    (undo,) = orders_in(effects)
    assert (undo.instrument, undo.side, undo.purpose) == (
        order_a.instrument, order_a.side.opposite, Purpose.HEDGE,
    )  # fmt: skip
    trade, _ = step(trade, report(undo, at_ns=210))
    assert trade.phase is Phase.SETTLING
    assert trade.settlement.exit_reason == "evened_out"
    assert [entry.kind for entry in trade.entries] == [], "nothing is left, not even dust"


def test_the_bounds_that_a_plan_does_not_name():
    limits = TradeLimits(D(3), D(60), D(0), 1)
    assert (limits.entry_ttl_ns, limits.alarm_attempts) == (2 * tw.SECOND, 5)
    assert (limits.retry_ms, limits.retry_max_ms) == (250, 30_000)


def test_the_first_trade_has_number_one_and_nothing_has_been_tried_yet():
    assert replay([]) == Idle() == Idle(0)
    assert entering()[0].attempts == holding().attempts == 0


def test_the_reference_price_of_a_leg_is_the_newest_that_was_decided_on():
    trade = holding()
    event = exit_decided(trade)
    dear = {
        "price_a": OrderPrice(Side.SELL, D(95_500_000), Price(D(95_400_000))),
        "price_b": OrderPrice(Side.BUY, D("69000.5"), Price(D(69_100))),
    }
    trade, effects = step(trade, replace(event, **dear))
    for moment in (trade, run(*(report(o, "0.5") for o in orders_in(effects)), trade=trade)[0]):
        assert moment.reference_price(LegKey.A) == dear["price_a"]
        assert moment.reference_price(LegKey.B) == dear["price_b"]
    bare = replace(trade, working=(), finished=())
    assert bare.reference_price(LegKey.A) == PLAN.a.price, "before any order, the plan's"


def test_completing_a_leg_counts_what_its_entry_orders_filled_and_nothing_else():
    trade, effects = entering()
    a, b = orders_in(effects)
    trade, _ = run(report(a), report(b, "0"), trade=trade)
    trade, effects = step(trade, retry(trade))
    (undo,) = orders_in(effects)
    trade, _ = step(trade, report(undo, "0.5"))
    assert trade.entered_qty(LegKey.A) == PLAN.a.qty, "what was undone had been entered"
    assert trade.entered_qty(LegKey.B) == 0


def test_an_order_without_an_answer_is_asked_for_less_and_less_often_and_reported():
    trade, effects = entering()
    a, b = orders_in(effects)
    waits, notes = [], []
    for _ in range(10):
        trade, effects = step(trade, unknown(a))
        waits.append(effects[0].wait_ms)
        notes += effects[1:]
    assert waits == [0, 250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]
    assert [(note.kind, note.data["attempts"]) for note in notes] == [
        ("order_unanswered", "5"),
        ("order_unanswered", "10"),
    ]
    assert step(trade, report(b, "0"))[0].attempts == 10, "nothing has filled since"
    assert step(trade, report(b, "0.5"))[0].attempts == 0


def test_an_exit_waits_while_something_is_on_its_way_or_being_unwound():
    trade, effects = entering()
    a, b = orders_in(effects)
    trade, _ = run(report(a), report(b, "0"), trade=trade)
    decided = exit_decided(trade)
    hedging, effects = step(trade, retry(trade))
    assert (hedging.phase, len(hedging.working)) == (Phase.HEDGING, 1)
    assert step(hedging, decided) == (hedging, ())

    trade, effects = step(holding(), exit_decided(holding()))
    a, b = orders_in(effects)
    unwinding, _ = run(report(a), report(b, "0"), trade=trade)
    assert (unwinding.phase, unwinding.working) == (Phase.UNWINDING, ())
    assert step(unwinding, exit_decided(unwinding)) == (unwinding, ())


def test_the_way_out_counts_its_own_attempts():
    trade, effects = entering()
    a, b = orders_in(effects)
    trade, _ = run(report(a), report(b, "0"), trade=trade)
    trade, _ = step(trade, retry(trade, a=False, b=False))
    assert (trade.phase, trade.attempts) == (Phase.HEDGING, 2)
    trade, _ = step(trade, exit_decided(trade))
    assert (trade.phase, trade.attempts) == (Phase.EXITING, 0)


def test_a_difference_that_became_too_small_to_trade_is_held_with_the_rest():
    plan = tw.make_plan(tw.BTC_SPOT)
    trade, effects = entering(plan)
    a, b = orders_in(effects)
    missing = D("0.00006") / b.qty  # 5700 KRW; below Binance's minimum
    trade, _ = run(report(a), report(b, str(1 - missing)), trade=trade)
    assert trade.phase is Phase.HEDGING
    cheap = tw.order_price(plan.a.leg, Side.SELL, D(80_000_000))  # 4800 KRW
    trade, effects = step(
        trade, ev.Retry(at_ns=9, price_a=cheap, price_b=None, mark_usdt=D(58_000))
    )
    assert (trade.phase, trade.attempts, effects) == (Phase.HOLDING, 0, ())
    assert trade.net_base == D("0.00006")


def test_what_comes_late_or_twice_changes_nothing_in_any_state():
    late = [
        granted(),
        ev.ReserveUnanswered(at_ns=9),
        report(orders_in(entering()[1])[0]),
        never_accepted(orders_in(entering()[1])[0], 30),
        ev.Retry(at_ns=9, price_a=None, price_b=None, mark_usdt=D(1)),
        funding_at(50),
        ev.Settled(at_ns=9, trade_id=ID),
    ]
    confirming, _ = run(signal(), granted())
    settling, _ = run(signal(), ev.ReserveUnanswered(at_ns=9))
    for trade in (Idle(1), confirming):
        for event in late:
            assert step(trade, event) == (trade, ()), (trade.phase, event)
    for event in late[:-1]:
        assert step(settling, event) == (settling, ())


def test_an_exit_that_is_asked_for_while_the_books_are_closed_changes_nothing():
    settling, _ = run(signal(), ev.ReserveUnanswered(at_ns=9))
    assert step(settling, exit_decided(holding())) == (settling, ())
    confirming, _ = run(signal(), granted())
    with pytest.raises(InvalidTransition, match="no rule for ExitDecided in confirming"):
        step(confirming, exit_decided(holding()))


def test_a_void_says_why():
    unanswered, _ = run(signal(), ev.ReserveUnanswered(at_ns=9))
    gone, _ = run(signal(), granted(), ev.EdgeGone(at_ns=9, reason="the edge is gone"))
    late, _ = run(signal(), granted(PLAN.deadline_ns + 1))
    assert [trade.settlement.exit_reason for trade in (unanswered, gone, late)] == [
        "no answer from RiskGuard",
        "the edge is gone",
        "the yes came after the deadline",
    ]
