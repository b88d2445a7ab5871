"""Regression: G1 alone, its random planes 0, by its mean squared error on pairs.

What it gives is the mean of all that a scan allows (as far as the network can): the best single answer to PSNR, and
smooth where the scan leaves things open. Beyond the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from microsr.core.streams import Stream, seed_torch
from microsr.networks.families import new_g1
from microsr.networks.layers import NoiseConv
from microsr.preprocessing.patch_files import read_noise
from microsr.training.batches import Pairs
from microsr.training.losses import start_loss
from microsr.training.methods.generator import GeneratorTraining
from microsr.training.methods.method import Setup, Sizes
from microsr.training.paired import PairBatches


class Regression(GeneratorTraining):
    """G1 without randomness, and one training step of it."""

    def __init__(self, setup: Setup, sizes: Sizes) -> None:
        """G1 with its first weights; see `TrainableMethod`."""
        seed_torch(Stream.WEIGHTS, setup.seed)
        g1 = new_g1(setup.train.network, *sizes, slices=setup.slices)
        silence(g1)
        super().__init__(setup, {"G1": g1})

    @staticmethod
    def open_data(files: Mapping[str, Sequence[Path]], setup: Setup) -> PairBatches:
        """Pairs; see `TrainableMethod`."""
        return open_pairs(files, setup)

    def step(self, number: int, batch: Pairs, learning_rate: float) -> dict[str, Tensor]:
        """Update G1 by MSE(B, G1(A)); see `TrainableMethod`."""
        return self.learn_from(batch, number, learning_rate, {"regression_loss": start_loss})


def silence(g1: nn.Module) -> None:
    """Let the random planes count nothing, in training, where they are 0, and after it: their weights stay 0."""
    for module in g1.modules():
        if isinstance(module, NoiseConv):
            module.strengthen(0.0)


def open_pairs(files: Mapping[str, Sequence[Path]], setup: Setup) -> PairBatches:
    """Pairs as a `config.PairedMethod` wants them."""
    settings, method = setup.train, setup.method
    return PairBatches(
        files["micro"], files["scans"], files["scan_table"], patches_per_case=settings.patches_per_case,
        batch_size=settings.batch_size, augment=settings.augment, window_hu=setup.window_hu, seed=setup.seed,
        scanner=setup.scanner, noise_range=method.noise_range if method.seen_by == "drawn" else None,
        measured=[power for table in files.get("scanner_table") or () for power in read_noise(table)],
        slices=setup.slices, device=setup.processes.device,
    )  # fmt: skip
