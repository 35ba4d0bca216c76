"""The disk spool: in order, exactly once, whatever was cut."""

import fcntl
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arb_ray.adapters.storage import spool as spool_module
from arb_ray.adapters.storage.process import write_private
from arb_ray.adapters.storage.spool import HEADER, NOTED_RECORDS, Spool, SpoolFull
from arb_ray.domain.errors import BadInput, StoreUnavailable

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "spool"


async def drain(spool):
    seen = []

    async def deliver(payload):
        seen.append(payload)

    count = await spool.replay(deliver)
    assert count == len(seen)
    return seen


async def test_records_come_back_in_order_over_a_restart_and_only_once(folder):
    spool = Spool(folder)
    assert [await spool.append(b"a"), await spool.append(b"bb")] == [1, 2]
    spool.close()
    spool = Spool(folder)
    assert await spool.append(b"ccc") == 3
    assert spool.pending == 3
    assert await drain(spool) == [b"a", b"bb", b"ccc"]
    assert (spool.pending, spool.size_bytes) == (0, 0)
    spool.close()
    spool = Spool(folder)
    assert await drain(spool) == []
    assert await spool.append(b"d") == 4, "numbers go on when the file starts over"
    assert await drain(spool) == [b"d"]
    spool.close()


async def test_a_failed_delivery_is_tried_again_and_nothing_before_it(folder):
    spool = Spool(folder)
    for payload in (b"1", b"2", b"3"):
        await spool.append(payload)
    seen = []

    async def fail_at_two(payload):
        if payload == b"2":
            raise StoreUnavailable("postgres", "away")
        seen.append(payload)

    with pytest.raises(StoreUnavailable):
        await spool.replay(fail_at_two)
    assert (seen, spool.pending) == ([b"1"], 2)
    spool.close()
    spool = Spool(folder)
    assert await drain(spool) == [b"2", b"3"]
    spool.close()


async def test_what_arrives_during_a_replay_is_replayed_too(folder):
    spool = Spool(folder)
    await spool.append(b"1")
    seen = []

    async def deliver(payload):
        seen.append(payload)
        if len(seen) < 3:
            await spool.append(b"more")

    assert await spool.replay(deliver) == 3
    assert seen == [b"1", b"more", b"more"]
    spool.close()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=4), st.data())
async def test_a_file_cut_anywhere_keeps_every_whole_record(tmp_path_factory, payloads, data):
    folder = tmp_path_factory.mktemp("cut")
    spool = Spool(folder)
    ends = [0]
    for payload in payloads:
        await spool.append(payload)
        ends.append(spool.size_bytes)
    spool.close()
    cut = data.draw(st.integers(0, ends[-1]))
    zeros = data.draw(st.integers(0, 50))
    os.truncate(folder / "spool.log", cut)
    with (folder / "spool.log").open("ab") as file:
        file.write(bytes(zeros))
    spool = Spool(folder)
    whole = sum(end <= cut for end in ends[1:])
    seen = await drain(spool)
    # Zeros may finish a record whose cut-off bytes were zeros themselves.
    assert seen[:whole] == payloads[:whole]
    assert seen == payloads[: len(seen)]
    assert await spool.append(b"next") == len(seen) + 1
    assert await drain(spool) == [b"next"]
    spool.close()


@pytest.mark.parametrize("at", [0, 4, 8, HEADER.size])
async def test_damage_with_records_behind_it_is_loud(folder, at):
    spool = Spool(folder)
    for payload in (b"first", b"second", b"third"):
        await spool.append(payload)
    spool.close()
    path = folder / "spool.log"
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(BadInput, match="record at byte 0 is damaged"):
        Spool(folder)
    assert path.read_bytes() == data, "the evidence is not touched"


async def test_the_bound_refuses_and_a_replay_makes_room(folder):
    spool = Spool(folder, size_max=3 * (HEADER.size + 10))
    for _ in range(3):
        await spool.append(bytes(10))
    with pytest.raises(SpoolFull, match="the bound is 78") as caught:
        await spool.append(b"x")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert len(await drain(spool)) == 3
    await spool.append(b"x")
    spool.close()


