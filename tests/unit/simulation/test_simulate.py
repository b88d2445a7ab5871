"""The simulated case: tissue in HU, the two scanners, labels and airways that agree with the truth, files that
repeat.
"""

import functools
import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from scipy import ndimage
from scipy.ndimage import uniform_filter
from scipy.special import ndtr

from microsr import cli, config
from microsr.config.sheet import Scan
from microsr.core.errors import UserError
from microsr.evaluation.metrics import scan_in_plane
from microsr.formats.readers import read_scan
from microsr.physics.pooling import average_pool
from microsr.physics.scanner import KERNELS
from microsr.physics.tissues import Tissue
from microsr.simulation import alveoli, simulate
from microsr.simulation.grid import Canvas, Grid
from microsr.simulation.lung import AIR_HU, BLOOD_HU, Lung, Parameters

SMALL = config.Simulate(clinical_size=24, clinical_slices=2, specimen_mm=4.0)
SCANNER = config.Scanner(noise_hu=10.0)
STILL = config.Scanner(noise_hu=0.0)


@functools.cache
def small_lung() -> Lung:
    return Lung(24 * 0.625, 2 * 0.6, np.random.default_rng(3))


@functools.cache
def slab() -> tuple[Lung, config.Simulate, np.ndarray, np.ndarray, np.ndarray]:
    """A lung of 40 mm, its settings, and the scan without noise, truth and tissues of four slices."""
    settings = config.Simulate(clinical_size=64, clinical_slices=4, specimen_mm=8.0)
    lung = Lung(40, 2.4, np.random.default_rng(6))
    scan, known = simulate.scan_slab(lung, settings, STILL)
    return lung, settings, scan, known.truth, known.labels


