"""Files of the plane: whole or absent, owned for as long as a process lives, cleaned up after it."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from arb_ray.adapters.plane import segments
from arb_ray.adapters.plane.bells import Bell, BellRope, bell_path
from arb_ray.domain.errors import PlaneUnavailable

ROOT = Path(__file__).resolve().parents[2]

OWNER = """
import sys, time
from pathlib import Path
from arb_ray.adapters.plane import segments
from arb_ray.adapters.plane.bells import Bell
folder = Path(sys.argv[1])
segment = segments.create(folder / "feed.board", 4096)
bell = Bell(folder, "host:000@1", 5)
print("made", flush=True)
time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path):
    return segments.run_folder(tmp_path, "run")


@pytest.fixture
def owner(folder):
    child = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert child.stdout.readline() == b"made\n"
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


def names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_what_a_killed_process_left_is_removed_and_nothing_of_a_living_one(owner, folder, tmp_path):
    ours = segments.create(folder / "ours.board", 4_096)
    bell = Bell(folder, "host:001@1", 6)
    living = ["host:001@1.bell", "host:001@1.fifo", "ours.board"]
    everything = sorted(["feed.board", "host:000@1.bell", "host:000@1.fifo", *living])
    assert segments.remove_stale(tmp_path) == ()
    assert names(folder) == everything
    owner.kill()
    owner.wait()
    removed = {path.name for path in segments.remove_stale(tmp_path)}
    assert removed == {"feed.board", "host:000@1.bell", "host:000@1.fifo"}
    assert names(folder) == living
    bell.close()
    ours.close()
    assert not folder.exists()


def test_a_stopped_process_still_owns_its_files(owner, folder, tmp_path):
    owner.send_signal(19)
    os.waitid(os.P_PID, owner.pid, os.WSTOPPED)
    assert segments.is_owned(folder / "feed.board")
    assert segments.remove_stale(tmp_path) == ()


def test_a_run_that_is_over_leaves_not_even_its_folder(owner, folder, tmp_path):
    owner.kill()
    owner.wait()
    segments.remove_stale(tmp_path)
    assert names(segments.base_folder(tmp_path)) == []


def test_other_files_and_folders_of_the_machine_are_never_touched(tmp_path):
    others = [tmp_path / "arb_ray-99999" / "run" / "x.board", tmp_path / "psm_1234"]
    for other in others:
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_bytes(b"x")
    link = segments.base_folder(tmp_path) / "link"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "arb_ray-99999" / "run")
    assert segments.remove_stale(tmp_path) == ()
    assert all(other.exists() for other in others)


def test_memory_that_is_not_there_is_told_and_leaves_nothing(folder, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(PlaneUnavailable, match="has no room for"):
        segments.create(folder / "a.board", 1 << 20)
    assert names(folder) == []


def test_a_folder_of_somebody_else_is_refused(folder):
    folder.mkdir(parents=True, mode=0o700)
    folder.chmod(0o777)
    with pytest.raises(PlaneUnavailable, match="open to others"):
        segments.create(folder / "a.board", 4_096)


def test_without_shared_memory_there_is_a_typed_error(tmp_path):
    with pytest.raises(PlaneUnavailable):
        segments.create(segments.run_folder(tmp_path / "absent", "run") / "a.board", 4_096)


def test_a_younger_owner_of_a_name_keeps_its_file_when_the_older_one_goes(folder):
    old, new = (segments.create(folder / "a.board", size) for size in (4_096, 8_192))
    old.close()
    assert (folder / "a.board").stat().st_size == 8_192
    new.close()


def test_only_a_sleeper_is_rung_and_once(folder):
    bell = Bell(folder, "h", 1)
    rope = BellRope(folder, "h")
    assert rope.ring(100) is True  # awake: look again later
    assert not rings(bell)
    bell.sleep(200)
    assert rope.ring(300) is False
    assert rope.ring(301) is True  # it was rung, and has not slept since
    assert rings(bell)
    bell.hear()
    assert not rings(bell)
    rope.close()
    bell.close()


def test_who_fell_asleep_over_a_publication_is_rung_later_and_who_saw_it_is_not(folder):
    bell = Bell(folder, "h", 1)
    rope = BellRope(folder, "h")
    assert rope.ring(100)  # awake
    assert rope.ring_if_missed(101)  # still awake
    bell.sleep(looked_mono_ns=150)
    assert rope.ring_if_missed(160) is False
    assert not rings(bell)  # its last look began after the publication
    bell.wake()
    assert rope.ring(200)
    bell.sleep(looked_mono_ns=199)
    assert rope.ring_if_missed(204) is False
    assert rings(bell)
    rope.close()
    bell.close()


def test_a_bell_that_is_never_heard_fills_up_and_holds_up_nobody(folder):
    bell = Bell(folder, "h", 1)
    rope = BellRope(folder, "h")
    for now in range(70_000):  # more than a pipe holds
        bell.sleep(now)
        rope.ring(now)
    bell.hear()
    rope.close()
    bell.close()


def test_a_dead_host_s_bell_is_rung_without_harm_and_not_found_again(owner, folder):
    rope = BellRope(folder, "host:000@1")
    assert rope.is_answered
    assert (rope.schema, rope.born_ns) == (1, 5)
    owner.kill()
    owner.wait()
    rope._words[2] = 1  # it died in its sleep
    assert rope.ring(1) is False
    assert not rope.is_answered
    rope.close()
    with pytest.raises(PlaneUnavailable):
        BellRope(folder, "host:000@1")  # nobody has its pipe open


def test_a_host_that_was_started_again_has_another_bell(folder):
    old = Bell(folder, "h", 1)
    rope = BellRope(folder, "h")
    new = Bell(folder, "h", 2)
    assert not rope.is_answered
    again = BellRope(folder, "h")
    assert again.is_answered
    assert again.born_ns == 2
    old.close()
    assert bell_path(folder, "h").exists()
    new.sleep(1)
    again.ring(2)
    assert rings(new)
    for one in (rope, again, new):
        one.close()


def rings(bell):
    try:
        return bool(os.read(bell.fileno(), 1))
    except BlockingIOError:
        return False
