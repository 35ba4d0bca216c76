"""An entry sums to zero per asset, or it is none."""

from decimal import Decimal

import pytest

from arb_ray.domain.errors import LedgerViolation
from arb_ray.domain.instrument import Venue
from arb_ray.domain.ledger import Account, Entry, EntryKind, Posting
from arb_ray.domain.money import KRW, USDT


def entry(*amounts):
    postings = tuple(
        Posting(Venue.UPBIT, Account.FREE, asset, Decimal(amount)) for asset, amount in amounts
    )
    return Entry("e1", EntryKind.OPENING, None, None, 1, postings)


def test_an_entry_that_sums_to_zero_in_each_asset_is_taken():
    assert len(entry((KRW, "1"), (KRW, "-1"), (USDT, "2"), (USDT, "-2")).postings) == 4


def test_an_entry_that_sums_to_zero_over_assets_only_is_refused():
    with pytest.raises(LedgerViolation, match="do not sum to zero"):
        entry((KRW, "1"), (USDT, "-1"))
