"""Words of commands, sizes of inputs and patterns of wildcards, as the rules ask for them."""

import re

import pytest

from microsr.config import Compute
from microsr.workflow.jobs import any_of, drawing_words, file_words, gigabytes, launcher


def test_a_wildcard_takes_one_of_the_names_and_nothing_like_them():
    pattern = any_of(["a.b", "c"])
    assert re.fullmatch(pattern, "a.b") and re.fullmatch(pattern, "c")
    assert not re.fullmatch(pattern, "axb") and not re.fullmatch(pattern, "a.bc")


def test_a_wildcard_of_no_names_takes_nothing():
    assert not any(re.fullmatch(any_of([]), text) for text in ("", "a"))


def test_inputs_that_are_missing_have_no_flag():
    assert (
        file_words({"truth": "t.zarr", "labels": [], "micro": "m.zarr"}, "truth", "labels", "mask") == "--truth t.zarr"
    )


def test_files_of_a_figure_are_named_where_its_command_asks_for_it():
    words = drawing_words(
        {"table": ["t.csv"], "runs": ["a", "b"], "maps": []}, {"runs": ["one", "two"]}, {"out": "o.csv"}
    )
    assert words == "--out o.csv --table t.csv --runs one=a two=b"


def test_a_file_without_a_name_is_an_error():
    with pytest.raises(ValueError, match="longer"):
        drawing_words({"runs": ["a", "b"]}, {"runs": ["one"]}, {})


def test_the_size_of_inputs_is_that_of_their_files(tmp_path):
    (tmp_path / "volume/0").mkdir(parents=True)
    (tmp_path / "volume/0/chunk").write_bytes(bytes(3000))
    (tmp_path / "volume/zarr.json").write_bytes(bytes(500))
    (tmp_path / "scan.nii").write_bytes(bytes(1500))
    assert gigabytes([tmp_path / "volume", str(tmp_path / "scan.nii")]) == 5000 / 1e9
    with pytest.raises(FileNotFoundError):
        gigabytes([tmp_path / "later.nii"])


def test_one_process_needs_no_launcher():
    assert launcher(Compute(threads=8)) == ""


@pytest.mark.parametrize(("devices", "nodes"), [(2, 1), (4, 2), (1, 3)])
def test_several_processes_are_started_by_torchrun_on_each_node(devices, nodes):
    words = launcher(Compute(devices=devices, nodes=nodes))
    assert words.endswith(" --no_python -- ") and f"torchrun --nproc_per_node {devices} " in words
    assert ("--standalone" in words) == (nodes == 1)
    assert bool(re.match(rf"srun --nodes {nodes} --ntasks-per-node=1 ", words)) == (nodes > 1)
