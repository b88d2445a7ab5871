"""A specimen's uCT in its clinical CT: the truth of a simulated lung is met, in place; the wrong way round is told."""

import json
import logging

import numpy as np
import pytest
import SimpleITK as sitk
from skimage.registration import phase_cross_correlation

from microsr import cli
from microsr.config import ClinicalVolume, MicroVolume, Scanner, Simulate
from microsr.config.sheet import Scan
from microsr.core.errors import UserError
from microsr.physics.moments import Moments
from microsr.preprocessing.registered import truth
from microsr.preprocessing.registered.transform import Affine, read_transform
from microsr.preprocessing.registered.truth import Outputs, lay_over
from microsr.preprocessing.volumes import import_clinical, import_micro
from microsr.simulation.simulate import simulate
from microsr.volume.storage import Volume, magnified_geometry, open_mask, open_volume, write_volume

SCANNER = Scanner()


def rigid(angles=(0.08, -0.05, 0.4), shift=(12.0, -30.0, 55.0)):
    transform = sitk.Euler3DTransform()
    transform.SetCenter((3.0, -2.0, 1.0))
    transform.SetRotation(*angles)
    transform.SetTranslation(shift)
    return transform


def save(transform, path):
    sitk.WriteTransform(transform, str(path))
    return path


@pytest.fixture(scope="module")
def lung(tmp_path_factory):
    """A simulated lung, scanned; the uCT of its specimen lies elsewhere, as a scanner of uCT has it."""
    folder = tmp_path_factory.mktemp("lung")
    settings = Simulate(
        clinical_size=40, clinical_slices=6, micro_spacing_mm=0.07, specimen_mm=12, slice_spacing_mm=0.6
    )
    simulate(folder, "test1", "test", 3, settings, SCANNER)
    micro, back = sitk.ReadImage(str(folder / "micro.nii.gz")), rigid().GetInverse()
    centre = json.loads((folder / "run.json").read_text(encoding="utf-8"))["drawn"]["specimen_centre_mm"]
    half = np.multiply(np.array(micro.GetSize()) - 1, micro.GetSpacing()) / 2
    micro.SetOrigin(back.TransformPoint((np.array(centre) - half).tolist()))
    turned = np.reshape(sitk.Euler3DTransform(rigid()).GetMatrix(), (3, 3)).T @ np.reshape(micro.GetDirection(), (3, 3))
    micro.SetDirection(turned.ravel().tolist())
    sitk.WriteImage(micro, str(folder / "moved.nrrd"))
    import_clinical(
        Scan(path=str(folder / "clinical.nii.gz")),
        "a",
        ClinicalVolume(mask="none", organ="lung"),
        folder / "c.ome.zarr",
    )
    import_micro(
        Scan(path=str(folder / "moved.nrrd")), "a", MicroVolume(), folder / "m.ome.zarr", folder / "c.ome.zarr"
    )
    return folder


def run(lung, transform, folder):
    outputs = Outputs(folder / "truth.ome.zarr", folder / "thick_truth.ome.zarr")
    lay_over(lung / "m.ome.zarr", lung / "c.ome.zarr", transform, "a", SCANNER, outputs)
    return [(open_volume(path), open_mask(path)) for path in outputs]


def test_the_specimen_s_uct_is_the_truth_in_its_place(lung, tmp_path):
    found = run(lung, save(rigid(), tmp_path / "t.tfm"), tmp_path)
    for (volume, mask), name in zip(found, ("truth", "thick_truth"), strict=True):
        expected = sitk.GetArrayFromImage(sitk.ReadImage(str(lung / f"{name}.nii.gz")))
        assert volume.shape == expected.shape and volume.attributes["region"] == "specimen"
        z = 3
        region = mask[z] > 0
        assert 0.1 < region.mean() < 0.5 and (volume.array[z][~region] == -1000).all()
        image, true = volume.array[z].astype(float), expected[z].astype(float)
        assert np.corrcoef(image[region], true[region])[0, 1] > 0.9, "the uCT has noise and rings of its own"
        rows, columns = (np.flatnonzero(region.sum(axis=a) > 100) for a in (1, 0))
        box = (slice(rows[30], rows[30] + 80), slice(columns[30], columns[30] + 80))
        assert region[box].all()
        shift, *_ = phase_cross_correlation(true[box], image[box], upsample_factor=100)
        assert np.abs(shift).max() < 0.1, "fine pixels"
    facts = json.loads((tmp_path / "truth.run.json").read_text())
    assert facts["step"] == "volumes.registered" and facts["correlation"] > 0.8


