"""What a run's summary must say, to a script and to a person."""

import json
from decimal import Decimal

import msgspec
import pytest

from arb_ray.app.summary import TradeTotals, summarize, to_json_line, usdt_text
from arb_ray.app.summary_words import duration_words, in_words, signed
from arb_ray.domain.ledger import NO_PNL, PnlParts
from arb_ray.engine.latency import LatencyHistogram
from tests import status_examples as examples

# The list of keys; a script that reads them must not break.
KEYS = [
    "session_id",
    "env",
    "source",
    "preset",
    "seed",
    "symbols",
    "duration_s",
    "frames",
    "book_updates",
    "decisions",
    "conflated",
    "opportunities",
    "refusals",
    "trades_opened",
    "trades_closed",
    "open_positions",
    "realized_pnl_usdt",
    "pnl_parts",
    "fees_usdt",
    "risk",
    "tick_to_decision_ms",
    "snapshots_written",
    "redis",
    "postgres",
    "errors",
]


def summary_of(status=None, context=None, **said):
    return summarize(
        status or examples.status(), context or examples.context(), **({"duration_s": 60.0} | said)
    )


def words_of(status=None, context=None, **said):
    status, context = status or examples.status(), context or examples.context()
    return in_words(summary_of(status, context, **said), status, context)


def quiet_status(**changes):
    host = examples.host(
        ["BTC"],
        opportunities=0,
        trades_opened=0,
        trades_closed=0,
        open_positions=0,
        refusals={"no_edge": 17_000},
        **changes,
    )
    return examples.status(("BTC",), hosts={"host:000@v": host})


def test_the_json_object_has_exactly_the_promised_keys_in_one_line():
    line = to_json_line(summary_of())

    told = json.loads(line)
    assert list(told) == KEYS
    assert "\n" not in line
    assert set(told["pnl_parts"]) == {"spread", "fx", "fees", "slippage", "funding"}
    assert set(told["risk"]) == {"state", "daily_loss_usdt", "daily_limit_usdt", "gap_loss_usdt"}
    assert set(told["tick_to_decision_ms"]) == {"p50", "p99", "max"}


def test_money_is_text_and_nothing_else_is():
    told = json.loads(to_json_line(summary_of()))

    money = [told["realized_pnl_usdt"], told["fees_usdt"], *told["pnl_parts"].values()]
    money += [told["risk"]["daily_loss_usdt"], told["risk"]["daily_limit_usdt"]]
    assert all(isinstance(amount, str) for amount in money)
    assert Decimal(told["realized_pnl_usdt"]) == Decimal("3.48")
    assert Decimal(told["risk"]["daily_limit_usdt"]) == 200
    assert isinstance(told["decisions"], int)
    assert isinstance(told["duration_s"], float)


def test_counts_of_all_hosts_and_feeds_are_added_up():
    summary = summary_of()

    assert summary.frames == {"upbit": 12_345, "binance_spot": 20_000}
    assert summary.book_updates == {"upbit": 11_980, "binance_spot": 19_500}
    assert summary.decisions == 34_000
    assert summary.conflated == 2 * 120 + 2 * 400  # in the feeds and in the hosts
    assert summary.opportunities == 12
    assert (summary.trades_opened, summary.trades_closed, summary.open_positions) == (8, 6, 2)
    assert summary.snapshots_written == 340
    assert (summary.redis, summary.postgres) == ("up", "up")


def test_two_feeds_of_one_venue_count_as_one_venue():
    feeds = {
        name: examples.feed("upbit", frames=10) for name in ("feed:upbit:0@v", "feed:upbit:1@v")
    }

    assert summary_of(examples.status(feeds=feeds)).frames["upbit"] == 20


def test_an_enabled_venue_that_never_answered_is_told_as_zero():
    summary = summary_of(examples.status(feeds={}))

    assert summary.frames == {"upbit": 0, "binance_spot": 0}


def test_refusals_are_added_by_reason_and_sorted_by_frequency():
    refusals = summary_of().refusals

    assert list(refusals.items()) == [("no_edge", 33_000), ("warming_up", 60), ("edge_gone", 4)]


def test_latency_is_the_quantile_of_all_hosts_together_not_a_mean_of_quantiles():
    fast, slow = LatencyHistogram(), LatencyHistogram()
    fast.add(100_000, 99)
    slow.add(50_000_000, 1)
    hosts = {
        name: examples.host(
            [name], latency_counts=histogram.sparse(), latency_max_ns=histogram.max_ns
        )
        for name, histogram in (("BTC", fast), ("ETH", slow))
    }

    latency = summary_of(examples.status(hosts=hosts)).tick_to_decision_ms

    assert latency.p50 == pytest.approx(0.1, rel=0.06)
    assert latency.p99 == pytest.approx(0.1, rel=0.06)
    assert latency.max == 50.0


def test_the_ledgers_totals_win_over_the_hosts_counters():
    ledger = TradeTotals(
        trades_opened=11,
        trades_closed=10,
        open_positions=1,
        realized_usdt=Decimal("-4.2"),
        fees_usdt=Decimal(9),
        parts=PnlParts(Decimal("4.8"), Decimal(0), Decimal(-9), Decimal(0), Decimal(0)),
    )

    summary = summary_of(ledger=ledger)

    assert (summary.trades_opened, summary.trades_closed, summary.open_positions) == (11, 10, 1)
    assert Decimal(summary.realized_pnl_usdt) == Decimal("-4.2")
    assert Decimal(summary.pnl_parts.fees) == -9
    assert Decimal(summary.fees_usdt) == 9


def test_a_clean_run_has_no_errors():
    assert summary_of().errors == []


