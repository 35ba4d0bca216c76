"""A start takes up every trade that was left open, or says that it cannot."""

import pytest

from arb_ray.app.registry import load_registry
from arb_ray.app.resuming import market_identity, with_open_trades
from arb_ray.app.settings import load_settings
from arb_ray.domain.errors import BadInput
from arb_ray.domain.instrument import InstrumentId, Symbol

SPOT = (InstrumentId("upbit:ETH-KRW"), InstrumentId("binance_spot:ETH-USDT"))


@pytest.fixture
def settings():
    return load_settings("dev", environ={})


@pytest.fixture
def btc():
    return load_registry().instruments_for([Symbol("BTC")], "spot")


def test_without_open_trades_what_was_asked_for_runs(settings, btc):
    assert with_open_trades(settings, btc, ()) == btc


def test_a_symbol_that_left_the_list_runs_while_its_trade_is_open(settings, btc):
    pairs = with_open_trades(settings, btc, [(Symbol("ETH"), SPOT)])

    assert [pair.symbol for pair in pairs] == ["BTC", "ETH"]


def test_a_trade_on_the_other_leg_b_is_refused_with_what_to_do(btc):
    settings = load_settings("dev", {"leg_b": "perp"}, environ={})

    with pytest.raises(BadInput, match="binance_spot:ETH-USDT, which this run would not trade"):
        with_open_trades(settings, btc, [(Symbol("ETH"), SPOT)])


def test_another_recording_is_another_market(tmp_path):
    def identity(name, text):
        path = tmp_path / name
        path.write_text(text)
        overrides = {"source": "recorded", "recording.files": [str(path)]}
        return market_identity(load_settings("dev", overrides, environ={}))

    assert identity("a.jsonl", "one") == identity("a.jsonl", "one")
    assert identity("a.jsonl", "two") != identity("a.jsonl", "one")
    assert identity("b.jsonl", "one") != identity("a.jsonl", "one")
