"""The modified CycleGAN (Zheng et al. 2020): four networks, their optimisers, and one training step over them.

Everything random belongs to a sample, (seed, sample number), so a batch may be cut into portions and shared by
processes without changing what is learnt.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize

from microsr.core.streams import Stream, numpy_stream, seed_torch
from microsr.networks.families import Networks, build
from microsr.training.batches import Batch, Batches
from microsr.training.methods.generator import GeneratorTraining, open_unpaired
from microsr.training.methods.method import SKIPPED, Setup, Sizes
from microsr.training.passes import DiscriminatorPass, GeneratorPass, freeze, gigaflops_per_pair


class ImagePool:
    """The last generated images, shown to a discriminator half of the time instead of new ones (Shrivastava et al.
    2017).
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.images: list[Tensor] = []

    def query(self, images: Tensor, random: np.random.Generator) -> Tensor:
        """As many images as given, some of them older; the pool keeps the ones not returned."""
        if self._size == 0:
            return images
        chosen = []
        for image in images.detach():
            if len(self.images) < self._size:
                self.images.append(image.clone())
                chosen.append(image)
            elif random.random() < 0.5:
                place = int(random.integers(self._size))
                chosen.append(self.images[place])
                self.images[place] = image.clone()
            else:
                chosen.append(image)
        return torch.stack(chosen)


class CycleGAN(GeneratorTraining):
    """Two generators, two discriminators, their optimisers and pools, and one training step over them."""

    def __init__(self, setup: Setup, sizes: Sizes) -> None:
        """The networks with their first weights; see `TrainableMethod`."""
        settings, method = setup.train, setup.method
        seed_torch(Stream.WEIGHTS, setup.seed)
        g1, g2, d1, d2 = build(settings.network, *sizes, settings.spectral_norm)
        super().__init__(setup, {"G1": g1, "G2": g2}, {"D1": d1, "D2": d2})
        self.nets = Networks(*self.networks.values())
        self.pools = ImagePool(settings.pool_size), ImagePool(settings.pool_size)
        self._weights = method.losses
        passes = [GeneratorPass(self.nets, method.losses, self.autocast)]
        passes += [DiscriminatorPass(self.nets, settings.gradient_penalty, self.autocast)]
        self._passes = [self._share(torch.compile(p) if setup.compiled else p) for p in passes]

    @staticmethod
    def open_data(files: Mapping[str, Sequence[Path]], setup: Setup) -> Batches:
        """Unpaired patches, with the method's mix; see `TrainableMethod`."""
        return open_unpaired(files, setup, setup.method.mix_fraction)

    @staticmethod
    def gigaflops_per_pair(setup: Setup, sizes: Sizes) -> float:
        """Of a whole step; see `TrainableMethod`."""
        return gigaflops_per_pair(setup.train, setup.method.losses, sizes)

    def _share(self, one: nn.Module) -> nn.Module:
        """The pass with gradients that are averaged over the processes."""
        if self.processes.count == 1:
            return one
        # Losses of weight 0 may leave a generator without a gradient.
        return DistributedDataParallel(one, broadcast_buffers=False, find_unused_parameters=not self._weights.cycle)

    def step(self, number: int, batch: Batch, learning_rate: float) -> dict[str, Tensor]:
        """Update the generators and the discriminators; returns every loss, unweighted, as a mean over the whole batch,
        and SKIPPED.

        batch: this process's share of the batch of step `number`, on its device.
        """
        share = len(batch.a)
        first = number * share * self.processes.count + share * self.processes.rank
        size = share // self.setup.accumulate
        portions = [slice(k, k + size) for k in range(0, share, size)]
        for network in self.nets[2:]:
            refresh_spectral_norm(network)

        with freeze(*self.nets[2:]):
            inputs = (self._generator_inputs(batch, portion, first) for portion in portions)
            found, a_sr, b_lr = zip(*self._backward(self._passes[0], inputs), strict=True)
        fake_micro, fake_clinical = self._show(number, torch.cat(a_sr), torch.cat(b_lr))
        seen = (batch.b, fake_micro, batch.clinical, fake_clinical)
        judged = self._backward(self._passes[1], (tuple(x[portion] for x in seen) for portion in portions))
        found = [generators | discriminators for generators, (discriminators,) in zip(found, judged, strict=True)]

        broken = self.broken()
        for optimiser in self.optimisers:
            self.update(optimiser, learning_rate, broken)
        self.follow(number)
        means = torch.stack([torch.stack(list(values.values())) for values in found]).mean(0)
        return dict(zip(found[0], self.processes.mean(means), strict=True)) | {SKIPPED: broken}

    def _backward(self, one: nn.Module, inputs: Iterable[tuple]) -> list[tuple]:
        """Add up a pass's gradients over the portions of this process's share; what else the pass returned, for each
        portion.
        """
        returned = []
        for k, arguments in enumerate(inputs, start=1):
            alone = self.processes.count == 1 or k == self.setup.accumulate
            with contextlib.nullcontext() if alone else one.no_sync():
                total, *others = one(*arguments)
                (total / self.setup.accumulate).backward()
            returned.append(tuple(others))
        return returned

    def _generator_inputs(self, batch: Batch, portion: slice, first: int) -> tuple:
        """What the generators' pass needs for a portion of the share, whose first sample has the number `first`."""
        samples = range(first + portion.start, first + portion.stop)
        batch = Batch(*(x[portion].contiguous(memory_format=torch.channels_last) for x in batch))
        size = tuple(batch.a.shape[-2:])
        g1, g2, *_ = self.nets
        noise = [self.planes(network, samples, use, size) for use, network in enumerate((g1, g2, g2, g1))]
        return batch, noise

    def _show(self, number: int, a_sr: Tensor, b_lr: Tensor) -> list[Tensor]:
        """What the discriminators see of the generated images: all processes hold the same pools."""
        random = numpy_stream(Stream.POOL, self.setup.seed, number)
        share = self.processes.share(len(a_sr) * self.processes.count)
        images = (self.processes.gather(made) for made in (a_sr, b_lr))
        return [pool.query(made, random)[share] for pool, made in zip(self.pools, images, strict=True)]

    def state(self) -> dict[str, Any]:
        """Everything that a later step depends on."""
        return super().state() | {"pools": [pool.images for pool in self.pools]}

    def load(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        super().load(state)
        for pool, images in zip(self.pools, state["pools"], strict=True):
            pool.images = images


def refresh_spectral_norm(network: nn.Module) -> None:
    """One power iteration for each spectrally normalised weight; then it rests, however often the network is
    evaluated.
    """
    for module in network.modules():
        if parametrize.is_parametrized(module, "weight"):
            normalisation = module.parametrizations.weight
            normalisation.train()
            with torch.no_grad():
                _ = module.weight
            normalisation.eval()
