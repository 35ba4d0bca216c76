"""
A table as a file: PostgreSQL's COPY text, compressed with zstandard, and a manifest beside it.

    zstd -dc FILE | psql -c "COPY arb.TABLE (COLUMNS) FROM STDIN"    brings it back

The manifest says what is in the file and how to check it: rows, columns, SHA-256 of the file, and
a sum over the rows that PostgreSQL computes itself, whatever their order.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import asyncpg
import msgspec
import zstandard

from arb_ray.adapters.storage.process import files_of, sync_folder, write_private
from arb_ray.adapters.storage.table_sums import row_sum as row_sum_of
from arb_ray.domain.errors import BadInput

LEVEL: Final = 6
CHUNK_BYTES: Final = 1 << 20
ARCHIVES_OF_ONE_NAME_MAX: Final = 1_000

MOVE_IT: Final = "Move it and its manifest away and call again; the table was left as it is"
"""Where it lies it would be taken for the archive that is wanted."""


class ArchivedTable(msgspec.Struct, frozen=True):
    """The manifest of one file."""

    schema: int
    table: str
    columns: tuple[str, ...]
    rows: int
    row_sum: str  # see ``table_sums.row_sum``
    file: str
    size_bytes: int
    sha256: str
    server: str  # version of PostgreSQL that wrote it


async def archive_table(
    connection: asyncpg.Connection, schema: str, table: str, folder: Path, name: str
) -> ArchivedTable:
    """
    Write a table and its manifest into ``folder`` as ``name``; whole and on the disk, or not there.

    What an earlier call has archived already is returned as it is. An archive of this name with
    other content is kept: the new one gets a number.

    Raises:
        BadInput: The folder cannot be written, or is full.
    """
    with files_of(folder, "Name a folder that can be written, with room for the archive"):
        columns = await _columns(connection, schema, table)
        rows, row_sum = await row_sum_of(connection, schema, table)
        path, earlier = _place(folder, name, rows, row_sum)
        if earlier is not None:
            return earlier
        part = path.with_suffix(".part")
        with (
            part.open("wb") as file,
            zstandard.ZstdCompressor(LEVEL).stream_writer(
                cast("BinaryIO", summed := _Summed(file)), closefd=False
            ) as packed,
        ):

            async def write(data: bytes) -> None:
                packed.write(data)

            await connection.copy_from_table(
                table, schema_name=schema, columns=columns, output=write
            )
            packed.flush(zstandard.FLUSH_FRAME)
            file.flush()
            os.fsync(file.fileno())
        kept = ArchivedTable(
            schema=1,
            table=f"{schema}.{table}",
            columns=columns,
            rows=rows,
            row_sum=row_sum,
            file=path.name,
            size_bytes=part.stat().st_size,
            sha256=summed.sha256,
            server=str(await connection.fetchval("SHOW server_version")),
        )
        write_private(manifest_of(path), msgspec.json.format(msgspec.json.encode(kept)).decode())
        part.rename(path)  # a file without ``.part`` is whole, and its manifest is there
        sync_folder(folder)
        return kept


async def verify_archive(
    connection: asyncpg.Connection, schema: str, table: str, folder: Path, kept: ArchivedTable
) -> None:
    """
    Read an archive back into a table of the session and compare it with the one it came from.

    Raises:
        BadInput: They differ, or the file is not what its manifest says, or the disk does not
            give it back.
    """
    with files_of(folder / kept.file, MOVE_IT):
        await _verify(connection, schema, table, folder / kept.file, kept)


async def _verify(
    connection: asyncpg.Connection, schema: str, table: str, path: Path, kept: ArchivedTable
) -> None:
    if _sha256(path) != kept.sha256:
        raise BadInput(str(path), "its SHA-256 is not the manifest's", MOVE_IT)
    await connection.execute(
        f'CREATE TEMPORARY TABLE arb_archive_check (LIKE {schema}."{table}" INCLUDING DEFAULTS)'
    )
    try:
        with path.open("rb") as file:

            async def chunks() -> Any:
                with zstandard.ZstdDecompressor().stream_reader(file) as unpacked:
                    while data := unpacked.read(CHUNK_BYTES):
                        yield data

            await connection.copy_to_table(
                "arb_archive_check", columns=kept.columns, source=chunks()
            )
        found = await row_sum_of(connection, "pg_temp", "arb_archive_check")
        there = await row_sum_of(connection, schema, table)
    finally:
        await connection.execute("DROP TABLE arb_archive_check")
    if not found == there == (kept.rows, kept.row_sum):
        raise BadInput(
            str(path),
            f"it holds {found[0]} rows and {schema}.{table} {there[0]}, or their content differs",
            MOVE_IT,
        )


def manifest_of(path: Path) -> Path:
    """Return where the manifest of an archive lies."""
    return path.with_name(f"{path.name}.manifest.json")


async def _columns(connection: asyncpg.Connection, schema: str, table: str) -> tuple[str, ...]:
    rows = await connection.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = format('%I.%I', $1::text, $2::text)"
        "::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        schema,
        table,
    )
    return tuple(row["attname"] for row in rows)


def _place(folder: Path, name: str, rows: int, row_sum: str) -> tuple[Path, ArchivedTable | None]:
    """Return a free path, or the path of an archive of the same content with its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, ARCHIVES_OF_ONE_NAME_MAX + 1):
        path = folder / (f"{name}.copy.zst" if number == 1 else f"{name}.{number}.copy.zst")
        if not path.exists():
            return path, None
        manifest = manifest_of(path)
        if manifest.exists():
            try:
                kept = msgspec.json.decode(manifest.read_bytes(), type=ArchivedTable)
            except msgspec.DecodeError as error:
                raise BadInput(str(manifest), f"it is no manifest: {error}", MOVE_IT) from error
            if (kept.rows, kept.row_sum) == (rows, row_sum):
                return path, kept
    raise BadInput(str(folder), f"it holds too many archives of {name}", "Name another folder")


class _Summed:
    """A file that is summed up as it is written: what the disk made of it is read when verified."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of all that was written."""
        return self._hash.hexdigest()

    def write(self, data: bytes) -> int:
        """Write and add up."""
        self._hash.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        """Flush the file."""
        self._file.flush()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
