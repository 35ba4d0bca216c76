"""
The REST client: budgets before the request, typed errors after it, bounded bodies.

Only public, idempotent GETs are made here, so an answer that never came may be asked for
again: a time-out is ``VenueUnreachable`` (retry), not an unknown outcome.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import NoReturn, Self, TypeVar
from urllib.parse import urlencode, urlsplit

import aiohttp
import msgspec

from arb_ray.adapters.transport.backoff import Backoff
from arb_ray.adapters.transport.rate_limit import Budget, Window
from arb_ray.domain.errors import MalformedFrame, RateLimited, VenueRefused, VenueUnreachable

T = TypeVar("T")
Params = Mapping[str, str | int]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
CHUNK_BYTES = 65_536
# Waits when a 429 or 418 names none: Upbit counts by the second, Binance by the minute.
UNNAMED_WAIT_S = 1.0
UNNAMED_BAN_S = 60.0


class RestPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """
    One venue's REST server and what it allows.

    ``groups`` maps the name of a rate-limit group to its windows, in the venue's weights
    (Binance: weight a minute; Upbit: requests a second and group). A group that is not named
    is not limited by us.
    """

    venue: str
    base_url: str  # scheme, host and common path, without a slash at the end
    groups: Mapping[str, tuple[Window, ...]] = {}
    timeout_s: float = 10.0  # of one request, connecting and body included
    body_bytes_max: int = 64 * 1024 * 1024  # decompressed; more is MalformedFrame
    # A request that the budget would delay longer than this is refused with RateLimited.
    budget_wait_max_s: float = 30.0

    def __post_init__(self) -> None:
        assert self.base_url.startswith(("http://", "https://")), self.base_url
        assert not self.base_url.endswith("/"), self.base_url
        assert min(self.timeout_s, self.body_bytes_max, self.budget_wait_max_s) > 0


class Reply(msgspec.Struct, frozen=True):
    """One answer of any status, as observers see it: for recordings and weight headers."""

    request: str  # "GET /api/v3/depth?symbol=BTCUSDT&limit=1000"
    status: int
    headers: Mapping[str, str]  # case-insensitive
    body: bytes
    recv_wall_ns: int


class RestClient:
    """
    GET from one venue, within its budgets. Use it as an async context manager.

    ``on_reply`` is called with every answer, refused ones included, before it is judged; it
    may call ``observe`` with what a header such as ``X-MBX-USED-WEIGHT-1M`` says.
    """

    def __init__(
        self,
        policy: RestPolicy,
        *,
        on_reply: Callable[[Reply], None] | None = None,
        monotonic_s: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._policy = policy
        self._on_reply = on_reply
        self._monotonic_s = monotonic_s
        self._wall_ns = wall_ns
        self._budgets = {name: Budget(windows) for name, windows in policy.groups.items()}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._policy.timeout_s),
            # A proxy of the environment never stands between us and our own machine.
            trust_env=urlsplit(self._policy.base_url).hostname not in LOOPBACK,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; repeats change nothing."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def budget(self, group: str) -> Budget:
        """Return a group's budget; an unnamed group has one without windows."""
        return self._budgets.setdefault(group, Budget(()))

    def observe(self, group: str, used: int, seconds: float) -> None:
        """Take over the venue's own count of what ``group`` used in the last ``seconds``."""
        self.budget(group).observe(self._monotonic_s(), used, seconds)

    def used_ratio(self, group: str) -> float:
        """Return the used part of the group's fullest window; 0 where it has none."""
        return self.budget(group).used_ratio(self._monotonic_s())

    async def get_bytes(
        self, path: str, params: Params | None = None, *, weight: int = 1, group: str = "default"
    ) -> bytes:
        """
        Return the body of ``GET base_url + path``, for a codec to decode.

        ``path`` starts with a slash. Waits for the budget of ``group`` up to the policy's
        bound.

        Raises:
            RateLimited: 429 or 418 (the whole group then waits as told), or our own budget
                is spent for too long.
            VenueUnreachable: No or half an answer, a time-out, or 5xx.
            MalformedFrame: The body is above the bound.
            VenueRefused: Any other status than 200.
        """
        assert path.startswith("/"), path
        assert self._session is not None, "enter the client before using it"
        # A comma stays a comma, as in the venues' own examples and in the recordings.
        target = f"{path}?{urlencode(params, safe=',')}" if params else path
        await self._wait_for_budget(self.budget(group), weight)
        try:
            # Nobody redirects an API by accident; a 3xx is refused below. aiohttp repeats a GET
            # once by itself when its connection drops: a cut may cost one request unbudgeted.
            async with self._session.get(
                f"{self._policy.base_url}{target}", allow_redirects=False
            ) as response:
                body = await self._read_bounded(response)
        except TimeoutError as fault:
            problem = f"no answer in {self._policy.timeout_s:g} s"
            raise VenueUnreachable(self._policy.venue, f"GET {path}: {problem}") from fault
        except (aiohttp.ClientError, OSError) as fault:
            problem = f"GET {path}: {type(fault).__name__}: {fault}"[:200]
            raise VenueUnreachable(self._policy.venue, problem) from fault
        if self._on_reply is not None:
            request = f"GET {urlsplit(self._policy.base_url).path}{target}"
            self._on_reply(Reply(request, response.status, response.headers, body, self._wall_ns()))
        if response.status != 200:
            self._refuse(path, response, body, self.budget(group))
        return body

    async def _wait_for_budget(self, budget: Budget, weight: int) -> None:
        deadline_s = self._monotonic_s() + self._policy.budget_wait_max_s
        while (wait_s := budget.delay_s(now_s := self._monotonic_s(), weight)) > 0:
            if now_s + wait_s > deadline_s:
                # Said in the venue's stead, before it has to.
                raise RateLimited(self._policy.venue, 429, wait_s)
            await asyncio.sleep(wait_s)
        # Nothing was awaited since the answer, so nobody else took what we were promised.
        budget.spend(now_s, weight)

    async def _read_bounded(self, response: aiohttp.ClientResponse) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for part in response.content.iter_chunked(CHUNK_BYTES):
            size += len(part)
            if size > self._policy.body_bytes_max:
                problem = f"the body is larger than {self._policy.body_bytes_max} bytes"
                raise MalformedFrame(self._policy.venue, problem, _excerpt(part))
            parts.append(part)
        return b"".join(parts)

    def _refuse(
        self, path: str, response: aiohttp.ClientResponse, body: bytes, budget: Budget
    ) -> NoReturn:
        venue, status = self._policy.venue, response.status
        if status in {418, 429}:
            wait_s = _retry_after_s(response.headers.get("Retry-After"), status)
            budget.hold(self._monotonic_s() + wait_s)
            raise RateLimited(venue, status, wait_s)
        if status >= 500:
            raise VenueUnreachable(venue, f"GET {path}: HTTP {status}: {_excerpt(body)}")
        raise VenueRefused(venue, f"HTTP {status}", f"GET {path}: {_excerpt(body)}")


