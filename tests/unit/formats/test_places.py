"""Each voxel stands, in every format that is written, where it was: in all 48 ways in which the axes of a volume can
run along the patient's, and in oblique ones, as readers see it that share no code with microsr.
"""

import itertools
import json

import nibabel
import nrrd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import zarr

from microsr.config.sheet import Scan
from microsr.formats.readers import read_scan
from microsr.formats.writers import kind_of, open_writer
from microsr.inference.export import export
from microsr.inference.superresolve import superresolve
from microsr.inference.upsamplers import Bicubic
from microsr.volume.storage import Volume, open_volume, write_volume

SHAPE, SPACING, ORIGIN = (4, 5, 6), (0.5, 0.75, 1.25), (-16.5, 11.25, 100.5)
ARRAY = np.random.default_rng(0).permutation(np.arange(-1000, -880)).reshape(SHAPE).astype(np.int16)


def signed(permutation, signs):
    return np.eye(3)[:, permutation] * signs


ALIGNED = [
    signed(permutation, signs)
    for permutation in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def turned(x, y, z):
    a, b, c = np.radians([x, y, z])
    one = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    two = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    three = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return one @ two @ three


OBLIQUE = [
    turned(20, 0, 0),
    turned(5, 40, 10) * [1, -1, 1],
    turned(-50, 15, 70),
    turned(8, 9, 10)[:, [2, 0, 1]] * [-1, 1, 1],
]
OUTPUTS = ("out.nii", "out.nii.gz", "out.nrrd", "out.mha", "out", "out.ome.zarr")


def volume_of(direction, array=ARRAY):
    return Volume(array, SPACING, ORIGIN, tuple(map(float, np.ravel(direction))), "HU")


def write(path, volume):
    writer = open_writer(path, kind_of(path), volume.shape, volume)
    for position, image in enumerate(volume.array):
        writer.write(position, image)
    writer.close()


def by_others(path):
    """Voxels [i, j, k] and the affine from their indices to LPS, mm, as another program finds them."""
    if path.suffix in (".nii", ".gz"):
        image = nibabel.load(path)
        return np.asarray(image.dataobj), np.diag([-1, -1, 1, 1]) @ image.affine
    if path.suffix == ".nrrd":
        array, header = nrrd.read(str(path))
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = np.transpose(header["space directions"]), header["space origin"]
        return array, affine
    if path.suffix == ".mha":
        image = sitk.ReadImage(str(path))
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
        affine[:3, 3] = image.GetOrigin()
        return sitk.GetArrayFromImage(image).T, affine
    if path.suffix == ".zarr":
        scales = json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"]["ome"]["multiscales"][0]
        names = [axis["name"] for axis in scales["axes"]]
        scale, shift = scales["datasets"][0]["coordinateTransformations"]
        affine = np.zeros((4, 4))
        affine[3, 3] = 1
        for dimension, name in enumerate(names):
            affine["xyz".index(name), dimension] = scale["scale"][dimension]
            affine["xyz".index(name), 3] = shift["translation"][dimension]
        return zarr.open_array(str(path / "0"), mode="r")[:], affine
    slices = [pydicom.dcmread(file) for file in sorted(path.iterdir())]
    first, last = slices[0], slices[-1]
    row, column = np.reshape(np.array(first.ImageOrientationPatient, float), (2, 3))
    y, x = map(float, first.PixelSpacing)
    places = [np.array(data.ImagePositionPatient, float) for data in slices]
    step = (places[-1] - places[0]) / (len(slices) - 1)
    assert np.cross(row, column) @ step > 0, "numbered along the normal"
    assert [int(data.InstanceNumber) for data in (first, last)] == [1, len(slices)]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.stack([row * x, column * y, step], axis=1), places[0]
    values = [data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept) for data in slices]
    return np.stack(values).transpose(2, 1, 0), affine


def check(path, volume):
    """Every voxel of `volume` is in the file, at its place, and nothing else is."""
    array, affine = by_others(path)
    assert array.size == np.prod(volume.shape)
    inverse = np.linalg.inv(affine)
    for index in np.ndindex(volume.shape):
        there = (inverse @ [*volume.point(index), 1])[:3]
        nearest = np.rint(there).astype(int)
        assert np.abs(there - nearest).max() < 1e-3, index
        assert array[tuple(nearest)] == volume.array[index]