async def test_a_disk_that_fails_keeps_nothing_of_the_record(folder, monkeypatch):
    spool = Spool(folder)
    await spool.append(b"good")
    real = os.fsync

    def full(_file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool_module.os, "fsync", full)
    with pytest.raises(StoreUnavailable, match="No space left"):
        await spool.append(b"lost")
    monkeypatch.setattr(spool_module.os, "fsync", real)
    assert await spool.append(b"again") == 2
    spool.close()
    spool = Spool(folder)
    assert await drain(spool) == [b"good", b"again"]
    spool.close()


async def test_a_disk_that_fails_a_replay_is_told_as_that_and_loses_nothing(folder, monkeypatch):
    spool = Spool(folder)
    await spool.append(b"good")
    for call in ("pread", "fsync"):

        def broken(*_):
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(spool_module.os, call, broken)
        with pytest.raises(StoreUnavailable, match=r"spool is unavailable: .*Input/output error"):
            await drain(spool)
        monkeypatch.undo()
        assert spool.pending == 1
    assert await drain(spool) == [b"good"]
    spool.close()


async def test_one_process_at_a_time(folder):
    spool = Spool(folder)
    with pytest.raises(BadInput, match="another process"):
        Spool(folder)
    spool.close()
    Spool(folder).close()


WRITER = """
    import asyncio, sys
    from arb_ray.adapters.storage.spool import Spool

    async def main():
        spool = Spool(sys.argv[1])
        for n in range(1_000_000):
            await spool.append(str(n).encode())
            print(n, flush=True)

    asyncio.run(main())
"""


async def test_what_a_killed_writer_had_been_promised_is_there(folder):
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(folder)]
    with subprocess.Popen(  # noqa: ASYNC220 - a test may block
        command, stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as writer:
        promised = [int(writer.stdout.readline()) for _ in range(50)]
        writer.kill()
        promised += [int(line) for line in writer.stdout if line.endswith("\n")]
    spool = Spool(folder)
    seen = [int(payload) for payload in await drain(spool)]
    assert seen == list(range(len(seen)))
    assert len(seen) >= len(promised)
    spool.close()


def sealed(first):
    return f"spool-{first:020d}.log"


def segments(folder):
    return sorted(path.name for path in folder.glob("spool-*.log"))


async def test_a_large_log_is_sealed_and_goes_once_it_is_acknowledged(folder):
    spool = Spool(folder, segment_bytes=2 * HEADER.size + 2)
    for number in range(5):
        await spool.append(b"%d" % number)
    assert segments(folder) == [sealed(1), sealed(3)]
    assert spool.size_bytes == 5 * (HEADER.size + 1)
    seen, left = [], []

    async def deliver(payload):
        seen.append(payload)
        left.append(len(segments(folder)))

    assert await spool.replay(deliver) == 5
    assert seen == [b"0", b"1", b"2", b"3", b"4"]
    assert left == [2, 2, 1, 1, 0], "space comes back piece by piece"
    assert (spool.size_bytes, segments(folder)) == (0, [])
    for number in range(5, 8):
        assert await spool.append(b"%d" % number) == number + 1
    spool.close()
    spool = Spool(folder)
    assert await drain(spool) == [b"5", b"6", b"7"]
    spool.close()


async def test_a_segment_fills_during_a_replay(folder):
    spool = Spool(folder, segment_bytes=HEADER.size)
    await spool.append(b"0")
    seen = []

    async def deliver(payload):
        seen.append(payload)
        if len(seen) < 4:
            await spool.append(b"%d" % len(seen))
            await spool.append(b"+")

    await spool.replay(deliver)
    assert seen == [b"0", b"1", b"+", b"2", b"+", b"3", b"+"]
    assert segments(folder) == []
    spool.close()


async def test_the_bound_counts_every_segment(folder):
    spool = Spool(folder, size_max=3 * (HEADER.size + 1), segment_bytes=1)
    for _ in range(3):
        await spool.append(b"x")
    with pytest.raises(SpoolFull):
        await spool.append(b"x")
    spool.close()


@pytest.mark.parametrize("at", [4, HEADER.size, -1])
async def test_damage_in_a_sealed_segment_is_loud(folder, at):
    spool = Spool(folder, segment_bytes=1)
    for payload in (b"first", b"second"):
        await spool.append(payload)
    spool.close()
    (path,) = folder.glob("spool-*.log")
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"spool-0+1\.log.* is damaged"):
        Spool(folder)
    assert path.read_bytes() == data, "the evidence is not touched"


