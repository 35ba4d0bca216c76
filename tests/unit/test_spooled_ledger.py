"""The ledger that spools: what goes to the disk, in which order, and what never does."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from arb_ray.adapters.storage import prompt_calls, spooled_ledger
from arb_ray.adapters.storage.memory import MemoryStore
from arb_ray.adapters.storage.node_spools import NodeSpools
from arb_ray.adapters.storage.spool_records import (
    EventWrite,
    OrderWrite,
    PostWrite,
    ReportWrite,
    decode_write,
    encode_write,
)
from arb_ray.adapters.storage.spooled_ledger import SpooledLedger
from arb_ray.domain.errors import (
    BadInput,
    Fenced,
    LedgerViolation,
    OutcomeUnknown,
    StoreUnavailable,
)
from arb_ray.domain.order import Purpose
from arb_ray.engine.trade_events import AnyEvent, LiveEvent
from tests.integration.conftest import BTC, a_report, an_order, fill_entry, opening
from tests.shell_world import Counts, Faulty, Log

AWAY = StoreUnavailable("pg", "away")
UNKNOWN = OutcomeUnknown("commit", 5)
TRADE = "BTC-1"
EXIT = an_order(purpose=Purpose.EXIT)


def event(number=0):
    """An event of a live trade; each is another one."""
    return (
        b'{"type":"Retry","at_ns":%d,"schema":1,"price_a":null,"price_b":null,"mark_usdt":"1"}'
        % (number)
    )


BEGINNING = b'{"type":"EdgeConfirmed","at_ns":1,"schema":1}'


class Site:
    """One node's disk and one store that fails as told; a host is started, and again."""

    def __init__(self, folder, size_max=100_000):
        self.folder, self.size_max = folder, size_max
        self.memory = MemoryStore()
        self.store = Faulty(self.memory)
        self.is_away, self.cuts = False, 0
        self.log, self.metrics = Log(), Counts()

    def cut(self):
        self.cuts += 1

    def host(self, name="host-000"):
        place = NodeSpools(self.folder, "e", name, size_max=self.size_max)
        return SpooledLedger(
            self, place, probe=self.probe, cut=self.cut, metrics=self.metrics, log=self.log
        )

    def __getattr__(self, name):
        if self.is_away:
            return self.refuse
        return getattr(self.store, name)

    async def refuse(self, *_):
        raise AWAY

    async def probe(self):
        if self.is_away:
            raise AWAY

    async def claimed(self, name="host-000"):
        ledger = self.host(name)
        self.epoch = await ledger.claim_symbol(BTC, name)
        return ledger

    def events(self):
        return self.memory._events[TRADE]


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def append(ledger, seq, data=None, epoch=1):
    return ledger.append_event(BTC, epoch, TRADE, seq, data or event(seq))


async def crash(ledger):
    """Leave the spool as a killed process does: its lock goes, its records stay."""
    ledger._spool.close()


async def caught_up(ledger):
    await ledger._catch_up(ledger._spool)


async def test_what_is_written_while_the_store_is_away_is_in_the_books_in_order_when_it_is_back(
    site,
):
    ledger = await site.claimed()
    await append(ledger, 0)
    site.is_away = True
    for seq in (1, 2):
        await append(ledger, seq)
    assert await ledger.accept_order(BTC, 1, EXIT) is True
    await ledger.report_order(BTC, 1, EXIT, a_report(), [fill_entry()])
    await ledger.post(BTC, 1, [opening()])
    assert site.events() == [event(0)]
    assert ledger.is_away
    with pytest.raises(StoreUnavailable):
        await ledger.flush()
    site.is_away = False
    await caught_up(ledger)
    assert site.events() == [event(0), event(1), event(2)]
    assert site.memory._reports[EXIT.client_order_id] == a_report()
    assert set(site.memory.entries) == {"opening", fill_entry().entry_id}
    assert not ledger.is_away
    await ledger.flush()


@pytest.mark.parametrize("failure", [AWAY, UNKNOWN])
async def test_a_write_that_may_be_there_is_spooled_and_meets_its_own_id(site, failure):
    ledger = await site.claimed()
    site.store.after["append_event"] = [failure]
    await append(ledger, 0)
    await append(ledger, 1)
    assert site.events() == [event(0)]
    await caught_up(ledger)
    assert site.events() == [event(0), event(1)]


