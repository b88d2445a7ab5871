"""The metrics themselves are tested: images whose faults are known are scored, and every metric that should see a fault
does.

A small simulated case is the input. Scored are its truth, bicubic interpolation of its clinical CT, another case's
truth, and the truth with one fault each: a planted tumour, a shift by half a pixel, a checkerboard. `SEES` says which
of them a metric must put below the truth, and what the least difference is; `BLIND` which faults it cannot see, as its
docstring admits.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
from scipy.ndimage import fourier_shift

from microsr import config
from microsr.evaluation.evaluate import evaluate
from microsr.evaluation.protocols.truth import Reference
from microsr.physics.tissues import Tissue
from microsr.simulation import simulate
from microsr.volume.storage import Volume, magnified_geometry, write_volume

CHECKERBOARD_HU = 60.0
TUMOUR_MM = 2.5
SLICES = [0, 1, 2]

BICUBIC, OTHER, TUMOUR, SHIFT, CHECKS = "bicubic", "another case", "planted tumour", "half a pixel", "checkerboard"
EVERY = (BICUBIC, OTHER, TUMOUR, SHIFT, CHECKS)

SEES = {
    # metric: (images that score worse than the truth, least difference, lower is better)
    "consistency_rmse": ((OTHER, TUMOUR), 10, True),
    "consistency_scan_rmse": ((OTHER, TUMOUR), 10, True),
    "texture_in_vessels": ((OTHER, CHECKS), 20, True),
    "spectrum_distance": ((BICUBIC,), 1, True),
    "histogram_distance": ((BICUBIC, TUMOUR, CHECKS), 10, True),
    "checkerboard": ((CHECKS,), 1, True),
    "psnr": (EVERY, 5, False),
    "ssim": (EVERY, 0.005, False),
    "ms_ssim": (EVERY, 0.001, False),
    "rmse_parenchyma": (EVERY, 5, True),
    "ssim_parenchyma": (EVERY, 0.005, False),
    "rmse_lumen": ((BICUBIC, OTHER, SHIFT, CHECKS), 5, True),
    "rmse_wall": ((BICUBIC, OTHER, SHIFT, CHECKS), 5, True),
    "rmse_vessel": ((BICUBIC, OTHER, SHIFT, CHECKS), 5, True),
    "measured_rmse": ((BICUBIC, OTHER, TUMOUR), 10, True),
    "null_rmse": (EVERY, 5, True),
    "small_lost": ((BICUBIC, OTHER), 0.1, True),
    "small_lost_0.3-0.625": ((BICUBIC, OTHER), 0.1, True),
    "small_invented": ((OTHER,), 0.01, True),
    "small_invented_0.3-0.625": ((OTHER,), 0.1, True),
    "lesions_invented": ((TUMOUR,), 1, True),
    "tumour_border_error_um": ((BICUBIC, OTHER, SHIFT), 5, True),
    "wall_error_um": ((BICUBIC, OTHER, SHIFT), 10, True),
    "bronchiole_detected": ((BICUBIC, OTHER), 0.5, False),
    "smallest_bronchiole": ((BICUBIC, OTHER), 0.1, True),
}
BLIND = {
    # metric: (images that score as well as the truth, largest difference)
    "spectrum_distance": ((OTHER, TUMOUR, SHIFT, CHECKS), 0.05),
    "histogram_distance": ((OTHER, SHIFT), 10),
    "mean_shift": ((SHIFT, CHECKS), 1),
    "checkerboard": ((OTHER, TUMOUR, SHIFT), 0.3),
    "measured_rmse": ((CHECKS,), 1),
    "lesions_lost": ((BICUBIC, TUMOUR, SHIFT, CHECKS), 0),
    "lesions_invented": ((BICUBIC, SHIFT, CHECKS), 0),
    "bronchiole_detected": ((SHIFT, CHECKS), 0.02),
}


@dataclass
class Case:
    """A simulated test case in memory; the lung mask is that of its labels."""

    clinical: Volume
    truth: Volume
    labels: np.ndarray
    airways: Path

    @property
    def mask(self):
        slices, rows, columns = self.clinical.shape
        return (self.labels != Tissue.OUTSIDE).reshape(slices, rows, 8, columns, 8).all(axis=(2, 4))


def simulated(folder, name):
    settings = config.Simulate(clinical_size=64, clinical_slices=len(SLICES), specimen_mm=8)
    simulate.simulate(folder / name, name, "test", 1, settings, config.Scanner())
    clinical, truth, labels = (sitk.ReadImage(folder / name / f"{n}.nii.gz") for n in ("clinical", "truth", "labels"))
    volumes = [
        Volume(sitk.GetArrayFromImage(image), image.GetSpacing(), image.GetOrigin()) for image in (clinical, truth)
    ]
    return Case(*volumes, sitk.GetArrayFromImage(labels), folder / name / "airways.csv")


def planted(case):
    """The truth with a ball of tumour in the parenchyma that has fewest vessels."""
    spacing = case.truth.spacing
    side = int(2 * TUMOUR_MM / spacing[0])
    solid = np.cumsum(np.cumsum((case.labels != Tissue.PARENCHYMA).sum(axis=0), axis=0), axis=1)
    box = solid[side:, side:] - solid[:-side, side:] - solid[side:, :-side] + solid[:-side, :-side]
    row, column = np.array(np.unravel_index(np.argmin(box), box.shape)) + side // 2
    z, y, x = np.indices(case.truth.shape)
    distance = np.sqrt(((z - 1) * spacing[2]) ** 2 + ((y - row) ** 2 + (x - column) ** 2) * spacing[0] ** 2)
    return np.where(distance < TUMOUR_MM, 40, case.truth.array)


def images(case, other):
    pixels = torch.from_numpy(case.clinical.array.astype(np.float32))[:, None]
    shifted = [np.fft.ifft2(fourier_shift(np.fft.fft2(image), (0.5, 0))).real for image in case.truth.array]
    checks = (-1.0) ** np.indices(case.truth.shape)[1:].sum(axis=0)
    return {
        "truth": case.truth.array,
        BICUBIC: torch.nn.functional.interpolate(pixels, scale_factor=8, mode="bicubic")[:, 0].numpy(),
        OTHER: other.truth.array,
        TUMOUR: planted(case),
        SHIFT: np.stack(shifted),
        CHECKS: case.truth.array + CHECKERBOARD_HU * checks,
    }


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Metric by image."""
    folder = tmp_path_factory.mktemp("case")
    case, other = simulated(folder, "one"), simulated(folder, "two")
    write_volume(folder / "clinical", case.clinical, case.mask)
    write_volume(folder / "truth", case.truth)
    write_volume(folder / "labels", Volume(case.labels, **magnified_geometry(case.clinical), unit="label"))
    write_volume(folder / "micro", other.truth, other.labels != Tissue.OUTSIDE)
    reference = Reference(folder / "truth", folder / "labels", case.airways)
    found = {}
    for name, array in images(case, other).items():
        write_volume(folder / "sr", Volume(array, **magnified_geometry(case.clinical), attributes={"slices": SLICES}))
        paths = folder / "sr", folder / "clinical", [folder / "micro"], folder / "metrics.csv"
        evaluate(("one", "m", "t", "1"), *paths, config.Evaluate(), config.Scanner(), reference)
        found[name] = pd.read_csv(folder / "metrics.csv").set_index("metric")["value"]
    return pd.DataFrame(found)


