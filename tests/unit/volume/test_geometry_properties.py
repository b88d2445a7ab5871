"""Whatever grid another library writes, oblique or left-handed: the same value is at the same place of the patient, all
the way.

Numbers are drawn by hypothesis, the same ones every time.
"""

import dataclasses
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from independent import Image, by_nibabel, by_nrrd, by_pydicom, place
from pydicom.dataset import FileDataset, FileMetaDataset

from microsr.config.sheet import Scan
from microsr.core import provenance
from microsr.formats.readers import read_scan
from microsr.inference.export import export
from microsr.inference.superresolve import superresolve
from microsr.inference.upsamplers import Bicubic
from microsr.preprocessing.volumes import import_as_is
from microsr.volume.storage import open_volume

repeatable = settings(
    derandomize=True, deadline=None, database=None, max_examples=40, phases=[Phase.explicit, Phase.generate]
)
AXES = [
    np.eye(3)[list(order)] * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
"""All 48 ways in which the axes of a volume may lie along those of the patient, half of them left-handed."""


@dataclasses.dataclass
class Grid:
    """Shape (slices, rows, columns), and the way from voxel (x, y, z, 1) to LPS."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    affine: np.ndarray

    @property
    def direction(self) -> np.ndarray:
        return self.affine[:3, :3] / self.spacing


def rotation(w: float, x: float, y: float, z: float) -> np.ndarray:
    """Of a quaternion."""
    w, x, y, z = np.array([w, x, y, z]) / np.linalg.norm([w, x, y, z])
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


@st.composite
def grids(draw: Callable, least: tuple[int, int, int] = (2, 3, 3), most: tuple[int, int, int] = (4, 6, 7)) -> Grid:
    angles = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1)
    oblique = st.builds(lambda q, mirror: rotation(*q) * (1, 1, mirror), angles, st.sampled_from([1, -1]))
    direction = draw(st.one_of(st.sampled_from(AXES), oblique))
    spacing = draw(st.tuples(*[st.floats(0.02, 5)] * 3))
    origin = draw(st.tuples(*[st.floats(-800, 800)] * 3))
    shape = tuple(draw(st.integers(low, high)) for low, high in zip(least, most, strict=True))
    return Grid(shape, spacing, place(spacing, origin, direction))


def write_nifti(array: np.ndarray, grid: Grid, folder: Path) -> Path:
    ras = np.diag([-1, -1, 1, 1]) @ grid.affine
    image = nibabel.Nifti1Image(array.T, ras)
    image.header.set_xyzt_units("mm")
    image.to_filename(folder / "a.nii.gz")
    return folder / "a.nii.gz"


def write_nrrd(array: np.ndarray, grid: Grid, folder: Path) -> Path:
    flip = np.diag([-1, -1, 1])
    header = {
        "space": "right-anterior-superior", "space directions": (flip @ grid.affine[:3, :3]).T,
        "space origin": flip @ grid.affine[:3, 3], "space units": ["mm"] * 3,
    }  # fmt: skip
    nrrd.write(str(folder / "a.nrrd"), np.ascontiguousarray(array.T), header)
    return folder / "a.nrrd"


def write_meta(array: np.ndarray, grid: Grid, folder: Path) -> Path:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(grid.spacing), image.SetOrigin(grid.affine[:3, 3]), image.SetDirection(grid.direction.ravel())
    sitk.WriteImage(image, str(folder / "a.mha"))
    return folder / "a.mha"


def write_dicom_series(array: np.ndarray, grid: Grid, folder: Path) -> Path:
    """Without a series number or instance numbers, under names that are in no order."""
    (folder / "dicom").mkdir()
    for z, image in enumerate(array):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = meta.ImplementationClassUID = pydicom.uid.CTImageStorage
        meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = f"1.2.{z + 1}", pydicom.uid.ExplicitVRLittleEndian
        data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        data.is_little_endian, data.is_implicit_VR = True, False
        data.SOPClassUID, data.SOPInstanceUID, data.Modality = pydicom.uid.CTImageStorage, f"1.2.{z + 1}", "CT"
        data.SeriesInstanceUID, data.StudyInstanceUID = "1.2.91", "1.2.92"
        data.ImageOrientationPatient = [f"{v:.12f}"[:16] for v in (*grid.direction[:, 0], *grid.direction[:, 1])]
        data.ImagePositionPatient = [f"{v:.10f}"[:16] for v in (grid.affine @ (0, 0, z, 1))[:3]]
        data.PixelSpacing = [f"{grid.spacing[i]:.12f}"[:16] for i in (1, 0)]
        data.SliceThickness = f"{grid.spacing[2]:.12f}"[:16]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.Rows, data.Columns = image.shape
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation, data.RescaleSlope, data.RescaleIntercept = 15, 1, 1, 0
        data.PixelData = image.tobytes()
        data.save_as(folder / "dicom" / f"{(5 * z) % 7}", write_like_original=False)
    return folder / "dicom"


WRITERS = {"nifti": write_nifti, "nrrd": write_nrrd, "metaimage": write_meta, "dicom": write_dicom_series}


def by_sitk(path: Path) -> Image:
    image = sitk.ReadImage(str(path))
    affine = place(image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return Image(sitk.GetArrayFromImage(image).astype(float), image.GetSpacing(), affine)


READERS = {
    ".nii": by_nibabel, ".nii.gz": by_nibabel, ".nrrd": by_nrrd, ".mha": by_sitk, "": by_pydicom,
}  # fmt: skip


def indices(shape: tuple[int, int, int]) -> np.ndarray:
    """Of all voxels, (x, y, z, 1), as columns, in the order of the array."""
    z, y, x = np.indices(shape).reshape(3, -1)
    return np.stack([x, y, z, np.ones_like(x)])


@pytest.mark.parametrize("kind", WRITERS)
@repeatable
@given(data=st.data())
def test_each_value_is_where_another_library_put_it(kind, data):
    grid = data.draw(grids())
    array = np.random.default_rng(1).permutation(np.prod(grid.shape)).reshape(grid.shape).astype(np.int16)
    places = (grid.affine @ indices(grid.shape))[:3, np.argsort(array.ravel())]
    first = data.draw(st.integers(0, grid.shape[0] - 1))
    with tempfile.TemporaryDirectory() as folder:
        path = WRITERS[kind](array, grid, Path(folder))
        whole = read_scan(Scan(path=str(path)))
        part = read_scan(Scan(path=str(path), slices=f"{first}:"))
        found = np.asarray(whole.array)
        points = np.stack([whole.point((z, y, x)) for x, y, z, _ in indices(whole.shape).T])[np.argsort(found.ravel())]
        tolerance = 2e-3 * min(grid.spacing) + 1e-6 * np.abs(places).max()
        assert np.array_equal(np.sort(found.ravel()), np.arange(array.size))
        assert np.abs(points.T - places).max() < tolerance
        assert np.array_equal(np.asarray(part.array), found[first:])
        assert part.point((0, 0, 0)) == pytest.approx(whole.point((first, 0, 0)), abs=1e-9)


def slopes(affine: np.ndarray, shape: tuple[int, int, int], grid: Grid) -> np.ndarray:
    """HU that rise evenly along the columns, rows and slices of `grid`, at the voxels of another one."""
    x, y, z, _ = np.linalg.inv(grid.affine) @ affine @ indices(shape)
    return (37 * x - 53 * y + 211 * z - 700).reshape(shape)


@pytest.fixture(scope="module")
def _without_git():
    """A record of each of many runs need not ask git."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "_git", lambda *_: None)
        yield


@pytest.mark.usefixtures("_without_git")
@pytest.mark.parametrize("ending", READERS)
@settings(repeatable, max_examples=6)
@given(data=st.data())
def test_a_superresolved_voxel_is_where_its_scan_is(ending, data):
    """The scan's HU are even slopes, so the mean of 8 x 8 super-resolved pixels is the slope at their centre."""
    grid = data.draw(grids((2, 9, 8), (4, 11, 12)))
    kind = data.draw(st.sampled_from(list(WRITERS)))
    slices = data.draw(st.sampled_from(["all", "1:", ":2"]))
    rows, columns = (data.draw(st.integers(0, 2)) for _ in range(2))
    array = np.rint(slopes(grid.affine, grid.shape, grid)).astype(np.int16)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = WRITERS[kind](array, grid, folder)
        import_as_is(Scan(path=str(source)), "a", "truth", folder / "in.ome.zarr")
        volume = open_volume(folder / "in.ome.zarr")
        superresolve(folder / "in.ome.zarr", folder / "sr.ome.zarr", Bicubic(), slices, region=f"{rows}:,{columns}:")
        export(folder / "sr.ome.zarr", folder / f"out{ending}")
        image = READERS[ending](folder / f"out{ending}")
        fine = np.array(image.array).reshape(len(image.array), image.array.shape[1] // 8, 8, -1, 8).mean((2, 4))
        centre = image.affine @ np.array([[8, 0, 0, 3.5], [0, 8, 0, 3.5], [0, 0, 1, 0], [0, 0, 0, 1]])
        expected = slopes(centre, fine.shape, grid)
        inner = (slice(None), slice(2, -2), slice(2, -2))
        assert fine.shape[1:] == (volume.shape[1] - rows, volume.shape[2] - columns)
        assert np.abs(fine[inner] - expected[inner]).max() < 2.5, "a twentieth of a pixel"


@pytest.mark.parametrize("kind", ["dicom", "nifti"])
@settings(repeatable, max_examples=15)
@given(
    slope=st.floats(1e-3, 50) | st.floats(-50, -1e-3),
    intercept=st.floats(-5000, 5000),
    stored=st.lists(st.integers(-32768, 32767), min_size=8, max_size=8),
)
def test_slope_and_intercept_are_applied_as_another_library_does(kind, slope, intercept, stored):
    array = np.array(stored, np.int16).reshape(2, 2, 2)
    grid = Grid(array.shape, (1, 1, 1), np.eye(4))
    with tempfile.TemporaryDirectory() as name:
        path = WRITERS[kind](array, grid, Path(name))
        if kind == "dicom":
            for file in path.iterdir():
                data = pydicom.dcmread(file)
                data.RescaleSlope, data.RescaleIntercept = f"{slope:.8g}"[:16], f"{intercept:.8g}"[:16]
                data.save_as(file)
            theirs = by_pydicom(path).array
        else:
            image = nibabel.load(path)
            image = nibabel.Nifti1Image(array.T, image.affine, image.header)
            image.header.set_slope_inter(slope, intercept)
            image.to_filename(path.with_name("b.nii"))
            path = path.with_name("b.nii")
            theirs = by_nibabel(path).array
        assert np.asarray(read_scan(Scan(path=str(path))).array) == pytest.approx(theirs, rel=1e-5, abs=1e-3)
