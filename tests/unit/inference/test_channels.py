"""Several volumes of one grid as the channels of one OME-Zarr: the same voxels, each with its name and grey scale."""

import json

import numpy as np
import ome_zarr_models
import pytest
import zarr

from microsr import cli
from microsr.core.errors import UserError
from microsr.core.provenance import run_file
from microsr.formats.writers import open_writer
from microsr.inference.channels import channels
from microsr.volume.storage import Volume, open_volume, write_volume

SHAPE = (3, 40, 1030)
TURNED = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def write(path, values, unit="HU", origin=(1.0, 2.0, 3.0), **attributes):
    volume = Volume(None, (0.5, 0.6, 2.0), origin, TURNED, unit, attributes)
    writer = open_writer(path, "ome-zarr", values.shape, volume)
    for z, image in enumerate(values):
        writer.write(z, image)
    writer.close()
    return path


@pytest.fixture
def three(tmp_path):
    """Mean, SD and P(solid), and their values."""
    rng = np.random.default_rng(1)
    values = [rng.integers(low, high, SHAPE).astype(np.int16) for low, high in ((-1000, 100), (0, 300), (0, 101))]
    facts = [
        {"holds": "mean", "description": "Mean"},
        {"holds": "sd", "description": "SD of 16 draws, not for diagnosis"},
        {"holds": "solid", "description": "P(solid)", "unit": "%"},
    ]
    pairs = zip(values, facts, strict=True)
    return [write(tmp_path / f"{of['holds']}.ome.zarr", array, **of) for array, of in pairs], values


def test_each_channel_has_the_voxels_the_name_and_the_window_of_its_volume(three, tmp_path):
    paths, values = three
    cli.main(["channels", *map(str, paths), "--output", str(tmp_path / "all.ome.zarr")])
    group = zarr.open_group(str(tmp_path / "all.ome.zarr"), mode="r")
    for level in ("0", "1"):
        for number, path in enumerate(paths):
            held = zarr.open_group(str(path), mode="r")[level]
            assert np.array_equal(group[level][number], held[:]), (level, path)
    assert np.array_equal(group["0"][1], values[1][:, ::-1]), "rows run against x and are stored the other way round"
    ome_zarr_models.v05.Image.from_zarr(group)
    shown = group.attrs["ome"]["omero"]["channels"]
    assert [channel["label"] for channel in shown] == ["Mean", "SD of 16 draws", "P(solid)"]
    windows = [(channel["window"]["start"], channel["window"]["end"]) for channel in shown]
    assert windows == [(-1350, 150), (0, 300), (0, 100)]
    assert [channel["active"] for channel in shown] == [True, False, False]


def test_the_channels_lie_where_the_volumes_do(three, tmp_path):
    channels(three[0], tmp_path / "all.ome.zarr")
    found, alone = (
        zarr.open_group(str(path), mode="r").attrs["ome"]["multiscales"][0]
        for path in (tmp_path / "all.ome.zarr", three[0][0])
    )
    assert found["axes"] == [{"name": "c", "type": "channel"}, *alone["axes"]]
    assert [axis.get("unit") for axis in found["axes"]] == [None, *["millimeter"] * 3]
    for level, of in zip(found["datasets"], alone["datasets"], strict=True):
        scale, shift = level["coordinateTransformations"]
        assert scale["scale"] == [1, *of["coordinateTransformations"][0]["scale"]]
        assert shift["translation"] == [0, *of["coordinateTransformations"][1]["translation"]]


def test_no_chunk_is_copied_and_the_volumes_stay(three, tmp_path):
    paths, values = three
    channels(paths, tmp_path / "all.ome.zarr")
    chunk = tmp_path / "all.ome.zarr/0/c/1/2/0/1"
    assert chunk.samefile(paths[1] / "0/c/2/0/1")
    assert all(np.array_equal(open_volume(p).array[:], v) for p, v in zip(paths, values, strict=True))


def test_names_can_be_chosen_and_the_record_says_them(three, tmp_path):
    words = ["--names", "best", "spread", "wall", "--output", str(tmp_path / "all.ome.zarr")]
    cli.main(["channels", *map(str, three[0]), *words])
    shown = zarr.open_group(str(tmp_path / "all.ome.zarr"), mode="r").attrs["ome"]["omero"]["channels"]
    assert [channel["label"] for channel in shown] == ["best", "spread", "wall"]
    record = json.loads(run_file(tmp_path / "all.ome.zarr").read_text(encoding="utf-8"))
    assert record["settings"] == {"names": ["best", "spread", "wall"]} and len(record["inputs"]) == 3


def test_a_volume_with_fewer_levels_lends_its_levels_to_all(three, tmp_path):
    """An imported truth has the full level alone."""
    truth = Volume(three[1][0], (0.5, 0.6, 2.0), (1.0, 2.0, 3.0), TURNED, attributes={"modality": "truth"})
    write_volume(tmp_path / "truth.ome.zarr", truth)
    channels([three[0][0], tmp_path / "truth.ome.zarr"], tmp_path / "all.ome.zarr")
    group = zarr.open_group(str(tmp_path / "all.ome.zarr"), mode="r")
    assert [*group.array_keys()] == ["0"] and group.attrs["ome"]["omero"]["channels"][1]["label"] == "Truth"


def test_making_it_again_gives_the_same_and_replaces_it(three, tmp_path):
    def content():
        files = (path for path in (tmp_path / "all.ome.zarr").rglob("*") if path.is_file())
        return {path.relative_to(tmp_path): path.read_bytes() for path in files}

    channels(three[0], tmp_path / "all.ome.zarr")
    before = content()
    channels(three[0][:2], tmp_path / "all.ome.zarr")
    channels(three[0], tmp_path / "all.ome.zarr")
    assert content() == before


def test_what_does_not_fit_together_is_refused_in_one_line(three, tmp_path):
    def refused(*volumes, names=None):
        with pytest.raises(UserError) as error:
            channels(list(volumes), tmp_path / "all.ome.zarr", names)
        return str(error.value)

    mean, sd, _ = three[0]
    other = write(tmp_path / "other.ome.zarr", three[1][0][:2], description="Two slices")
    moved = write(tmp_path / "moved.ome.zarr", three[1][0], origin=(1.0, 2.0, 3.4), description="Moved")
    grey = write(tmp_path / "grey.ome.zarr", three[1][0], unit="grey")
    assert f"{other} and {mean} have other voxels (2x40x1030 int16" in refused(mean, other)
    assert "or lie 0.4 mm apart" in refused(mean, moved)
    assert "has unit 'grey'" in refused(mean, grey)
    assert "'Mean' would be the name of several channels" in refused(mean, sd, mean)
    assert "--names: 1 names of 2 volumes" in refused(mean, sd, names=["best"])
    assert not (tmp_path / "all.ome.zarr").exists()


def test_a_folder_of_other_things_is_not_replaced(three, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="exists and is no earlier output"):
        channels(three[0], tmp_path / "mine")
    assert (tmp_path / "mine/thesis.txt").exists()
