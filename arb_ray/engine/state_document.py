"""
A state document as it lies in Redis: what it says, when, which writing of it, and a checksum.

    {"schema": 2, "at_ns": ..., "version": ..., "crc32": ..., "data": {...}}

``version`` is the same in all documents of one writing and greater in each later one, so a
reader sees whether what it has belongs together. ``crc32`` is that of the text of ``data``.
"""

from __future__ import annotations

import zlib
from typing import Any, Final

import msgspec

SCHEMA: Final = 2


NS_PER_MS: Final = 1_000_000


class StateVersions:
    """Numbers the writings: by the clock, and onwards where the clock stands still or goes back."""

    def __init__(self) -> None:
        self._last = 0

    def next(self, now_ns: int) -> int:
        """Return the number of the next writing."""
        self._last = max(self._last + 1, now_ns // NS_PER_MS)
        return self._last


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One document; ``data`` is kept as the text that the checksum is of."""

    schema: int
    at_ns: int
    version: int
    crc32: int
    data: msgspec.Raw


def encode_document(data: Any, at_ns: int, version: int) -> bytes:
    """Return a document; ``data`` is anything that JSON can say."""
    text = msgspec.json.encode(data)
    return msgspec.json.encode(
        _Document(SCHEMA, at_ns, version, zlib.crc32(text), msgspec.Raw(text))
    )


def document_flaw(value: bytes) -> str:
    """Return what is wrong with a document, as a sentence; empty when it is sound."""
    try:
        found = msgspec.json.decode(value, type=_Document)
    except msgspec.DecodeError as error:
        return f"it is no document of schema {SCHEMA}: {error}"
    if found.schema != SCHEMA:
        return f"its schema is {found.schema}, and this version writes {SCHEMA}"
    if zlib.crc32(bytes(found.data)) != found.crc32:
        return "its checksum does not hold"
    if bytes(found.data)[:1] != b"{":
        return "its data are no object"
    return ""