def simulate_quickly(folder, name, split, seed=1):
    """Simulate a small case with alveoli laid out more coarsely, which is most of its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alveoli, "STEPS", 56)
        simulate.simulate(folder, name, split, seed, SMALL, SCANNER)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """The folder of a small test case."""
    folder = tmp_path_factory.mktemp("simulated")
    simulate_quickly(folder, "test1", "test")
    return folder


def blurred(truth, sigma_mm=0.33):
    return np.stack([ndimage.gaussian_filter(t.astype(np.float32), sigma_mm / 0.078125) for t in truth])


def pure(labels, tissue, sigma_mm=0.33):
    """Where a blur sees hardly anything but this tissue."""
    return blurred(labels == tissue, sigma_mm) > 0.98


def test_the_record_says_the_scale_and_what_grey_is(case):
    record = json.loads((case / "run.json").read_text(encoding="utf-8"))
    assert record["settings"]["scale"] == 8
    assert set(record["drawn"]["micro_grey"]) == {"air", "tissue"}


def test_parameters_are_drawn_from_the_ranges_stated():
    drawn = [Parameters.draw(60, np.random.default_rng(n)) for n in range(200)]
    assert 0.12 <= min(p.tissue_share for p in drawn) < 0.125 and 0.14 < max(p.tissue_share for p in drawn) <= 0.145
    assert all(0.44 <= p.pi10_mm <= 0.49 and 0.62 <= p.terminal_mm <= 0.70 for p in drawn)
    assert all(0.9 <= p.artery_ratio <= 1.15 and 10 <= p.lobule_mm <= 20 for p in drawn)
    assert all(p.tumour_mm <= 3 for p in [Parameters.draw(15, np.random.default_rng(n)) for n in range(20)])


def test_blurred_tissues_have_their_hu():
    _, _, _, truth, labels = slab()
    image = blurred(truth.array)
    parenchyma = image[pure(labels.array, Tissue.PARENCHYMA)]
    assert -880 < parenchyma.mean() < -820
    assert (parenchyma < -950).mean() < 0.003  # no emphysema
    glass = image[pure(labels.array, Tissue.GLASS)]
    assert len(glass) > 300 and np.mean((glass > -700) & (glass < -450)) > 0.9
    tumour = image[pure(labels.array, Tissue.TUMOUR)]
    assert np.quantile(tumour, 0.02) > 0 and np.quantile(tumour, 0.98) < 90
    assert truth.array[labels.array == Tissue.LUMEN].mean() < -900
    assert np.median(truth.array[labels.array == Tissue.VESSEL]) == BLOOD_HU


def test_every_tissue_is_there_and_lies_where_the_truth_shows_it():
    _, _, _, truth, labels = slab()
    assert set(np.unique(labels.array)) == set(map(int, Tissue))
    share = np.bincount(labels.array.ravel()) / (labels.array > 0).sum()
    assert share[Tissue.PARENCHYMA] > 0.7 and 0.02 < share[Tissue.VESSEL] < 0.15
    assert 0.005 < share[Tissue.LUMEN] < 0.08 and 0.001 < share[Tissue.SEPTUM] < 0.02
    for tissue in (Tissue.WALL, Tissue.SEPTUM):
        assert truth.array[labels.array == tissue].mean() > truth.array[labels.array == Tissue.PARENCHYMA].mean() + 400


def test_each_row_of_the_airway_table_is_a_lumen_of_that_width():
    lung, _, scan, truth, labels = slab()
    table = simulate.airway_table(lung, scan)
    row = np.rint((table.y_mm - truth.origin[1]) / truth.spacing[1]).astype(int)
    column = np.rint((table.x_mm - truth.origin[0]) / truth.spacing[0]).astype(int)
    assert np.all(labels.array[table.slice, row, column] == Tissue.LUMEN)
    # of lumens that stand upright and alone, the area says the diameter
    errors = []
    for index, image in enumerate(labels.array):
        regions, _ = ndimage.label(image == Tissue.LUMEN)
        areas = np.bincount(regions.ravel())
        here = regions[row[table.slice == index], column[table.slice == index]]
        for place, crossing in zip(here, table[table.slice == index].itertuples(), strict=True):
            if (here == place).sum() == 1 and crossing.tilt_degrees < 30:
                wide = crossing.diameter_mm / math.sqrt(math.cos(math.radians(crossing.tilt_degrees)))
                errors.append(2 * math.sqrt(areas[place] / math.pi) - wide / truth.spacing[0])
    assert len(errors) > 20
    assert abs(np.median(errors)) < 0.5 and np.quantile(np.abs(errors), 0.8) < 2


def test_a_slab_cuts_many_airways_of_every_width():
    lung, _, scan, _, _ = slab()
    table = simulate.airway_table(lung, scan)
    # 4 slices of 40 mm; the demo has 8 of 60 mm, so at least four times as many
    assert len(table) > 100 and (table.diameter_mm > 0.75).sum() > 15 and table.diameter_mm.max() > 1.2
    assert table.diameter_mm.min() > 0.5
    by_generation = table.groupby("generation")[["diameter_mm", "wall_mm"]].median()
    assert by_generation.diameter_mm.iloc[0] > 1.5 * by_generation.diameter_mm.iloc[-1]
    conducting = table[table.diameter_mm > 0.8]
    pi10 = conducting.wall_mm / conducting.diameter_mm * 10 / math.pi
    assert pi10.between(0.41, 0.52).all()


def test_the_lung_is_closed_off_from_the_image_border_by_soft_tissue():
    lung, *_ = slab()
    grid = Grid.around((0, 0, 0), (0.4, 0.4, 0.3), (4, 100, 100))
    hu = lung.render(grid, foam=False)
    border = np.concatenate([hu[:, 0], hu[:, -1], hu[:, :, 0], hu[:, :, -1]], axis=1)
    assert border.min() > -200 and border.max() < 150
    assert (hu < -400).mean() > 0.6


def test_the_same_place_has_the_same_tissue_whatever_grid_asks():
    lung = small_lung()
    whole = Grid.around((1, 2, 0), (0.08,) * 3, (6, 40, 40))
    part = whole.cut((slice(2, 5), slice(10, 30), slice(5, 25)))
    assert lung.render(part) == pytest.approx(lung.render(whole)[2:5, 10:30, 5:25], abs=0.5)


def test_the_size_of_the_blocks_does_not_change_a_bit(monkeypatch):
    made = []
    for pixels in (5_000_000, 3 * 192 * 192, 1):
        monkeypatch.setattr(simulate, "BLOCK_PIXELS", pixels)
        scan, known = simulate.scan_slab(small_lung(), SMALL, STILL)
        grid = simulate.specimen_grid(small_lung(), SMALL)
        micro, _ = simulate.micro_scan(small_lung(), grid, np.random.default_rng(1))
        made.append([v.array.tobytes() for v in (scan, known.truth, known.thick, known.labels, micro)])
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize("scale", [2, 4])
def test_the_scan_does_not_depend_on_the_scale_and_the_truth_is_the_mean_of_the_finer_one(scale):
    (scan, fine), (same, coarse) = (simulate.scan_slab(small_lung(), SMALL, STILL, s) for s in (8, scale))
    assert np.array_equal(scan.array, same.array)
    for own, finer in ((coarse.truth, fine.truth), (coarse.thick, fine.thick)):
        assert own.shape == (2, 24 * scale, 24 * scale)
        assert np.abs(own.array - np.stack([average_pool(image, 8 // scale) for image in finer.array])).max() <= 1
        assert own.spacing[0] == pytest.approx(0.625 / scale)
    side = 8 // scale
    blocks = fine.labels.array.reshape(2, 24 * scale, side, 24 * scale, side)
    one = (blocks == blocks[:, :, :1, :, :1]).all(axis=(2, 4))
    assert one.mean() > 0.5 and np.array_equal(coarse.labels.array[one], blocks[:, :, 0, :, 0][one])


def scan_of(pattern, scanned_by=STILL, size=24):
    settings = SMALL.model_copy(update={"clinical_slices": 5, "clinical_size": size})

    def draw(grid, labelled):
        return Canvas(grid, np.broadcast_to(pattern(grid), grid.shape).astype(np.float32), labelled)

    return simulate.scan_slab(SimpleNamespace(draw=draw), settings, scanned_by, with_truth=False)[0]


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_edge_is_blurred_by_the_kernel(kernel):
    # 1000 HU step at x = 0; pixel centres at odd multiples of 0.3125 mm
    scan = scan_of(lambda g: np.where(g.x > 0, 0, AIR_HU), config.Scanner(kernel=kernel))
    expected = 1000 * KERNELS[kernel].edge((np.arange(24) - 11.5) * 0.625) - 1000
    assert scan.array[2, 12] == pytest.approx(expected, abs=3)


def test_an_edge_across_slices_is_blurred_by_the_slice_profile():
    column = scan_of(lambda g: np.where(g.z > 0.3, 0, AIR_HU)[:, None, None]).array[:, 12, 12]
    step = 0.6 / 8  # the edge lies on a plane's centre, so it is half a step further up
    expected = 1000 * ndtr(((np.arange(5) - 2) * 0.6 - 0.3 - step / 2) / 0.29) - 1000
    assert column == pytest.approx(expected, abs=2)


def test_what_lies_above_the_nyquist_limit_aliases_instead_of_being_averaged_away():
    # 1 cycle/mm: point samples at 0.625 mm alias to 0.6 cycles/mm with the kernel's MTF at 1 cycle/mm as amplitude
    image = scan_of(lambda g: 400 * np.cos(2 * np.pi * g.x)).array
    x = (np.arange(24) - 11.5) * 0.625
    expected = 400 * KERNELS["lung"].mtf(1.0) * np.cos(2 * np.pi * x)
    assert np.ptp(expected) > 200
    assert image[2, 12, 3:-3] == pytest.approx(expected[3:-3], abs=6)


def test_two_scans_of_one_lung_differ_by_their_noise_only():
    still = scan_of(lambda g: np.full(1, -850.0), size=64)
    assert np.ptp(still.array) < 0.01
    noisy = [
        simulate.with_noise(still, config.Scanner(noise_hu=25.0), np.random.default_rng(n)).array.astype(float)
        for n in (1, 2)
    ]
    assert noisy[0].std() == pytest.approx(25, rel=0.05)
    assert (noisy[0] - noisy[1]).std() == pytest.approx(25 * math.sqrt(2), rel=0.05)
    assert noisy[0].mean() == pytest.approx(-850, abs=2)


def test_uct_has_its_own_grey_scale_noise_and_air_around_a_block():
    grid = Grid.around((0, 0, 0), (0.1,) * 3, (4, 100, 100))
    lung = SimpleNamespace(render=lambda g, offset_hu: np.full(g.shape, BLOOD_HU, np.float32))
    volume, scale = simulate.micro_scan(lung, grid, np.random.default_rng(4))
    contrast = scale["tissue"] - scale["air"]
    centre, corner = volume.array[:, 30:70, 30:70].astype(float), volume.array[:, :3, :3].astype(float)
    assert volume.array.dtype == np.uint16 and volume.unit == "grey"
    assert centre.mean() == pytest.approx(scale["tissue"], abs=0.01 * contrast)
    assert corner.mean() == pytest.approx(scale["air"], abs=0.03 * contrast)
    assert centre.std() / contrast == pytest.approx(math.hypot(0.03, 0.006), abs=0.003)


def test_the_specimens_patches_hold_the_mix_of_the_lungs():
    lung, settings, *_ = slab()
    settings = settings.model_copy(update={"specimen_mm": 14.0})
    grid = simulate.specimen_grid(lung, settings)
    assert grid.shape == (48, 280, 280)
    assert lung.depth_inside(grid.cut((slice(None, None, 8), slice(None, None, 8), slice(None, None, 8)))).min() > 0
    step, patch = 0.4, round(settings.specimen_mm / 2 / 0.4)

    def mean_of_patches(place):
        inside = (lung.depth_inside(place) > 0.4).all(axis=0).astype(float)
        whole = uniform_filter(inside, patch, mode="constant") > 0.999
        return uniform_filter(lung.render(place, foam=False).mean(axis=0), patch)[whole].mean()

    n = round(settings.specimen_mm / step)
    middle = (float(grid.x.mean()), float(grid.y.mean()), 0.0)
    specimen = mean_of_patches(Grid.around(middle, (step,) * 3, (8, n, n)))
    assert specimen == pytest.approx(mean_of_patches(Grid.around((0, 0, 0), (step,) * 3, (8, 97, 97))), abs=50)


def test_a_specimen_is_cut_where_it_is_asked_for():
    lung, settings, *_ = slab()
    grids = {}
    for kind, seed in (("matched", 0), ("random", 1), ("random", 2), ("tumour", 0)):
        chosen = settings.model_copy(update={"specimen": kind})
        grid = simulate.specimen_grid(lung, chosen, np.random.default_rng(seed))
        coarse = (slice(None, None, 8),) * 3
        assert lung.depth_inside(grid.cut(coarse)).min() > 0, "wholly in the lung"
        grids[kind, seed] = (float(grid.x.mean()), float(grid.y.mean()))
    assert len(set(grids.values())) == 4
    away = {key: math.hypot(*(np.array(place) - lung.tumour.centre[:2])) for key, place in grids.items()}
    assert away["tumour", 0] < 2 and away["tumour", 0] < min(away["random", 1], away["random", 2])
    assert simulate.specimen_grid(lung, settings).x.mean() == grids["matched", 0][0], "by no chance"


def test_a_specimen_with_less_air_is_denser_in_its_parenchyma_alone():
    lung, *_ = slab()
    grid = Grid.around((0, 0, 0), (0.1,) * 3, (6, 200, 200))
    canvas = lung.draw(grid, labelled=True)
    denser = lung.render(grid, offset_hu=60.0)
    change = {tissue: (denser - canvas.hu)[canvas.labels == tissue] for tissue in Tissue}
    assert change[Tissue.PARENCHYMA].mean() == pytest.approx(60, abs=6)
    assert abs(change[Tissue.VESSEL].mean()) < 6 and abs(change[Tissue.LUMEN].mean()) < 6
    still, offset = (
        simulate.micro_scan(lung, grid, np.random.default_rng(1), hu)[0].array.astype(float) for hu in (0.0, 60.0)
    )
    scale = simulate.micro_scan(lung, grid, np.random.default_rng(1))[1]
    in_hu = (offset - still).mean() / (scale["tissue"] - scale["air"]) * (BLOOD_HU - AIR_HU)
    assert in_hu == pytest.approx((denser - canvas.hu).mean(), rel=0.15)


def test_a_lung_scanned_again_differs_by_the_scanner_alone(case, tmp_path):
    soft = SCANNER.model_copy(update={"kernel": "B30"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alveoli, "STEPS", 56)
        simulate.scan_again(tmp_path / "same", "test1-same", "test1", 1, SMALL, SCANNER)
        simulate.scan_again(tmp_path / "soft", "test1-soft", "test1", 1, SMALL, soft)
    assert {path.name for path in (tmp_path / "same").iterdir()} == {"clinical.nii.gz", "noise_free.nii.gz", "run.json"}
    one, same, other = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "clinical.nii.gz"))).astype(float)
        for folder in (case, tmp_path / "same", tmp_path / "soft")
    )
    assert np.array_equal(one, same)
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.9 and other.std() < one.std()


@pytest.mark.parametrize("changes", [{"specimen": "random"}, {"micro_offset_hu": 60.0}])
def test_another_specimen_is_that_of_the_same_lung_simulated_so(case, changes, tmp_path):
    settings = SMALL.model_copy(update=changes)
    words = f"--case test1-other --lung test1 --split train --seed 1 --output {tmp_path / 'cut'} "
    words += f"{config.flags(settings, without=config.OF_CASES)} {config.flags(SCANNER)}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alveoli, "STEPS", 56)
        cli.main(["simulate", *words.split()])
        simulate.simulate(tmp_path / "whole", "test1", "train", 1, settings, SCANNER)
    assert {path.name for path in (tmp_path / "cut").iterdir()} == {"micro.nii.gz", "run.json"}
    cut, whole, matched = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "micro.nii.gz")))
        for folder in (tmp_path / "cut", tmp_path / "whole", case)
    )
    assert np.array_equal(cut, whole) and not np.array_equal(cut, matched)


def test_a_specimen_larger_than_the_lung_is_refused_in_one_line(tmp_path):
    large = SMALL.model_copy(update={"specimen_mm": 20.0})
    with pytest.raises(UserError, match=r"specimen_mm: a specimen of 20 mm does not fit"):
        simulate.simulate(tmp_path, "test1", "test", 1, large, SCANNER)


def test_the_repeat_is_the_same_lung_with_fresh_noise(case):
    clinical, again = (sitk.ReadImage(str(case / f"{n}.nii.gz")) for n in ("clinical", "repeat"))
    assert clinical.GetOrigin() == again.GetOrigin() and clinical.GetSpacing() == again.GetSpacing()
    difference = (sitk.GetArrayFromImage(clinical) - sitk.GetArrayFromImage(again)).astype(float)
    assert difference.std() == pytest.approx(10 * math.sqrt(2), rel=0.1)
    assert abs(difference.mean()) < 1


def test_the_dicom_series_is_the_clinical_scan(case):
    one, other = (read_scan(Scan(path=str(case / name))) for name in ("dicom", "clinical.nii.gz"))
    assert np.array_equal(one.array, other.array)
    assert (*one.spacing, *one.origin, *one.direction) == pytest.approx(
        (*other.spacing, *other.origin, *other.direction)
    )


def test_truth_and_labels_overlay_the_clinical_ct(case):
    images = {n: sitk.ReadImage(str(case / f"{n}.nii.gz")) for n in ("clinical", "truth", "labels", "micro")}
    clinical, truth, labels, micro = images.values()
    assert clinical.GetSize() == (24, 24, 2) and truth.GetSize() == (192, 192, 2)
    assert clinical.GetSpacing() == pytest.approx((0.625, 0.625, 0.6))
    assert truth.GetSpacing() == pytest.approx((0.078125, 0.078125, 0.6))
    # the outer edges of the first pixels coincide, and so do the slices
    edge = [c - s / 2 for c, s in zip(clinical.GetOrigin(), clinical.GetSpacing(), strict=True)]
    assert [o - s / 2 for o, s in zip(truth.GetOrigin(), truth.GetSpacing(), strict=True)] == pytest.approx(edge)
    assert (labels.GetSize(), labels.GetOrigin()) == (truth.GetSize(), truth.GetOrigin())
    assert micro.GetSpacing() == pytest.approx((0.05, 0.05, 0.05)) and micro.GetSize() == (80, 80, 24)
    kinds = [image.GetPixelID() for image in images.values()]
    assert kinds == [sitk.sitkInt16, sitk.sitkInt16, sitk.sitkUInt8, sitk.sitkUInt16]
    # and they show the same tissue: the pooled truth follows the clinical CT
    pooled = sitk.GetArrayFromImage(truth).reshape(2, 24, 8, 24, 8).mean(axis=(2, 4))
    assert np.corrcoef(pooled.ravel(), sitk.GetArrayFromImage(clinical).ravel())[0, 1] > 0.97
    columns = ["slice", "x_mm", "y_mm", "diameter_mm", "wall_mm", "tilt_degrees", "generation"]
    assert list(pd.read_csv(case / "airways.csv").columns) == columns


def test_the_thick_truth_is_what_the_scan_sees_in_plane_and_only_noise_is_lacking_in_the_noise_free_one(case):
    images = ("clinical", "noise_free", "thick_truth", "truth")
    clinical, still, thick, thin = (sitk.GetArrayFromImage(sitk.ReadImage(str(case / f"{n}.nii.gz"))) for n in images)
    seen, other = (
        np.stack([scan_in_plane(image, KERNELS[SCANNER.kernel], (0.625, 0.625), 8) for image in truth])
        for truth in (thick, thin)
    )
    middle = np.s_[:, 2:-2, 2:-2]
    assert np.abs(seen - still)[middle].max() < 2, "rounding"
    assert np.abs(other - still)[middle].max() > 50, "a thin slice is not what the scan sees"
    noise = (clinical.astype(float) - still)[still > -900]
    assert noise.std() == pytest.approx(SCANNER.noise_hu, rel=0.1) and abs(noise.mean()) < 4


def test_files_repeat_byte_for_byte_and_cases_differ(case, tmp_path):
    simulate_quickly(tmp_path / "again", "test1", "test")
    simulate_quickly(tmp_path / "other", "train1", "train")
    simulate_quickly(tmp_path / "seed", "test1", "test", seed=2)
    files = [p.relative_to(case) for p in sorted(case.rglob("*")) if p.is_file() and p.name != "run.json"]
    assert len(files) == 10
    for file in files:
        assert (case / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    for name in ("clinical.nii.gz", "micro.nii.gz"):
        one, other, seed = ((folder / name).read_bytes() for folder in (case, tmp_path / "other", tmp_path / "seed"))
        assert one != other and one != seed and other != seed
    written = {p.name for p in (tmp_path / "other").iterdir()}
    assert written == {"clinical.nii.gz", "micro.nii.gz", "dicom", "run.json"}
