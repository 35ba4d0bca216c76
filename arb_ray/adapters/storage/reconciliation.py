"""
What a spool held and the books refused, kept for a person: one line of JSON a record.

    data_dir/spool/reconciliation/{env}/{spool}.jsonl

A refused record takes along what follows it of the same trade and owner epoch: half a story
is never booked. The file is the memory of that, so a crash in the middle of a replay does not
let the rest in. An operator moves a file away when it was looked into.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import msgspec

from arb_ray.adapters.storage.process import prepare_folder, sync_folder
from arb_ray.adapters.storage.spool_records import AnyWrite
from arb_ray.domain.errors import BadInput, StoreUnavailable

StoryKey = tuple[str, int]
"""A trade under one owner epoch."""


class KeptRecord(msgspec.Struct, frozen=True):
    """A record that did not get into the books, and why."""

    reason: str
    symbol: str
    trade_id: str
    owner_epoch: int
    record: msgspec.Raw  # as it was spooled; text, when it could not be read
    digest: str
    schema: int = 1


class Reconciliation:
    """The kept records of one node and environment; other processes of the node add theirs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stories: set[StoryKey] = set()
        self._digests: set[str] = set()
        self._files: list[str] = []

    def load(self) -> None:
        """Read what is there; a torn last line is written again by the replay that tore it."""
        found: list[KeptRecord] = []
        for path in sorted(self._folder.glob("*.jsonl")):
            for line in path.read_bytes().splitlines():
                try:
                    found.append(msgspec.json.decode(line, type=KeptRecord))
                except msgspec.DecodeError:
                    continue
        # All at once: a replay may be asking meanwhile.
        self._digests = {kept.digest for kept in found}
        self._stories = {(kept.trade_id, kept.owner_epoch) for kept in found if kept.trade_id}
        self._look()

    def _look(self) -> None:
        is_there = self._folder.is_dir()
        self._files = sorted(path.name for path in self._folder.iterdir()) if is_there else []

    @property
    def files(self) -> list[str]:
        """Names of what waited for a person when it was last looked."""
        return self._files

    def is_broken(self, write: AnyWrite) -> bool:
        """Tell whether an earlier record of the same story was refused."""
        return (write.trade_id, write.owner_epoch) in self._stories

    async def keep(self, spool: str, payload: bytes, write: AnyWrite | None, reason: str) -> None:
        """
        Keep a record durably; a repeat is kept once. ``write`` is None where it is unreadable.

        Raises:
            StoreUnavailable: The disk did not take it.
        """
        digest = hashlib.sha256(payload).hexdigest()
        if digest in self._digests:
            return
        kept = KeptRecord(
            reason=reason,
            symbol=write.symbol if write else "",
            trade_id=write.trade_id if write else "",
            owner_epoch=write.owner_epoch if write else 0,
            record=msgspec.Raw(payload if write else msgspec.json.encode(repr(payload))),
            digest=digest,
        )
        await asyncio.to_thread(self._append, spool, msgspec.json.encode(kept))
        self._note(kept)

    def _append(self, spool: str, line: bytes) -> None:
        try:
            prepare_folder(self._folder)
            path = self._folder / f"{spool}.jsonl"
            is_torn = path.exists() and not path.read_bytes().endswith(b"\n")
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                file.write((b"\n" if is_torn else b"") + line + b"\n")
                file.flush()
                os.fsync(file.fileno())
            sync_folder(self._folder)
            self._look()
        except (OSError, BadInput) as error:
            raise StoreUnavailable("reconciliation", str(error)) from error

    def put_aside(self, spool_folder: Path) -> None:
        """Move a whole spool here that cannot be read."""
        prepare_folder(self._folder)
        spool_folder.rename(self._folder / spool_folder.name)
        sync_folder(self._folder)
        self._look()

    def _note(self, kept: KeptRecord) -> None:
        self._digests.add(kept.digest)
        if kept.trade_id:
            self._stories.add((kept.trade_id, kept.owner_epoch))
