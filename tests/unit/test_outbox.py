"""What actors leave for Persistence: one call at a time, bounded, kept when a call fails."""

import asyncio

import pytest

from arb_ray.actors import outbox
from arb_ray.actors.outbox import Outbox
from arb_ray.actors.wire import unpack
from arb_ray.domain.errors import OutcomeUnknown
from arb_ray.ports import Snapshot
from tests.shell_world import Counts


def row(number, symbol="ETH", *, is_event=False):
    return Snapshot("metrics_snapshots", number, "s1", symbol, {"n": number}, is_event)


class Persistence:
    def __init__(self):
        self.rows, self.states, self.errors = [], {}, []
        self.under_way = self.most = 0
        self.gate = None
        self.is_pressed = False

    async def send(self, method, payload):
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if self.gate is not None:
                await self.gate.wait()
            await asyncio.sleep(0)
            if self.errors:
                raise self.errors.pop(0)
            if method == "put":
                self.rows += [one.at_ns for one in unpack(payload, list[Snapshot])]
            else:
                self.states |= unpack(payload, dict[str, bytes])
        finally:
            self.under_way -= 1
        return self.is_pressed


async def turns(count):
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
def there(monkeypatch):
    monkeypatch.setattr(outbox, "ROWS_MAX", 5)
    there = Persistence()
    there.metrics = Counts()
    there.box = Outbox(there.send, there.metrics)
    return there


async def test_rows_go_in_order_and_only_the_newest_state_of_a_category(there):
    for number in range(3):
        there.box.put(row(number))
        there.box.put_state("risk", str(number).encode())
    await there.box.flush()
    await there.box.flush()
    assert there.rows == [0, 1, 2]
    assert there.states == {"risk": b"2"}


async def test_what_could_not_be_sent_is_sent_later_in_order(there):
    there.box.put(row(0))
    there.box.put_state("risk", b"old")
    there.errors = [OutcomeUnknown("put", 1)]
    await there.box.flush()
    there.box.put(row(1))
    there.box.put_state("risk", b"new")
    await there.box.flush()
    assert there.rows == [0, 1]
    assert there.states == {"risk": b"new"}


async def test_what_failed_goes_before_what_came_meanwhile_and_is_no_newer(there):
    there.box.put(row(0, "A"))
    there.box.put(row(1, "B"))
    there.box.put_state("risk", b"old")
    there.gate = asyncio.Event()
    there.errors = [OutcomeUnknown("put", 1)]
    flush = asyncio.create_task(there.box.flush())
    await asyncio.sleep(0)
    there.box.put(row(2, "C"))
    there.box.put_state("risk", b"new")
    there.gate.set()
    await flush
    await there.box.flush()
    assert there.rows == [0, 1, 2]
    assert there.states == {"risk": b"new"}


async def test_a_state_is_sent_once(there):
    there.box.put_state("risk", b"1")
    await there.box.flush()
    there.states.clear()
    await there.box.flush()
    assert there.states == {}


async def test_what_failed_is_conflated_with_what_came_meanwhile_before_anything_is_lost(there):
    for number in range(5):
        there.box.put(row(number, f"C{number}"))
    there.gate = asyncio.Event()
    there.errors = [OutcomeUnknown("put", 1)]
    flush = asyncio.create_task(there.box.flush())
    await asyncio.sleep(0)
    there.box.put(row(5, "C0"))
    there.gate.set()
    await flush
    await there.box.flush()
    assert there.rows == [1, 2, 3, 4, 5]
    assert there.metrics.counters == {"snapshots_conflated": 1}


async def test_statistics_are_alike_by_table_session_and_symbol(there):
    there.is_pressed = True
    there.box.put(row(0))
    await there.box.flush()
    there.box.put(row(1))
    there.box.put(Snapshot("position_snapshots", 2, "s1", "ETH", {}))
    there.box.put(Snapshot("metrics_snapshots", 3, "s2", "ETH", {}))
    there.box.put(row(4, "BTC"))
    await there.box.flush()
    assert there.rows == [0, 1, 2, 3, 4]


