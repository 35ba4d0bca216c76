"""What a feed actor needs of sockets, recordings and REST, as the adapters make them."""

from __future__ import annotations

from typing import Any, Protocol

from arb_ray.domain.instrument import VenueSymbol


class SocketConnection(Protocol):
    """One connection of a socket."""

    id: int

    def send(self, text: str) -> None:
        """Queue a message, within the venue's message budget."""
        ...


class Socket(Protocol):
    """A reconnecting WebSocket, as the transport makes it."""

    counters: Any

    @property
    def connections(self) -> tuple[Any, ...]:
        """Open connections, oldest first."""
        ...

    async def run(self) -> None:
        """Serve for ever."""
        ...

    def stop(self) -> None:
        """Ask ``run`` to return."""
        ...

    def request_rotation(self, connection: Any) -> None:
        """Replace a connection by overlap."""
        ...


class Recorder(Protocol):
    """Writes down what was received."""

    def frame(self, recv_ns: int, raw: bytes | str) -> None:
        """Write a received frame."""
        ...

    def sent(self, at_ns: int, raw: str) -> None:
        """Write a message that we sent."""
        ...

    def flush(self) -> None:
        """Bring what is buffered to the file."""
        ...

    def close(self) -> None:
        """End the file."""
        ...


class SnapshotSource(Protocol):
    """Where REST books come from."""

    @property
    def used_ratio(self) -> float:
        """The used part of the venue's REST budget."""
        ...

    async def __call__(self, venue_symbol: VenueSymbol) -> bytes:
        """Return a raw book. Raises ArbError."""
        ...
