"""`microsr provenance`: the chain of records from a result back to the files that no step made."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from microsr import cli
from microsr.core import provenance
from microsr.core.code_version import step_version
from microsr.core.errors import UserError
from microsr.core.provenance import checksum, write_run
from microsr.report.lineage import trace
from microsr.volume.storage import Volume, write_volume

FIGURE = "results/x/figures/comparison"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with a small chain: a scan, its volume, patches and a model of them, and a figure of volume and
    model.
    """
    folder = tmp_path / "work"
    for name in ("data", "results/x/volumes", "results/x/patches", "results/x/model", "results/x/figures"):
        (folder / name).mkdir(parents=True)
    monkeypatch.chdir(folder)
    scan, volume = Path("data/scan.nii"), Path("results/x/volumes/clinical.ome.zarr")
    patches, model = Path("results/x/patches/clinical.npy"), Path("results/x/model/generator.pt")
    scan.write_text("scan", encoding="utf-8")
    write_volume(volume, Volume(np.full((3, 4, 4), -800.0), (1, 1, 1)))
    write_run(volume, "volumes", {"closing_mm": 4.0, "like": None}, [scan], 0.0)
    patches.write_text("patches", encoding="utf-8")
    write_run(patches, "patches", {}, [volume], 0.0)
    model.write_text("model", encoding="utf-8")
    attempts = [{"seconds": 3.0}, {"seconds": 4.5}]
    write_run(model.with_name("run.json"), "train", {"losses": {"cycle": 10}}, [patches], 0.0, attempts=attempts)
    Path(f"{FIGURE}.png").touch()
    write_run(Path(f"{FIGURE}.png"), "figures.comparison", {}, [volume, model], 0.0, slices_read={volume: [1]})
    return folder


def told(capsys, *arguments):
    cli.main(["provenance", *map(str, arguments)])
    return capsys.readouterr().out


def states(found):
    return {(name, i["file"]): i["state"] for name, run in found["records"].items() for i in run["inputs"]}


def test_the_chain_goes_back_to_the_input_file_and_tells_of_each_step_once(here, capsys):
    text = told(capsys, f"{FIGURE}.png")
    for step in ("figures.comparison", "volumes", "patches", "train"):
        assert text.count(f"{step}, 19") == 1, "each was started in 1970"
    assert text.count(f"- data/scan.nii  sha256 {checksum(Path('data/scan.nii'))}  unchanged") == 1
    assert "clinical.ome.zarr  sha256 of slices 1 " in text and "closing_mm=4.0" in text and "losses.cycle=10" in text
    assert "7.5 s in 2 attempts" in text and ", as above" in text
    assert "4 steps from 1 files that no step made" in text and "amiss" not in text


def test_any_file_of_a_result_leads_to_its_record(here, capsys):
    for name in (f"{FIGURE}.pdf", f"{FIGURE}.run.json", "results/x/volumes/clinical.ome.zarr/zarr.json"):
        Path(name).touch()
    assert trace(Path(f"{FIGURE}.pdf"))["record"] == trace(Path(f"{FIGURE}.run.json"))["record"] == f"{FIGURE}.run.json"
    assert list(trace(Path("results/x/volumes/clinical.ome.zarr/zarr.json"))["records"]) == [
        "results/x/volumes/clinical.run.json"
    ]


def test_json_says_the_same_to_machines(here, capsys):
    found = json.loads(told(capsys, f"{FIGURE}.png", "--json"))
    assert found == json.loads(json.dumps(trace(Path(f"{FIGURE}.png"))))
    first = found["records"][found["record"]]
    assert first["inputs"][0] == {
        "file": "results/x/volumes/clinical.ome.zarr",
        "sha256": checksum(Path("results/x/volumes/clinical.ome.zarr"), slices=[1]),
        "slices": [1],
        "record": "results/x/volumes/clinical.run.json",
        "state": "unchanged",
    }
    assert all(run["current_code"] for run in found["records"].values())


def test_a_file_that_is_not_what_it_was_is_named(here, capsys):
    Path("results/x/model/generator.pt").write_text("another", encoding="utf-8")
    Path("data/scan.nii").unlink()
    text = told(capsys, f"{FIGURE}.png")
    assert f"amiss: results/x/model/generator.pt: CHANGED since it was used for {FIGURE}.run.json" in text
    assert "amiss: data/scan.nii: NOT FOUND for results/x/volumes/clinical.run.json" in text
    assert text.count("amiss: ") == 2


def test_a_slice_that_was_not_drawn_does_not_count(here):
    volume = Path("results/x/volumes/clinical.ome.zarr")
    array = np.full((3, 4, 4), -800.0)
    array[2] = 0
    write_volume(volume, Volume(array, (1, 1, 1)))
    found = states(trace(Path(f"{FIGURE}.png")))
    assert found[f"{FIGURE}.run.json", str(volume)] == "unchanged"
    assert found["results/x/patches/clinical.run.json", str(volume)] == "changed", "patches are of the whole volume"