async def test_what_follows_waits_for_what_is_being_appended_though_the_store_is_back(site):
    ledger = await site.claimed()
    site.is_away = True
    slow, spool = asyncio.Event(), ledger._spool
    right = spool.append  # a disk that takes its time

    async def slowly(payload):
        await slow.wait()
        return await right(payload)

    spool.append = slowly
    first = asyncio.create_task(append(ledger, 0))
    for _ in range(20):
        await asyncio.sleep(0)
    assert ledger._appending == 1
    site.is_away = False
    await caught_up(ledger)
    assert ledger.is_away
    second = asyncio.create_task(append(ledger, 1))
    await asyncio.sleep(0.01)
    assert site.events() == []
    slow.set()
    await asyncio.gather(first, second)
    await caught_up(ledger)
    assert site.events() == [event(0), event(1)]
    assert not ledger.is_away


@pytest.mark.parametrize("kind", [one.__name__ for one in AnyEvent.__args__])
def test_only_events_of_a_live_trade_go_to_the_disk(kind):
    live = {one.__name__ for one in LiveEvent.__args__}
    assert live == {"OrderReported", "QueryAnswered", "FundingPaid", "ExitDecided", "Retry"}
    if kind == "Retry":
        assert spooled_ledger._is_live(event())
    if kind not in live:
        assert not spooled_ledger._is_live(b'{"type":"%s"}' % kind.encode())


async def test_nothing_begins_while_the_store_is_away_and_nobody_waits_for_a_time_out(site):
    ledger = await site.claimed()
    site.is_away = True
    await append(ledger, 0)
    calls = site.store.calls.copy()
    for attempt in (
        ledger.next_trade_number(BTC),
        ledger.claim_symbol(BTC, "again"),
        ledger.open_trade(BTC),
        ledger.balances(),
        append(ledger, 1, BEGINNING),
        ledger.accept_order(BTC, 1, an_order()),
    ):
        with pytest.raises(StoreUnavailable, match="1 writes are spooled"):
            await attempt
    assert site.store.calls == calls
    assert ledger._spool.pending == 1


async def test_an_order_sent_from_the_disk_is_answered_from_it_and_not_sent_again(site):
    ledger = await site.claimed()
    site.is_away = True
    assert await ledger.accept_order(BTC, 1, EXIT) is True
    assert await ledger.accept_order(BTC, 1, EXIT) is False
    assert await ledger.is_order_known(EXIT.client_order_id)
    assert await ledger.find_report(EXIT.client_order_id) is None
    await ledger.report_order(BTC, 1, EXIT, a_report(), [])
    assert await ledger.find_report(EXIT.client_order_id) == a_report()
    assert ledger._spool.pending == 2


async def test_of_an_order_that_another_process_may_have_sent_nothing_is_said_without_the_store(
    site,
):
    ledger = await site.claimed()
    site.is_away = True
    for question in (ledger.is_order_known("BTC-1-7"), ledger.find_report("BTC-1-7")):
        with pytest.raises(StoreUnavailable):
            await question


async def test_an_entry_that_was_not_accepted_counts_as_known_and_gets_a_last_word(site):
    ledger = await site.claimed()
    site.store.before["accept_order"] = [AWAY]
    with pytest.raises(StoreUnavailable):
        await ledger.accept_order(BTC, 1, an_order())
    assert ledger._spool.pending == 0
    site.is_away = True
    assert await ledger.is_order_known("BTC-1-0")
    await ledger.report_order(BTC, 1, an_order(), a_report(), [])
    site.is_away = False
    await caught_up(ledger)
    assert site.memory._orders == {"BTC-1-0": an_order()}


async def test_orders_of_an_earlier_trade_are_forgotten(site):
    ledger = await site.claimed()
    site.is_away = True
    await ledger.accept_order(BTC, 1, EXIT)
    await ledger.accept_order(BTC, 1, an_order("BTC-2-0", "BTC-2", purpose=Purpose.EXIT))
    with pytest.raises(StoreUnavailable):
        await ledger.is_order_known(EXIT.client_order_id)


async def test_a_full_disk_leaves_a_write_in_doubt_that_was_in_doubt(tmp_path):
    site = Site(tmp_path, size_max=10)
    ledger = await site.claimed()
    site.store.after["append_event"] = [UNKNOWN]
    with pytest.raises(OutcomeUnknown):
        await append(ledger, 0)
    site.is_away = True
    with pytest.raises(StoreUnavailable, match="the bound is 10"):
        await append(ledger, 1)
    assert site.metrics.counters["spool_refusals"] == 2
    assert "the bound is 10" in ledger.troubles[0]
    site.is_away = False
    await caught_up(ledger)
    assert ledger.troubles == []


async def test_a_store_that_does_not_answer_is_given_up_after_a_moment(site, monkeypatch):
    monkeypatch.setattr(prompt_calls, "ANSWER_S", 0.05)
    monkeypatch.setattr(prompt_calls, "CUT_S", 0.05)
    ledger = await site.claimed()
    right = site.memory.append_event

    async def hang(*_):
        await asyncio.Event().wait()

    site.memory.append_event = hang
    began = time.monotonic()
    await append(ledger, 0)
    await append(ledger, 1)  # no second time-out
    assert time.monotonic() - began < 1
    assert site.cuts == 1
    site.memory.append_event = right
    await caught_up(ledger)
    assert site.events() == [event(0), event(1)]


