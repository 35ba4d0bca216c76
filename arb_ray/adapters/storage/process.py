"""
A server of ours as a child process: its folder, its port, its user, its end.

One owner per folder (a lock file), one port per folder (kept in ``server.json``, so that a
resumed run finds its server where it was), and nothing left running: the child gets a
signal from the kernel when the thread that started it dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol

import msgspec
import psutil

from arb_ray.domain.errors import BadInput, StoreUnavailable

LOOPBACK = "127.0.0.1"
PORTS = (20_000, 32_767)
"""Ray's workers take 10002 to 19999, and the kernel hands 32768 and above to whoever asks, dozens
of them while a Ray starts: neither takes a port of ours between its choice and its use."""

PORT_ATTEMPTS = 1_000

_given: set[int] = set()
LOG_BYTES_MAX = 10_000_000
"""A log above this size is set aside at the next start; one older log is kept."""

READY_TIMEOUT_S = 60.0
"""Crash recovery of a large database may take this long; after it the start has failed."""

PREDECESSOR_TIMEOUT_S = 15.0
"""How long to wait for a server whose owner was killed a moment ago to finish its shutdown."""

POLL_S = 0.02
PROBE_TIMEOUT_S = 20.0
BIND_ATTEMPTS = 3
NOBODY = 65534


class ServerFile(msgspec.Struct, frozen=True):
    """What ``server.json`` keeps between runs."""

    port: int
    pid: int = 0


class Server(Protocol):
    """What a kind of server must answer so that ``ServerProcess`` can run it."""

    name: str
    cwd: Path
    stop_signals: tuple[tuple[signal.Signals, float], ...]  # each with seconds to wait

    def command(self, port: int) -> Sequence[str]:
        """Return the command line that serves in the foreground on ``port``."""
        ...

    async def is_ready(self, port: int) -> bool:
        """Tell whether the server answers; called every 20 ms while it starts."""
        ...


def is_port_free(port: int) -> bool:
    """Tell whether a server could listen on ``port`` of the loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """
    Return a port that nothing listens on, and another one at every call.

    Another process may still win the race, but not by chance: the range is nobody's default.

    Raises:
        StoreUnavailable: So many were tried, and none was free.
    """
    first, last = PORTS
    for _ in range(PORT_ATTEMPTS):
        port = first + secrets.randbelow(last - first + 1)
        if len(_given) > (last - first) // 2:
            _given.clear()
        if port not in _given and is_port_free(port):
            _given.add(port)
            return port
    raise StoreUnavailable("this machine", f"it has no free port from {first} to {last}")


