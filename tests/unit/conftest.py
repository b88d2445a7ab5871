"""What the tests of training share."""

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