def test_the_wrong_way_round_is_told(lung, tmp_path, caplog):
    with pytest.raises(
        UserError, match=r"does not bring .* its inverse does: micro_to_clinical maps points of the uCT"
    ):
        run(lung, save(rigid().GetInverse(), tmp_path / "t.tfm"), tmp_path)
    assert not (tmp_path / "truth.ome.zarr").exists()
    with caplog.at_level(logging.INFO):
        run(lung, save(rigid(), tmp_path / "right.tfm"), tmp_path)
    assert "correlates with the CT by 0.9" in caplog.text or "correlates with the CT by 0.8" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        run(lung, save(rigid(shift=(15.0, -27.0, 55.0)), tmp_path / "off.tfm"), tmp_path)
    assert "is it the registration of these two, from uCT to CT?" in caplog.text, "4 mm off"


def ramp(folder, spacing, size, mask=None):
    """A uCT of which HU = 3 x + 2 y - 5 z, mm."""
    volume = Volume(np.zeros((size,) * 3), spacing, (-4.0, -4.0, -4.0))
    z, y, x = np.indices((size,) * 3)
    points = np.asarray(volume.origin) + np.stack([x, y, z], axis=-1) * spacing
    hu = 300 * points[..., 0] + 200 * points[..., 1] - 500 * points[..., 2]
    inside = np.ones(hu.shape, bool) if mask is None else mask
    write_volume(folder / "m.ome.zarr", Volume(hu, volume.spacing, volume.origin), inside)


@pytest.mark.parametrize("case", ["matched", "native", "tiles", "similarity"])
def test_a_ramp_stays_one_whatever_the_voxels_and_the_tiles(tmp_path, case, monkeypatch):
    """Cubic splines and means keep what is linear; native voxels of a third of a fine pixel are averaged."""
    ramp(tmp_path, (0.1,) * 3 if case != "native" else (0.033,) * 3, 80 if case != "native" else 100)
    if case == "tiles":
        monkeypatch.setattr(truth, "MOST_VOXELS", 1 << 16)
    ct = Volume(np.zeros((5, 16, 16)), (0.8, 0.8, 1.0), (-8.0, -6.0, -3.0))
    write_volume(tmp_path / "c.ome.zarr", ct, np.ones(ct.shape))
    transform = rigid((0.3, -0.2, 0.5), (0.3, 0.2, -0.1))
    if case == "similarity":
        similar = sitk.Similarity3DTransform()
        similar.SetMatrix((0.9 * np.reshape(transform.GetMatrix(), (3, 3))).ravel().tolist())
        similar.SetCenter(transform.GetCenter())
        similar.SetTranslation(transform.GetTranslation())
        transform = sitk.CompositeTransform([similar])
    (volume, mask), (thick, known) = run(tmp_path, save(transform, tmp_path / "t.h5"), tmp_path)
    fine = Volume(None, **magnified_geometry(ct, 8))
    count = 0
    for z, r, c in np.argwhere(mask[:] > 0)[:: 97 if case != "native" else 17]:
        x, y, depth = transform.GetInverse().TransformPoint(fine.point((z, r, c)))
        expected = 300 * x + 200 * y - 500 * depth
        high = 3.4 if case != "native" else -1.2
        edge = not -3.5 < min(x, y, depth) <= max(x, y, depth) < high
        assert edge or volume.array[z][r, c] == pytest.approx(expected, abs=2)
        assert edge or not known[z][r, c] or thick.array[z][r, c] == pytest.approx(expected, abs=12)
        count += not edge
    assert count > 20 and 0 < (known[:] > 0).sum() < (mask[:] > 0).sum()


def test_a_specimen_reaches_half_a_voxel_beyond_the_middles_of_its_outermost_ones():
    """Its two voxels a side are the fine grid's, moved by 4.75: from 4.25 to 6.25 of its indices."""
    micro, fine = Volume(np.zeros((2, 2, 2)), (1.0,) * 3), Volume(None, (1.0,) * 3, (-4.75,) * 3)
    assert truth._overlap(micro, Affine(np.eye(3), np.zeros(3)), fine, (20, 20, 20)) == [(4, 8)] * 3
    assert truth._overlap(micro, Affine(np.eye(3), np.zeros(3)), fine, (20, 20, 4)) is None


def test_what_is_no_linear_transform_is_refused(tmp_path):
    bent = sitk.BSplineTransform(3)
    bent.SetTransformDomainMeshSize((2, 2, 2))
    bent.SetTransformDomainPhysicalDimensions((500, 500, 500))
    bent.SetTransformDomainOrigin((-100, -200, -100))
    bent.SetParameters([0.5 * (n % 7) for n in range(len(bent.GetParameters()))])
    (tmp_path / "no.tfm").write_text("no transform")
    for transform, said in [
        (bent, "bends the specimen"),
        (sitk.ScaleTransform(3, (1000.0,) * 3), "scales the specimen by 1e"),
        (sitk.ScaleTransform(3, (1.0, 1.0, -1.0)), "scales the specimen by -1 "),
        (sitk.Euler2DTransform(), "no ITK transform of points in 3-D"),
    ]:
        with pytest.raises(UserError, match=said):
            read_transform(save(transform, tmp_path / "t.h5"))
    for path in (tmp_path / "no.tfm", tmp_path / "none.tfm"):
        with pytest.raises(UserError, match="no ITK transform of points in 3-D"):
            read_transform(path)
    for ending in ("tfm", "txt", "h5", "mat"):
        affine = sitk.AffineTransform(3)
        affine.SetMatrix((1, 0.1, 0, 0, 1.1, 0, 0.2, 0, 0.9))
        affine.SetTranslation((5, 6, 7))
        found = read_transform(save(affine, tmp_path / f"t.{ending}"))
        assert found(np.array([1.0, 2.0, 3.0])) == pytest.approx(affine.TransformPoint((1.0, 2.0, 3.0)))


