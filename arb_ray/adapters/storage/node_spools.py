"""
The spools of one node's strategy hosts: one folder a process, and what gone processes left.

    data_dir/spool/hosts/{env}/{actor}-{pid}-{start ns}/spool.log

The name is the process's own, so that no successor has to guess it: whatever lies there and
is locked by nobody was left, by whichever host of whichever version. The lock of a spool goes
with its process. A folder is made and removed under ``.lock``, so that nobody takes a spool
between its making and its locking.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from arb_ray.adapters.storage.process import prepare_folder
from arb_ray.adapters.storage.reconciliation import Reconciliation
from arb_ray.adapters.storage.spool import Spool, SpoolInUse
from arb_ray.adapters.storage.spool_replay import WriteSpool
from arb_ray.domain.errors import BadInput, StoreUnavailable

LOGS = "spool*.log"


class NodeSpools:
    """
    Where the hosts of one environment spool on this node.

    Raises (all methods): StoreUnavailable, or BadInput, when the disk does not do it.
    """

    def __init__(self, folder: Path, env: str, owner: str, *, size_max: int) -> None:
        self._folder = folder / "hosts" / env
        self._name = f"{owner.replace('/', '_')}-{os.getpid()}-{time.time_ns()}"
        self._size_max = size_max
        self._own: Spool | None = None
        self.reconciliation = Reconciliation(folder / "reconciliation" / env)

    async def open_own(self) -> Spool:
        """Return this process's spool."""
        if self._own is None:
            self._own = await asyncio.to_thread(self._open, self._folder / self._name)
        return self._own

    async def left(self) -> Sequence[Spool]:
        """Lock and return the spools with records of processes that are gone, oldest first."""
        return await asyncio.to_thread(self._left)

    def others_with_records(self) -> Sequence[str]:
        """Name the spools with records that are not ours: their processes may be alive."""
        return [
            path.name
            for path in self._folders()
            if path.name != self._name and any(_size(log) > 0 for log in path.glob(LOGS))
        ]

    async def remove(self, spool: WriteSpool) -> None:
        """Close a spool, and remove it if it holds nothing."""
        assert isinstance(spool, Spool), "it is one that we gave out"
        await asyncio.to_thread(self._remove, spool)

    def _open(self, folder: Path) -> Spool:
        with self._locked():
            return Spool(folder, size_max=self._size_max)

    def _left(self) -> list[Spool]:
        self.reconciliation.load()
        found = []
        with self._locked():
            for folder in self._folders():
                if folder.name == self._name:
                    continue
                try:
                    spool = Spool(folder, size_max=self._size_max)
                except SpoolInUse:
                    continue
                except BadInput:
                    self.reconciliation.put_aside(folder)
                    continue
                if spool.pending:
                    found.append(spool)
                else:
                    spool.close()
                    shutil.rmtree(folder)
        return found

    def _remove(self, spool: Spool) -> None:
        with self._locked():
            is_empty = spool.pending == 0
            if is_empty:
                shutil.rmtree(spool.folder)
            spool.close()

    def _folders(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        folders = [path for path in self._folder.iterdir() if path.is_dir()]
        return sorted(folders, key=lambda path: (_start_ns(path), path.name))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the node's lock; others hold it for milliseconds."""
        try:
            prepare_folder(self._folder)
            lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailable("spool", str(error)) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        except OSError as error:
            raise StoreUnavailable("spool", str(error)) from error
        finally:
            os.close(lock)


def _start_ns(folder: Path) -> int:
    text = folder.name.rsplit("-", 1)[-1]
    return int(text) if text.isdigit() else 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
