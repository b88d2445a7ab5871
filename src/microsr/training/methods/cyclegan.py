"""The modified CycleGAN (Zheng et al. 2020): four networks, their optimisers, and one training step over them.

Everything random belongs to a sample, (seed, sample number), so a batch may be cut into parts and shared by processes
without changing what is learnt.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize

from microsr import config
from microsr.core.streams import Stream, numpy_stream, seed_torch, torch_stream
from microsr.networks.families import Networks, build, draw_noise
from microsr.networks.layers import InstanceNorm, NoiseConv
from microsr.training.batches import Batch, Pairs, add_noise
from microsr.training.distributed import Processes
from microsr.training.losses import start_loss
from microsr.training.passes import DiscriminatorPass, GeneratorPass, frozen

SKIPPED = "skipped"
"""Beside the losses: 1 if the step changed no weights, as a gradient was not finite."""


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


class CycleGAN:
    """Networks, optimisers, pools and averaged weights, and one training step over them."""

    def __init__(
        self,
        settings: config.Train,
        method: config.Method,
        sizes: tuple[int, int],
        seed: int,
        *,
        window_hu: tuple[float, float] = (-1000.0, 400.0),
        scanner: config.Scanner | None = None,
        precision: str = "float32",
        processes: Processes | None = None,
        accumulate: int = 1,
        compiled: bool = False,
    ) -> None:
        """sizes: sides of a clinical and a uCT patch, pixels. precision: "float32" or "bfloat16".

        scanner: whose noise the repeat_loss adds; needed where it has a weight. accumulate: parts in which a process
        takes its share of a batch.
        """
        seed_torch(Stream.WEIGHTS, seed)
        self.processes = processes or Processes()
        device = torch.device(self.processes.device)
        nets = build(settings.network, *sizes, settings.spectral_norm)
        for module in itertools.chain(nets.g1.modules(), nets.g2.modules()):
            if isinstance(module, NoiseConv) and settings.noise_gain != 1:
                module.strengthen(settings.noise_gain)
        self.nets = Networks(*(n.to(device, memory_format=torch.channels_last).train() for n in nets))
        self._ema_decay = settings.ema_decay
        self.averaged = {k: v.clone() for k, v in self.nets.g1.state_dict().items()} if self._ema_decay else {}
        adam = {"lr": settings.learning_rate, "betas": settings.adam_betas, "fused": True}
        self.generators = torch.optim.Adam([*self.nets.g1.parameters(), *self.nets.g2.parameters()], **adam)
        self.discriminators = torch.optim.Adam([*self.nets.d1.parameters(), *self.nets.d2.parameters()], **adam)
        self.pools = ImagePool(settings.pool_size), ImagePool(settings.pool_size)
        self._weights, self._seed, self._accumulate = method.losses, seed, accumulate
        self._window_hu, self._scanner = window_hu, scanner
        self._autocast = autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
        passes = [GeneratorPass(self.nets, method.losses, autocast)]
        passes += [DiscriminatorPass(self.nets, settings.gradient_penalty, autocast)]
        self._passes = [self._shared(torch.compile(p) if compiled else p) for p in passes]

    def _shared(self, one: nn.Module) -> nn.Module:
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
        size = share // self._accumulate
        parts = [slice(k, k + size) for k in range(0, share, size)]
        for network in self.nets[2:]:
            refresh_spectral_norm(network)

        with frozen(*self.nets[2:]):
            inputs = (self._generator_inputs(batch, part, first) for part in parts)
            found, a_sr, b_lr = zip(*self._backward(self._passes[0], inputs), strict=True)
        fake_micro, fake_clinical = self._show(number, torch.cat(a_sr), torch.cat(b_lr))
        seen = (batch.b, fake_micro, batch.clinical, fake_clinical)
        judged = self._backward(self._passes[1], (tuple(x[part] for x in seen) for part in parts))
        found = [generators | discriminators for generators, (discriminators,) in zip(found, judged, strict=True)]

        broken = self._broken()
        for optimiser in (self.generators, self.discriminators):
            self._update(optimiser, learning_rate, broken)
        self._follow(number)
        means = torch.stack([torch.stack(list(values.values())) for values in found]).mean(0)
        return dict(zip(found[0], self.processes.mean(means), strict=True)) | {SKIPPED: broken}

    def start(self, number: int, pairs: Pairs, learning_rate: float) -> dict[str, Tensor]:
        """Let G1 alone learn from pairs of the start's step `number`; returns the loss as a mean over the whole batch,
        and SKIPPED.

        pairs: this process's share. G1's random planes are 0: they are texture that no pair determines, and to be
        trained they would only be suppressed.
        """
        g1, share = self.nets.g1, len(pairs.a)
        size = share // self._accumulate
        found = []
        for k in range(0, share, size):
            a, b = (x[k : k + size].contiguous(memory_format=torch.channels_last) for x in pairs)
            rows, columns = a.shape[-2:]
            planes = [a.new_zeros((size, 1, scale * rows, scale * columns)) for scale in g1.noise_scales]
            with self._autocast:
                restored = g1(a, planes)
            loss = start_loss(b, restored)
            (loss / self._accumulate).backward()
            found.append(loss.detach())
        for weight in g1.parameters():
            if weight.grad is not None:
                weight.grad = self.processes.mean(weight.grad)
        broken = self._broken()
        self._update(self.generators, learning_rate, broken)
        self._follow(number)
        return {"start_loss": self.processes.mean(torch.stack(found).mean())} | {SKIPPED: broken}

    def _update(self, optimiser: torch.optim.Optimizer, learning_rate: float, broken: Tensor) -> None:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate
        optimiser.found_inf = broken  # with 1, fused Adam leaves everything as it is
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    def _broken(self) -> Tensor:
        """1 if a gradient is not finite, else 0: what an instance norm makes of a constant image grows from layer to
        layer.
        """
        gradients = [p.grad for network in self.nets for p in network.parameters() if p.grad is not None]
        largest = torch.stack(torch._foreach_norm(gradients, torch.inf)).amax()
        return (~largest.isfinite()).float()

    def _backward(self, one: nn.Module, inputs: Iterable[tuple]) -> list[tuple]:
        """Add up a pass's gradients over the parts of this process's share; what else the pass returned, for each
        part.
        """
        returned = []
        for k, arguments in enumerate(inputs, start=1):
            alone = self.processes.count == 1 or k == self._accumulate
            with contextlib.nullcontext() if alone else one.no_sync():
                total, *others = one(*arguments)
                (total / self._accumulate).backward()
            returned.append(tuple(others))
        return returned

    def _generator_inputs(self, batch: Batch, part: slice, first: int) -> tuple:
        """What the generators' pass needs for a part of the share, whose first sample has the number `first`."""
        samples = range(first + part.start, first + part.stop)
        batch = Batch(*(x[part].contiguous(memory_format=torch.channels_last) for x in batch))
        size = tuple(batch.a.shape[-2:])
        g1, g2, *_ = self.nets
        noise = [self._noise(network, samples, stream, size) for stream, network in enumerate((g1, g2, g2, g1))]
        repeated = None
        if self._weights.repeat:
            streams = [numpy_stream(Stream.REPEAT_NOISE, self._seed, sample) for sample in samples]
            noisy = [
                add_noise(batch.a[k : k + 1], self._scanner, self._window_hu, random)
                for k, random in enumerate(streams)
            ]
            repeated = torch.cat(noisy)
        return batch, noise, repeated

    def _noise(self, network: nn.Module, samples: Sequence[int], stream: int, size: tuple[int, int]) -> list[Tensor]:
        """The random planes that belong to each sample."""
        device = self.processes.device
        drawn = []
        for sample in samples if network.noise_scales else ():
            random = torch_stream(Stream.PLANES, self._seed, sample, stream, device=device)
            drawn.append(draw_noise(network.noise_scales, 1, size, random, device))
        return [torch.cat(planes) for planes in zip(*drawn, strict=True)]

    def _show(self, number: int, a_sr: Tensor, b_lr: Tensor) -> list[Tensor]:
        """What the discriminators see of the generated images: all processes hold the same pools."""
        random = numpy_stream(Stream.POOL, self._seed, number)
        share = self.processes.share(len(a_sr) * self.processes.count)
        images = (self.processes.gather(made) for made in (a_sr, b_lr))
        return [pool.query(made, random)[share] for pool, made in zip(self.pools, images, strict=True)]

    def _follow(self, number: int) -> None:
        """Let the running statistics and the averaged weights follow the step."""
        for module in itertools.chain(self.nets.g1.modules(), self.nets.g2.modules()):
            if isinstance(module, InstanceNorm) and module.training:
                module.gathered = self.processes.sum(module.gathered)
                module.commit()
        if self.averaged:
            # At first the weights are mostly chance: the average follows fast.
            decay = min(self._ema_decay, (1 + number) / (10 + number))
            with torch.no_grad():
                for name, value in self.nets.g1.state_dict().items():
                    self.averaged[name].lerp_(value, 1 - decay)

    @torch.no_grad()
    def superresolve(self, a: Tensor) -> Tensor:
        """A_SR of a few clinical patches by the weights as they are, always with the same noise; the training does not
        notice.
        """
        noise = self._noise(self.nets.g1, range(len(a)), 4, tuple(a.shape[-2:]))
        with self._autocast:
            return self.nets.g1(a, noise).float()

    def fix_normalisation(self) -> None:
        """Let G1's instance norms use their running statistics, as they do at inference, instead of each patch's
        own.
        """
        for module in self.nets.g1.modules():
            if isinstance(module, InstanceNorm):
                module.eval()

    def generator(self) -> dict[str, Tensor]:
        """The weights of the trained G1: averaged over the steps where that was asked for."""
        return self.averaged or self.nets.g1.state_dict()

    def state(self) -> dict[str, Any]:
        """Everything that a later step depends on."""
        return {
            "networks": [n.state_dict() for n in self.nets],
            "averaged": self.averaged,
            "optimisers": [self.generators.state_dict(), self.discriminators.state_dict()],
            "pools": [pool.images for pool in self.pools],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        for network, saved in zip(self.nets, state["networks"], strict=True):
            network.load_state_dict(saved)
        self.averaged = state["averaged"]
        for optimiser, saved in zip((self.generators, self.discriminators), state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
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
