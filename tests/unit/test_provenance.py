"""Checksums that are computed beside the work."""

import pytest

from microsr import provenance
from microsr.provenance import checksum, checksums_beside


def test_checksums_beside_the_work_are_those_after_it(tmp_path):
    (tmp_path / "a").write_bytes(bytes(3 << 20))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b").write_text("b")
    paths = [tmp_path / "a", tmp_path / "folder"]
    with checksums_beside(map(str, paths)) as checksums:
        pass
    assert checksums() == {path: checksum(path) for path in paths}


def test_an_error_does_not_wait_for_them(tmp_path, monkeypatch):
    stopped = []
    monkeypatch.setattr(provenance, "checksum", lambda path, stop: stopped.append(stop.wait(20)))
    with pytest.raises(ValueError, match="in the work"), checksums_beside([tmp_path]):
        raise ValueError("in the work")
    assert stopped == [True]
