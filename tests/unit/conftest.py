"""What the tests of training share."""

import numpy as np
import pytest
import torch

from microsr import networks

torch.set_num_threads(
    1
)  # small networks gain nothing from more, and wait for ever where another process has the other core


@pytest.fixture
def small_resnet(monkeypatch):
    """The published networks with an eighth of their channels and one block: the same layers, in seconds."""
    monkeypatch.setitem(
        networks.FAMILIES,
        "resnet",
        networks.Family(
            lambda: networks.ResnetG1(8, 1),
            lambda: networks.ResnetG2(8, 1),
            lambda depth: networks.PatchDiscriminator(depth, 8),
            spectral_norm=False,
        ),
    )


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    """A folder with clinical.npy and micro.npy: twelve patches of noise of each modality, 8 and 64 pixels wide."""
    folder = tmp_path_factory.mktemp("patches")
    random = np.random.default_rng(0)
    for modality, size in (("clinical", 8), ("micro", 64)):
        np.save(folder / f"{modality}.npy", random.normal(-700, 150, (12, size, size)).astype(np.int16))
    return folder
