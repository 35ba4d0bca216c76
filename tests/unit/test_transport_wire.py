"""Which library opens a socket, through which proxy, and what an inbox makes of frames."""

import asyncio

import pytest

from arb_ray.adapters.transport import wire_choice
from arb_ray.adapters.transport.connection_policy import ConnectionPolicy, Reason
from arb_ray.adapters.transport.picows_wire import open_picows
from arb_ray.adapters.transport.websockets_wire import open_websockets
from arb_ray.adapters.transport.wire import (
    MAX_EARLY_MESSAGES,
    Clocks,
    ConnectFailed,
    End,
    Inbox,
    proxy_of,
    retry_after_s,
)
from arb_ray.domain.errors import BadConfig


def policy(**options):
    return ConnectionPolicy(venue="test", url="wss://venue.example/ws", **options)


def test_auto_takes_picows_where_it_is_installed(monkeypatch):
    assert wire_choice.opener_of(policy()) is open_picows
    monkeypatch.setattr(wire_choice, "has_picows", lambda: False)
    assert wire_choice.opener_of(policy()) is open_websockets


def test_a_library_that_is_named_is_taken_or_refused_by_name(monkeypatch):
    assert wire_choice.opener_of(policy(transport="websockets")) is open_websockets
    assert wire_choice.opener_of(policy(transport="picows")) is open_picows
    monkeypatch.setattr(wire_choice, "has_picows", lambda: False)
    with pytest.raises(BadConfig, match="picows is not installed"):
        wire_choice.opener_of(policy(transport="picows"))


def test_compression_is_a_matter_of_websockets():
    assert wire_choice.opener_of(policy(compression=True)) is open_websockets
    with pytest.raises(AssertionError, match="inflate"):
        policy(compression=True, transport="picows")


def test_the_environments_proxy_is_used_but_never_towards_our_own_machine(monkeypatch):
    for name in ("http_proxy", "https_proxy", "socks_proxy", "wss_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert proxy_of("wss://venue.example/ws") is None
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    assert proxy_of("wss://venue.example/ws") == "http://proxy.example:3128"
    assert proxy_of("ws://127.0.0.1:8701/ws") is None
    with pytest.raises(ConnectFailed, match="InvalidURI"):
        proxy_of("http://venue.example/ws")


@pytest.mark.parametrize(
    ("header", "wait_s"), [(None, 0), ("7", 7), ("900", 600), ("Thu, 26 Nov 2026", 0), ("-1", 0)]
)
def test_a_retry_after_is_read_in_seconds_and_bounded(header, wait_s):
    assert retry_after_s(header, 600.0) == wait_s


class Ticking:
    def __init__(self):
        self.now = 0

    def __call__(self):
        self.now += 1
        return self.now


@pytest.fixture
async def inbox():
    return Inbox(10, Clocks(Ticking(), Ticking()))


async def test_what_comes_early_is_delivered_first_with_its_own_stamp(inbox):
    taken = []
    inbox.stamp()
    inbox.message(b"early")
    inbox.stamp()
    inbox.start(lambda *told: taken.append(told))
    inbox.message(b"late")
    assert taken == [(b"early", 1, 1), (b"late", 2, 2)]


async def test_too_much_before_the_start_is_dropped_and_told(inbox):
    for _ in range(MAX_EARLY_MESSAGES + 2):
        inbox.message(b"x")
    taken = []
    inbox.start(lambda *told: taken.append(told))
    assert (len(taken), inbox.overrun) == (MAX_EARLY_MESSAGES, 2)


async def test_after_a_bug_of_the_consumer_nothing_more_is_delivered(inbox):
    calls = []

    def bug(*told):
        calls.append(told)
        raise LookupError

    inbox.start(bug)
    inbox.message(b"one")
    inbox.message(b"two")
    assert len(calls) == 1
    with pytest.raises(LookupError):
        await asyncio.wait_for(inbox.ended, 1)


async def test_a_bug_among_the_early_ones_ends_them_too(inbox):
    calls = []

    def bug(*told):
        calls.append(told)
        raise LookupError

    inbox.message(b"one")
    inbox.message(b"two")
    inbox.start(bug)
    assert len(calls) == 1
    assert isinstance(inbox.ended.exception(), LookupError)


async def test_fragments_make_one_message_and_keep_the_bound(inbox):
    taken = []
    inbox.start(lambda data, *_: taken.append(data))
    assert inbox.fragment(b"aaaa", is_first=True, is_last=False)
    assert inbox.fragment(b"bbbbbb", is_first=False, is_last=True)
    assert inbox.fragment(b"aaaa", is_first=True, is_last=False)
    assert not inbox.fragment(b"bbbbbbb", is_first=False, is_last=True)
    assert taken == [b"aaaabbbbbb"]


async def test_the_first_end_counts_and_a_stop_drops_the_rest(inbox):
    taken = []
    inbox.start(lambda *told: taken.append(told))
    inbox.stop()
    inbox.message(b"x")
    inbox.end(End(Reason.CUT, None, "first"))
    inbox.end(End(Reason.CLOSED, 1000, "second"))
    inbox.fail(LookupError())
    assert (taken, inbox.ended.result().detail) == ([], "first")