def never_is_worst(values):
    """A diameter that is never detected is larger than any."""
    return values.fillna(np.inf)


@pytest.mark.parametrize("metric", SEES)
def test_a_metric_puts_the_faults_that_it_should_see_below_the_truth(scores, metric):
    names, least, lower = SEES[metric]
    values = never_is_worst(scores.loc[metric])
    worse = (values - values["truth"]) * (1 if lower else -1)
    assert (worse[list(names)] >= least).all(), scores.loc[metric].to_string()


@pytest.mark.parametrize("metric", BLIND)
def test_a_metric_does_not_see_what_it_says_it_cannot(scores, metric):
    names, largest = BLIND[metric]
    values = scores.loc[metric]
    assert (np.abs(values[list(names)] - values["truth"]) <= largest).all(), values.to_string()


def test_the_truth_gets_the_best_mark_of_every_metric_against_it(scores):
    truth = scores["truth"]
    assert truth["psnr"] == np.inf
    assert truth[["ssim", "ms_ssim"]].tolist() == pytest.approx([1, 1])
    assert truth["bronchiole_detected"] >= 0.98
    zero = [m for m in scores.index if m.startswith(("rmse_", "small_", "lesions_")) or m.endswith(("_um", "l_rmse"))]
    assert len(zero) > 10
    assert (truth[zero].fillna(0) == 0).all(), truth[zero].to_string()


def test_the_two_parts_of_the_error_are_the_error(scores):
    """The range of 1400 HU divided by 10^(PSNR / 20) is the root mean square error."""
    for name in EVERY:
        whole = 1400 / 10 ** (scores.loc["psnr", name] / 20)
        parts = np.hypot(scores.loc["measured_rmse", name], scores.loc["null_rmse", name])
        assert parts == pytest.approx(whole, rel=1e-3)
