"""The step info: each kind of file that microsr makes or reads is described, from its own headers, in text and as
JSON.
"""

import json

import numpy as np
import pytest
import SimpleITK as sitk

from microsr import cli, config
from microsr.core.code_version import code_version
from microsr.core.errors import UserError
from microsr.core.provenance import checksum
from microsr.formats.dicom_series import write_series
from microsr.formats.outputs import Partial
from microsr.inference.export import export
from microsr.info import describe
from microsr.networks.families import build
from microsr.networks.model_file import save_generator
from microsr.preprocessing.patches import extract
from microsr.training.checkpoint import identify, save_state, state_folder
from microsr.volume.storage import Volume, write_volume

FACTS = {"window_hu": [-1000.0, 400.0], "seed": 3, "steps": 120, "clinical_spacing_mm": 0.625, "micro_spacing_mm": None}


@pytest.fixture
def volume(tmp_path):
    array = np.full((5, 20, 24), -800, np.int16)
    array[0, 0, 0], array[2, 3, 4], array[3, 0, 0] = -1000, 300, 3000  # slice 3 is not among the three that are read
    attributes = {"case": "a", "modality": "micro", "calibration": {"method": "none"}, "source": {"format": "NIfTI"}}
    v = Volume(
        array, (0.5, 0.6, 1.5), (1.0, 2.0, 3.0), (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0), attributes=attributes
    )
    write_volume(tmp_path / "v.ome.zarr", v, array > -900)
    return tmp_path / "v.ome.zarr", v


def test_a_volume_tells_its_grid_values_and_origin(volume):
    path, v = volume
    found = describe(path)
    assert (found["kind"], found["case"], found["modality"], found["format"]) == ("volume", "a", "micro", "OME-Zarr")
    assert (found["size"], found["spacing"], found["origin"]) == ([24, 20, 5], [0.5, 0.6, 1.5], [1, 2, 3])
    assert found["direction"] == list(v.direction) and (found["unit"], found["type"]) == ("HU", "int16")
    assert found["values"]["slices"] == [0, 2, 4]
    assert (found["values"]["lowest"], found["values"]["highest"]) == (-1000, 300)
    assert found["mask"] is True and found["levels"] == 1
    assert found["calibration"] == {"method": "none"} and found["imported from"] == {"format": "NIfTI"}
    assert "made by" not in found


def test_how_a_result_was_made_is_read_from_beside_it(volume, tmp_path):
    export(volume[0], tmp_path / "out.ome.zarr", slices="1:3")
    made = describe(tmp_path / "out.ome.zarr")["made by"]
    assert made["step"] == "export" and made["settings"]["slices"] == "1:3" and made["inputs"] == [str(volume[0])]
    assert made["code"]["fingerprint"] == code_version("export")


@pytest.mark.parametrize(
    ("ending", "format"), [(".nii.gz", "NIfTI"), (".nrrd", "NRRD"), (".mha", "MetaImage"), ("", "DICOM")]
)
def test_a_scan_in_a_foreign_format_is_described_by_its_header(ending, format, volume, tmp_path):
    export(volume[0], tmp_path / f"scan{ending}")
    found = describe(tmp_path / f"scan{ending}")
    assert (found["kind"], found["format"], found["size"]) == ("scan", format, [24, 20, 5])
    assert found["spacing"] == pytest.approx([0.5, 0.6, 1.5]) and found["values"]["highest"] == 300


def test_what_a_header_lacks_can_be_given(tmp_path):
    sitk.WriteImage(
        sitk.GetImageFromArray(np.arange(600, dtype=np.uint8).reshape(20, 30) % 200), str(tmp_path / "a.png")
    )
    with pytest.raises(UserError, match="2-D images have no pixel size"):
        describe(tmp_path / "a.png")
    assert describe(tmp_path / "a.png", spacing="0.3x0.2")["spacing"][:2] == [0.3, 0.2]
    with pytest.raises(UserError, match="spacing"):
        describe(tmp_path / "a.png", spacing="wide")


def test_one_of_several_series_is_chosen(volume, tmp_path):
    for case in "ab":
        for path in write_series(tmp_path / case, volume[1], case, 1, "lung"):
            (tmp_path / "all").mkdir(exist_ok=True)
            path.rename(tmp_path / "all" / f"{case}{path.name}")
    with pytest.raises(UserError, match="holds 2 series") as error:
        describe(tmp_path / "all")
    uid = str(error.value).rsplit(": ", 1)[1].split()[0]
    assert describe(tmp_path / "all", series=uid)["size"] == [24, 20, 5]


