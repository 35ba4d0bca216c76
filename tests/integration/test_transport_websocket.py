"""The reconnecting client against a real server on loopback, through a wire that breaks."""

import asyncio
import contextlib
import gc
import itertools
import json
import random
import time

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import broadcast, serve
from websockets.exceptions import ConnectionClosed

from arb_ray.adapters.transport.backoff import BackoffPolicy
from arb_ray.adapters.transport.connection import Handler
from arb_ray.adapters.transport.rate_limit import Window
from arb_ray.adapters.transport.websocket import (
    ConnectionPolicy,
    Reason,
    ReconnectingWebSocket,
)
from arb_ray.domain.errors import RateLimited
from tests.tcp_proxy import TcpProxy

QUICK = BackoffPolicy(initial_s=0.02, maximum_s=0.1, stable_s=10)
DEFAULTS = {"backoff": QUICK, "close_timeout_s": 0.2, "connect_timeout_s": 2.0}


class Exchange:
    """Counts aloud: each number goes to everybody who has subscribed."""

    def __init__(self):
        self.requests = []  # (connection number, text, monotonic seconds)
        self.headers = []
        self.live = []
        self.subscribed = set()
        self.muted = False
        self.greeting = None  # sent at once, before any subscription

    async def __call__(self, socket):
        number = len(self.headers)
        self.headers.append(socket.request.headers)
        self.live.append(socket)
        try:
            if self.greeting is not None:
                await socket.send(self.greeting)
            async for text in socket:
                self.requests.append((number, text, time.monotonic()))
                if text.startswith("subscribe"):
                    self.subscribed.add(socket)
        except ConnectionClosed:
            pass
        finally:
            self.live.remove(socket)
            self.subscribed.discard(socket)

    async def count(self):
        for tick in itertools.count():
            await asyncio.sleep(0.005)
            if not self.muted:
                broadcast(self.subscribed, json.dumps(tick).encode())


class Consumer(Handler):
    """Subscribes on each connection and keeps all that it is told."""

    def __init__(self):
        self.client = None
        self.events = []
        self.frames = []  # (connection id, data)
        self.stamps = []
        self.opened = []
        self.lost = []
        self.alarms = []
        self.pongs = []
        self.sent = []
        self.on_each_frame = None

    def on_connected(self, connection):
        self.events.append(("connected", connection.id))
        self.opened.append(connection)
        connection.send("subscribe")

    def on_frame(self, connection, data, recv_wall_ns, recv_mono_ns):
        self.frames.append((connection.id, data))
        self.stamps.append((recv_wall_ns, recv_mono_ns, time.time_ns(), time.monotonic_ns()))
        if self.on_each_frame is not None:
            self.on_each_frame(connection, data)

    def on_alive(self, connection, mono_ns):
        self.pongs.append((connection.id, mono_ns))

    def on_sent(self, connection, text, wall_ns):
        self.sent.append(text)

    def on_disconnected(self, connection, loss):
        self.events.append(("disconnected", connection.id))
        self.lost.append(loss)

    def on_alarm(self, failures, problem):
        self.alarms.append((failures, problem))


@pytest.fixture
async def exchange():
    exchange = Exchange()
    async with serve(exchange, "127.0.0.1", 0, compression=None, close_timeout=0.5) as server:
        exchange.port = server.sockets[0].getsockname()[1]
        counting = asyncio.create_task(exchange.count())
        yield exchange
        counting.cancel()


@pytest.fixture
async def proxy(exchange):
    async with TcpProxy("127.0.0.1", exchange.port) as proxy:
        yield proxy


@pytest.fixture(params=["websockets", "picows"], autouse=True)
def transport(request, monkeypatch):
    """Everything below must be true of both libraries."""
    monkeypatch.setitem(DEFAULTS, "transport", request.param)
    return request.param


@contextlib.asynccontextmanager
async def running(port, consumer, **policy):
    defaults = DEFAULTS
    client = ReconnectingWebSocket(
        ConnectionPolicy(venue="test", url=f"ws://127.0.0.1:{port}/", **(defaults | policy)),
        consumer,
        rng=random.Random(1),
    )
    consumer.client = client
    task = asyncio.create_task(client.run())
    try:
        yield client, task
    finally:
        client.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(asyncio.wait({task})), 5)
        assert task.done()


async def until(condition, timeout_s=5.0):
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # what is awaited sets no event
            await asyncio.sleep(0.002)