def test_a_uct_that_is_no_truth_is_refused(tmp_path):
    ramp(tmp_path, (0.1,) * 3, 20)
    ct = Volume(np.zeros((5, 16, 16)), (0.4, 0.4, 1.0), (-8.0, -6.0, -3.0))
    write_volume(tmp_path / "c.ome.zarr", ct, np.ones(ct.shape))
    still = save(sitk.Euler3DTransform(), tmp_path / "t.tfm")
    with pytest.raises(UserError, match=r"voxels of 0\.1 mm are coarser than the truth's pixels of 0\.05 mm"):
        run(tmp_path, still, tmp_path)
    write_volume(tmp_path / "c.ome.zarr", Volume(ct.array, (0.8, 0.8, 1.0), ct.origin), np.zeros(ct.shape))
    with pytest.raises(UserError, match=r"brings nothing of the specimen of .* into the mask of"):
        run(tmp_path, still, tmp_path)
    lone = Volume(np.zeros((3, 20, 20)), (0.05,) * 3, attributes={"independent_slices": True})
    write_volume(tmp_path / "m.ome.zarr", lone, np.ones(lone.shape))
    with pytest.raises(UserError, match="its slices do not belong together"):
        run(tmp_path, still, tmp_path)


def test_the_command_brings_a_specimen_in(tmp_path):
    ramp(tmp_path, (0.1,) * 3, 60)
    ct = Volume(np.zeros((5, 16, 16)), (0.8, 0.8, 1.0), (-6.0, -6.0, -3.0))
    write_volume(tmp_path / "c.ome.zarr", ct, np.ones(ct.shape))
    still = save(sitk.Euler3DTransform(), tmp_path / "t.tfm")
    words = ["--micro", tmp_path / "m.ome.zarr", "--clinical", tmp_path / "c.ome.zarr", "--micro_to_clinical", still]
    cli.main(list(map(str, ["volumes", "registered", "--case", "a", *words, "--output", tmp_path / "t.ome.zarr"])))
    known, record = open_mask(tmp_path / "t.ome.zarr")[:] > 0, json.loads((tmp_path / "t.run.json").read_text())
    assert record["truth_pixels"] == known.sum() > 0
    whole = known.reshape(5, 16, 8, 16, 8).all(axis=(2, 4))
    assert record["clinical_pixels"] == whole.sum() > 0
    # From -4 to 1.9 mm, and half a voxel beyond, of slices at -3, -2, ..., 1 mm.
    assert record["slices"] == [0, 1, 2, 3, 4] == list(np.flatnonzero(known.any(axis=(1, 2))))
    assert np.isnan(record["correlation"]), "of a CT that is the same everywhere"


def test_the_correlation_of_slices_is_that_of_all_their_pixels():
    random = np.random.default_rng(0)
    ct = random.normal(-800, 100, 90)
    true = 0.5 * ct + random.normal(0, 40, 90)
    sums = [Moments() for _ in range(5)]
    for part in (slice(0, 30), slice(30, 30), slice(30, 90)):
        truth._look(sums, true[part], ct[part])
    assert truth._correlation(sums) == pytest.approx(np.corrcoef(true, ct)[0, 1])
    assert np.isnan(truth._correlation([Moments() for _ in range(5)])), "of no pixels"


@pytest.mark.parametrize(("rows", "columns"), [((4, 11), (0, 5)), ((0, 5), (4, 11)), ((2, 6), (3, 7))])
def test_a_tile_is_cut_in_two_across_its_longer_side(rows, columns):
    times = np.zeros((12, 12), int)
    halves = truth._halves(rows, columns)
    for (top, bottom), (left, right) in halves:
        times[top:bottom, left:right] += 1
    assert (times[slice(*rows), slice(*columns)] == 1).all() and times.sum() == np.prod(np.diff([rows, columns]))
    sizes = [(bottom - top) * (right - left) for (top, bottom), (left, right) in halves]
    assert len(sizes) == 2 and max(sizes) - min(sizes) <= 5, "an odd row or column belongs to one of them"