def test_of_a_volume_only_the_metadata_may_count(here, capsys):
    volume = Path("results/x/volumes/clinical.ome.zarr")
    Path("results/x/table.csv").touch()
    write_run(Path("results/x/table.csv"), "volumes", {}, [volume], 0.0, slices_read={volume: ()})
    (volume / "0/c/0/0/0").write_bytes(b"other voxels")
    text = told(capsys, "results/x/table.csv")
    assert "clinical.ome.zarr  sha256 of its metadata " in text and "amiss" not in text
    (volume / "zarr.json").write_text("{}")
    assert "CHANGED" in told(capsys, "results/x/table.csv")


def test_without_checks_nothing_is_read(here, capsys, monkeypatch):
    monkeypatch.setattr("microsr.report.lineage.checksum", lambda *_, **__: pytest.fail("read"))
    text = told(capsys, f"{FIGURE}.png", "--no-check")
    assert "not checked" in text and "unchanged" not in text
    Path("data/scan.nii").unlink()
    assert "NOT FOUND" in told(capsys, f"{FIGURE}.png", "--no-check")


@pytest.mark.parametrize("renamed", ["results/x", "results/y", "saved", "results"])
@pytest.mark.parametrize("copied", [True, False])
def test_results_that_were_moved_are_found_where_they_are(here, tmp_path, monkeypatch, renamed, copied):
    """The folder of results, or the folder it lies in, under another name in another place; seen from a third one."""
    source = here / ("results" if renamed == "results" else "results/x")
    place = tmp_path / "elsewhere" / renamed
    place.parent.mkdir(parents=True)
    shutil.copytree(source, place)
    if not copied:
        shutil.rmtree(source)
    monkeypatch.chdir(tmp_path)
    figure = place / ("x/figures/comparison.png" if renamed == "results" else "figures/comparison.png")
    found = states(trace(figure))
    assert found.pop(("results/x/volumes/clinical.run.json", "data/scan.nii")) == "gone", "it stayed behind"
    assert set(found.values()) == {"unchanged"} and len(found) == 4
    (figure.parent.parent / "patches/clinical.npy").write_text("of the copy")
    found = states(trace(figure))
    assert found["results/x/model/run.json", "results/x/patches/clinical.npy"] == "changed", "not the copied one's"


def test_a_whole_folder_that_was_moved_keeps_its_inputs(here, tmp_path):
    shutil.move(here, tmp_path / "moved")
    assert set(states(trace(tmp_path / "moved" / f"{FIGURE}.png")).values()) == {"unchanged"}


def test_other_code_is_marked(here, capsys, monkeypatch):
    monkeypatch.setattr(
        "microsr.report.lineage.step_version", lambda step: "new" if step == "train" else step_version(step)
    )
    text = told(capsys, f"{FIGURE}.png")
    assert "amiss: results/x/model/run.json: made by other code" in text and text.count("amiss") == 1
    assert "by OTHER CODE than the present one" in text


def test_versions_are_told_where_steps_differ_in_them(here, capsys, monkeypatch):
    monkeypatch.setattr(provenance, "_versions", lambda: {"numpy": "9.9"})
    write_run(Path("results/x/patches/clinical.npy"), "patches", {}, [Path("results/x/volumes/clinical.ome.zarr")], 0.0)
    text = told(capsys, f"{FIGURE}.png")
    assert "but: numpy 9.9" in text and text.count("numpy 9.9") == 1 and text.count(f"numpy {np.__version__}") == 1


def test_a_result_beside_a_scan_of_its_name_is_not_its_own_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("scan").mkdir()
    Path("scan/1.dcm").write_text("slice", encoding="utf-8")
    Path("scan.ome.zarr").mkdir()
    write_run(Path("scan.ome.zarr"), "superresolve", {}, [Path("scan")], 0.0)
    (run,) = trace(Path("scan.ome.zarr"))["records"].values()
    assert run["inputs"][0]["record"] is None


def test_a_file_without_a_record_is_refused_in_one_line(here, capsys):
    for name, expected in (
        ("data/scan.nii", r"scan.nii: has no record; .* has scan.nii.run.json beside it, or run.json in its folder"),
        ("data/nothing.nii", "nothing.nii: does not exist"),
    ):
        with pytest.raises(UserError, match=expected):
            trace(Path(name))
    Path("data/scan.run.json").write_text('{"step": 1}', encoding="utf-8")
    Path("data/scan.csv").touch()
    with pytest.raises(SystemExit):
        cli.main(["provenance", "data/scan.csv"])
    assert "data/scan.run.json: is no record of a run ('inputs')" in capsys.readouterr().err
