"""Protocol `truth`: what is gathered slice by slice is what it is of the whole, of the right pixels, in the right
unit.
"""

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from microsr.config import Evaluate, Scanner
from microsr.core.errors import UserError
from microsr.evaluation import metrics
from microsr.evaluation.protocols import truth
from microsr.physics.tissues import Tissue
from microsr.volume.storage import Volume, open_volume, write_volume

SIDE, FINE, SLICE_MM = 24, 192, 0.6
SPACING = (0.6 / 8, 0.6 / 8, SLICE_MM)
Y, X = np.indices((FINE, FINE))


def disc(row, column, radius_mm):
    return np.hypot(Y - row, X - column) * SPACING[0] < radius_mm


class Comparison:
    """A truth of three slices with a tumour and an airway; the outer two clinical pixels are chest wall."""

    def __init__(self, folder):
        self.folder = folder
        self.lung = np.pad(np.ones((3, SIDE - 4, SIDE - 4), bool), ((0, 0), (2, 2), (2, 2)))
        self.labels = np.where(np.kron(self.lung, np.ones((1, 8, 8))), Tissue.PARENCHYMA, Tissue.OUTSIDE).astype(
            np.uint8
        )
        self.truth = gaussian_filter(np.random.default_rng(0).normal(0, 200, (3, FINE, FINE)), (0, 1, 1)) - 860
        for z in range(3):
            self.paint(z, disc(60, 60, 2), 40, Tissue.TUMOUR)
            self.paint(z, disc(130, 130, 0.8), 0, Tissue.WALL)
            self.paint(z, disc(130, 130, 0.6), -1000, Tissue.LUMEN)
        self.truth = np.rint(self.truth).astype(np.int16)
        self.crossings = pd.DataFrame(
            {"slice": z, "x_mm": 130 * SPACING[0], "y_mm": 130 * SPACING[1], "diameter_mm": 1.2, "wall_mm": 0.2,
             "tilt_degrees": 0.0, "generation": 3} for z in range(3)
        )  # fmt: skip

    def paint(self, z, where, hu, tissue):
        self.truth[z][where], self.labels[z][where] = hu, tissue

    def rows(self, image, slices=(0, 1, 2), labels=True, airways=False, maps=None, thick=None):
        """Values by metric, and the table of airways; image: [len(slices), rows, columns]."""
        slices = list(slices)
        write_volume(self.folder / "truth", Volume(self.truth, SPACING))
        write_volume(self.folder / "labels", Volume(self.labels, SPACING, unit="label"))
        self.crossings.to_csv(self.folder / "airways.csv", index=False)
        if thick is not None:
            write_volume(self.folder / "thick", Volume(thick, SPACING))
        sr = Volume(np.rint(image).astype(np.int16), SPACING, (0.0, 0.0, slices[0] * SLICE_MM))
        reference = truth.Reference(
            self.folder / "truth",
            self.folder / "labels" if labels else None,
            self.folder / "airways.csv" if airways else None,
            None if thick is None else self.folder / "thick",
        )
        found, table = truth.rows(sr, self.folder / "sr", self.lung, slices, reference, Evaluate(), Scanner(), maps)
        assert {protocol for protocol, *_ in found} == {"truth"}
        self.units = {name: unit for _, name, _, unit in found}
        return {name: value for _, name, value, _ in found}, table


@pytest.fixture
def case(tmp_path):
    return Comparison(tmp_path)


def test_each_tissue_has_the_error_of_its_own_pixels(case):
    image = case.truth + 10 * (case.labels == Tissue.PARENCHYMA) - 30 * (case.labels == Tissue.TUMOUR)
    value, table = case.rows(image + 500 * (case.labels == Tissue.OUTSIDE))
    assert value["rmse_parenchyma"] == 10 and value["rmse_tumour"] == 30 and value["rmse_wall"] == 0
    assert np.isnan(value["rmse_vessel"]) and np.isnan(value["ssim_vessel"]) and "rmse_outside" not in value
    assert table is None and "wall_error_um" not in value
    lung = case.labels != Tissue.OUTSIDE
    squares = np.square(image - case.truth)[lung].mean()
    assert value["psnr"] == pytest.approx(10 * np.log10(1400**2 / squares))
    image = image + 500 * ~lung
    maps = [metrics.ssim_map(*pair, 1400) for pair in zip(image, case.truth, lung, strict=True)]
    assert value["ssim"] == pytest.approx(np.stack(maps)[lung].mean(), abs=1e-6)
    assert value["ssim_tumour"] == pytest.approx(np.stack(maps)[case.labels == Tissue.TUMOUR].mean(), abs=1e-6)
    assert case.units["rmse_tumour"] == "HU" and case.units["ssim_tumour"] == "1" and case.units["psnr"] == "dB"


def test_only_what_is_called_thick_is_compared_with_the_mean_over_the_slice_profile(case):
    thick = np.rint(case.truth.mean(axis=0, keepdims=True) + np.zeros((3, 1, 1))).astype(np.int16)
    plain, _ = case.rows(thick, labels=False)
    assert "psnr_thick" not in plain and "ssim_thick" not in plain
    value, _ = case.rows(thick, labels=False, thick=thick)
    assert value["psnr_thick"] == np.inf and value["ssim_thick"] == pytest.approx(1)
    assert {name: value[name] for name in plain} == pytest.approx(plain, nan_ok=True) and plain["psnr"] < 40
    value, _ = case.rows(case.truth, labels=False, thick=thick)
    assert value["psnr"] == np.inf and value["psnr_thick"] == pytest.approx(plain["psnr"])


