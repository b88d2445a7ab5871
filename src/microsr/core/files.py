"""Files and folders that are there whole or not at all, whoever is killed, whichever disk is full and whoever else
writes them.

What a step makes is written under another name beside its own, and renamed when it is whole. Errors of the operating
system become lines that say what to do.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from microsr.core.errors import UserError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_RIGHT = (errno.EACCES, errno.EPERM)
AGAIN = "then give the same command again"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path`, with its ending, for the file or folder that is to replace it; it is renamed when the block
    ends well.

    After an error it is removed. What a killed process left of it is overwritten.

    Raises
    ------
    UserError
        There is no room or no right to write, or another process is writing the same.
    """
    path = Path(path)
    temporary = path.with_name(f".partial.{path.name}")
    with explain_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with hold_lock(path.with_name(f".lock.{path.name}"), f"{path}: is being written"):
            try:
                remove(temporary)
                yield temporary
                put_in_place(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    remove(temporary)
                raise


def put_in_place(whole: Path, path: Path) -> None:
    """Give a file or folder the name `path`, in place of what has it; nobody sees half of either."""
    old = path.with_name(f".old.{path.name}")
    remove(old)  # of a process that was killed here
    if whole.is_file():
        with whole.open("rb") as stream:  # after a power cut too
            os.fsync(stream.fileno())
    if path.is_dir() and not path.is_symlink():  # a folder can only be renamed to a name that is free
        path.rename(old)
    whole.replace(path)
    remove(old)


def link_or_copy(file: Path, place: Path) -> None:
    """Give a file a second name, where its folder need not exist; on another disk, or one without links, a copy."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, place)
    except OSError:
        shutil.copy2(file, place)


def write_csv(path: Path, table: Any, **how: Any) -> None:
    """Write a data frame without its index; how: further options of its `to_csv`. Errors as `replacing`."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, **how)


def reserve(path: Path, size: int) -> None:
    """Make a file so many bytes long, on the disk: a mapped file that finds no room later would end the process at
    once.

    Raises
    ------
    OSError
        There is no room for it.
    """
    with path.open("r+b") as stream:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(stream.fileno(), 0, size)


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def hold_lock(path: Path, busy: str) -> Iterator[None]:
    """Keep other processes out of this context, by a lock on the file `path`; it is gone with the context, or with the
    process.

    busy: what the other one is doing, for the error. Where a file system knows no locks, nobody is kept out.

    Raises
    ------
    UserError
        Another process is in it.
    """
    stream = lock(path, busy)
    try:
        yield
    finally:
        unlock(stream)


def lock(path: Path, busy: str, more: str = "") -> TextIO:
    """As `hold_lock`, until the file that is returned is closed, best by `unlock`.

    more: what else others are to know.
    """
    while True:
        stream = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            by = stream.read().strip() or "another process"
            stream.close()
            raise UserError(f"{busy} by {by}; wait for it, or end it") from None
        except OSError:
            pass  # no locks on this file system
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                break
        stream.close()  # it was removed meanwhile: whoever comes next would lock another file
    with contextlib.suppress(OSError):  # a full disk
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}{more}\n")
        stream.flush()
    return stream


def unlock(stream: TextIO) -> None:
    """Remove and close a file that `lock` gave, if it is open."""
    if stream.closed:
        return
    with contextlib.suppress(OSError):
        Path(stream.name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # what a full disk did not take comes up again
        stream.close()


@contextlib.contextmanager
def explain_errors(path: Path) -> Iterator[None]:
    """Turn errors of the operating system that `explain` knows into UserErrors, while `path` is written."""
    try:
        yield
    except OSError as error:
        if (message := explain(error, path)) is None:
            raise
        raise UserError(message) from error


def explain(error: OSError, path: Path) -> str | None:
    """What is wrong and what to do, in one line, if there is no room or no right to write `path`, or to read an
    input.
    """
    folder = nearest_folder(path)
    if error.errno in NO_ROOM:
        room = os.statvfs(folder)
        if error.errno == errno.EDQUOT:
            what = f"the quota on the disk of {folder} is used up"
        elif error.errno == errno.EFBIG:
            what = (
                f"the disk of {folder}, or a limit of this session (see `ulimit -f`), does not accept a file that large"
            )
        elif room.f_files and not room.f_favail:
            what = f"the disk of {folder} holds as many files as it can"
        else:
            what = f"the disk of {folder} is full ({room.f_bavail * room.f_frsize / 1e6:.1f} MB free)"
        return f"{path}: {what}; make room, {AGAIN}"
    if error.errno == errno.EROFS:
        return f"{path}: the disk of {folder} can only be read; have it mounted for writing, or work in another folder"
    if error.errno in NO_RIGHT:
        of_ours = error.filename is None or Path(os.fsdecode(error.filename)).parent == path.parent
        denied = folder if of_ours else os.fsdecode(error.filename)
        return f"{path}: no right to {denied} ({error.strerror}); see `ls -ld {denied}`, and have it changed, {AGAIN}"
    return None


def nearest_folder(path: Path) -> Path:
    """The nearest folder above `path` that is there and may be looked at."""
    for folder in path.absolute().parents:
        with contextlib.suppress(OSError):
            folder.stat()
            return folder
    return Path(path.absolute().anchor)
