"""
A WebSocket server that only sends, in bulk: the frames are made before the clock runs.

It runs as a process of its own, because its work is not what is measured. A client asks by its
path: ``/KIND/COUNT/RATE``, the kind by its place in ``KINDS``; a rate of 0 is as fast as it goes.
With ``/asks`` behind it the client's own message is waited for, as venues wait for a subscription.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import socket
import struct
import time

from benchmarks.feed_frames import KINDS, frames

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CLOSE = 0x88  # a whole frame with the opcode of a close
GONE_S = 10.0
MAX_FRAMES = 20_000
BULK_FRAMES = 500
PACED_BURSTS_PER_S = 1_000


def main() -> None:
    """Serve one client after the other until the parent goes."""
    made: dict[int, list[bytes]] = {}
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            client, _ = server.accept()
            with client, contextlib.suppress(OSError):
                client.settimeout(GONE_S)
                number, count, rate, asks, heard = _accept(client)
                if number not in made:
                    made[number] = [_framed(one) for one in frames(KINDS[number], MAX_FRAMES)]
                while asks and _first_frame(heard) is None:
                    heard += client.recv(65_536)
                _send(client, made[number][:count], rate)
                _see_off(client, heard)


def _see_off(client: socket.socket, heard: bytes) -> None:
    """Answer the reader's close and go, which it may wait for; nothing else is of interest."""
    while True:
        while (frame := _first_frame(heard)) is not None:
            if heard[0] == CLOSE:
                client.sendall(bytes((CLOSE, 0)))
                return
            heard = heard[frame:]
        part = client.recv(65_536)
        if not part:
            return
        heard += part


def _first_frame(heard: bytes) -> int | None:
    """Return the length of the masked frame that ``heard`` begins with; None when it lacks some."""
    if len(heard) < 8:
        return None
    size = heard[1] & 127
    whole = 6 + size if size < 126 else 8 + int.from_bytes(heard[2:4])
    return whole if len(heard) >= whole else None


def _accept(client: socket.socket) -> tuple[int, int, int, bool, bytes]:
    head = b""
    while b"\r\n\r\n" not in head:
        part = client.recv(65_536)
        if not part:
            raise ConnectionError
        head += part
    lines = head.split(b"\r\n")
    key = next(line for line in lines if line.lower().startswith(b"sec-websocket-key:"))
    accept = base64.b64encode(hashlib.sha1(key.split(b":")[1].strip() + MAGIC).digest())
    client.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    _, number, count, rate, *asks = lines[0].split(b" ")[1].split(b"?")[0].split(b"/")
    return int(number), int(count), int(rate), bool(asks), head.partition(b"\r\n\r\n")[2]


def _framed(payload: bytes) -> bytes:
    size = len(payload)
    head = struct.pack("!BB", 0x81, size) if size < 126 else struct.pack("!BBH", 0x81, 126, size)
    return head + payload


def _send(client: socket.socket, framed: list[bytes], rate: int) -> None:
    if not rate:
        for start in range(0, len(framed), BULK_FRAMES):
            client.sendall(b"".join(framed[start : start + BULK_FRAMES]))
        return
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    burst = max(rate // PACED_BURSTS_PER_S, 1)
    began = time.perf_counter()
    for turn in itertools.count():
        part = framed[turn * burst : (turn + 1) * burst]
        if not part:
            return
        time.sleep(max(0.0, began + turn * burst / rate - time.perf_counter()))
        client.sendall(b"".join(part))


if __name__ == "__main__":
    main()