def test_given_errors_stay_and_found_ones_follow():
    status = examples.status(
        missing=["feed:upbit@v"],
        persistence=examples.persistence(postgres="down", snapshots_dropped=7),
    )

    errors = summary_of(status, errors=["BTC never became live"]).errors

    assert errors[0] == "BTC never became live"
    assert "feed:upbit@v did not answer at the end" in errors
    assert "PostgreSQL was down at the end" in errors
    assert "7 snapshot rows were dropped" in errors


def test_parts_that_do_not_sum_to_the_realized_profit_are_an_error():
    host = examples.host(["BTC"], realized_usdt=Decimal("5.00"))
    status = examples.status(("BTC",), hosts={"host:000@v": host})

    (error,) = summary_of(status).errors

    assert "PnL parts sum to 1.74000000 USDT, but 5.00000000 were realized" in error


def test_parts_may_miss_the_realized_profit_by_the_rounding_of_postings():
    host = examples.host(["BTC"], realized_usdt=examples.PARTS.total * 3 + Decimal("2e-8"))

    assert not summary_of(examples.status(("BTC",), hosts={"host:000@v": host})).errors


def test_a_status_without_any_answer_can_be_summed_up():
    status = examples.status(hosts={}, feeds={}, risk={}, persistence={})

    summary = summary_of(status)

    assert summary.decisions == 0
    assert summary.risk.state == "unknown"
    assert (summary.redis, summary.postgres) == ("unknown", "unknown")
    assert summary.tick_to_decision_ms.max == 0.0
    assert in_words(summary, status, examples.context())


def test_a_recovering_guard_is_told_as_such():
    status = examples.status(risk={"state": "recovering", "ready": False, "refusals": {}})

    assert summary_of(status).risk.state == "recovering"


def test_the_guards_money_may_come_as_decimals_too():
    risk = examples.risk(daily_loss_usdt=Decimal("1.25"), daily_limit_usdt=Decimal(50))

    assert summary_of(examples.status(risk=risk)).risk.daily_loss_usdt == "1.25000000"


def test_a_source_without_a_preset_says_null():
    context = examples.context(source="paper", preset=None)

    assert json.loads(to_json_line(summary_of(context=context)))["preset"] is None


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "0.00000000"),
        ("-0.000000001", "0.00000000"),
        ("-1.5", "-1.50000000"),
        ("1E-8", "0.00000001"),
        ("123456.123456785", "123456.12345678"),  # half-even
    ],
)
def test_usdt_is_written_with_eight_decimals_and_no_negative_zero(amount, text):
    assert usdt_text(Decimal(amount)) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [("0", "0.00"), ("-0.004", "0.00"), ("0.005001", "+0.01"), ("-1234.5", "-1,234.50")],
)
def test_people_see_a_sign_only_on_what_is_not_zero(amount, text):
    assert signed(Decimal(amount)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.21, "3.2 s"), (60, "1 min"), (125, "2 min 5 s"), (12_000, "3 h 20 min"), (59.7, "1 min")],
)
def test_lengths_of_time_read_naturally(seconds, text):
    assert duration_words(seconds) == text


def test_words_say_first_that_the_lively_market_is_not_real():
    words = words_of()

    assert "preset LIVELY" in words
    assert "NOT A REAL MARKET" in words
    assert "says nothing about a real market" in words


def test_words_do_not_call_real_prices_unreal():
    for context in (
        examples.context(preset="calibrated"),
        examples.context(source="paper", preset=None),
        examples.context(source="recorded", preset=None),
    ):
        assert "NOT A REAL MARKET" not in words_of(context=context)


def test_words_say_honestly_that_there_was_no_edge():
    context = examples.context(preset="calibrated")

    words = words_of(quiet_status(), context)

    assert "No edge today" in words
    assert "usual and right answer" in words


def test_words_call_no_edge_unusual_on_the_lively_preset():
    words = words_of(quiet_status())

    assert "No edge today" in words
    assert "usual and right" not in words


def test_words_tell_no_edge_from_nothing_looked_at():
    words = words_of(quiet_status(decisions=0))

    assert "No edge today" not in words
    assert "no book reached a strategy" in words


def test_words_warn_of_profit_on_a_realistic_market():
    assert "steady profit would mean a bug" in words_of(
        context=examples.context(preset="calibrated")
    )
    assert "steady profit" not in words_of()


def test_words_name_every_part_of_the_profit_and_every_trouble_of_a_feed():
    feeds = {"feed:upbit@v": examples.feed("upbit", reconnects=2, gaps=1, silent=["KRW-XYZ"])}
    words = words_of(examples.status(feeds=feeds), errors=["the disk is full"])

    for word in ("spread +13.86", "fx -0.06", "fees -9.00", "slippage -1.32", "funding 0.00"):
        assert word in words
    assert "upbit: 2 reconnects, 1 gaps, never delivered: KRW-XYZ" in words
    assert "1 error:\n  the disk is full" in words


def test_zero_profit_of_no_trades_is_plain():
    host = examples.host([], trades_closed=0)
    totals = msgspec.structs.replace(host, realized_usdt=Decimal(0), parts=NO_PNL)
    words = words_of(examples.status(hosts={"host:000@v": totals}))

    assert "PnL           0.00 USDT realized" in words


def test_a_gap_loss_is_a_number_to_a_script_and_a_line_to_a_person():
    assert summary_of().risk.gap_loss_usdt == "0.00000000"
    assert "price gaps" not in words_of()
    status = examples.status(risk=examples.risk(gap_loss_usdt="150.25"))
    told = json.loads(to_json_line(summary_of(status)))
    assert told["risk"]["gap_loss_usdt"] == "150.25000000"
    assert "150.25 USDT of it past the reservations, by price gaps" in words_of(status)