async def test_rows_that_were_taken_are_not_sent_again_with_a_state(there):
    there.box.put(row(0))
    there.box.put_state("risk", b"1")
    there.errors = []
    send = there.send

    async def states_fail(method, payload):
        if method == "put_states" and not there.states:
            there.states["tried"] = b""
            raise OutcomeUnknown("put_states", 1)
        await send(method, payload)

    there.box._send = states_fail
    await there.box.flush()
    await there.box.flush()
    assert there.rows == [0]
    assert there.states["risk"] == b"1"


async def test_at_the_bound_the_oldest_go_and_are_counted(there):
    for number in range(8):
        there.box.put(row(number, f"C{number}"))
    await there.box.flush()
    assert there.rows == [3, 4, 5, 6, 7]
    assert there.metrics.counters["snapshots_dropped"] == 3


async def test_a_failed_call_never_pushes_newer_rows_out(there):
    for number in range(5):
        there.box.put(row(number, f"C{number}"))
    there.gate = asyncio.Event()
    there.errors = [OutcomeUnknown("put", 1)]
    flush = asyncio.create_task(there.box.flush())
    await asyncio.sleep(0)
    for number in range(5, 10):
        there.box.put(row(number, f"C{number}"))
    there.gate.set()
    await flush
    await there.box.flush()
    assert there.rows == [5, 6, 7, 8, 9]
    assert there.metrics.counters["snapshots_dropped"] == 5


async def test_one_call_is_in_flight(there):
    for number in range(3):
        there.box.put(row(number))
        there.flush = asyncio.create_task(there.box.flush())
        await asyncio.sleep(0)
    await there.box.flush()
    assert there.rows == [0, 1, 2]
    assert there.most == 1


async def test_a_cancelled_call_loses_nothing(there):
    there.box.put(row(0))
    there.gate = asyncio.Event()
    flush = asyncio.create_task(there.box.flush())
    await asyncio.sleep(0)
    flush.cancel()
    await asyncio.gather(flush, return_exceptions=True)
    there.gate.set()
    await there.box.flush()
    assert there.rows == [0]


async def test_under_pressure_only_the_newest_statistic_of_a_symbol_goes_and_every_event(there):
    there.is_pressed = True
    there.box.put(row(0))
    await there.box.flush()
    assert there.box.is_pressed
    for number in range(1, 4):
        there.box.put(row(number, is_event=number == 2))
    there.box.put(row(4, "BTC"))
    await there.box.flush()
    assert there.rows == [0, 2, 3, 4]
    assert there.metrics.counters == {"snapshots_conflated": 1}
    there.is_pressed = False
    await there.box.flush()
    assert there.box.is_pressed, "without a row nobody was asked"
    there.box.put(row(5))
    await there.box.flush()
    there.box.put(row(6))
    there.box.put(row(7))
    await there.box.flush()
    assert there.rows[4:] == [5, 6, 7], "relieved, every row goes again"


async def test_at_the_bound_statistics_are_conflated_before_anything_is_lost(there):
    for number in range(20):
        there.box.put(row(number))
    await there.box.flush()
    assert there.rows[-1] == 19
    assert there.metrics.counters["snapshots_dropped"] == 0
    assert len(there.rows) + there.metrics.counters["snapshots_conflated"] == 20


async def test_at_the_bound_events_are_the_last_to_go(there):
    there.box.put(row(0, is_event=True))
    for number in range(1, 8):
        there.box.put(row(number, f"C{number}"))
    await there.box.flush()
    assert there.rows == [0, 4, 5, 6, 7]
    for number in range(10, 16):
        there.box.put(row(number, is_event=True))
    await there.box.flush()
    assert there.rows[5:] == [11, 12, 13, 14, 15], "of nothing but events the oldest goes"
    assert there.metrics.counters["snapshots_dropped"] == 4


async def test_pressed_it_sends_more_rarely(there, monkeypatch):
    monkeypatch.setattr(outbox, "FLUSH_INTERVAL_S", 0.0)
    monkeypatch.setattr(outbox, "PRESSED_INTERVAL_S", 3600.0)
    there.is_pressed = True
    there.box.put(row(0))
    loop = asyncio.create_task(there.box.run())
    await turns(50)
    assert there.box.is_pressed
    there.box.put(row(1))
    await turns(50)
    assert there.rows == [0]
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