@pytest.mark.parametrize("name", OUTPUTS)
def test_each_voxel_is_at_its_place_in_all_48_orientations(tmp_path, name):
    for number, direction in enumerate(ALIGNED):
        path = tmp_path / str(number) / name
        path.parent.mkdir()
        write(path, volume_of(direction))
        check(path, volume_of(direction))


@pytest.mark.parametrize("name", OUTPUTS[:-1])
@pytest.mark.parametrize("direction", OBLIQUE)
def test_each_voxel_is_at_its_place_in_an_oblique_volume(tmp_path, name, direction):
    write(tmp_path / name, volume_of(direction))
    check(tmp_path / name, volume_of(direction))


@pytest.mark.parametrize("direction", OBLIQUE)
def test_an_oblique_ome_zarr_is_told_of_and_opened_in_its_place(tmp_path, caplog, direction):
    large = volume_of(direction, np.resize(ARRAY, (4, 40, 40)))
    write(tmp_path / "out.ome.zarr", large)
    assert "degrees askew in the patient, which OME-Zarr cannot say" in caplog.text
    facts = json.loads((tmp_path / "out.ome.zarr/zarr.json").read_text(encoding="utf-8"))["attributes"]["microsr"]
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(facts["direction"], (3, 3)) * facts["spacing"]
    affine[:3, 3] = facts["origin"]
    stored = zarr.open_array(str(tmp_path / "out.ome.zarr/0"), mode="r")[:].T
    back = open_volume(tmp_path / "out.ome.zarr")
    assert np.array_equal(back.array[:], large.array) and back.origin == pytest.approx(large.origin)
    for index in ((0, 0, 0), (3, 39, 0), (1, 2, 39)):
        there = np.rint((np.linalg.inv(affine) @ [*large.point(index), 1])[:3]).astype(int)
        assert stored[tuple(there)] == large.array[index], "the attribute microsr is that of the array as it is stored"


def test_an_upright_ome_zarr_is_not_told_of(tmp_path, caplog):
    for number, direction in enumerate(ALIGNED):
        write(tmp_path / f"{number}.ome.zarr", volume_of(direction))
    assert "askew" not in caplog.text


@pytest.mark.parametrize("direction", ALIGNED)
def test_an_exported_import_is_at_its_place(tmp_path, direction):
    write_volume(tmp_path / "in.ome.zarr", volume_of(direction), ARRAY > -950)
    check(tmp_path / "in.ome.zarr", volume_of(direction))
    export(tmp_path / "in.ome.zarr", tmp_path / "out.ome.zarr")
    export(tmp_path / "in.ome.zarr", tmp_path / "part.nrrd", slices="1:3")
    check(tmp_path / "out.ome.zarr", volume_of(direction))
    check(tmp_path / "part.nrrd", volume_of(direction).slices(1, 3))


@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
def test_a_super_resolved_scan_is_at_its_place_for_other_programs(tmp_path, signs):
    """The input is nibabel's, the output is found by scale and translation alone; its pixel is an eighth."""
    array = np.random.default_rng(0).integers(-1000, -300, (6, 8, 3)).astype(np.int16)
    affine = np.diag([-1.0, -1, 1, 1]) @ np.diag([*np.array(SPACING) * signs, 1])
    affine[:3, 3] = 3, 4, 5
    nibabel.Nifti1Image(array, affine).to_filename(tmp_path / "scan.nii")
    superresolve(tmp_path / "scan.nii", tmp_path / "sr.ome.zarr", Bicubic())
    superresolve(tmp_path / "scan.nii", tmp_path / "sr.nii", Bicubic())
    theirs, place = by_others(tmp_path / "sr.nii")
    ours, ome = by_others(tmp_path / "sr.ome.zarr")
    assert sorted(ours.shape) == sorted(theirs.shape)
    for index in ((0, 0, 0), (47, 0, 2), (5, 63, 1), (20, 30, 0)):
        there = np.linalg.inv(ome) @ place @ [*index, 1]
        nearest = tuple(np.rint(there[:3]).astype(int))
        assert np.abs(there[:3] - nearest).max() < 1e-2 and ours[nearest] == theirs[index]
    middle = read_scan(Scan(path=str(tmp_path / "scan.nii"))).point((1, 3, 2))
    assert np.linalg.inv(place)[:3, :3] @ (middle - place[:3, 3]) == pytest.approx(
        [8 * 2 + 3.5, 8 * 3 + 3.5, 1], abs=1e-3
    )
