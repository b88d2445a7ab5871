"""What the tests of training share."""

import numpy as np
import pytest
import torch

from microsr.networks import families, layers
from microsr.networks.layers import InstanceNorm
from microsr.networks.model_file import save_generator
from microsr.training import losses

torch.set_num_threads(
    1
)  # small networks gain nothing from more, and wait for ever where another process has the other core


@pytest.fixture
def small_resnet(monkeypatch):
    """The published networks with an eighth of their channels and one block: the same layers, in seconds."""
    small = families.RESNET._replace(
        g1=lambda scale: families.ResnetG1(scale, 8, 1),
        g2=lambda scale: families.ResnetG2(scale, 8, 1),
        discriminator=lambda depth: families.PatchDiscriminator(depth, 8),
    )
    monkeypatch.setattr(families, "RESNET", small)


@pytest.fixture
def in_float64(monkeypatch):
    """Lets a training step compute in float64 what it computes in float32; gives how far two ways of the same
    arithmetic may differ.

    How much rounding a step magnifies depends on the order in which a CPU adds. In float32, of unit 6e-8, two ways of
    one step have been seen 5e-3 of its length apart: 1e5 units. In float64, of unit 1e-16, that is 1e-11; a thousand
    times as much is still far below what a wrong factor, part or statistic would do.
    """
    caches = (losses._gaussian, losses._window, layers._matrix)
    for cached in caches:
        cached.cache_clear()
    as_float = torch.Tensor.float
    # What is no number but a fact goes to Adam's and SGD's kernels, which want it in float32.
    monkeypatch.setattr(torch.Tensor, "float", lambda x: as_float(x) if x.dtype == torch.bool else x.double())
    torch.set_default_dtype(torch.float64)
    yield 1000 * 1e5 * torch.finfo(torch.float64).eps / 2
    torch.set_default_dtype(torch.float32)
    for cached in caches:
        cached.cache_clear()


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    """A folder with clinical.npy and micro.npy: twelve patches of noise of each modality, 8 and 64 pixels wide."""
    folder = tmp_path_factory.mktemp("patches")
    random = np.random.default_rng(0)
    for modality, size in (("clinical", 8), ("micro", 64)):
        np.save(folder / f"{modality}.npy", random.normal(-700, 150, (12, size, size)).astype(np.int16))
    return folder


@pytest.fixture
def trained_model(tmp_path):
    """Gives generator.pt of a family, with random weights and instance norm statistics as if some patches had been
    seen.
    """

    def make(family, spacing=None, slices=1, slice_mm=(1.5, 1.5)):
        path = tmp_path / f"{family}{slices if slices > 1 else ''}.pt"
        if path.exists():
            return path
        torch.manual_seed(0)
        g1 = families.build(family, 16, 128, slices=slices).g1
        if family != "resnet":
            g1.tail.weight.data *= 10  # so that it matters beside the interpolated image, as when it is trained
        for _ in range(3):
            if not g1.noise_scales:
                g1(torch.randn(2, slices, 16, 16))
                for norm in (module for module in g1.modules() if isinstance(module, InstanceNorm)):
                    norm.commit()
        facts = {"network": family, "window_hu": [-1000.0, 400.0], "seed": 3, "steps": 1, "provenance": {}}
        facts |= {"slices": slices, "slice_mm": list(slice_mm)} if slices > 1 else {}
        save_generator(path, g1, facts | {"clinical_spacing_mm": spacing, "micro_spacing_mm": None})
        return path

    return make
