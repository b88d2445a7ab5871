"""Calibration: hu = slope * grey + offset, from two grey values that are known here by hand."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.signal import find_peaks

from microsr.config import Calibration
from microsr.core.errors import UserError
from microsr.preprocessing.calibration import NOTABLE, Sample, Values, first_peak, fit

ALL = np.ones((100, 100), bool)


def fitted(grey, field=ALL, specimen=ALL, **settings):
    return fit(Calibration(**settings), Sample([grey], [field]), [specimen])


def two_phases(air=2000.0, tissue=10000.0, sd=300.0, seed=0):
    """Left half air, right half tissue."""
    rng = np.random.default_rng(seed)
    grey = rng.normal(air, sd, (100, 100))
    grey[:, 50:] = rng.normal(tissue, sd, (100, 50))
    return grey


def test_two_set_points_map_to_air_and_tissue():
    mapping = fitted(two_phases(), method="two_point", air_grey=2000, tissue_grey=10000)
    assert mapping.slope == pytest.approx(1040 / 8000)
    assert mapping(np.array([2000.0, 6000.0, 10000.0])) == pytest.approx([-1000, -480, 40], abs=0.01)
    assert mapping(np.array([2000], np.uint16)).dtype == np.float32


def test_other_targets_are_honoured():
    mapping = fitted(two_phases(), air_grey=2000, tissue_grey=10000, air_hu=-990, tissue_hu=60)
    assert mapping(np.array([2000.0, 10000.0])) == pytest.approx([-990, 60], abs=0.01)


def test_peaks_of_air_and_tissue_are_found_in_noise():
    mapping = fitted(two_phases())
    assert mapping.facts["air_grey"] == pytest.approx(2000, abs=100)
    assert mapping.facts["tissue_grey"] == pytest.approx(10000, abs=100)


def test_peaks_of_whole_numbers_do_not_fall_between_bins():
    mapping = fitted(np.rint(two_phases(20, 120, 5)).astype(np.uint8))
    assert mapping.facts["air_grey"] == pytest.approx(20, abs=2)
    assert mapping.facts["tissue_grey"] == pytest.approx(120, abs=2)


def test_thin_septa_do_not_pull_the_tissue_peak_down():
    """Three quarters of the dense pixels are septa of mixed content; one solid vessel shows pure tissue."""
    grey = two_phases(2000, 2000)
    grey[::4] = 6500
    grey[40:60, 40:60] = np.random.default_rng(1).normal(10000, 300, (20, 20))
    assert fitted(grey).facts["tissue_grey"] == pytest.approx(10000, abs=200)


def test_the_air_peak_is_the_lowest_and_not_that_of_unresolved_parenchyma():
    rng = np.random.default_rng(2)
    grey = rng.normal(3600, 200, (100, 100))
    grey[:, 85:] = rng.normal(2000, 200, (100, 15))
    grey[20:50, 20:50] = rng.normal(10000, 200, (30, 30))
    assert fitted(grey).facts["air_grey"] == pytest.approx(2000, abs=100)


def test_percentiles_are_those_of_the_specimen_alone():
    grey = np.zeros((100, 100))
    specimen = np.zeros((100, 100), bool)
    specimen[:, :50] = True
    grey[specimen] = np.arange(5000)
    grey[~specimen] = 60000
    mapping = fitted(grey, specimen=specimen, method="percentile", low_percentile=5, high_percentile=97)
    assert mapping.facts["low_grey"] == pytest.approx(0.05 * 4999)
    assert mapping.facts["high_grey"] == pytest.approx(0.97 * 4999)
    assert mapping(np.array([0.05, 0.97]) * 4999) == pytest.approx([-1000, 40], abs=0.1)


def test_padding_outside_the_field_does_not_enter():
    grey = two_phases()
    field = ALL.copy()
    field[:30] = False
    padded = np.where(field, grey, 0)
    assert fitted(padded, field, field).facts["air_grey"] == pytest.approx(2000, abs=100)


def test_mean_hu_scales_about_air():
    """Air -1000, tissue 40, half and half: mean -480. Asked for -850: factor 150 / 520 about -1000."""
    grey = np.full((100, 100), 2000.0)
    grey[:, 50:] = 10000
    mapping = fitted(grey, air_grey=2000, tissue_grey=10000, mean_hu=-850)
    assert mapping.facts["mean_hu_before"] == pytest.approx(-480)
    assert mapping(np.array([2000.0, 10000.0])) == pytest.approx([-1000, -1000 + 1040 * 150 / 520], abs=0.1)
    assert mapping(grey).mean() == pytest.approx(-850, abs=0.1)


def test_none_takes_the_values_as_hu():
    mapping = fitted(two_phases(-1000, 40, 20), method="none")
    assert (mapping.slope, mapping.offset) == (1, 0)


def test_inverted_points_and_featureless_volumes_are_refused():
    with pytest.raises(UserError, match="not below that of tissue"):
        fitted(two_phases(), air_grey=9000, tissue_grey=3000)
    with pytest.raises(UserError, match="no contrast"):
        fitted(np.full((100, 100), 5.0))
    dots = np.random.default_rng(0).normal(2000, 20, (100, 100))
    dots[::5, ::5] = 9000
    with pytest.raises(UserError, match=r"no tissue peak.*tissue_grey"):
        fitted(dots)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.int32, np.float32])
def test_counted_values_have_the_percentiles_mean_and_sd_of_all_values(dtype):
    """Few values, so that percentiles lie between them; from the lowest to the highest of the type."""
    rng = np.random.default_rng(0)
    limits = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else np.finfo(np.float16)
    grey = rng.integers(int(limits.min), int(limits.max), (3, 5, 7), endpoint=True).astype(dtype)
    grey[0, 0, :2], grey[1] = (limits.min, limits.max), grey[0]
    inside = rng.random(grey.shape) < 0.7
    inside[0, 0, :2] = True
    values, found = grey[inside].astype(np.float64), Values.of(list(grey), list(inside))
    assert found.size == values.size
    assert found.percentile([0, 3, 50, 97.5, 100]) == pytest.approx(np.percentile(values, [0, 3, 50, 97.5, 100]))
    assert found.mean() == pytest.approx(values.mean()) and found.sd() == pytest.approx(values.std())
    assert found.mean(above=20) == pytest.approx(values[values > 20].mean())


def test_the_first_peak_is_that_of_find_peaks():
    rng = np.random.default_rng(0)
    for _ in range(300):
        length = rng.integers(1, 60)
        curve = ndimage.gaussian_filter1d(rng.random(length) ** 3, rng.random() * 4)
        curve = np.sort(curve)[:: rng.choice([1, -1])] if rng.random() < 0.2 else curve
        peaks, _ = find_peaks(np.pad(curve, 1), prominence=NOTABLE * curve.max())
        assert first_peak(curve) == peaks[0] - 1


def test_the_border_of_a_slice_makes_no_peak():
    """Half of its neighbours are unknown: a dark frame is not taken for air."""
    grey = two_phases()
    grey[[0, -1]] = grey[:, [0, -1]] = 1000
    assert fitted(grey).facts["air_grey"] == pytest.approx(2000, abs=100)
