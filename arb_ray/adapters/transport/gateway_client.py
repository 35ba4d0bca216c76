"""
The Gateway as a command calls it: one request at a time, without a proxy in between.

A GET that gets no answer may be repeated. A POST that was sent and got none may have been
carried out, and is told so.
"""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from arb_ray.domain.errors import BadInput, OutcomeUnknown, StoreUnavailable

TIMEOUT_S = 10.0
"""Longer than the Gateway's own, so that its sentence arrives and not our time-out."""

BODY_BYTES_MAX = 32 * 1024 * 1024
WHO = "Gateway"


class Reply(msgspec.Struct, frozen=True):
    """An answer with its JSON object."""

    code: int
    body: dict[str, Any]


class GatewayClient:
    """Calls one Gateway."""

    def __init__(self, url: str, token: str | None, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url
        self._token = token
        self._timeout_s = timeout_s

    def get(self, path: str) -> Reply:
        """Ask. Raises StoreUnavailable."""
        with self._connection() as connection:
            try:
                connection.request("GET", path, headers={"Accept": "application/json"})
                return self._reply(connection)
            except (OSError, http.client.HTTPException) as error:
                raise self._away(error) from error

    def post(self, path: str, body: Mapping[str, str]) -> Reply:
        """
        Ask for something to be done.

        Raises:
            StoreUnavailable: It did not get there.
            OutcomeUnknown: It was sent, and no answer came.
        """
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        begun_s = time.monotonic()
        with self._connection() as connection:
            try:
                connection.request("POST", path, body=msgspec.json.encode(body), headers=headers)
                return self._reply(connection)
            except (OSError, http.client.HTTPException) as error:
                waited_ms = int((time.monotonic() - begun_s) * 1e3)
                what = f"{path[1:]} at {self.url} ({_words(error)}): it may have been done"
                raise OutcomeUnknown(what, waited_ms) from error

    @contextlib.contextmanager
    def _connection(self) -> Iterator[http.client.HTTPConnection]:
        parts = urlsplit(self.url)
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        assert parts.hostname is not None, "the address was checked"
        connection = kind(parts.hostname, parts.port, timeout=self._timeout_s)
        try:
            connection.connect()
        except OSError as error:
            raise self._away(error) from error
        with contextlib.closing(connection):
            yield connection

    def _reply(self, connection: http.client.HTTPConnection) -> Reply:
        response = connection.getresponse()
        raw = response.read(BODY_BYTES_MAX)
        try:
            return Reply(response.status, msgspec.json.decode(raw, type=dict[str, Any]))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            problem = f"HTTP {response.status} without a JSON object; another program may be there"
            raise BadInput(self.url, problem, "Correct the address") from error

    def _away(self, error: Exception) -> StoreUnavailable:
        return StoreUnavailable(WHO, f"no answer from {self.url} ({_words(error)})")


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return type(error).__name__
