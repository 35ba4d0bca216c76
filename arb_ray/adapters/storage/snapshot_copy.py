"""
Snapshots as PostgreSQL's binary COPY wants them, each encoded once.

asyncpg encodes records value by value, which costs a process twice what all else of a batch does.
Here one pack makes a row: what its neighbours share, names and batch, is encoded once a batch.
The form is PostgreSQL's own and the same in all its versions; the columns are ``COLUMNS``.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Final

from arb_ray.ports import Snapshot

SCHEMA: Final = 1
COLUMNS: Final = (
    "schema",  # smallint
    "env",
    "session_id",
    "symbol",
    "at",  # timestamptz
    "at_ns",  # bigint
    "batch_id",
    "crc32",  # bigint, of the payload's text
    "payload",  # json
)
PAYLOAD_BYTES_MAX: Final = 1_000_000
"""Beyond this a caller of ours has lost its own bound: an assertion."""

_BEGIN: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # no flags, no extension
_END: Final = b"\xff\xff"
_EPOCH_US: Final = 946_684_800_000_000
"""PostgreSQL counts microseconds from the year 2000."""


def copy_of(env: str, batch_id: str, rows: Sequence[Snapshot]) -> bytes:
    """Return encoded rows of one table (``Snapshot.encoded``) as the whole data of a COPY."""
    batch = _text(batch_id)
    row_of = struct.Struct(f"!iqiq{len(batch)}siqi").pack
    heads: dict[tuple[str, str], bytes] = {}
    parts = [_BEGIN]
    for row in rows:
        names = row.session_id, row.symbol
        head = heads.get(names)
        if head is None:
            head = heads[names] = _head(env, *names)
        payload = row.text.encode()
        assert len(payload) <= PAYLOAD_BYTES_MAX
        at_us = row.at_ns // 1000 - _EPOCH_US
        packed = row_of(
            8, at_us, 8, row.at_ns, batch, 8, zlib.crc32(payload), len(payload)
        )  # a field's length stands before it
        parts += (head, packed, payload)
    parts.append(_END)
    return b"".join(parts)


def _head(env: str, session_id: str, symbol: str) -> bytes:
    fields = struct.pack("!hih", len(COLUMNS), 2, SCHEMA)
    return fields + _text(env) + _text(session_id) + _text(symbol)


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("!i", len(data)) + data
