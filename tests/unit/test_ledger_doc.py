"""docs/LEDGER.md counts right: its example balances, earns what it says, and names what there is."""

import re
from decimal import Decimal, localcontext
from pathlib import Path

from arb_ray.domain.ledger import Account, EntryKind
from arb_ray.domain.money import to_usdt

D = Decimal
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "LEDGER.md").read_text()
POSTINGS = [
    (kind, venue, account, asset, D(amount))
    for kind, venue, account, asset, amount in re.findall(
        r"^\| `(\w+)` \| (\w+) \| (\w+) \| ([A-Z]+) \| (\S+) \|$", PAGE, flags=re.MULTILINE
    )
]
PARTS = {
    name: D(amount)
    for name, amount in re.findall(r"^\| (\w+) \| (-?[\d.]+) \|", PAGE, flags=re.MULTILINE)
}
ENTRY_FX, EXIT_FX = D(1463), D("1462.5")


def earned(asset):
    return [a for kind, _, _, of, a in POSTINGS if kind == "fill" and of == asset]


def test_what_was_held_for_the_trade_comes_free_to_the_last_digit():
    left = {}
    for _, venue, account, asset, amount in POSTINGS:
        if account == "held":
            left[venue, asset] = left.get((venue, asset), 0) + amount
    assert len(POSTINGS) == 20
    assert set(left.values()) == {0}


def test_the_trade_earns_what_the_page_says():
    krw, usdt = sum(earned("KRW")), sum(earned("USDT"))
    worth = sum(to_usdt(amount, EXIT_FX) for amount in earned("KRW"))
    assert sum(earned("TRX")) == 0
    assert f"{krw} KRW more, worth {worth} USDT" in PAGE
    assert f"{-usdt} USDT\nless" in PAGE
    (realized,) = re.findall(r"\*\*Realized:\s+(\S+) USDT", PAGE)
    assert D(realized) == worth + usdt
    assert set(PARTS) == {"spread", "fx", "fees", "slippage", "funding"}
    assert abs(sum(PARTS.values()) - D(realized)) < len(POSTINGS) * D("1e-8")


def test_the_fx_part_is_the_entrys_krw_by_the_change_of_the_rate():
    entry_krw = D("736790.472") - D("368.395236")
    assert {D("736790.472"), D("-368.395236")} < set(earned("KRW"))
    with localcontext(prec=60):
        fx = entry_krw * (1 / EXIT_FX - 1 / ENTRY_FX)
    assert abs(fx - PARTS["fx"]) < D("1e-15")


def test_every_account_and_every_kind_of_entry_is_named():
    for account in Account:
        assert re.search(rf"^\| .*`{account}`.* \| (ours|counter) \|", PAGE, flags=re.MULTILINE)
    for kind in EntryKind:
        assert f"| `{kind}:" in PAGE