def prepare_folder(folder: Path) -> None:
    """Create ``folder``, closed to others. Raises BadInput when that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise BadInput(
            str(folder), f"the data folder cannot be made ({error.strerror})", "Name another."
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BadInput(str(folder), "the data folder is not writable", "Name another.")


@contextlib.contextmanager
def files_of(folder: Path, mend: str) -> Iterator[None]:
    """
    Tell of a disk that refuses by the file's name and with a remedy; raises BadInput.

    A wire that breaks meanwhile is an OSError too, and is left to whoever holds the wire.
    """
    try:
        yield
    except (ConnectionError, TimeoutError):
        raise
    except OSError as error:
        raise BadInput(str(error.filename or folder), error.strerror or str(error), mend) from error


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all, and on the disk."""
    fresh = path.with_name(path.name + ".new")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names that were created, renamed or removed in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class ServerProcess:
    """
    Runs one ``Server`` in one folder. Start and stop once each; not for two threads.

    With ``die_with_parent`` the kernel sends the server its first stop signal when the
    thread that called ``start`` ends. So ``start`` must run on a thread that lives as long
    as the server should: the event loop's own, never a worker's. Without it the server
    outlives a killed owner, and the next start in its folder is refused until it is stopped.
    """

    def __init__(
        self, server: Server, folder: Path, port: int | None, *, die_with_parent: bool
    ) -> None:
        self._server = server
        self._folder = folder
        self._wanted_port = port
        self._die_with_parent = die_with_parent
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def pid(self) -> int:
        """The server's process id; 0 when it does not run."""
        return self._process.pid if self._process else 0

    @property
    def log_path(self) -> Path:
        """Where the server's own output goes."""
        return self._folder / f"{self._server.name}.log"

    async def lock_folder(self) -> None:
        """
        Become the folder's owner, and wait for a predecessor that is on its way out.

        Raises:
            BadInput: Another owner lives, or its server still runs in the folder.
        """
        prepare_folder(self._folder)
        try:
            self._lock = (self._folder / "lock").open("a", encoding="utf-8")
            self.log_path.open("ab").close()
        except PermissionError:
            self._unlock()
            raise self._occupied("the folder's files belong to another user") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._unlock()
            raise self._occupied("another run uses this data folder") from None
        try:
            await self._outwait_predecessor()
        except BaseException:
            self._unlock()
            raise

    async def _outwait_predecessor(self) -> None:
        deadline = time.monotonic() + PREDECESSOR_TIMEOUT_S
        kept = self._kept()
        while kept and self._runs_here(kept.pid):
            # A server told to outlive its owner will not go away by waiting.
            if not self._die_with_parent or time.monotonic() > deadline:
                raise self._occupied(f"{self._server.name} still runs there (pid {kept.pid})")
            await asyncio.sleep(POLL_S)

    def _runs_here(self, pid: int) -> bool:
        """Tell our server from a stranger who was given a dead server's pid."""
        if pid <= 0:
            return False
        try:
            process = psutil.Process(pid)
            is_alive = process.status() != psutil.STATUS_ZOMBIE
            return is_alive and Path(process.cwd()) == self._server.cwd.resolve()
        except (psutil.Error, OSError):
            return False

    def _occupied(self, problem: str) -> BadInput:
        return BadInput(str(self._folder), problem, "Stop it first, or name another data folder.")

    async def start(self) -> None:
        """
        Start the server and wait until it answers.

        Raises:
            BadInput: The wanted port is taken.
            StoreUnavailable: The server ended or did not answer in time; names its log.
        """
        assert self._lock, "lock_folder comes first"
        for attempt in range(1, BIND_ATTEMPTS + 1):
            self.port = self._choose_port()
            self._spawn()
            if await self._became_ready():
                return
            # It ended by itself. Somebody may have taken the port since it was chosen.
            if is_port_free(self.port) or attempt == BIND_ATTEMPTS:
                break
        raise StoreUnavailable(self._server.name, f"it did not start: {self._log_tail()}")

    def _choose_port(self) -> int:
        if self._wanted_port is not None:
            if not is_port_free(self._wanted_port):
                raise BadInput(
                    f"port {self._wanted_port}",
                    f"{self._server.name} cannot listen there: the port is occupied",
                    "Name another port, or none to have a free one chosen.",
                )
            return self._wanted_port
        kept = self._kept()
        return kept.port if kept and is_port_free(kept.port) else free_port()

    def _kept(self) -> ServerFile | None:
        try:
            return msgspec.json.decode(self._server_file.read_bytes(), type=ServerFile)
        except (OSError, msgspec.DecodeError):
            return None  # a lost, torn or foreign file costs the old port, nothing else

    @property
    def _server_file(self) -> Path:
        return self._folder / f"{self._server.name}.server.json"

    def _spawn(self) -> None:
        command = list(self._server.command(self.port))
        if self._die_with_parent:
            # A prefix `unshare` or `setpriv` clears the death signal when it changes
            # credentials, so the signal is set by the last step before the server.
            first = self._server.stop_signals[0][0]
            command = _insert_death_signal(command, first)
        if self.log_path.exists() and self.log_path.stat().st_size > LOG_BYTES_MAX:
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        with self.log_path.open("ab") as log:
            # A session of its own: Ctrl-C belongs to us, who then stop the server in order.
            self._process = subprocess.Popen(  # noqa: S603 - the command is ours
                command,
                cwd=self._server.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
            )
        kept = ServerFile(self.port, self._process.pid)
        write_private(self._server_file, msgspec.json.encode(kept).decode())

    async def _became_ready(self) -> bool:
        assert self._process
        deadline = time.monotonic() + READY_TIMEOUT_S
        try:
            while self._process.poll() is None:
                if await self._server.is_ready(self.port):
                    return True
                if time.monotonic() > deadline:
                    await self._end()
                    return False
                await asyncio.sleep(POLL_S)
        except BaseException:  # cancelled while it started: leave nothing running
            self._process.kill()
            self._process.wait()
            raise
        return False

    def _log_tail(self) -> str:
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return " | ".join(lines[-3:])[-500:] + f" (log: {self.log_path})"

    async def stop(self) -> None:
        """Stop the server in order, harder when it does not listen; then free the folder."""
        try:
            await self._end()
        finally:
            self._unlock()

    async def _end(self) -> None:
        process = self._process
        if process is None:
            return
        for stop_signal, wait_s in self._server.stop_signals:
            if process.poll() is None:
                process.send_signal(stop_signal)
            for _ in range(round(wait_s / POLL_S)):
                if process.poll() is not None:
                    break
                await asyncio.sleep(POLL_S)
        if process.poll() is None:
            process.kill()
            process.wait()
        self._process = None

    def _unlock(self) -> None:
        if self._lock:
            self._lock.close()
            self._lock = None