@pytest.mark.parametrize("asked", ["out.nii.gz", "out.nii.gz.partial"])
def test_a_partly_written_output_tells_how_far_it_is(asked, volume, tmp_path):
    v = volume[1]
    with Partial(tmp_path / "out.nii.gz", "nifti.gz", v.shape, v, {}) as partial:
        partial.write(v.array[0])
        partial.write(v.array[1])
    found = describe(tmp_path / asked)
    assert (found["kind"], found["format"]) == ("partly written volume", "nifti.gz")
    assert (found["slices written"], found["slices in all"], found["size"]) == (2, 5, [24, 20, 5])
    assert found["spacing"] == [0.5, 0.6, 1.5] and found["case"] == "a"


def test_a_patch_set_tells_its_number_size_and_volume(volume, tmp_path):
    settings = config.Patches(per_case=7, clinical_size=4, micro_size=32)
    extract("a", "clinical", volume[0], 1, tmp_path / "clinical.npy", tmp_path / "clinical.csv", settings)
    found = describe(tmp_path / "clinical.npy")
    assert (found["kind"], found["number"], found["size"]) == ("patches", 7, [4, 4])
    assert found["made by"]["inputs"] == [str(volume[0])] and found["checksum"] == checksum(tmp_path / "clinical.npy")
    assert 0 <= found["from slices"][0] <= found["from slices"][1] <= 4


def identity(tmp_path):
    (tmp_path / "patches").mkdir(exist_ok=True)
    np.save(tmp_path / "patches/clinical.npy", np.zeros(3))
    return identify({"train": {"epochs": 2}}, [tmp_path / "patches/clinical.npy"], "c0de")


def test_a_model_tells_its_network_and_what_it_was_trained_on(tmp_path):
    g1 = build("compact", 16, 128).g1
    save_generator(tmp_path / "generator.pt", g1, {"network": "compact", "provenance": identity(tmp_path), **FACTS})
    found = describe(tmp_path / "generator.pt")
    assert (found["kind"], found["network"], found["steps"]) == ("model", "compact", 120)
    assert found["parameters"] == sum(p.numel() for p in g1.parameters()) and found["window_hu"] == [-1000, 400]
    assert found["trained on"] == ["patches/clinical.npy"] and found["settings"] == {"train": {"epochs": 2}}
    assert found["code"] == "c0de" and found["checksum"] == checksum(tmp_path / "generator.pt")


def test_the_state_of_a_training_tells_its_step(tmp_path):
    folder = state_folder(tmp_path / "state", identity(tmp_path))
    for step in (10, 20):
        save_state(folder, step, {"step": step})
    for path in (folder, folder / "step-000000020.pt"):
        found = describe(path)
        assert (found["kind"], found["step"]) == ("state of an unfinished training", 20)
        assert found["trained on"] == ["patches/clinical.npy"] and found["settings"] == {"train": {"epochs": 2}}


@pytest.mark.parametrize(("name", "problem"), [
    ("none", "does not exist"), ("notes.txt", "no known format"), ("empty", "holds neither DICOM"),
    ("model.pt", "no microsr model"), ("a.npy", "holds no patches"),
    ("other.zarr", "not a volume in the working format"),
])  # fmt: skip
def test_what_is_unknown_is_refused_in_one_line(name, problem, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.zarr").mkdir()
    (tmp_path / "other.zarr/zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    for file in ("notes.txt", "model.pt", "a.npy"):
        (tmp_path / file).write_text("x")
    with pytest.raises(UserError, match=problem) as error:
        describe(tmp_path / name)
    assert "\n" not in str(error.value)


def test_the_command_prints_text_and_json(volume, capsys):
    cli.main(["info", str(volume[0])])
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert lines["kind"] == "volume" and lines["size"] == "24 20 5" and lines["spacing"] == "0.5 0.6 1.5 mm"
    assert lines["values.highest"] == "300" and lines["mask"] == "yes"
    cli.main(["info", str(volume[0]), "--json"])
    assert json.loads(capsys.readouterr().out) == describe(volume[0])
