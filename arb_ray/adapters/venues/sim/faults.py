"""Faults on request: what is broken now, for which venue and coin, and for how long."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from arb_ray.domain.errors import BadInput

FAULTS_MAX = 1_000  # faults alive at once; one more is refused

VENUES: Final = ("upbit", "binance_spot", "binance_usdm")


class FaultKind(enum.StrEnum):
    """What breaks. Kinds with a ``count`` spoil the next frames, the others last for a time."""

    SILENCE = "silence"  # data stops, the connection lives
    GAP = "gap"  # the next ``count`` book frames are lost
    REORDER = "reorder"  # the next ``count`` book frames arrive after their followers
    DUPLICATE = "duplicate"  # the next ``count`` book frames arrive twice
    MALFORMED = "malformed"  # half a frame arrives before each of the next ``count``
    STALE_BOOK = "stale_book"  # the book freezes and is sent again under fresh times
    CLOCK_SKEW = "clock_skew"  # the exchange's stamps are off by ``offset_ms``
    DISCONNECT = "disconnect"  # every connection is cut now; with ``planned``, announced first
    SLOW_CONSUMER = "slow_consumer"  # frames arrive ``delay_ms`` late, then the peer is dropped
    REFUSED_SUBSCRIPTION = "refused_subscription"  # new ones that name it get an error
    STRESS = "stress"  # the panic of 2024-12-03 begins, ``speed`` times as fast
    PREMIUM = "premium"  # the coin's premium is ``bps`` for ``duration_s``


COUNTED: Final = frozenset(
    {FaultKind.GAP, FaultKind.REORDER, FaultKind.DUPLICATE, FaultKind.MALFORMED}
)
AT_ONCE: Final = frozenset({FaultKind.DISCONNECT, FaultKind.STRESS, FaultKind.PREMIUM})
WITH_SYMBOL: Final = frozenset({FaultKind.PREMIUM})


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request. An empty ``venue`` or ``symbol`` (asset, ``"BTC"``) means all of them."""

    kind: FaultKind
    venue: str = ""
    symbol: str = ""
    duration_s: float = 10.0
    count: int = 1
    bps: float = 0.0
    offset_ms: int = 0
    delay_ms: int = 1_000
    speed: float = 1.0
    planned: bool = False


def read_fault(body: bytes) -> Fault:
    """
    Read a fault from the control endpoint's JSON.

    Raises:
        BadInput: Not JSON, an unknown field, or a value that makes no sense.
    """
    try:
        fault = msgspec.json.decode(body, type=Fault)
    except msgspec.DecodeError as error:
        raise BadInput("fault", str(error), f"Kinds are {', '.join(FaultKind)}.") from error
    check_fault(fault)
    return fault


def check_fault(fault: Fault) -> None:
    """
    Check that a fault can be carried out.

    Raises:
        BadInput: It cannot; the sentence names the field.
    """
    if fault.venue and fault.venue not in VENUES:
        raise BadInput("fault.venue", f"{fault.venue!r} is no venue", f"Use {', '.join(VENUES)}.")
    if not 0 < fault.duration_s <= 86_400:
        raise BadInput("fault.duration_s", "must lie in (0, 86400]", "Give seconds.")
    if not 1 <= fault.count <= 10_000:
        raise BadInput("fault.count", "must lie in 1..10000", "Give a count of frames.")
    if fault.kind in WITH_SYMBOL and not fault.symbol:
        raise BadInput("fault.symbol", f"{fault.kind} needs a coin", 'Give one, such as "BTC".')
    if fault.speed <= 0 or fault.delay_ms < 0 or abs(fault.bps) > 9_000:
        raise BadInput("fault", "speed, delay_ms or bps is impossible", "See docs/SIMULATOR.md.")


class _Alive:
    def __init__(self, fault: Fault, until_ns: int) -> None:
        self.fault = fault
        self.until_ns = until_ns
        self.left = fault.count


class FaultPlan:
    """The faults in force. Time enters as an argument; an expired fault is forgotten."""

    def __init__(self) -> None:
        self._alive: list[_Alive] = []
        self.injected = 0

    def __bool__(self) -> bool:
        return bool(self._alive)

    def add(self, fault: Fault, now_ns: int) -> None:
        """
        Put a lasting or counted fault into force.

        Raises:
            BadInput: Too many are in force.
        """
        self.injected += 1
        if fault.kind in AT_ONCE:
            return
        if len(self._alive) >= FAULTS_MAX:
            raise BadInput("fault", f"{FAULTS_MAX} faults are in force", "Wait for one to end.")
        self._alive.append(_Alive(fault, now_ns + round(fault.duration_s * 1e9)))

    def expire(self, now_ns: int) -> None:
        """Forget what is over."""
        self._alive = [one for one in self._alive if one.until_ns > now_ns and one.left > 0]

    def active(self, kind: FaultKind, venue: str, asset: str) -> Fault | None:
        """Return the fault of this kind that covers a venue's coin, if there is one."""
        for one in self._alive:
            fault = one.fault
            if (
                fault.kind is kind
                and fault.venue in ("", venue)
                and (not asset or fault.symbol in ("", asset))
            ):
                return fault
        return None

    def take(self, kind: FaultKind, venue: str, asset: str) -> bool:
        """Use up one of a counted fault's frames; false when there is none left."""
        for one in self._alive:
            fault = one.fault
            if (
                fault.kind is kind
                and one.left > 0
                and fault.venue in ("", venue)
                and fault.symbol in ("", asset)
            ):
                one.left -= 1
                return True
        return False

    def refuses(self, venue: str, assets: Iterable[str]) -> bool:
        """Tell whether a new subscription that names these assets is answered with an error."""
        kind = FaultKind.REFUSED_SUBSCRIPTION
        return any(self.active(kind, venue, asset) is not None for asset in assets)

    def skew_ms(self, venue: str) -> int:
        """Return what is added to a venue's stamps, ms."""
        fault = self.active(FaultKind.CLOCK_SKEW, venue, "")
        return fault.offset_ms if fault else 0

    def spoil(self, venue: str, asset: str, frame: str, held: dict[str, str]) -> list[str]:
        """Return what arrives in place of a book frame; ``held`` keeps what was reordered."""
        if self.take(FaultKind.GAP, venue, asset):
            return []
        arriving = []
        if self.take(FaultKind.MALFORMED, venue, asset):
            arriving.append(frame[: len(frame) // 2])
        key = f"{venue}:{asset}"
        late = held.pop(key, None)
        if late is None and self.take(FaultKind.REORDER, venue, asset):
            held[key] = frame
            return arriving
        arriving.append(frame)
        if late is not None:
            arriving.append(late)
        if self.take(FaultKind.DUPLICATE, venue, asset):
            arriving.append(frame)
        return arriving

    def listed(self) -> list[dict[str, Any]]:
        """Return the faults in force, for the status page."""
        return [msgspec.to_builtins(one.fault) | {"left": one.left} for one in self._alive]