def _insert_death_signal(command: list[str], death_signal: signal.Signals) -> list[str]:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise BadInput("setpriv", "the program is missing", "Install util-linux.")
    guard = [setpriv, f"--pdeathsig={death_signal.name.removeprefix('SIG')}"]
    at = command.index("--") + 1 if "--" in command else 0
    return [*command[:at], *guard, "--", *command[at:]]


class RunAs(msgspec.Struct, frozen=True):
    """How to start a program that refuses root: a command prefix, and who owns its files."""

    prefix: tuple[str, ...] = ()  # ends with "--" unless empty
    owner_uid: int | None = None  # hand the data folder over to this user; None: leave it

    def can_run(self, program: Path) -> bool:
        """Try it: the program must start."""
        # By way of a shell: setpriv itself still may read everything when it starts a program.
        return self._try("sh", "-c", 'exec "$1" --version', "sh", str(program))

    def can_write(self, folder: Path) -> bool:
        """Try it: the folder must be reachable and writable."""
        return self._try("test", "-w", str(folder))

    def _try(self, *command: str) -> bool:
        try:
            done = subprocess.run(  # noqa: S603 - the command is ours
                [*self.prefix, *command],
                capture_output=True,
                timeout=PROBE_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0

    def take_over(self, folder: Path) -> None:
        """Give ``folder`` and what is in it to the user who will run the program."""
        if self.owner_uid is None:
            return
        for path in (folder, *folder.rglob("*")):
            os.chown(path, self.owner_uid, self.owner_uid, follow_symlinks=False)


def in_user_namespace() -> RunAs | None:
    """
    Look unprivileged without being it: root becomes another uid in a user namespace.

    The kernel still sees uid 0 as the owner of the files, so nothing is handed over and a
    folder under /root works. None when the tool is missing, or a uid to look like: initdb
    looks up the user's name, so the uid must be one that exists.
    """
    unshare = shutil.which("unshare")
    uids = sorted(entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid != 0)
    if unshare is None or not uids:
        return None
    return RunAs((unshare, "--user", f"--map-user={uids[0]}", f"--map-group={uids[0]}", "--"))


def as_user(uid: int) -> RunAs | None:
    """Drop to ``uid`` for good. None when the tool is missing."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return None
    return RunAs(
        (setpriv, f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"), owner_uid=uid
    )
