"""The metrics of the further protocols tell the truth from what is not, each where it should, and not where it cannot.

Six images of one lung: the truth, bicubic interpolation of its scan, another case's truth, the truth with a planted
tumour, the truth shifted by half a pixel, the truth with a checkerboard.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import fourier_shift, gaussian_filter
from scipy.spatial import cKDTree

from microsr import config
from microsr.evaluation import tissue_features
from microsr.evaluation.protocols import distribution, downsampled, repeatability
from microsr.networks.layers import bicubic_upsample
from microsr.physics.pooling import average_pool
from microsr.physics.tissues import Tissue
from microsr.volume.storage import Volume, magnified_geometry, write_volume

SIDE, SLICES = 256, 3
NAMES = ("c", "m", "pooled", "1")
pytestmark = pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")


def lung(seed, slices=SLICES):
    """Alveolar walls between random points, vessels and airways all over: HU and labels [slices, SIDE, SIDE]."""
    rng = np.random.default_rng(seed)
    images, labels = [], []
    pixels = np.stack(np.indices((SIDE, SIDE)), axis=-1)
    for _ in range(slices):
        near = cKDTree(rng.uniform(0, SIDE, (1600, 2))).query(pixels, k=2)[0]
        image = np.where(near[..., 1] - near[..., 0] < 1.5, -550.0, -980.0)
        label = np.full(image.shape, Tissue.PARENCHYMA, np.uint8)
        grid = 16 + 32 * np.indices((8, 8)).reshape(2, -1).T
        for number, (y, x) in enumerate(grid + rng.uniform(-6, 6, grid.shape)):
            distance = np.hypot(pixels[..., 0] - y, pixels[..., 1] - x)
            if number % 3 == 0:
                image[distance < 6], label[distance < 6] = 20, Tissue.WALL
                image[distance < 4], label[distance < 4] = -1000, Tissue.LUMEN
            else:
                image[distance < 3], label[distance < 3] = 40, Tissue.VESSEL
        images.append(gaussian_filter(image, 0.5))
        labels.append(label)
    return np.rint(np.stack(images)), np.stack(labels)


@pytest.fixture(scope="module")
def truth():
    return lung(1)[0]


@pytest.fixture(scope="module")
def images(truth):
    """The six, by name."""
    row, column = np.indices((SIDE, SIDE))
    rng = np.random.default_rng(2)
    scan = average_pool(truth, 8) + rng.normal(0, 20, (SLICES, SIDE // 8, SIDE // 8))
    bicubic = bicubic_upsample(torch.from_numpy(scan)[:, None], 8)[:, 0].numpy()
    shifted = [np.fft.ifft2(fourier_shift(np.fft.fft2(image), (0.5, 0.5))).real for image in truth]
    return {
        "truth": truth,
        "bicubic": bicubic,
        "other": lung(3)[0],
        "tumour": np.where(np.hypot(row - 128, column - 140) < 36, 40, truth),
        "shifted": np.stack(shifted),
        "checkerboard": truth + 100 * (-1.0) ** (row + column),
    }


# What each metric must see, beyond this margin of the truth's own mark, and what it must not see, by the nature of it.
ALL = {"bicubic", "other", "tumour", "shifted", "checkerboard"}
EXPECTED = {
    "psnr": (20.0, ALL, set()),
    "rmse": (20.0, ALL, set()),
    "ssim": (0.02, ALL, set()),
    "ms_ssim": (0.002, ALL, set()),
    "disagreement_rmse": (20.0, ALL, set()),
    "disagreement_pooled_rmse": (5.0, {"other", "tumour", "bicubic"}, {"checkerboard"}),
    "disagreement_texture_rmse": (20.0, ALL, set()),
    "texture_correlation": (0.02, ALL, set()),
    "walls_in_one_only": (0.02, {"bicubic", "other", "tumour"}, {"shifted", "checkerboard"}),
    "lumens_in_one_only": (0.02, {"bicubic", "other", "tumour"}, {"shifted", "checkerboard"}),
    "frechet_distance_tissue_features": (2.0, {"bicubic", "tumour", "checkerboard"}, {"other", "shifted"}),
    "kernel_distance_tissue_features": (1.5, {"bicubic", "tumour", "checkerboard"}, {"other", "shifted"}),
}


@pytest.fixture(scope="module")
def marks(images, tmp_path_factory):
    """Every metric of every image: {metric: {image: value}}."""
    folder = tmp_path_factory.mktemp("apart")
    ct = Volume(average_pool(images["truth"], 8), (0.624, 0.624, 0.6))
    write_volume(folder / "clinical", ct, np.ones(ct.shape))
    micro = Volume(images["truth"], **magnified_geometry(ct, 8))
    write_volume(folder / "micro", micro, np.ones(micro.shape))
    texture = Volume(lung(4, 6)[0], (0.078,) * 3)
    write_volume(folder / "texture", texture, np.ones(texture.shape))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tissue_features, "BATCH", 8)
        network = tissue_features.train(*lung(5), 1, (-1000, 400), 50)
    content = {"format": tissue_features.FORMAT, "version": tissue_features.VERSION, "weights": network.state_dict()}
    facts = {"window_hu": [-1000, 400], "features": tissue_features.FEATURES}
    torch.save({**content, "facts": facts}, folder / "features.pt")

    found = {}
    for name, image in images.items():
        path = folder / name
        sr = Volume(image, **magnified_geometry(ct, 8), attributes={"slices": list(range(SLICES))})
        write_volume(path, sr)
        tables = [folder / f"{name}{i}.csv" for i in range(3)]
        downsampled.evaluate(NAMES, path, folder / "micro", tables[0], config.Evaluate())
        repeatability.evaluate(NAMES, folder / "truth", path, folder / "clinical", tables[1])
        distribution.evaluate(NAMES, path, folder / "clinical", [folder / "texture"], folder / "features.pt", tables[2])
        for table in map(pd.read_csv, tables):
            for metric, value in zip(table["metric"], table["value"], strict=True):
                found.setdefault(metric, {})[name] = min(value, 100.0)  # the PSNR of the truth is infinite
    return found


def test_every_metric_of_the_protocols_is_tested(marks):
    floors = {f"{metric}_floor" for metric in EXPECTED if "features" in metric}
    assert set(marks) == set(EXPECTED) | floors


@pytest.mark.parametrize("metric", EXPECTED)
def test_the_metric_tells_the_truth_from_what_is_not(marks, metric):
    margin, seen, unseen = EXPECTED[metric]
    sign = -1 if metric in ("psnr", "ssim", "ms_ssim", "texture_correlation") else 1  # which way is worse
    worse = {name: sign * (value - marks[metric]["truth"]) for name, value in marks[metric].items()}
    assert {name for name in seen if worse[name] > margin} == seen, str(worse)
    assert {name for name in unseen if abs(worse[name]) < margin} == unseen, str(worse)
