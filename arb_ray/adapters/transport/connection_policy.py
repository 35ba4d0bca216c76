"""What a WebSocket connection may do, what is counted of it, and how it can end."""

from __future__ import annotations

import enum
from typing import Literal

import msgspec

from arb_ray.adapters.transport.backoff import BackoffPolicy
from arb_ray.adapters.transport.rate_limit import Window

Transport = Literal["auto", "websockets", "picows"]
"""Which library opens the sockets; ``auto`` is picows where it is installed."""


class ConnectionPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """
    How one venue's socket is opened, kept alive, limited and replaced.

    Windows are the venue's limits (see ``rate_limit.Window``); pings count as messages.
    ``ping_interval_s`` sends protocol pings, ``text_ping`` a text payload beside them (Upbit
    answers ``PING`` with ``{"status":"UP"}`` frames); None switches either off.
    """

    venue: str
    url: str
    connect_timeout_s: float = 10.0
    close_timeout_s: float = 2.0
    ping_interval_s: float | None = 15.0
    text_ping: str | None = None
    text_ping_interval_s: float = 20.0
    # No frame and no pong for so long: the connection is given up and replaced.
    silence_timeout_s: float = 40.0
    # A larger message closes the socket (1009), is counted, and the client reconnects.
    max_frame_bytes: int = 4 * 1024 * 1024
    backoff: BackoffPolicy = BackoffPolicy()
    connect_windows: tuple[Window, ...] = ()
    message_windows: tuple[Window, ...] = ()
    # Messages waiting for the budget; one more is refused with RateLimited.
    pending_messages_max: int = 64
    # Age at which a successor is opened beside the connection; None: no rotation.
    max_age_s: float | None = None
    # Both live at most so long; the consumer may end the overlap sooner by ``retire``.
    overlap_s: float = 10.0
    # An alarm is raised at so many failures in a row, and again at each multiple.
    alarm_after_failures: int = 5
    # A Retry-After on a refused handshake (HTTP 429, 418) is obeyed up to so long.
    retry_after_max_s: float = 600.0
    compression: bool = False  # ``websockets`` only
    transport: Transport = "auto"

    def __post_init__(self) -> None:
        assert self.url.startswith(("ws://", "wss://")), self.url
        for interval_s in (self.ping_interval_s, self.text_ping and self.text_ping_interval_s):
            assert not interval_s or 0 < interval_s < self.silence_timeout_s
        assert min(self.connect_timeout_s, self.close_timeout_s, self.overlap_s) > 0
        assert min(self.max_frame_bytes, self.pending_messages_max) > 0
        assert self.max_age_s is None or self.max_age_s > 0
        assert self.alarm_after_failures > 0
        assert not (self.compression and self.transport == "picows"), "picows cannot inflate"


class Counters(msgspec.Struct):
    """What has happened since the client was made; read it, do not write it."""

    connects: int = 0  # every connection that opened
    reconnects: int = 0  # of those, the ones that ended an outage
    rotations: int = 0  # of those, the ones that opened beside an older connection
    connect_failures: int = 0
    losses: int = 0  # connections that ended without our asking
    frames: int = 0
    bytes: int = 0
    sent: int = 0
    sends_dropped: int = 0  # messages that were waiting when their connection went
    sends_refused: int = 0  # messages refused because too many were waiting
    oversize: int = 0
    pings: int = 0
    pongs: int = 0
    silence_timeouts: int = 0
    alarms: int = 0
    last_outage_ms: float = 0.0
    max_outage_ms: float = 0.0


class Reason(enum.StrEnum):
    """Why a connection ended."""

    CLOSED = "closed"  # the peer said goodbye; its close code is beside it
    CUT = "cut"  # the TCP connection ended without a closing handshake
    SILENCE = "silence"  # no sign of life within the policy's time-out
    OVERSIZE = "oversize"  # the peer sent a message above the bound
    PROTOCOL = "protocol"  # the peer broke the WebSocket protocol
    RETIRED = "retired"  # we closed it: replaced, or given up by the consumer
    STOPPED = "stopped"  # we closed it: the client was stopped


class Loss(msgspec.Struct, frozen=True):
    """The end of a connection. ``code`` is the peer's close code, None if it sent none."""

    reason: Reason
    code: int | None
    detail: str
    mono_ns: int  # when the end was noticed
