"""What must be true of recordings: what went in comes out, and a torn file is readable."""

import asyncio
import errno
import json
import os
import random
import threading
import time
from pathlib import Path

import msgspec
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arb_ray.adapters.storage import recordings
from arb_ray.adapters.storage.recordings import (
    LEFT_OUT,
    WS_SEND,
    RecordedFrame,
    RecordingReader,
    RecordingWriter,
    read_recording,
)
from arb_ray.domain.errors import BadInput, StoreUnavailable

SHARED = Path(__file__).parents[3] / "shared" / "market_data"

frames = st.lists(
    st.builds(
        RecordedFrame,
        st.integers(0, 2**63 - 1),
        st.just("upbit"),
        st.text(max_size=60),
        st.none() | st.just(WS_SEND) | st.text(max_size=20),
    ),
    max_size=12,
)


def read_all(directory):
    found = []
    for path in sorted(Path(directory).iterdir()):
        with read_recording(path) as reader:
            found += list(reader)
            assert reader.truncated is None
    return found


def write_lines(path, *lines):
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


LINE = b'{"recv_ns":1,"venue":"upbit","raw":"{}"}'


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(frames, max_size=4), as_bytes=st.booleans(), small_files=st.booleans())
def test_what_was_written_is_read_again(tmp_path_factory, batches, as_bytes, small_files):
    directory = tmp_path_factory.mktemp("rec")
    writer = RecordingWriter(directory, "upbit", file_bytes_max=1 if small_files else 10**9)
    for batch in batches:
        for frame in batch:
            raw = frame.raw.encode() if as_bytes else frame.raw
            writer.append(frame.recv_ns, raw, frame.request)
        writer.flush()
    writer.close()
    written = [frame for batch in batches for frame in batch]
    # Files are named by time and then by number, so only their contents are compared.
    key = msgspec.json.encode
    assert sorted(read_all(directory), key=key) == sorted(written, key=key)
    assert writer.counters.frames == len(written)
    filled = sum(1 for batch in batches if batch)
    assert len(list(directory.iterdir())) == (filled if small_files else min(filled, 1))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_torn_at_any_byte_gives_every_flush_before_the_tear(tmp_path_factory, data):
    directory = tmp_path_factory.mktemp("torn")
    writer = RecordingWriter(directory, "upbit")
    ends = []
    for batch in range(3):
        for at in range(5):
            writer.append(batch * 5 + at, f'{{"frame":{batch * 5 + at}}}')
        writer.flush()
        ends.append(writer.counters.file_bytes)
    writer.close()
    (path,) = directory.iterdir()
    cut = data.draw(st.integers(0, ends[-1]))
    path.write_bytes(path.read_bytes()[:cut])

    with read_recording(path) as reader:
        got = [frame.recv_ns for frame in reader]
    whole = sum(1 for end in ends if end <= cut)
    assert got[: whole * 5] == list(range(whole * 5))
    assert got == list(range(len(got)))
    assert (reader.truncated is None) == (cut in {0, *ends})


def test_a_line_carries_request_only_where_there_is_one(tmp_path):
    writer = RecordingWriter(tmp_path, "binance_spot")
    writer.append(5, '{"a":1}')
    writer.append(6, "[]", "GET /api/v3/time")
    writer.close()
    (path,) = tmp_path.iterdir()
    text = zstandard.ZstdDecompressor().stream_reader(path.read_bytes(), read_across_frames=True)
    assert [json.loads(line) for line in text.read().splitlines()] == [
        {"recv_ns": 5, "venue": "binance_spot", "raw": '{"a":1}'},
        {"recv_ns": 6, "venue": "binance_spot", "raw": "[]", "request": "GET /api/v3/time"},
    ]
    assert path.name == "binance_spot_19700101T000000Z_0000.jsonl.zst"


def test_bytes_that_are_no_text_are_recorded_and_counted(tmp_path):
    writer = RecordingWriter(tmp_path, "upbit")
    writer.append(1, b"\xff{}")
    writer.close()
    assert [frame.raw for frame in read_all(tmp_path)] == ["\ufffd{}"]
    assert writer.counters.undecodable == 1


def test_a_full_buffer_drops_the_new_and_counts_it(tmp_path):
    writer = RecordingWriter(tmp_path, "upbit", buffer_bytes_max=100)
    for at in range(5):
        writer.append(at, "x" * 10)
    writer.close()
    assert [frame.recv_ns for frame in read_all(tmp_path)] == [0, 1]
    assert (writer.counters.frames, writer.counters.dropped) == (2, 3)