async def test_frames_are_stamped_between_arrival_and_delivery(exchange):
    consumer = Consumer()
    began = (time.time_ns(), time.monotonic_ns())
    async with running(exchange.port, consumer):
        await until(lambda: len(consumer.frames) > 5)
    for wall_ns, mono_ns, wall_then, mono_then in consumer.stamps:
        assert began[0] <= wall_ns <= wall_then
        assert began[1] <= mono_ns <= mono_then
    assert all(isinstance(data, bytes) for _, data in consumer.frames)


async def test_no_origin_and_no_compression_are_offered(exchange):
    async with running(exchange.port, Consumer()):
        await until(lambda: exchange.headers)
    assert "Origin" not in exchange.headers[0]
    assert "Sec-WebSocket-Extensions" not in exchange.headers[0]


async def test_after_a_cut_it_reconnects_subscribes_again_and_measures_the_outage(exchange, proxy):
    consumer = Consumer()
    async with running(proxy.port, consumer) as (client, _):
        for life in range(1, 4):
            await until(lambda life=life: consumer.frames and consumer.frames[-1][0] == life)
            cut_ns = time.monotonic_ns()
            proxy.cut()
            await until(lambda life=life: len(consumer.opened) == life + 1)
            outage_ns = consumer.opened[-1].outage_ns
            assert 0 < outage_ns <= time.monotonic_ns() - cut_ns
        await until(lambda: consumer.frames[-1][0] == 4)
    assert [loss.reason for loss in consumer.lost] == [Reason.CUT] * 3 + [Reason.STOPPED]
    # The end of one is told before the beginning of the next.
    assert consumer.events[:3] == [("connected", 1), ("disconnected", 1), ("connected", 2)]
    assert [number for number, text, _ in exchange.requests] == [0, 1, 2, 3]
    counters = client.counters
    assert (counters.connects, counters.reconnects, counters.losses) == (4, 3, 3)
    assert counters.max_outage_ms >= counters.last_outage_ms > 0
    assert consumer.opened[0].outage_ns is None


async def test_a_close_by_the_peer_carries_its_code_and_the_frames_before_it(exchange):
    consumer = Consumer()
    async with running(exchange.port, consumer):
        await until(lambda: consumer.frames)
        exchange.muted = True
        await exchange.live[0].send(b"last words")
        await exchange.live[0].close(4001, "maintenance")
        await until(lambda: consumer.lost)
    assert consumer.frames[-1][1] == b"last words" or (1, b"last words") in consumer.frames
    loss = consumer.lost[0]
    assert (loss.reason, loss.code, loss.detail) == (Reason.CLOSED, 4001, "maintenance")


async def test_a_refusing_venue_is_tried_for_ever_with_alarms(exchange, proxy):
    consumer = Consumer()
    proxy.refuse(True)
    async with running(proxy.port, consumer, alarm_after_failures=3) as (client, task):
        await until(lambda: len(consumer.alarms) == 2)
        assert not task.done()
        assert [failures for failures, _ in consumer.alarms] == [3, 6]
        assert "refused" in consumer.alarms[0][1].lower()
        assert client.counters.connect_failures == 6
        proxy.refuse(False)
        await until(lambda: consumer.frames)
    assert client.counters.alarms == 2