def test_what_was_measured_and_what_was_made_up_add_up_and_the_map_shows_the_latter(case):
    error = np.random.default_rng(1).normal(0, 60, case.truth.shape)
    image = np.rint(case.truth + error)
    value, _ = case.rows(image, labels=False, maps=case.folder / "maps")
    inside = np.kron(case.lung, np.ones((1, 8, 8))) > 0
    total = np.square(image - case.truth)[inside].mean()
    assert value["measured_rmse"] ** 2 + value["null_rmse"] ** 2 == pytest.approx(total, rel=1e-5)
    assert 3 < value["measured_rmse"] < 9, "1/64 of the error or less, as there are so many more fine pixels"
    made_up = np.asarray(open_volume(case.folder / "maps").array)
    assert np.square(made_up.astype(float)).sum() / inside.sum() == pytest.approx(value["null_rmse"] ** 2, rel=0.01)
    assert np.corrcoef(made_up[inside], (image - case.truth)[inside])[0, 1] > 0.98
    assert "rmse_parenchyma" not in value


def test_the_truth_itself_has_no_error_of_either_kind_and_an_empty_map(case):
    value, _ = case.rows(case.truth + 300 * (case.labels == Tissue.OUTSIDE), maps=case.folder / "maps")
    assert value["measured_rmse"] == value["null_rmse"] == 0
    assert not np.asarray(open_volume(case.folder / "maps").array).any()


def test_of_one_slice_its_own_truth_mask_and_airways_count(case):
    case.lung[1, 12:] = False
    image = case.truth[1].copy()
    image[FINE // 2 :] += 50
    value, table = case.rows(image[None], slices=[1], airways=True)
    assert value["psnr"] == np.inf and value["rmse_parenchyma"] > 0
    assert table["slice"].tolist() == [1] and table["detected"].tolist() == [1]
    assert case.rows(case.truth[:1], slices=[1])[0]["psnr"] < 30


def test_ms_ssim_is_the_mean_over_the_slices_by_their_lung(case):
    case.lung[1:, 12:] = False
    image = case.truth + np.random.default_rng(1).normal(0, 1, case.truth.shape) * np.reshape([200, 50, 0], (3, 1, 1))
    image = np.rint(image)
    masks = np.kron(case.lung, np.ones((1, 8, 8))) > 0
    each = [metrics.ms_ssim_value(*one, 1400) for one in zip(image, case.truth, masks, strict=True)]
    expected = np.average(each, weights=masks.sum(axis=(1, 2)))
    assert case.rows(image, labels=False)[0]["ms_ssim"] == pytest.approx(expected)
    assert each[0] < each[1] < each[2] and abs(np.mean(each) - expected) > 0.001


def test_slices_without_lung_do_not_spoil_the_others(case):
    case.lung[0] = False
    value, _ = case.rows(case.truth + 10, labels=False)
    assert value["measured_rmse"] ** 2 + value["null_rmse"] ** 2 == pytest.approx(100, rel=1e-5)


def test_a_tumour_taken_away_is_lost_and_one_put_there_is_invented(case):
    empty = np.where(case.labels == Tissue.TUMOUR, -860, case.truth)
    other = np.where(disc(60, 130, 2.1) | disc(150, 40, 0.45), 40, empty)
    value, _ = case.rows(other)
    assert (value["lesions_lost"], value["lesions_invented"]) == (1, 1)
    assert value["small_invented_0.625-1"] == 1
    assert np.isnan(value["small_lost"]) and value["small_invented"] == 1, "the tumours are too large"
    assert value["tumour_border_error_um"] == pytest.approx(2000)
    value, _ = case.rows(np.where(disc(60, 130, 1.2), 40, case.truth), airways=True)
    assert (value["lesions_lost"], value["lesions_invented"]) == (0, 0), "2.4 mm are no lesion"
    assert np.isnan(value["small_lost"]) and value["small_invented_1-3"] == 1
    assert value["tumour_border_error_um"] == 0 and value["wall_error_um"] == 0
    assert case.units["lesions_lost"] == "count" and case.units["wall_error_um"] == "um"


def test_a_lumen_too_wide_is_off_by_a_tenth_of_a_millimetre(case):
    image = np.where(disc(130, 130, 0.9), 0, case.truth)
    image = np.where(disc(130, 130, 0.7), -1000, image)
    value, table = case.rows(image, airways=True)
    assert value["wall_error_um"] == pytest.approx(100, abs=30)
    assert len(table) == 3 and value["bronchiole_detected_1.2-1.6"] == 1


def test_labels_belong_to_airways_and_must_be_labels(case):
    with pytest.raises(UserError, match="airways need the truth's labels"):
        case.rows(case.truth, labels=False, airways=True)
    write_volume(case.folder / "grey", Volume(case.labels, SPACING))
    sr, paths = Volume(case.truth, SPACING), truth.Reference(case.folder / "truth", case.folder / "grey")
    with pytest.raises(UserError, match="grey has unit 'HU', metrics need label"):
        truth.rows(sr, case.folder / "sr", case.lung, [0, 1, 2], paths, Evaluate(), Scanner())
    assert paths.paths == [case.folder / "truth", case.folder / "grey"]
