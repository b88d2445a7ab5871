"""Distances between distributions: formulas by hand, and windows from the right places."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import gaussian_filter

from microsr import cli
from microsr.core.errors import UserError
from microsr.evaluation import tissue_features
from microsr.evaluation.protocols import distribution
from microsr.evaluation.protocols.distribution import frechet_distance, kernel_distance
from microsr.volume.storage import Volume, magnified_geometry, write_volume

pytestmark = pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")


def column(*values):
    return np.array(values, float)[:, None]


def test_frechet_distance_of_equal_spread_is_the_squared_distance_of_the_means():
    assert frechet_distance(column(0, 2), column(3, 5)) == pytest.approx(9)
    two = np.array([[0, 0], [2, 1], [1, 3]], float)
    assert frechet_distance(two, two + np.array([3, 4])) == pytest.approx(25)


def test_frechet_distance_of_equal_means_is_the_squared_difference_of_the_spreads():
    # variances 2 and 8: 2 + 8 - 2 sqrt(16) = 2
    assert frechet_distance(column(-1, 1), column(-2, 2)) == pytest.approx(2)


def test_frechet_distance_sees_a_correlation_that_no_single_feature_shows():
    line = np.array([[-1, -1], [1, 1], [0, 0]], float)
    assert frechet_distance(line, line * (1, -1)) == pytest.approx(4)  # traces 2 + 2, the product of covariances is 0


def test_kernel_distance_by_hand():
    # kernel (xy + 1)^3: k(0,0) = 1, k(1,1) = 8, k(0,1) = 1, so 1 + 8 - 2
    assert kernel_distance(column(0, 0), column(1, 1)) == pytest.approx(7)


def test_kernel_distance_of_one_distribution_scatters_about_0():
    rng = np.random.default_rng(0)
    found = [kernel_distance(rng.normal(size=(200, 4)), rng.normal(size=(200, 4))) for _ in range(12)]
    assert min(found) < 0 < max(found)
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(12)
    assert kernel_distance(rng.normal(size=(200, 4)), rng.normal(1, 1, size=(200, 4))) > 20 * np.std(found)


def grain(seed, shape, sigma=1.0):
    found = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), (0, sigma, sigma))
    return np.rint(-850 + 80 * found / found.std())


class Case:
    """A lung of 2 slices (20x20 clinical pixels, in columns 2 to 18) and uCT of the same texture, 12 slices."""

    def __init__(self, folder):
        self.folder = folder
        self.ct = Volume(np.full((2, 20, 20), -850.0), (0.625, 0.625, 0.6))
        self.lung = np.zeros((2, 20, 20), bool)
        self.lung[:, :, 2:18] = True
        self.micro = grain(1, (12, 96, 96))
        self.specimen = np.ones(self.micro.shape, bool)
        torch.manual_seed(0)
        network = tissue_features.TissueNetwork((-1000, 400))
        facts = {"window_hu": [-1000, 400], "features": tissue_features.FEATURES}
        content = {"format": tissue_features.FORMAT, "version": tissue_features.VERSION, "facts": facts}
        torch.save({**content, "weights": network.state_dict()}, folder / "features.pt")

    def run(self, sr, unit="HU", slices=(0, 1)):
        names = {"case": "c", "method": "m", "training_set": "pooled", "seed": "1"}
        paths = {n: str(self.folder / n) for n in ("superresolved", "clinical", "micro", "features.pt")}
        write_volume(
            paths["superresolved"], Volume(sr, **magnified_geometry(self.ct, 8), attributes={"slices": list(slices)})
        )
        write_volume(paths["clinical"], self.ct, self.lung)
        write_volume(paths["micro"], Volume(self.micro, (0.078,) * 3, unit=unit), self.specimen)
        output = self.folder / "out" / "t.csv"
        flags = [a for k, v in (names | paths).items() for a in (f"--{k.removesuffix('.pt')}", v)]
        cli.main(["evaluate", "distribution", *flags, "--debug", "--output", str(output)])
        table = pd.read_csv(output)
        assert set(table["protocol"]) == {"distribution"}
        assert (output.parent / "t.run.json").exists()
        return dict(zip(table["metric"], table["value"], strict=True))


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path)


def test_the_same_texture_is_near_the_floor_and_another_is_far(case):
    same, other = case.run(grain(2, (2, 160, 160))), case.run(grain(2, (2, 160, 160), 3.0))
    for name in ("frechet_distance_tissue_features", "kernel_distance_tissue_features"):
        floor = same[f"{name}_floor"]
        assert floor == other[f"{name}_floor"]  # it is the uCT's own
        assert abs(same[name]) < 0.1 * other[name] and abs(floor) < 0.1 * other[name]
    assert not any("fid" in name.lower() or "inception" in name.lower() for name in same)


def test_only_the_lung_and_the_specimen_count(case):
    sr = grain(2, (2, 160, 160))
    plain = case.run(sr)
    sr[:, :, :16] = sr[:, :, 144:] = 40
    assert case.run(sr) == plain
    case.specimen[:, 80:] = False
    inside = case.run(sr)
    case.micro[:, 80:] = 40
    assert case.run(sr) == inside != plain


def test_dense_windows_are_left_out(case):
    sr = grain(2, (2, 160, 160))
    case.ct.array[:, :8] = 40  # a tumour in the input: no window lies mostly in it
    plain = case.run(sr)
    sr[:, :24] = 40  # nor shows what is deep inside it
    assert case.run(sr) == plain


class BySlice:
    """An array that can be read slice by slice only."""

    def __init__(self, array):
        self._array, self.shape = array, array.shape

    def __getitem__(self, z):
        assert isinstance(z, int)
        return self._array[z]

    def __array__(self, *how, **more):
        raise AssertionError("all slices at once")


def test_memory_does_not_grow_with_the_slices(case, peak_memory):
    def peak(slices):
        case.ct = Volume(np.full((slices, 64, 64), -850.0), (0.625, 0.625, 0.6))
        case.lung = np.ones((slices, 64, 64), bool)
        sr = np.resize(grain(2, (1, 512, 512)), (slices, 512, 512))
        return peak_memory(lambda: case.run(sr, slices=range(slices)))

    assert peak(24) - peak(8) < 16 * 2 * 64 * 64, "bytes, less than the input as int16"


def test_the_halves_of_the_floor_share_no_pixel():
    (_, first), (_, second) = distribution._halves(np.ones((5, 8, 8)))
    assert (list(first), list(second)) == ([0, 1, 2], [3, 4])
    one = np.zeros((3, 8, 8))
    one[1, :, 2:] = 1
    (left, slices), (right, _) = distribution._halves(BySlice(one))
    assert slices == [1] and left[1].sum() == right[1].sum() == 24
    assert left[1][:, 4].all() and right[1][:, 5].all()


def test_a_pair_that_does_not_belong_together_is_refused(case):
    with pytest.raises(UserError, match="says they are"):
        case.run(grain(2, (2, 160, 160)), slices=(0, 2))
    with pytest.raises(UserError, match="unit 'grey'"):
        case.run(grain(2, (2, 160, 160)), unit="grey")
    case.specimen[:, 30:] = False
    with pytest.raises(UserError, match=r"micro: its mask .* has no room for a window of 32x32"):
        case.run(grain(2, (2, 160, 160)))
