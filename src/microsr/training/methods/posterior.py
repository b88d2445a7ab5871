"""The posterior sampler: G1 alone, by proper scores of DRAWS draws on pairs.

Each setting of G1's random planes gives one of the images that a scan allows. No discriminator: a score that is least
where draws are distributed as the truth is (`training.scores`) takes its place. Beyond the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from microsr.core.streams import Stream, seed_torch
from microsr.networks.families import build_g1, new_g1, own_slice
from microsr.training import scores
from microsr.training.batches import Pairs
from microsr.training.methods.generator import GeneratorTraining
from microsr.training.methods.method import Setup, Sizes, scale_of
from microsr.training.methods.regression import open_pairs
from microsr.training.paired import PairBatches

DRAWS = 2
"""Draws of each scan in a step: the fewest that show a spread."""


class Posterior(GeneratorTraining):
    """G1 with its random planes, and one training step of it."""

    SAMPLER = True

    def __init__(self, setup: Setup, sizes: Sizes) -> None:
        """G1 with its first weights; see `TrainableMethod`."""
        seed_torch(Stream.WEIGHTS, setup.seed)
        super().__init__(setup, {"G1": new_g1(setup.train.network, *sizes, self.SAMPLER, setup.slices)})

    @staticmethod
    def open_data(files: Mapping[str, Sequence[Path]], setup: Setup) -> PairBatches:
        """Pairs; see `TrainableMethod`."""
        return open_pairs(files, setup)

    def step(self, number: int, batch: Pairs, learning_rate: float) -> dict[str, Tensor]:
        """Update G1 by the weighted sum of the scores of its draws; see `TrainableMethod`."""
        method, share, scale = self.setup.method, len(batch.a), self.g1.scale
        first = number * share * self.processes.count + share * self.processes.rank
        size, found = share // self.setup.accumulate, []
        for k in range(0, share, size):
            a, b = (x[k : k + size].contiguous(memory_format=torch.channels_last) for x in batch)
            draws = self.draws(a, range(first + k, first + k + size))
            values = {
                "pool_score": scores.pool_score(draws, b, method.alpha, scale),
                "neighbourhood_score": scores.neighbourhood_score(draws, b, method.alpha, scale),
                "spectrum_score": scores.spectrum_score(draws, b, method.alpha),
            }
            weights = (method.pools, method.neighbourhoods, method.spectrum)
            total = sum(weight * value for weight, value in zip(weights, values.values(), strict=True))
            (total / self.setup.accumulate).backward()
            found.append(torch.stack(list(values.values())).detach())
        return self.finish(values, found, number, learning_rate)

    def draws(self, a: Tensor, samples: Sequence[int]) -> Tensor:
        """Draws of scans [n, slices, h, w] with the random planes of these samples: [DRAWS, n, 1, scale * h, ...].

        What does not depend on the planes is computed once.
        """
        size = tuple(a.shape[-2:])
        planes = [self.planes(self.g1, samples, use, size) for use in range(DRAWS)]
        planes = [torch.cat(own) for own in zip(*planes, strict=True)]
        with self.autocast:
            images = _draw(self.g1, a, planes)
        return images.unflatten(0, (DRAWS, len(a)))

    @classmethod
    def gigaflops_per_pair(cls, setup: Setup, sizes: Sizes) -> float:
        """Of DRAWS draws of a patch, forth and back; see `TrainableMethod`."""
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            g1, side = build_g1(setup.train.network, scale_of(sizes), cls.SAMPLER, setup.slices), sizes[0]
            planes = [torch.zeros(DRAWS, 1, scale * side, scale * side) for scale in g1.noise_scales]
            _draw(g1, torch.zeros(1, setup.slices, side, side), planes).sum().backward()
        return counter.get_total_flops() / 1e9


def _draw(g1: nn.Module, a: Tensor, planes: Sequence[Tensor]) -> Tensor:
    """G1 of A [n, slices, h, w] with DRAWS sets of planes [DRAWS n, ...]: [DRAWS n, 1, scale * h, scale * w]."""

    def repeat(x: Tensor) -> Tensor:
        return x.repeat(DRAWS, 1, 1, 1)

    features, a = g1.trunk(a), own_slice(a)
    if not hasattr(g1, "share"):
        return g1.magnify(repeat(a), repeat(features), planes)
    return g1.finish([repeat(x) for x in g1.share(a, features)], planes)
