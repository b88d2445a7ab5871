"""Results are there whole or not at all, and errors of the disk say what to do."""

import errno
import os
import re
import subprocess
import sys

import pandas as pd
import pytest

from microsr.core.errors import UserError
from microsr.core.files import explain, hold_lock, lock, put_in_place, replacing, reserve, unlock, write_csv


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_has_its_name_when_it_is_whole_and_the_old_one_until_then(tmp_path):
    path = tmp_path / "new" / "table.csv"
    with replacing(path) as part:
        assert part.suffix == path.suffix and part.parent == path.parent and not path.exists()
        part.write_text("first")
    with replacing(path) as part:
        part.write_text("second")
        assert path.read_text(encoding="utf-8") == "first"
    assert path.read_text(encoding="utf-8") == "second" and names(path.parent) == ["table.csv"]


def test_a_folder_is_replaced_by_a_folder_with_other_files(tmp_path):
    for name in ("one", "two"):
        with replacing(tmp_path / "v.ome.zarr") as part:
            part.mkdir()
            (part / name).write_text(name)
    assert names(tmp_path) == ["v.ome.zarr"] and names(tmp_path / "v.ome.zarr") == ["two"]


def test_after_an_error_the_old_one_stays_and_nothing_is_left_over(tmp_path):
    write_csv(tmp_path / "t.csv", pd.DataFrame({"a": [1]}))
    with pytest.raises(ValueError, match="no"), replacing(tmp_path / "t.csv") as part:
        part.write_text("half")
        raise ValueError("no")
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == "a\n1\n" and names(tmp_path) == ["t.csv"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_left_is_overwritten(kind, tmp_path):
    path = tmp_path / "t"
    for name in (".partial.t", ".old.t"):
        if kind == "folder":
            (tmp_path / name).mkdir()
            (tmp_path / name / "x").write_text("half")
        else:
            (tmp_path / name).write_text("half")
    (tmp_path / ".lock.t").write_text("process 1 on nowhere\n")
    with replacing(path) as part:
        assert not part.exists()
        part.write_text("whole")
    assert path.read_text(encoding="utf-8") == "whole" and names(tmp_path) == ["t"]


def test_a_folder_is_never_half_the_old_one(tmp_path, monkeypatch):
    """The old one loses its name before the first of its files."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    seen = []
    monkeypatch.setattr("microsr.core.files.shutil.rmtree", lambda path: seen.append((path.name, names(tmp_path))))
    put_in_place(tmp_path / "new", tmp_path / "old")
    assert seen == [(".old.old", [".old.old", "old"])] and (tmp_path / "old/file").read_text(encoding="utf-8") == "new"


def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    """Else a power cut soon after may leave an empty file of that name."""
    asked = []
    monkeypatch.setattr(
        "microsr.core.files.os.fsync", lambda file: asked.append((os.fstat(file).st_ino, names(tmp_path)))
    )
    (tmp_path / "part").write_text("whole")
    put_in_place(tmp_path / "part", tmp_path / "t")
    assert asked == [((tmp_path / "t").stat().st_ino, ["part"])]


WAITING = """
import sys, time
from pathlib import Path
from microsr.core.files import lock
held = lock(Path(sys.argv[1]), "")
print(flush=True)
time.sleep(600)
"""


def test_a_lock_keeps_another_process_out_and_dies_with_its_process(tmp_path):
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", WAITING, path], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        said = rf"^the cat sleeps by process {other.pid} on .*; wait for it, or end it$"
        with pytest.raises(UserError, match=said), hold_lock(path, "the cat sleeps"):
            pass
        other.kill()
    with hold_lock(path, "the cat sleeps"):
        assert path.read_text(encoding="utf-8").startswith(f"process {os.getpid()} on ")
    assert not path.exists()


def test_a_lock_is_given_back_once_with_its_file(tmp_path):
    held = lock(tmp_path / "lock", "", ", for a while")
    assert (tmp_path / "lock").read_text(encoding="utf-8").endswith(", for a while\n")
    unlock(held)
    assert held.closed and names(tmp_path) == []
    (tmp_path / "lock").write_text("another's")
    unlock(held)
    assert names(tmp_path) == ["lock"]


def test_two_that_write_the_same_are_told_so(tmp_path):
    with replacing(tmp_path / "t.csv") as part:
        part.write_text("mine")
        with pytest.raises(UserError, match=r"t\.csv: is being written by process "), replacing(tmp_path / "t.csv"):
            pass
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == "mine"


def test_a_lock_that_was_removed_meanwhile_is_not_taken_for_one(tmp_path, monkeypatch):
    """Between the opening and the locking of a file its last holder removes it; whoever came next would lock another
    file.
    """
    path, opened = tmp_path / "lock", []
    plain = os.fstat

    def fstat(descriptor):
        found = plain(descriptor)
        if not opened:
            path.unlink()
        opened.append(found.st_ino)
        return found

    monkeypatch.setattr("microsr.core.files.os.fstat", fstat)
    with hold_lock(path, ""):
        assert len(opened) == 2 and path.stat().st_ino == opened[1]


def test_where_there_are_no_locks_the_work_goes_on(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("microsr.core.files.fcntl.flock", refuse)
    with hold_lock(tmp_path / "lock", ""):
        pass
    assert names(tmp_path) == []


def test_a_full_disk_is_told_with_its_folder_and_what_to_do(full_disk):
    with full_disk(8) as folder:
        said = rf"^{folder}/t\.bin: the disk of {folder}.*; make room, then give the same command again$"
        with pytest.raises(UserError, match=said), replacing(folder / "t.bin") as part:
            part.write_bytes(bytes(100_000))
        assert names(folder) == []


def test_the_room_of_a_mapped_file_is_asked_for_before_it_is_used(full_disk):
    with full_disk(8) as folder:
        (folder / "t.npy").write_bytes(b"")
        with pytest.raises(OSError, match=r"No space left|File too large"):
            reserve(folder / "t.npy", 100_000)


@pytest.mark.parametrize(("code", "said"), [
    (errno.ENOSPC, r"the disk of .* is full \(\d+\.\d MB free\); make room"),
    (errno.EDQUOT, "the quota on the disk of .* is used up; make room"),
    (errno.EFBIG, "does not accept a file that large; make room"),
    (errno.EROFS, "can only be read; have it mounted for writing"),
    (errno.EACCES, r"no right to .* \(Permission denied\); see `ls -ld"),
])  # fmt: skip
def test_errors_of_the_disk_say_what_to_do(code, said, tmp_path):
    message = explain(OSError(code, os.strerror(code)), tmp_path / "not" / "there.csv")
    assert message.startswith(f"{tmp_path}/not/there.csv: ") and re.search(said, message)
    assert str(tmp_path) in message.split(": ", 1)[1]


def test_an_input_that_may_not_be_read_is_named_itself(tmp_path):
    error = OSError(errno.EACCES, "Permission denied", "/data/scan.nii")
    assert "no right to /data/scan.nii (Permission denied)" in explain(error, tmp_path / "out.csv")


def test_other_errors_are_left_as_they_are(tmp_path):
    assert explain(FileNotFoundError(errno.ENOENT, "No such file"), tmp_path / "a") is None
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a"):
        (tmp_path / "missing").read_text(encoding="utf-8")
