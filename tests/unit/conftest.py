"""What the tests of training share."""

import pytest

from microsr import networks


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
