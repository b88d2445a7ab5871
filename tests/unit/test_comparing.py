"""The comparison of two folders of results finds every difference that counts, and none that does not."""

import json
import shutil

import pytest
from comparing import differences

RUN = {"step": "train", "settings": {"epochs": 1, "losses": {"cycle": 10}}, "inputs": {"a/patches.npy": "1"}}


@pytest.fixture
def folders(tmp_path):
    """Two folders with the same results."""
    first, second = tmp_path / "first", tmp_path / "second"
    for name, content in {
        "config.yaml": b"seed: 1\ncompute: {threads: 1}\n",
        "tables/metrics.csv": b"case,value\na,1\nb,2\n",
        "tables/efficiency.csv": b"pairs_per_second\n10\n",
        "figures/losses.png": bytes(range(200)) + b"\xff",
        "models/proposed/pooled/run.json": json.dumps(RUN | {"seconds": 3, "attempts": [1]}).encode(),
        "volumes/a/clinical.ome.zarr/0/c/0/0/0": b"\xff\x00",
    }.items():
        (first / name).parent.mkdir(parents=True, exist_ok=True)
        (first / name).write_bytes(content)
    shutil.copytree(first, second)
    return first, second


def test_a_copy_has_no_difference(folders):
    assert differences(*folders) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("logs/train.log", b"slow"),
        ("benchmarks/train.tsv", b"s\n3\n"),
        (".state/proposed/pooled/step-1.pt", b"\xff"),
        ("report.html", b"<html>"),
        ("volumes/a/clinical.ome.zarr/.snakemake_timestamp", b""),
        ("tables/efficiency.csv", b"pairs_per_second\n12\n"),
        ("config.yaml", b"seed: 1\ncompute: {threads: 2}\n"),
        ("models/proposed/pooled/run.json", json.dumps(RUN | {"seconds": 4, "attempts": [1, 2]}).encode()),
    ],
)
def test_how_and_when_the_work_was_done_does_not_count(folders, name, content):
    (folders[1] / name).parent.mkdir(parents=True, exist_ok=True)
    (folders[1] / name).write_bytes(content)
    assert differences(*folders) == []


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("config.yaml", b"seed: 2\ncompute: {threads: 1}\n", "seed: 1, 2"),
        ("tables/metrics.csv", b"case,value\na,1\nb,3\n", "1 of 3 lines, first line 3: 'b,2', 'b,3'"),
        ("tables/metrics.csv", b"case,value\na,1\n", "3 against 2 lines"),
        ("tables/metrics.csv", b"case,value\r\na,1\r\nb,2\r\n", "line ends differ"),
        ("figures/losses.png", bytes(range(199)) + b"\x00\xff", "1 of 201 bytes, the first at 199"),
        ("figures/losses.png", b"\xff", "201 against 1 bytes"),
        ("volumes/a/clinical.ome.zarr/0/c/0/0/0", b"\xff\x01", "1 of 2 bytes, the first at 1"),
        (
            "models/proposed/pooled/run.json",
            json.dumps(RUN | {"settings": {"epochs": 1, "losses": {"cycle": 5}}, "seconds": 3}).encode(),
            "settings.losses.cycle: 10, 5",
        ),
        (
            "models/proposed/pooled/run.json",
            json.dumps(RUN | {"inputs": {"a/patches.npy": "2"}}).encode(),
            "inputs.a/patches.npy: '1', '2'",
        ),
    ],
)
def test_what_differs_is_named(folders, name, content, found):
    (folders[1] / name).write_bytes(content)
    assert differences(*folders) == [f"{name}: {found}"]


def test_what_is_missing_on_either_side_is_named(folders):
    first, second = folders
    (second / "tables/metrics.csv").unlink()
    (second / "tables/summary.csv").touch()
    assert differences(first, second) == [
        f"tables/metrics.csv: only in {first}",
        f"tables/summary.csv: only in {second}",
    ]
    assert differences(first, second, partial=True) == [f"tables/summary.csv: only in {second}"]


def test_folders_without_results_are_not_the_same_results(folders, tmp_path):
    (tmp_path / "empty/logs").mkdir(parents=True)
    (tmp_path / "empty/logs/train.log").touch()
    with pytest.raises(ValueError, match="empty holds no result"):
        differences(folders[0], tmp_path / "empty")