async def test_a_kill_between_the_two_renames_loses_nothing(folder):
    spool = Spool(folder)
    await spool.append(b"1")
    spool.close()
    (folder / "spool.log").rename(folder / sealed(1))
    (folder / "spool.next").touch()
    spool = Spool(folder, segment_bytes=1)
    for number in (2, 3):
        assert await spool.append(b"%d" % number) == number
    assert await drain(spool) == [b"1", b"2", b"3"]
    spool.close()


async def test_a_kill_before_an_acknowledged_segment_went_repeats_nothing(folder):
    spool = Spool(folder, segment_bytes=1)
    for payload in (b"1", b"2"):
        await spool.append(payload)
    spool.close()
    (folder / "spool.ack").write_text("1")
    spool = Spool(folder)
    assert segments(folder) == []
    assert await drain(spool) == [b"2"]
    spool.close()


async def test_without_room_for_another_segment_nothing_changes(folder, monkeypatch):
    spool = Spool(folder, segment_bytes=1)
    await spool.append(b"1")
    real = os.open

    def full(path, *arguments, **options):
        if str(path).endswith("spool.next"):
            raise OSError(28, "No space left on device")
        return real(path, *arguments, **options)

    monkeypatch.setattr(spool_module.os, "open", full)
    with pytest.raises(StoreUnavailable, match="No space left"):
        await spool.append(b"lost")
    assert segments(folder) == []
    monkeypatch.setattr(spool_module.os, "open", real)
    assert await spool.append(b"2") == 2
    assert await drain(spool) == [b"1", b"2"]
    spool.close()


async def test_a_spool_of_a_version_that_locked_its_log_alone_is_in_use(folder):
    folder.mkdir()
    with (folder / "spool.log").open("w") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        with pytest.raises(BadInput, match="another process"):
            Spool(folder)
    Spool(folder).close()


async def test_a_replay_notes_how_far_it_came_once_for_many_records(folder, monkeypatch):
    notes = []

    def note(path, text):
        notes.append(int(text))
        write_private(path, text)

    monkeypatch.setattr(spool_module, "write_private", note)
    spool = Spool(folder)
    for number in range(2 * NOTED_RECORDS + 5):
        await spool.append(b"%d" % number)
    assert len(await drain(spool)) == 2 * NOTED_RECORDS + 5
    assert notes == [NOTED_RECORDS, 2 * NOTED_RECORDS, 2 * NOTED_RECORDS + 5]
    spool.close()


async def test_a_kill_during_a_replay_repeats_the_records_since_the_last_note_in_order(
    folder, tmp_path
):
    spool = Spool(folder)
    for number in range(50):
        await spool.append(b"%d" % number)
    at_kill, seen = tmp_path / "at_kill", []

    async def deliver(payload):
        seen.append(int(payload))
        if len(seen) == NOTED_RECORDS + 7:
            shutil.copytree(folder, at_kill)  # what the disk holds at this moment

    await spool.replay(deliver)
    spool.close()
    assert seen == list(range(50))
    again = Spool(at_kill)
    assert [int(one) for one in await drain(again)] == list(range(NOTED_RECORDS, 50))
    again.close()


async def test_a_replay_that_fails_notes_what_was_handed_over_before(folder):
    spool = Spool(folder)
    for number in range(30):
        await spool.append(b"%d" % number)

    async def deliver(payload):
        if int(payload) == 25:
            raise StoreUnavailable("postgres", "away")

    with pytest.raises(StoreUnavailable):
        await spool.replay(deliver)
    assert spool.pending == 5
    spool.close()
    again = Spool(folder)
    assert [int(one) for one in await drain(again)] == [25, 26, 27, 28, 29]
    again.close()
