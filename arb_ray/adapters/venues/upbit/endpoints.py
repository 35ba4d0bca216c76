"""Where Upbit (Korea) is, and what it allows there (docs.upbit.com v1.6.4, rate limits)."""

from __future__ import annotations

VENUE = "upbit"

WS_BASE = "wss://api.upbit.com"
WS_PATH = "/websocket/v1"

MARKETS_PATH = "/v1/market/all"
ORDERBOOK_PATH = "/v1/orderbook"
INSTRUMENTS_PATH = "/v1/orderbook/instruments"

# An idle socket was closed after 60.5 s on the wire in 2026-09, while the page says 120 s;
# the server itself never pings.
PING_INTERVAL_S = 20.0

MESSAGES_PER_S = 5  # per connection
MESSAGES_PER_MIN = 100  # per connection
CONNECTS_PER_S = 5  # per IP address

BOOK_UNITS = (1, 5, 15, 30)
"""Units per frame that a code's suffix may ask for, since 2025-07-02; others fall back to 30."""