async def test_a_venue_that_accepts_and_hangs_up_is_backed_off_and_alarmed_too(exchange):
    consumer = Consumer()

    async def hang_up(socket):
        await socket.close(1000)

    async with serve(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with running(port, consumer, alarm_after_failures=4) as (client, _):
            await until(lambda: consumer.alarms)
            assert client.counters.connects >= 4
            assert client.failures >= 4
    assert consumer.lost[0].code == 1000


async def test_attempts_are_spaced_by_the_backoff(exchange, proxy):
    proxy.refuse(True)
    slow = BackoffPolicy(initial_s=0.1, factor=2, maximum_s=0.2, jitter=0.0)
    async with running(proxy.port, Consumer(), backoff=slow) as (client, _):
        await asyncio.sleep(0.55)
        # At 0, 0.1, 0.3 and 0.5 s; a loaded machine may be late, never early.
        assert 2 <= client.counters.connect_failures <= 4


async def test_attempts_stay_within_the_connect_budget(exchange, proxy):
    proxy.refuse(True)
    windows = (Window(3, 0.4),)
    hasty = BackoffPolicy(initial_s=0.001, maximum_s=0.001)
    began = time.monotonic()
    async with running(proxy.port, Consumer(), backoff=hasty, connect_windows=windows) as (
        client,
        _,
    ):
        await asyncio.sleep(0.9)
        failures, took_s = client.counters.connect_failures, time.monotonic() - began
    assert 3 < failures <= 3 * (int(took_s / 0.4) + 1)


async def test_silence_is_noticed_although_the_connection_stays_open(exchange, proxy):
    consumer = Consumer()
    policy = {"ping_interval_s": 0.05, "silence_timeout_s": 0.3}
    async with running(proxy.port, consumer, **policy) as (client, _):
        await until(lambda: consumer.frames)
        stalled = time.monotonic()
        proxy.stall()
        await until(lambda: consumer.lost)
        assert 0.2 < time.monotonic() - stalled < 1.5
        assert consumer.lost[0].reason is Reason.SILENCE
        assert client.counters.silence_timeouts == 1
        proxy.resume()
        await until(lambda: consumer.frames[-1][0] > 1)


async def test_pongs_keep_a_quiet_connection_alive_and_are_told(exchange):
    exchange.muted = True
    consumer = Consumer()
    policy = {"ping_interval_s": 0.05, "silence_timeout_s": 0.2}
    async with running(exchange.port, consumer, **policy) as (client, _):
        await asyncio.sleep(0.6)
        assert consumer.lost == []
        assert len(consumer.pongs) >= 3
        assert client.counters.pongs >= 3
        assert consumer.opened[0].last_alive_mono_ns == consumer.pongs[-1][1]


async def test_frames_alone_keep_a_connection_alive_without_pings(exchange):
    consumer = Consumer()
    policy = {"ping_interval_s": None, "silence_timeout_s": 0.2}
    async with running(exchange.port, consumer, **policy) as (client, _):
        await asyncio.sleep(0.5)
        assert consumer.lost == []
        assert client.counters.pings == 0
        exchange.muted = True
        await until(lambda: consumer.lost)
    assert consumer.lost[0].reason is Reason.SILENCE


async def test_a_blocked_loop_is_not_taken_for_silence(exchange):
    consumer = Consumer()
    policy = {"ping_interval_s": 0.1, "silence_timeout_s": 0.3}
    async with running(exchange.port, consumer, **policy):
        await until(lambda: consumer.frames)
        time.sleep(1.0)  # noqa: ASYNC251  # the loop is what stands still here
        await asyncio.sleep(0.3)
        assert consumer.lost == []


async def test_text_pings_go_out_beside_protocol_pings(exchange):
    exchange.muted = True
    policy = {
        "text_ping": "PING",
        "text_ping_interval_s": 0.05,
        "ping_interval_s": 0.07,
        "silence_timeout_s": 1.0,
    }
    consumer = Consumer()
    async with running(exchange.port, consumer, **policy) as (client, _):
        await until(lambda: [t for _, t, _ in exchange.requests].count("PING") >= 3)
        await until(lambda: client.counters.pongs >= 2)
    assert consumer.sent == ["subscribe"]


async def test_an_oversize_message_is_counted_and_leads_to_a_reconnect(exchange):
    consumer = Consumer()
    async with running(exchange.port, consumer, max_frame_bytes=1000) as (client, _):
        await until(lambda: consumer.frames)
        await exchange.live[0].send(b"x" * 1000)
        await until(lambda: (1, b"x" * 1000) in consumer.frames)
        with contextlib.suppress(ConnectionClosed):
            await exchange.live[0].send(b"x" * 1001)
        await until(lambda: consumer.frames[-1][0] == 2)
        assert client.counters.oversize == 1
    assert consumer.lost[0].reason is Reason.OVERSIZE
    assert max(len(data) for _, data in consumer.frames) == 1000


async def test_a_message_in_fragments_is_put_together_within_the_bound(exchange):
    exchange.muted = True
    consumer = Consumer()
    async with running(exchange.port, consumer, max_frame_bytes=1000) as (client, _):
        await until(lambda: exchange.subscribed)
        await exchange.live[0].send([b"a" * 400, b"b" * 400, b"c" * 200])
        await until(lambda: consumer.frames)
        assert consumer.frames == [(1, b"a" * 400 + b"b" * 400 + b"c" * 200)]
        with contextlib.suppress(ConnectionClosed):
            await exchange.live[0].send([b"a" * 400, b"b" * 400, b"c" * 201])
        await until(lambda: consumer.lost)
        assert (consumer.lost[0].reason, client.counters.oversize) == (Reason.OVERSIZE, 1)
    assert len(consumer.frames) == 1


async def test_what_comes_with_the_handshake_is_delivered_after_on_connected(exchange):
    exchange.greeting = b"hello"
    consumer = Consumer()
    order = []
    consumer.on_each_frame = lambda _, data: order.append((data, len(consumer.opened)))
    async with running(exchange.port, consumer):
        await until(lambda: len(consumer.frames) > 2)
    assert order[0] == (b"hello", 1)


async def test_frames_of_one_read_share_its_stamp_however_slow_the_consumer(exchange):
    exchange.muted = True
    consumer = Consumer()
    consumer.on_each_frame = lambda *_: time.sleep(0.01)
    async with running(exchange.port, consumer):
        await until(lambda: exchange.subscribed)
        # Two dozen writes without a turn of the loop between them: the client reads them at once.
        for n in range(24):
            broadcast(exchange.subscribed, str(n).encode())
        await until(lambda: len(consumer.frames) == 24)
    assert [data for _, data in consumer.frames] == [str(n).encode() for n in range(24)]
    waited_s = (consumer.stamps[-1][3] - consumer.stamps[0][1]) / 1e9
    assert waited_s >= 0.2
    assert len({mono_ns for _, mono_ns, _, _ in consumer.stamps}) <= 3


async def test_a_server_that_pings_is_answered(exchange):
    consumer = Consumer()
    async with running(exchange.port, consumer):
        await until(lambda: exchange.live)
        pong = await exchange.live[0].ping()
        await asyncio.wait_for(pong, 5)


async def test_a_text_message_that_is_no_utf8_reaches_the_codec(exchange):
    consumer = Consumer()
    async with running(exchange.port, consumer):
        await until(lambda: exchange.live and consumer.frames)
        await exchange.live[0].send(b"\xff\xfe", text=True)
        await until(lambda: (1, b"\xff\xfe") in consumer.frames)
        assert consumer.lost == []


@pytest.mark.parametrize("by_age", [True, False])
async def test_a_rotation_overlaps_and_delivers_without_a_gap(exchange, by_age):
    consumer = Consumer()
    policy = {"overlap_s": 0.3, "max_age_s": 0.4 if by_age else None}
    async with running(exchange.port, consumer, **policy) as (client, _):
        await until(lambda: len(consumer.frames) > 10)
        if not by_age:
            client.request_rotation(consumer.opened[0])
        await until(lambda: consumer.lost)
        lost_at = len(consumer.frames)
        await until(lambda: len(consumer.frames) > lost_at + 10)
    assert consumer.events[:3] == [("connected", 1), ("connected", 2), ("disconnected", 1)]
    assert consumer.lost[0].reason is Reason.RETIRED
    overlapping = {ident for ident, _ in consumer.frames[lost_at - 20 : lost_at]}
    assert overlapping == {1, 2}
    assert all(ident != 1 for ident, _ in consumer.frames[lost_at:])
    ticks = {json.loads(data) for _, data in consumer.frames}
    assert ticks == set(range(min(ticks), max(ticks) + 1))
    assert client.counters.rotations >= 1
    assert (client.counters.reconnects, client.counters.losses) == (0, 0)
    assert consumer.opened[1].outage_ns is None


async def test_the_consumer_ends_the_overlap_when_it_has_seen_enough(exchange):
    consumer = Consumer()

    def retire_the_old(connection, _data):
        if connection.id == 2 and consumer.opened[0].is_open:
            consumer.client.retire(consumer.opened[0], "the successor delivers")

    consumer.on_each_frame = retire_the_old
    async with running(exchange.port, consumer, overlap_s=30) as (client, _):
        await until(lambda: consumer.frames)
        client.request_rotation(consumer.opened[0])
        await until(lambda: consumer.lost)
        assert consumer.lost[0].detail == "the successor delivers"
        assert client.failures == 1  # the rotation was asked of a young connection


async def test_the_old_connection_stays_while_no_successor_can_be_opened(exchange, proxy):
    consumer = Consumer()
    async with running(proxy.port, consumer, overlap_s=0.05) as (client, _):
        await until(lambda: consumer.frames)
        proxy.refuse(True)
        client.request_rotation(consumer.opened[0])
        await until(lambda: client.counters.connect_failures >= 3)
        seen = len(consumer.frames)
        await until(lambda: len(consumer.frames) > seen + 5)
        assert consumer.lost == []
        proxy.refuse(False)
        await until(lambda: consumer.lost)
    assert consumer.events[:3] == [("connected", 1), ("connected", 2), ("disconnected", 1)]


async def test_a_venue_that_says_goodbye_to_every_newcomer_does_not_make_it_spin(exchange):
    exchange.greeting = b"goodbye"
    consumer = Consumer()
    consumer.on_each_frame = lambda connection, data: (
        data == b"goodbye" and consumer.client.request_rotation(connection)
    )
    patient = BackoffPolicy(initial_s=0.1, maximum_s=0.4, jitter=0.0)
    async with running(exchange.port, consumer, backoff=patient) as (client, _):
        await asyncio.sleep(0.8)
        assert 2 <= client.counters.connects <= 4
        assert len(client.connections) <= 3  # two, and one on its way out


async def test_a_consumer_that_gives_a_connection_up_gets_another(exchange):
    consumer = Consumer()
    async with running(exchange.port, consumer) as (client, _):
        await until(lambda: consumer.frames)
        client.retire(consumer.opened[0], "one code never delivered")
        await until(lambda: consumer.frames[-1][0] == 2)
        assert client.counters.reconnects == 1


async def test_messages_stay_within_the_budget_pings_included(exchange):
    consumer = Consumer()
    policy = {
        "message_windows": (Window(4, 0.3),),
        "ping_interval_s": 0.1,
        "silence_timeout_s": 5.0,
    }
    async with running(exchange.port, consumer, **policy) as (client, _):
        await until(lambda: consumer.opened)
        for n in range(8):
            client.send(consumer.opened[0], f"control {n}")
        await until(lambda: len(consumer.sent) == 9)
        spent = client.counters.pings + client.counters.sent
        took_s = time.monotonic() - consumer.opened[0].opened_mono_ns / 1e9
        assert spent <= 4 * (took_s / 0.3 + 1)
        assert client.counters.pings >= 1
    texts = [text for _, text, _ in exchange.requests]
    assert texts == ["subscribe"] + [f"control {n}" for n in range(8)]


async def test_pings_spend_the_message_budget(exchange):
    exchange.muted = True
    policy = {
        "message_windows": (Window(3, 60.0),),
        "ping_interval_s": 0.02,
        "silence_timeout_s": 5.0,
    }
    async with running(exchange.port, Consumer(), **policy) as (client, _):
        await asyncio.sleep(0.3)
        assert (client.counters.sent, client.counters.pings) == (1, 2)


async def test_too_many_waiting_messages_are_refused_by_name(exchange):
    consumer = Consumer()
    policy = {"message_windows": (Window(1, 60.0),), "pending_messages_max": 3}
    async with running(exchange.port, consumer, **policy) as (client, _):
        await until(lambda: consumer.sent == ["subscribe"])
        for n in range(3):
            client.send(consumer.opened[0], f"waiting {n}")
        with pytest.raises(RateLimited) as refused:
            client.send(consumer.opened[0], "one too many")
        assert 50 < refused.value.retry_after_s <= 60
        client.retire(consumer.opened[0], "enough")
        await until(lambda: consumer.lost)
        client.send(consumer.opened[0], "into the void")
        assert (client.counters.sends_refused, client.counters.sends_dropped) == (1, 4)


class HandlerBug(Exception):
    pass


@pytest.mark.parametrize("where", ["on_connected", "on_frame", "on_alive", "on_sent", "on_alarm"])
async def test_a_bug_of_the_handler_ends_the_run_with_that_bug(exchange, proxy, where):
    consumer = Consumer()

    def bug(*_args):
        raise HandlerBug(where)

    setattr(consumer, where, bug)
    if where == "on_alarm":
        proxy.refuse(True)
    policy = {"ping_interval_s": 0.05, "alarm_after_failures": 2}
    async with running(proxy.port, consumer, **policy) as (client, task):
        with pytest.raises(HandlerBug, match=where):
            await asyncio.wait_for(task, 5)
        assert client.connections == ()
    await until(lambda: exchange.live == [])


async def test_a_bug_in_on_disconnected_ends_the_run_too(exchange, proxy):
    consumer = Consumer()

    def bug(*_args):
        raise HandlerBug

    consumer.on_disconnected = bug
    async with running(proxy.port, consumer) as (_, task):
        await until(lambda: consumer.frames)
        proxy.cut()
        with pytest.raises(HandlerBug):
            await asyncio.wait_for(task, 5)


async def test_an_attempt_that_is_cancelled_in_any_turn_leaves_nothing_open(exchange):
    for turns in range(200):
        consumer = Consumer()
        async with running(exchange.port, consumer) as (_, task):
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        if consumer.opened:
            break
    assert consumer.opened, "no attempt came as far as its end"
    await until(lambda: exchange.live == [])
    gc.collect()  # what was left open says so when it is collected, and the test fails


async def test_stop_and_cancel_close_politely_and_tell_the_consumer(exchange):
    for cancel in (False, True):
        consumer = Consumer()
        async with running(exchange.port, consumer) as (client, task):
            await until(lambda consumer=consumer: consumer.frames)
            if cancel:
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                client.stop()
                await asyncio.wait_for(task, 5)
        assert [loss.reason for loss in consumer.lost] == [Reason.STOPPED]
        await until(lambda: exchange.live == [])


async def test_stop_ends_an_attempt_that_hangs(exchange, proxy):
    proxy.stall()
    async with running(proxy.port, Consumer(), connect_timeout_s=60) as (client, task):
        await until(lambda: proxy.accepted)
        client.stop()
        await asyncio.wait_for(task, 2)


async def test_a_handshake_that_hangs_times_out_and_is_tried_again(exchange, proxy):
    proxy.stall()
    consumer = Consumer()
    async with running(proxy.port, consumer, connect_timeout_s=0.1) as (client, _):
        await until(lambda: client.counters.connect_failures >= 2)
        proxy.resume()
        await until(lambda: consumer.frames)


async def test_a_stalled_peer_cannot_hold_up_the_stop(exchange, proxy):
    consumer = Consumer()
    async with running(proxy.port, consumer) as (client, task):
        await until(lambda: consumer.frames)
        proxy.stall()
        client.stop()
        await asyncio.wait_for(task, 2)


async def test_a_full_write_buffer_cannot_hold_up_the_stop(exchange, proxy):
    consumer = Consumer()
    async with running(proxy.port, consumer) as (client, task):
        await until(lambda: consumer.frames)
        proxy.stall()
        for _ in range(60):  # more than all buffers of loopback and proxy hold
            client.send(consumer.opened[0], "x" * 1_000_000)
        await asyncio.sleep(0.3)
        assert client.counters.sent < 60
        client.stop()
        await asyncio.wait_for(task, 2)


async def test_a_retry_after_on_the_handshake_is_obeyed(exchange):
    attempts = []

    def refuse(connection, _request):
        attempts.append(time.monotonic())
        response = connection.respond(429, "slow down\n")
        response.headers["Retry-After"] = "1"
        return response if len(attempts) == 1 else None

    consumer = Consumer()
    async with serve(exchange, "127.0.0.1", 0, process_request=refuse) as server:
        port = server.sockets[0].getsockname()[1]
        async with running(port, consumer):
            await until(lambda: consumer.frames)
    assert attempts[1] - attempts[0] >= 0.99


async def test_the_proxy_delays_holds_and_refuses_as_told(exchange, proxy):
    """The fault proxy is itself a tool that others trust."""
    exchange.greeting = b"hello"
    proxy.latency_s = 0.1
    began = time.monotonic()
    async with connect(f"ws://127.0.0.1:{proxy.port}", proxy=None) as socket:
        assert await socket.recv() == b"hello"
        assert time.monotonic() - began >= 0.2  # the handshake there and back
        proxy.latency_s = 0.0
        proxy.stall()
        await socket.send("subscribe")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(socket.recv(), 0.1)
        proxy.resume()
        assert (await socket.recv()).isdigit()
        proxy.refuse(True)
        with pytest.raises(ConnectionRefusedError):
            await connect(f"ws://127.0.0.1:{proxy.port}", proxy=None)
        assert (await socket.recv()).isdigit()
        proxy.refuse(False)
        async with connect(f"ws://127.0.0.1:{proxy.port}", proxy=None):
            assert proxy.open_connections == 2
        proxy.cut()
        with pytest.raises(ConnectionClosed):
            [await socket.recv() for _ in range(10_000)]
    await until(lambda: proxy.open_connections == 0)