async def with_retries(
    call: Callable[[], Awaitable[T]],
    backoff: Backoff,
    *,
    attempts_max: int,
    wait_max_s: float,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> T:
    """
    Call until it answers: waits as the venue says, or as the backoff says.

    Raises:
        RateLimited: The venue asks for more than ``wait_max_s``, or attempts are used up.
        VenueUnreachable: Attempts are used up.
        ArbError: Any error with another remedy, at once.
    """
    assert attempts_max >= 1
    for attempt in range(1, attempts_max + 1):
        try:
            answer = await call()
        except RateLimited as limited:
            if attempt == attempts_max or limited.retry_after_s > wait_max_s:
                raise
            wait_s = max(limited.retry_after_s, min(backoff.failed(), wait_max_s))
        except VenueUnreachable:
            if attempt == attempts_max:
                raise
            wait_s = min(backoff.failed(), wait_max_s)
        else:
            backoff.reset()
            return answer
        await sleep(wait_s)
    raise AssertionError("the last attempt returns or raises")


def _retry_after_s(header: str | None, status: int) -> float:
    # Both venues send whole seconds; the date form of RFC 9110 counts as "not said".
    if header is not None and header.strip().isdecimal():
        return float(header)
    return UNNAMED_BAN_S if status == 418 else UNNAMED_WAIT_S


def _excerpt(body: bytes) -> str:
    return body[:200].decode("utf-8", "replace")
