import pytest

from arb_ray.domain.opportunity import Refusal
from arb_ray.engine.decision_log import DecisionLog, combined_hash
from arb_ray.engine.evaluation import REFUSED
from arb_ray.engine.strategy import SymbolStrategy
from tests.signal_market import F_BOOK, N_BOOK, READY, T0, U_CHEAP, Market, params, spot_pair

EVENTS = [("BTC", 1), ("ETH", 1), ("BTC", 2), ("XRP", 5), ("ETH", 7), ("BTC", 9)]


def log_of(events):
    log = DecisionLog()
    for symbol, at_ns in events:
        log.record_evaluation(symbol, at_ns, REFUSED[Refusal.NO_EDGE])
    return log


def test_hash_is_the_same_in_one_process_and_in_many():
    one = log_of(EVENTS)
    many = [log_of([e for e in EVENTS if e[0] == symbol]) for symbol in ("XRP", "BTC", "ETH")]
    assert combined_hash(head for log in many for head in log.heads()) == one.hexdigest()


def test_interleaving_of_symbols_does_not_matter_but_order_within_one_does():
    assert log_of(sorted(EVENTS)).hexdigest() == log_of(EVENTS).hexdigest()
    assert log_of(EVENTS[::-1]).hexdigest() != log_of(EVENTS).hexdigest()


def test_any_difference_changes_the_hash():
    log = log_of(EVENTS)
    for changed in (EVENTS[:-1], [*EVENTS, ("BTC", 9)], [*EVENTS[:-1], ("BTC", 10)]):
        assert log_of(changed).hexdigest() != log.hexdigest()
    assert log_of([("BTC", 0), *EVENTS[1:]]).hexdigest() != log.hexdigest()
    other = log_of(EVENTS[:-1])
    other.record_evaluation("BTC", 9, REFUSED[Refusal.BUSY])
    assert other.hexdigest() != log.hexdigest()


def test_chain_goes_on_in_another_process():
    first = log_of(EVENTS[:3])
    second = DecisionLog(heads=first.heads())
    for symbol, at_ns in EVENTS[3:]:
        second.record_evaluation(symbol, at_ns, REFUSED[Refusal.NO_EDGE])
    assert second.hexdigest() == log_of(EVENTS).hexdigest()


def test_two_owners_of_one_symbol_are_a_bug():
    log = log_of(EVENTS)
    with pytest.raises(AssertionError, match="two processes"):
        combined_hash([*log.heads(), *log.heads()])


def test_opportunity_is_written_with_every_figure_and_its_time():
    market = Market(spot_pair())
    market.put(u=U_CHEAP, n=N_BOOK, f=F_BOOK)
    strategy = SymbolStrategy(market.pair, params())
    evaluation = strategy.evaluate(market.view, T0, market.mono_ns, READY)
    lines = []
    DecisionLog(lines.append).record_evaluation("ETH", T0, evaluation)
    fields = lines[0].split("|")
    assert fields[:4] == ["ETH", str(T0), "opportunity", "long_a_short_b"]
    assert repr(evaluation.opportunity.gross_bps) in fields
    assert len(fields) == 4 + 7 + 9
