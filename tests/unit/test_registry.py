"""The registry of coins: identity, spelling, multipliers, refusals."""

import datetime as dt
from decimal import Decimal

import pytest

from arb_ray.app.config_files import config_dir
from arb_ray.app.registry import load_registry
from arb_ray.domain.errors import BadConfig, BadInput
from arb_ray.domain.instrument import Kind, Venue

REGISTRY = load_registry()


def refusal(symbols, leg_b="spot", **options):
    with pytest.raises(BadInput) as caught:
        REGISTRY.wanted(symbols, leg_b, **options)
    return str(caught.value)


def test_a_pair_has_one_asset_and_the_venues_spellings():
    (pair,) = REGISTRY.instruments_for(["BTC"], "spot")
    assert (pair.a.id, pair.a.venue_symbol) == ("upbit:BTC-KRW", "KRW-BTC")
    assert (pair.b.id, pair.b.venue_symbol) == ("binance_spot:BTC-USDT", "BTCUSDT")
    assert (pair.fx.id, pair.fx.venue_symbol) == ("upbit:USDT-KRW", "KRW-USDT")
    assert pair.a.asset == pair.b.asset == "BTC"


def test_a_perpetual_of_a_thousand_coins_says_so():
    for symbol in ("PEPE", "SHIB", "BONK"):
        (pair,) = REGISTRY.instruments_for([symbol], "perp")
        assert pair.b.id == f"binance_usdm:{symbol}-USDT-PERP"
        assert pair.b.venue_symbol == f"1000{symbol}USDT"
        assert pair.b.multiplier == Decimal(1000)
        assert (pair.b.kind, pair.b.venue) == (Kind.PERP, Venue.BINANCE_USDM)
        (spot,) = REGISTRY.instruments_for([symbol], "spot")
        assert spot.b.multiplier == 1


def test_a_figure_in_a_name_is_no_multiplier():
    (pair,) = REGISTRY.instruments_for(["1INCH"], "perp")
    assert pair.b.multiplier == 1


def test_tickers_may_differ_between_venues():
    (pair,) = REGISTRY.instruments_for(["BTT"], "spot")
    assert (pair.a.venue_symbol, pair.b.venue_symbol) == ("KRW-BTT", "BTTCUSDT")
    assert "no market on binance_usdm" in refusal("BTT", "perp")


def test_a_renamed_coin_is_valid_from_a_day():
    (pair,) = REGISTRY.instruments_for(["POL"], "spot")
    expected = dt.datetime(2024, 9, 13, tzinfo=dt.UTC).timestamp()
    assert pair.a.valid_from_ns == pair.b.valid_from_ns == int(expected) * 10**9


def test_there_are_about_sixty_real_coins_and_ids_are_unique():
    assert len(REGISTRY.symbols) >= 60
    for leg_b in ("spot", "perp"):
        top = REGISTRY.top(60, leg_b)
        pairs = REGISTRY.instruments_for(top, leg_b)
        instruments = [i for pair in pairs for i in (pair.a, pair.b)]
        assert len({i.id for i in instruments}) == 120
        assert len({(i.venue, i.venue_symbol) for i in instruments}) == 120


def test_top_is_ordered_and_nested():
    assert REGISTRY.top(3) == ("BTC", "ETH", "XRP")
    assert REGISTRY.top(20)[:10] == REGISTRY.top(10)
    assert REGISTRY.wanted("top:3", "spot") == ("BTC", "ETH", "XRP")


def test_top_leaves_out_what_lacks_a_leg():
    whole = REGISTRY.top(len(REGISTRY.symbols), "spot")
    assert "BTT" in whole
    assert "BTT" not in REGISTRY.top(len(whole) - 1, "perp")
    with pytest.raises(BadInput, match=f"the registry has {len(whole) - 1}"):
        REGISTRY.top(len(whole), "perp")


def test_synthetic_coins_fill_up_only_where_they_are_allowed():
    names = REGISTRY.top(500, synthetic=True)
    assert len(set(names)) == 500
    assert names[-1].startswith("SIM")
    assert REGISTRY.wanted("SIM001,BTC", "perp", synthetic=True) == ("SIM001", "BTC")
    (pair,) = REGISTRY.instruments_for(["SIM001"], "perp", synthetic=True)
    assert (pair.a.venue_symbol, pair.b.venue_symbol) == ("KRW-SIM001", "SIM001USDT")
    assert "source sim" in refusal("SIM001")
    assert "source sim has more" in refusal("top:500")
    assert "1 to" in refusal("top:99999", synthetic=True)


def test_an_unknown_symbol_names_near_ones():
    assert "Did you mean SOL" in refusal("SOLL")
    assert "BTC, ETH" in refusal("QQQQQQ")


def test_an_ambiguous_ticker_is_refused_with_its_reason():
    assert "POL" in refusal("MATIC")
    assert "Sonic SVM" in refusal("S")


def test_a_symbol_is_written_once():
    assert "written twice" in refusal("BTC,ETH,BTC")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("multiplier: 1000", "multiplier: 100", "Write 1000"),
        ("upbit: KRW-ETH", "upbit: KRW-BTC", "belongs to BTC already"),
        ("upbit: KRW-ETH", "upbit: ETH-KRW", "instruments.ETH.upbit"),
        ("rank: 2\n", "rank: 1\n", "belongs to BTC already"),
        ("rank: 2\n", "rang: 2\n", "instruments.ETH.rang"),
        ("schema: 1", "schema: 2", "schema"),
        ('  MATIC: "', '  BTC: "', "`refused`"),
    ],
)
def test_an_impossible_entry_is_refused_with_its_place(tmp_path, old, new, says):
    text = (config_dir({}) / "instruments.yaml").read_text()
    assert old in text
    (tmp_path / "instruments.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(BadConfig, match=r"instruments\.yaml") as caught:
        load_registry(tmp_path)
    assert says in str(caught.value)
