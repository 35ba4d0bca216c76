"""
Keep secrets out of log lines, and make every value one that JSON can hold.

Three nets: values that are ``SecretStr``, keys that are named like a secret, and the very
text of the secrets of this run wherever it turns up. Sizes are bounded, because a log line
is written while something is going wrong.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from pydantic import SecretBytes, SecretStr

REDACTED = "[redacted]"
TEXT_MAX = 8_000
"""The middle of a longer text is cut out, with a mark; most stack traces fit."""
ITEMS_MAX = 200
"""Members of a list or mapping beyond this are left out, and counted."""
DEPTH_MAX = 8
SECRET_LENGTH_MIN = 4
"""Shorter secrets are not searched for in texts: they would blot out half of every line."""

_SECRET_KEY = re.compile(
    r"(^|_)(password|passwd|passphrase|pwd|secret|secrets|token|dsn|credential|credentials"
    r"|authorization|cookie|api_?key|access_?key|private_?key|secret_?key)($|_)",
    re.IGNORECASE,
)
_URL_PASSWORD = re.compile(r"(?P<head>[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+(?=@)", re.IGNORECASE)

Event = dict[str, Any]


class Redactor:
    """
    A structlog processor.

    ``secrets`` are this run's; their text is replaced in every string.
    """

    def __init__(self, secrets: Iterable[SecretStr] = ()) -> None:
        plain = {secret.get_secret_value() for secret in secrets}
        # As they stand in an address and in JSON too.
        texts = {form(text) for text in plain for form in (str, _in_address, _in_json)}
        # Longest first, so that a secret that contains another is replaced whole.
        ordered = sorted((t for t in texts if len(t) >= SECRET_LENGTH_MIN), key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def __call__(self, _logger: Any, _method: str, event: Mapping[str, Any]) -> Event:
        """Return the event as plain, bounded data without secrets."""
        return {
            self._text(str(key)): REDACTED
            if _SECRET_KEY.search(str(key))
            else self._plain(value, 0)
            for key, value in event.items()
        }

    def _plain(self, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, str):
            return self._text(str(value))
        if isinstance(value, float):
            # JSON has no infinity; a line with one would be dropped by whoever parses it.
            return value if math.isfinite(value) else str(value)
        if isinstance(value, SecretStr | SecretBytes):
            return REDACTED
        if depth >= DEPTH_MAX:
            return "…"
        if isinstance(value, msgspec.Struct):
            value = msgspec.structs.asdict(value)
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return self._list(value, depth)
        return self._text(_str(value))

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> Event:
        plain: Event = {}
        for n, (key, member) in enumerate(value.items()):
            if n == ITEMS_MAX:
                plain["…"] = f"{len(value) - ITEMS_MAX} more"
                break
            name = self._text(str(key))
            plain[name] = REDACTED if _SECRET_KEY.search(name) else self._plain(member, depth + 1)
        return plain

    def _list(self, value: Iterable[Any], depth: int) -> list[Any]:
        members = list(value)
        plain = [self._plain(member, depth + 1) for member in members[:ITEMS_MAX]]
        if len(members) > ITEMS_MAX:
            plain.append(f"… {len(members) - ITEMS_MAX} more")
        return plain

    def _text(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(REDACTED, text)
        if "://" in text:
            text = _URL_PASSWORD.sub(rf"\g<head>{REDACTED}", text)
        if len(text) <= TEXT_MAX:
            return text
        # Both ends: a stack trace tells what happened in its last line.
        half = TEXT_MAX // 2
        return f"{text[:half]}… ({len(text)} characters) …{text[-half:]}"


def _in_address(text: str) -> str:
    return quote(text, safe="")


def _in_json(text: str) -> str:
    return json.dumps(text)[1:-1]


def _str(value: Any) -> str:
    # Decimals, enums, paths, exceptions. An object whose str() fails must not cost the line.
    render: Callable[[Any], str] = str
    try:
        return render(value)
    except Exception as error:  # noqa: BLE001  # the border to foreign objects
        return f"<{type(value).__name__}: {type(error).__name__} in str()>"