# -- after a crash ------------------------------------------------------------------------------


@pytest.mark.parametrize("successor", ["host-000", "host-007"])
async def test_what_a_killed_host_left_is_in_the_books_before_a_symbol_is_claimed(site, successor):
    ledger = await site.claimed()
    site.is_away = True
    await append(ledger, 0)
    await crash(ledger)
    with pytest.raises(StoreUnavailable):
        await site.claimed(successor)
    assert site.memory._owners == {BTC: 1}
    site.is_away = False
    await site.claimed(successor)
    assert site.epoch == 2
    assert site.events() == [event(0)]
    assert site.log.events.count("spool_replayed") == 1
    hosts = site.folder / "hosts" / "e"
    assert len([path for path in hosts.iterdir() if path.is_dir()]) == 2  # the two successors'


async def test_spools_of_another_environment_are_left_alone(site, tmp_path):
    other = NodeSpools(tmp_path, "other", "host-000", size_max=1000)
    spool = await other.open_own()
    await spool.append(b"theirs")
    spool.close()
    await site.claimed()
    assert (spool.folder / "spool.log").stat().st_size > 0


async def test_a_spool_without_records_goes_at_the_next_start_and_ours_is_nobody_elses(site):
    ledger = await site.claimed()
    empty = ledger._spool.folder
    await crash(ledger)
    again = await site.claimed("host-001")
    assert not empty.exists()
    site.is_away = True
    await append(again, 0, epoch=2)
    assert again._place.others_with_records() == []
    neighbour = NodeSpools(site.folder, "e", "host-002", size_max=1000)
    assert neighbour.others_with_records() == [again._spool.name]


async def test_a_spool_that_is_damaged_in_its_middle_is_put_aside_for_a_person(site):
    ledger = await site.claimed()
    site.is_away = True
    await append(ledger, 0)
    await append(ledger, 1)
    log = ledger._spool.folder / "spool.log"
    await crash(ledger)
    log.write_bytes(b"\xff" * 16 + log.read_bytes()[16:])
    site.is_away = False
    again = await site.claimed("host-001")
    assert again.kept_files == 1
    assert not log.exists()
    assert (site.folder / "reconciliation" / "e" / log.parent.name / "spool.log").exists()


async def test_an_orderly_end_leaves_no_folder_and_one_with_records_leaves_them(site):
    ledger = await site.claimed()
    folder = ledger._spool.folder
    await ledger.close()
    assert not folder.exists()
    site.is_away = True
    ledger = site.host()
    ledger._spool = await ledger._place.open_own()
    await append(ledger, 0)
    folder = ledger._spool.folder
    site.close = site.store.close
    await ledger.close()
    assert (folder / "spool.log").stat().st_size > 0
    assert "spool_left" in site.log.events


async def test_a_refused_record_takes_along_what_follows_it_of_its_trade_and_nothing_else(site):
    ledger = await site.claimed()
    site.is_away = True
    await append(ledger, 0)
    await append(ledger, 1)
    await ledger.append_event(BTC, 1, "BTC-2", 0, event(9))
    site.is_away = False
    site.store.before["append_event"] = [LedgerViolation("BTC-1/0", "another event is there")]
    with pytest.raises(LedgerViolation, match="another event is there"):
        await caught_up(ledger)
    assert site.events() == []
    assert site.memory._events["BTC-2"] == [event(9)]
    (file,) = (site.folder / "reconciliation" / "e").iterdir()
    lines = [msgspec.json.decode(line) for line in file.read_bytes().splitlines()]
    assert [one["reason"] for one in lines] == [
        "ledger entry BTC-1/0: another event is there",
        "it follows a record that was refused",
    ]
    assert [one["record"]["seq"] for one in lines] == [0, 1]
    assert site.log.events.count("record_refused") == 2


async def test_a_crash_between_two_refusals_books_nothing_of_the_story_afterwards(site):
    ledger = await site.claimed()
    site.is_away = True
    for seq in (0, 1, 2):
        await append(ledger, seq)
    site.is_away = False
    site.store.before["append_event"] = [LedgerViolation("BTC-1/0", "no")]
    keep, kept = ledger._place.reconciliation.keep, []

    async def keep_once(*arguments):
        if kept:
            raise StoreUnavailable("disk", "full")
        kept.append(arguments)
        await keep(*arguments)

    ledger._place.reconciliation.keep = keep_once
    with pytest.raises(StoreUnavailable, match="full"):
        await caught_up(ledger)
    await crash(ledger)
    again = await site.claimed()
    assert site.events() == []
    (file,) = (site.folder / "reconciliation" / "e").iterdir()
    assert len(file.read_bytes().splitlines()) == 3
    assert again.kept_files == 1
    # An operator has looked into it, and moves the file away.
    file.unlink()
    await caught_up(again)
    assert again.troubles == []


