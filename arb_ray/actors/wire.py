"""
What crosses between actors: msgspec structs as MessagePack bytes, never pickled classes.

Survivors adopted after an upgrade run older code, so a message is bytes with a ``schema``
integer where it can outlive its sender, and a receiver that cannot read one says so.
Decimals travel as text.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from arb_ray.domain.errors import BadInput

T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder(decimal_format="string")
_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


def pack(message: object) -> bytes:
    """Encode a struct, or a list of them."""
    return _encoder.encode(message)


def unpack(data: bytes, kind: type[T]) -> T:
    """
    Decode what ``pack`` made of a ``kind``.

    Raises:
        BadInput: The bytes are not such a message; an older or newer sender made them.
    """
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    try:
        return decoder.decode(data)  # type: ignore[no-any-return]
    except msgspec.MsgspecError as error:
        raise BadInput(
            f"message {kind}", str(error), "sender and receiver run different versions"
        ) from error
