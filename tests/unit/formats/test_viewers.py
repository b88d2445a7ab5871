"""The readers that viewers are built on see what microsr writes: voxels, place, units, names and grey scales.

By ome-zarr-py and ngff-zarr, whose dependencies exclude those of this environment.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from microsr.formats.writers import open_writer
from microsr.inference.channels import channels
from microsr.volume.storage import Volume

ROOT = Path(__file__).parents[3]
VALIDATORS = ROOT / ".venv-validators/bin/python"
"""Made by `make validators`."""
SHAPE = (3, 530, 30)
SAGITTAL = (0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
"""x runs to posterior, y to inferior and z to the right: columns of the matrix are the axes."""
HU = np.random.default_rng(3).integers(-1000, 400, SHAPE).astype(np.int16)


@pytest.fixture
def see(tmp_path):
    """What each reader says of a store, by its name, with its voxels."""
    if not VALIDATORS.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no ome-zarr-py: make validators")

    def run(store):
        command = [VALIDATORS, ROOT / "tests/validators/readers.py", store, tmp_path]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        assert set(found) == {"ome-zarr-py", "ngff-zarr"}
        return [said | {"voxels": np.load(tmp_path / f"{reader}.npy")} for reader, said in found.items()]

    return run


def write(path, values=HU, direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0), unit="HU", **attributes):
    volume = Volume(None, (0.5, 0.6, 2.0), (1.0, 2.0, 3.0), direction, unit, attributes)
    writer = open_writer(path, "ome-zarr", values.shape, volume)
    for z, image in enumerate(values):
        writer.write(z, image)
    writer.close()
    return path


@pytest.mark.parametrize(
    ("attributes", "unit", "window"),
    [
        ({"description": "Super-resolved CT"}, "HU", [-1350, 150]),
        ({"description": "Super-resolved CT", "display": [-500, 2500]}, "HU", [-500, 2500]),
        ({"description": "SD of 16 draws", "holds": "sd"}, "HU", [0, 300]),
        ({"description": "P(solid) of 16 draws", "holds": "solid"}, "%", [0, 100]),
    ],
    ids=lambda value: str(value),
)
def test_a_volume_is_seen_with_its_place_its_name_and_its_grey_scale(see, attributes, unit, window, tmp_path):
    for said in see(write(tmp_path / "v.ome.zarr", unit=unit, **attributes)):
        assert np.array_equal(said["voxels"], HU)
        assert said["levels"] == [[3, 530, 30], [3, 265, 15]]
        assert (said["axes"], said["units"]) == (["z", "y", "x"], ["millimeter"] * 3)
        assert said["scale"] == pytest.approx([2.0, 0.6, 0.5]) and said["translation"] == pytest.approx([3, 2, 1])
        assert said["windows"] == [window] and said["names"] == [attributes["description"]]


def test_a_sagittal_volume_is_seen_along_the_patient_s_axes(see, tmp_path):
    """Slices are counted along x, rows along z, columns along y; two of them run against the patient's axes."""
    for said in see(write(tmp_path / "v.ome.zarr", direction=SAGITTAL)):
        assert said["axes"] == ["x", "z", "y"] and said["units"] == ["millimeter"] * 3
        assert np.array_equal(said["voxels"], HU[::-1, ::-1])
        assert said["scale"] == pytest.approx([2.0, 0.6, 0.5])
        assert said["translation"] == pytest.approx([1.0 - 2 * 2.0, 3.0 - 529 * 0.6, 2.0])


def test_channels_are_seen_as_such_each_with_its_own_grey_scale(see, tmp_path):
    sd = np.abs(HU) // 4
    volumes = [
        write(tmp_path / "sr.ome.zarr", holds="mean", description="Mean of 16 draws, not for diagnosis"),
        write(tmp_path / "sr_sd.ome.zarr", sd, holds="sd", description="SD of 16 draws, not for diagnosis"),
    ]
    channels(volumes, tmp_path / "all.ome.zarr")
    for said in see(tmp_path / "all.ome.zarr"):
        assert said["axes"] == ["c", "z", "y", "x"] and said["units"] == [None, *["millimeter"] * 3]
        assert np.array_equal(said["voxels"], [HU, sd])
        assert said["scale"] == pytest.approx([1, 2.0, 0.6, 0.5])
        assert said["translation"] == pytest.approx([0, 3, 2, 1])
        assert said["names"] == ["Mean of 16 draws", "SD of 16 draws"]
        assert said["windows"] == [[-1350, 150], [0, 300]]
        assert said.get("visible", [True, False]) == [True, False]