async def test_a_record_that_is_kept_twice_is_kept_once(site):
    kept = NodeSpools(site.folder, "e", "h", size_max=1).reconciliation
    write = EventWrite(symbol=BTC, owner_epoch=1, of_trade=TRADE, seq=0, event="{}")
    for _ in range(2):
        await kept.keep("spool", encode_write(write), write, "because")
    (file,) = (site.folder / "reconciliation" / "e").iterdir()
    assert len(file.read_bytes().splitlines()) == 1


async def test_the_refusal_of_a_record_ends_the_process_that_had_spooled_it(site):
    ledger = await site.claimed()
    site.is_away = True
    await append(ledger, 0)
    site.is_away = False
    await site.memory.claim_symbol(BTC, "another node")
    with pytest.raises(Fenced):
        await caught_up(ledger)
    assert ledger.kept_files == 1


async def test_a_refusal_is_not_forgotten_when_the_store_goes_away_right_after_it(site):
    ledger = await site.claimed()
    site.is_away = True
    await append(ledger, 0)
    await ledger.append_event(BTC, 1, "BTC-2", 0, event(9))
    site.is_away = False
    site.store.before["append_event"] = [LedgerViolation("BTC-1/0", "no"), AWAY]
    with pytest.raises(StoreUnavailable):
        await caught_up(ledger)
    with pytest.raises(LedgerViolation, match="no"):
        await caught_up(ledger)


@pytest.mark.parametrize("payload", [b"noise", b'{"type":"event"}'])
async def test_a_record_that_cannot_be_read_is_kept_and_told_of(site, payload):
    ledger = await site.claimed()
    await ledger._spool.append(payload)
    await crash(ledger)
    again = await site.claimed("host-001")
    assert again.kept_files == 1
    assert "1 files wait for reconciliation" in again.troubles[0]


async def test_a_replay_that_breaks_off_gives_every_spool_free_for_the_next(site):
    ledgers = [site.host(f"host-{number}") for number in range(2)]
    for number, ledger in enumerate(ledgers):
        ledger._spool = await ledger._place.open_own()
        write = EventWrite(
            symbol=BTC, owner_epoch=0, of_trade=f"BTC-{number}", seq=0, event=event().decode()
        )
        await ledger._spool.append(encode_write(write))
        await crash(ledger)
    site.store.before["append_event"] = [AWAY]
    with pytest.raises(StoreUnavailable):
        await site.claimed("host-7")
    await site.claimed("host-8")
    assert site.memory._events == {"BTC-0": [event()], "BTC-1": [event()]}


async def test_a_claim_waits_for_a_living_neighbour_only_for_so_long(site):
    ledger = await site.claimed()
    site.is_away = True
    await append(ledger, 0)
    site.is_away = False
    second = site.host("host-001")
    waits = pytest.raises(StoreUnavailable, match="has not replayed its records yet")
    with waits:
        await second.claim_symbol(BTC, "second")
    second._others_since_s -= 100
    site.is_away = True
    with pytest.raises(StoreUnavailable, match="away"):
        await second.claim_symbol(BTC, "second")
    site.is_away = False
    with waits:  # the time without PostgreSQL does not count
        await second.claim_symbol(BTC, "second")
    second._others_since_s -= 100
    assert await second.claim_symbol(BTC, "second") == 2


# -- records ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "write",
    [
        EventWrite(symbol=BTC, owner_epoch=3, of_trade=TRADE, seq=2, event="{}"),
        OrderWrite(symbol=BTC, owner_epoch=3, order=EXIT),
        ReportWrite(
            symbol=BTC, owner_epoch=3, order=EXIT, report=a_report(), entries=(fill_entry(),)
        ),
        PostWrite(symbol=BTC, owner_epoch=3, entries=(fill_entry(),)),
    ],
)
def test_a_record_is_read_as_it_was_written_and_knows_its_trade(write):
    assert decode_write(encode_write(write)) == write
    assert write.trade_id == TRADE


def test_a_record_of_another_schema_is_refused():
    write = PostWrite(symbol=BTC, owner_epoch=1, entries=(), schema=2)
    assert write.trade_id == ""
    with pytest.raises(BadInput, match="schema 2"):
        decode_write(encode_write(write))