def test_a_writer_never_appends_to_an_earlier_writers_file(tmp_path):
    for at in range(2):
        writer = RecordingWriter(tmp_path, "upbit")
        writer.append(7, str(at))
        writer.close()
        writer.close()
    assert [frame.raw for frame in read_all(tmp_path)] == ["0", "1"]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failing_disk_is_a_typed_error_and_the_next_flush_begins_a_new_file(
    tmp_path, monkeypatch
):
    writer = RecordingWriter(tmp_path, "upbit")
    writer.append(1, "before")
    writer.flush()

    def full(_fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        writer.append(2, "lost")
        with pytest.raises(StoreUnavailable, match="No space left"):
            writer.flush()
    writer.append(3, "after")
    writer.close()
    assert [frame.raw for frame in read_all(tmp_path)][-1] == "after"
    assert writer.counters.dropped == 1
    assert len(list(tmp_path.iterdir())) == 2


async def test_keep_flushed_writes_while_frames_arrive_and_loses_none(tmp_path):
    writer = RecordingWriter(tmp_path, "upbit")
    keeping = asyncio.create_task(writer.keep_flushed(0.005))
    for at in range(200):
        writer.append(at, "{}")
        await asyncio.sleep(0.0005)
    assert writer.counters.frames > 0
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    writer.close()
    assert [frame.recv_ns for frame in read_all(tmp_path)] == list(range(200))


def test_plain_lines_are_accepted_with_keys_in_any_order_and_unknown_keys(tmp_path):
    path = write_lines(
        tmp_path / "plain.jsonl",
        b'{"raw":"x","venue":"upbit","recv_ns":3,"source":"elsewhere"}',
        b"",
        LINE,
    )
    assert [frame.recv_ns for frame in read_recording(path)] == [3, 1]


def test_a_last_line_without_a_newline_counts_if_it_is_whole(tmp_path):
    path = tmp_path / "plain.jsonl"
    path.write_bytes(LINE + b"\n" + LINE)
    assert len(list(read_recording(path))) == 2
    path.write_bytes(LINE + b"\n" + LINE[:-5])
    reader = read_recording(path)
    assert len(list(reader)) == 1
    assert str(reader.truncated) == f"{path}: the last line is incomplete after line 1"


@pytest.mark.parametrize(
    "bad",
    [
        b"not json",
        b'{"venue":"upbit","raw":"{}"}',
        b'{"recv_ns":1.5,"venue":"upbit","raw":"{}"}',
        b'{"recv_ns":-1,"venue":"upbit","raw":"{}"}',
        b'{"recv_ns":1,"venue":"","raw":"{}"}',
        b'{"recv_ns":1,"venue":"upbit","raw":{}}',
        b'{"recv_ns":1,"venue":"upbit","raw":"\xff"}',
        b'{"recv_ns":1,"venue":"upbit","raw":"\\ud800"}',
        b"[" * 3000,
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_a_bad_line_is_named_by_file_and_number(tmp_path, bad, compressed):
    path = write_lines(tmp_path / "bad", LINE, LINE, bad, LINE)
    if compressed:
        path.write_bytes(zstandard.compress(path.read_bytes()))
    reader = read_recording(path)
    assert [next(reader).recv_ns, next(reader).recv_ns] == [1, 1]
    with pytest.raises(BadInput, match=r"bad:3: the line is not a recorded frame"):
        next(reader)


def test_damage_in_the_middle_is_an_error_and_not_a_tail(tmp_path):
    packed = zstandard.compress(b"".join([LINE, b"\n"]) * 50)
    path = tmp_path / "damaged.zst"
    path.write_bytes(packed + b"garbage, not a frame" + packed)
    reader = read_recording(path)
    with pytest.raises(BadInput, match=r"damaged\.zst:51: the line cannot be decompressed"):
        list(reader)
    assert reader.lines_read == 50


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("ended", [False, True])
def test_a_line_above_the_bound_is_refused_in_bounded_memory(tmp_path, compressed, ended):
    data = LINE + b"\n" + b"x" * 400_000 + (b"\n" if ended else b"")
    path = tmp_path / "long"
    path.write_bytes(zstandard.compress(data) if compressed else data)
    with pytest.raises(BadInput, match=r"long:2: the line is longer than the bound"):
        list(RecordingReader(path, line_bytes_max=300_000))


def test_a_long_line_within_the_bound_is_read_whole(tmp_path):
    raw = "y" * 2_500_000
    writer = RecordingWriter(tmp_path, "binance_spot")
    writer.append(1, raw)
    writer.close()
    assert [len(frame.raw) for frame in read_all(tmp_path)] == [len(raw)]


@pytest.mark.parametrize("compressed", [False, True])
def test_lines_that_straddle_the_reads_are_put_together(tmp_path, compressed):
    written = [RecordedFrame(n, "upbit", "ab" * (n * 37 % 1500)) for n in range(800)]
    data = b"".join(msgspec.json.encode(frame) + b"\n" for frame in written)
    path = tmp_path / "many"
    path.write_bytes(zstandard.compress(data) if compressed else data)
    assert list(read_recording(path)) == written


def test_a_tear_inside_a_large_frame_keeps_the_lines_before_it(tmp_path):
    noise = random.Random(3)
    writer = RecordingWriter(tmp_path, "upbit")
    for at in range(40):
        writer.append(at, noise.randbytes(10_000).hex())
    writer.close()
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1000])
    reader = read_recording(path)
    got = [frame.recv_ns for frame in reader]
    assert 5 < len(got) < 40
    assert got == list(range(len(got)))
    assert reader.truncated.problem == "the last zstd frame is incomplete"


async def test_close_does_not_overtake_a_flush_that_was_cancelled(tmp_path, monkeypatch):
    started = threading.Event()

    def slow(_fd):
        started.set()
        time.sleep(0.1)

    monkeypatch.setattr(os, "fsync", slow)
    writer = RecordingWriter(tmp_path, "upbit")
    writer.append(1, "first")
    keeping = asyncio.create_task(writer.keep_flushed(0.001))
    await asyncio.to_thread(started.wait)
    writer.append(2, "second")
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert writer.counters.frames == 1
    writer.close()
    assert [frame.recv_ns for frame in read_all(tmp_path)] == [1, 2]


def test_a_missing_file_and_a_folder_are_bad_input(tmp_path):
    with pytest.raises(BadInput, match="No such file"):
        read_recording(tmp_path / "absent")
    with pytest.raises(BadInput, match="Is a directory"):
        read_recording(tmp_path)


def test_an_unusable_folder_is_bad_input(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="Name a folder"):
        RecordingWriter(tmp_path / "file", "upbit")


def test_an_empty_file_has_no_frames_and_is_not_torn(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    assert read_all(tmp_path) == []


def test_reading_uses_few_bytes_at_once():
    assert recordings.READ_BYTES * 32_768 <= 64 * 1024 * 1024


@pytest.mark.shared_data
def test_the_old_recordings_are_read_to_the_end():
    if not SHARED.is_dir():
        pytest.skip("the recorded market data lies beside the repository and is absent here")
    counts = {}
    for path in sorted(SHARED.glob("*2021*.zst")):
        with read_recording(path) as reader:
            found = list(reader)
        assert reader.truncated is None
        assert all(frame.recv_ns > 1.6e18 and frame.raw[0] in "[{" for frame in found)
        requests = sum(1 for frame in found if frame.request)
        counts[path.name] = (len(found), requests)
    assert counts == {
        "binance_spot_20211012_30s.jsonl.zst": (270, 5),
        "binance_usdm_20210722_30s.jsonl.zst": (1540, 5),
        "upbit_20210417_30s.jsonl.zst": (451, 2),
    }


def test_what_is_not_wanted_is_left_out_in_its_place(tmp_path):
    path = tmp_path / "frames.jsonl"
    frames = [
        RecordedFrame(1, "upbit", '{"code":"KRW-BTC"}'),
        RecordedFrame(2, "upbit", '{"code":"KRW-ETH","text":"\\u00e9\\n"}'),
        RecordedFrame(3, "binance_spot", '{"asks":[]}', "GET /depth?symbol=BTCUSDT"),
        RecordedFrame(4, "upbit", ""),
    ]
    path.write_bytes(b"".join(msgspec.json.encode(frame) + b"\n" for frame in frames))
    asked = []

    def wants(raw):
        asked.append(bytes(raw))
        return b"BTC" not in asked[-1]

    read = list(read_recording(path, wants))
    assert read[1:] == frames[1:]  # a reply is always wanted
    assert (read[0].recv_ns, read[0].venue) == (1, "upbit")
    assert read[0].raw is LEFT_OUT
    assert len(asked) == 3
    assert asked[0] == b'"{\\"code\\":\\"KRW-BTC\\"}"'


@pytest.mark.parametrize("bad", ['{"recv_ns": 1, "venue": "upbit", "raw": 5}', '{"recv_ns": 1}'])
def test_a_bad_line_is_named_by_who_wants_it(tmp_path, bad):
    path = tmp_path / "frames.jsonl"
    path.write_text(bad + "\n")
    with pytest.raises(BadInput, match="jsonl:1"):
        list(read_recording(path, lambda _: True))
