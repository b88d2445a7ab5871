"""Disks that are full, for tests of any folder."""

import contextlib
import resource
import subprocess
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def files_up_to(kilobytes: float) -> Iterator[None]:
    """A context in which no file of this process may grow beyond a size: a full disk for who may not mount a small one.

    It ends within the test, since pytest's own report may be a file that is longer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(1024 * kilobytes), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small_files():
    """`files_up_to`."""
    return files_up_to


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a folder with room for so many kB, and gives it more room when it is asked for again."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size):
        again = "remount," if folder.is_mount() else ""
        wanted = ["mount", "-t", "tmpfs", "-o", f"{again}size={size:.0f}k", "tmpfs", folder]
        if subprocess.run(wanted, capture_output=True).returncode:
            pytest.skip("only root may mount a small disk")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", folder], check=True)


@pytest.fixture(params=["tmpfs", "file size limit"])
def full_disk(request, tmp_path):
    """A folder and a context within which it has room for so many kB, by a small disk or by small files."""
    if request.param == "tmpfs":
        disk = request.getfixturevalue("small_disk")
        return lambda size: contextlib.nullcontext(disk(size))
    folder = tmp_path / "disk"
    folder.mkdir()

    @contextlib.contextmanager
    def limited(size):
        with files_up_to(size):
            yield folder

    return limited
