"""Counts survive a restart of their actor; what describes the moment does not."""

from decimal import Decimal

import msgspec

from arb_ray.domain.ledger import PnlParts
from arb_ray.engine.latency import LatencyHistogram
from arb_ray.engine.status import FeedStatus, HostStatus
from arb_ray.engine.status_carry import feed_after, host_after


def test_a_host_s_counts_add_up_and_its_state_is_the_new_one():
    slow, fast = LatencyHistogram(), LatencyHistogram()
    slow.add(9_000_000)
    fast.add(1_000_000)
    parts = PnlParts(*map(Decimal, (5, 1, -2, 0, 0)))
    former = HostStatus(
        True, "", ["BTC"], ["BTC"], decisions=7, refusals={"no_edge": 3, "busy": 1},
        trades_closed=2, open_positions=1, realized_usdt=Decimal(4), parts=parts,
        latency_counts=slow.sparse(), latency_max_ns=slow.max_ns,
    )  # fmt: skip
    now = HostStatus(
        False, "starting", ["BTC"], [], decisions=2, refusals={"no_edge": 1},
        latency_counts=fast.sparse(), latency_max_ns=fast.max_ns,
    )  # fmt: skip
    total = host_after(former, now)

    assert (total.decisions, total.trades_closed, total.realized_usdt) == (9, 2, 4)
    assert total.refusals == {"no_edge": 4, "busy": 1}
    assert total.parts == parts
    assert (total.ready, total.live, total.open_positions) == (False, [], 0)
    assert sum(total.latency_counts.values()) == 2
    assert total.latency_max_ns == 9_000_000


def test_a_feed_s_counts_add_up():
    former = FeedStatus(True, "", "upbit", True, "v1", frames=10, unknown={"x": 1}, queue=5)
    now = msgspec.structs.replace(former, frames=3, unknown={"x": 2, "y": 1}, queue=0)
    total = feed_after(former, now)

    assert (total.frames, total.queue) == (13, 0)
    assert total.unknown == {"x": 3, "y": 1}
