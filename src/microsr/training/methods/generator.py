"""What all methods that train a G1 share: its optimiser, its start on pairs, its averaged weights, its state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from microsr.core.streams import Stream, torch_stream
from microsr.networks.families import build_g1, draw_noise
from microsr.networks.layers import InstanceNorm, NoiseConv
from microsr.training.batches import Batches, Pairs
from microsr.training.losses import start_loss
from microsr.training.methods.method import SKIPPED, Data, Setup, Sizes, scale_of

SHOWN = 4
"""The use of G1's random planes for what the board shows, beside those of a step."""


class GeneratorTraining:
    """G1, alone or with other networks. A method is a class of it with a `step` (`TrainableMethod`)."""

    SAMPLER = False

    def __init__(
        self, setup: Setup, generators: Mapping[str, nn.Module], judges: Mapping[str, nn.Module] | None = None
    ) -> None:
        """generators: by name, "G1" the first of them; they have one optimiser. judges: the others, which have another.

        The first weights are drawn before (`core.streams.seed_torch`).
        """
        self.setup, self.processes = setup, setup.processes
        device = torch.device(self.processes.device)
        gain = setup.train.noise_gain
        for module in (module for network in generators.values() for module in network.modules()):
            if isinstance(module, NoiseConv) and gain != 1:
                module.strengthen(gain)
        self.networks = {
            name: network.to(device, memory_format=torch.channels_last).train()
            for name, network in {**generators, **(judges or {})}.items()
        }
        self.g1 = self.networks["G1"]
        self._generators = [self.networks[name] for name in generators]
        self.averaged = {k: v.clone() for k, v in self.g1.state_dict().items()} if setup.train.ema_decay else {}
        self.optimisers = [self._adam(group) for group in (generators, judges) if group]
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=setup.precision == "bfloat16")

    def _adam(self, networks: Mapping[str, nn.Module]) -> torch.optim.Optimizer:
        weights = [weight for network in networks.values() for weight in network.parameters()]
        settings = self.setup.train
        return torch.optim.Adam(weights, lr=settings.learning_rate, betas=settings.adam_betas, fused=True)

    @staticmethod
    def open_data(files: Mapping[str, Sequence[Path]], setup: Setup) -> Data:
        """Unpaired patches, and pairs made from the uCT ones for the start; see `TrainableMethod`."""
        return open_unpaired(files, setup)

    def start(self, number: int, pairs: Pairs, learning_rate: float) -> dict[str, Tensor]:
        """Let G1 alone learn from pairs of the start's step `number`; see `learn_from`."""
        return self.learn_from(pairs, number, learning_rate, {"start_loss": start_loss})

    def learn_from(
        self, pairs: Pairs, number: int, learning_rate: float, losses: Mapping[str, Callable[[Tensor, Tensor], Tensor]]
    ) -> dict[str, Tensor]:
        """Update G1 by losses of B and G1(A), each a mean over the batch; returns each of them, and SKIPPED.

        pairs: this process's share of step `number`. G1's random planes are 0: they are texture that no pair
        determines, and to be trained they would only be suppressed.
        """
        size = len(pairs.a) // self.setup.accumulate
        found = []
        for k in range(0, len(pairs.a), size):
            a, b = (x[k : k + size].contiguous(memory_format=torch.channels_last) for x in pairs)
            rows, columns = a.shape[-2:]
            planes = [a.new_zeros((size, 1, scale * rows, scale * columns)) for scale in self.g1.noise_scales]
            with self.autocast:
                restored = self.g1(a, planes)
            values = torch.stack([loss(b, restored) for loss in losses.values()])
            (values.sum() / self.setup.accumulate).backward()
            found.append(values.detach())
        return self.finish(losses, found, number, learning_rate)

    def finish(
        self, names: Iterable[str], found: Sequence[Tensor], number: int, learning_rate: float
    ) -> dict[str, Tensor]:
        """Update G1 by the gradients of all parts of the batch; returns each loss of these names, and SKIPPED.

        found: the losses [name] of each part of this process's share of step `number`.
        """
        for weight in self.g1.parameters():
            if weight.grad is not None:
                weight.grad = self.processes.mean(weight.grad)
        broken = self.broken()
        self.update(self.optimisers[0], learning_rate, broken)
        self.follow(number)
        means = self.processes.mean(torch.stack(found).mean(0))
        return dict(zip(names, means, strict=True)) | {SKIPPED: broken}

    def update(self, optimiser: torch.optim.Optimizer, learning_rate: float, broken: Tensor) -> None:
        """Take a step along the gradients, unless one is broken."""
        for group in optimiser.param_groups:
            group["lr"] = learning_rate
        optimiser.found_inf = broken  # with 1, fused Adam leaves everything as it is
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    def broken(self) -> Tensor:
        """1 if a gradient is not finite, else 0: what an instance norm makes of a constant image grows from layer to
        layer.
        """
        gradients = [p.grad for network in self.networks.values() for p in network.parameters() if p.grad is not None]
        largest = torch.stack(torch._foreach_norm(gradients, torch.inf)).amax()
        return (~largest.isfinite()).float()

    def follow(self, number: int) -> None:
        """Let the running statistics and the averaged weights follow the step."""
        for module in (module for network in self._generators for module in network.modules()):
            if isinstance(module, InstanceNorm) and module.training:
                module.gathered = self.processes.sum(module.gathered)
                module.commit()
        if self.averaged:
            # At first the weights are mostly chance: the average follows fast.
            decay = min(self.setup.train.ema_decay, (1 + number) / (10 + number))
            with torch.no_grad():
                for name, value in self.g1.state_dict().items():
                    self.averaged[name].lerp_(value, 1 - decay)

    def planes(self, network: nn.Module, samples: Sequence[int], use: int, size: tuple[int, int]) -> list[Tensor]:
        """The random planes of a generator that belong to each sample; use: which one of its uses in a step."""
        device = self.processes.device
        drawn = []
        for sample in samples if network.noise_scales else ():
            random = torch_stream(Stream.PLANES, self.setup.seed, sample, use, device=device)
            drawn.append(draw_noise(network.noise_scales, 1, size, random, device))
        return [torch.cat(planes) for planes in zip(*drawn, strict=True)]

    @torch.no_grad()
    def superresolve(self, a: Tensor) -> Tensor:
        """A_SR of a few clinical patches by the weights as they are, always with the same noise; the training does not
        notice.
        """
        planes = self.planes(self.g1, range(len(a)), SHOWN, tuple(a.shape[-2:]))
        with self.autocast:
            return self.g1(a, planes).float()

    def fix_normalisation(self, share: float = 1.0) -> None:
        """Let G1's instance norms use their running statistics, as they do at inference, for that share of their
        result, and each patch's own for the rest.
        """
        for module in self.g1.modules():
            if isinstance(module, InstanceNorm):
                module.fixed = share
                module.train(share < 1)

    def generator(self) -> dict[str, Tensor]:
        """The weights of the trained G1: averaged over the steps where that was asked for."""
        return self.averaged or self.g1.state_dict()

    def state(self) -> dict[str, Any]:
        """Everything that a later step depends on."""
        return {
            "networks": [network.state_dict() for network in self.networks.values()],
            "averaged": self.averaged,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        for network, saved in zip(self.networks.values(), state["networks"], strict=True):
            network.load_state_dict(saved)
        self.averaged = state["averaged"]
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)

    @staticmethod
    def gigaflops_per_pair(setup: Setup, sizes: Sizes) -> float:
        """Of G1 on a patch, forth and back; see `TrainableMethod`."""
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            g1, side = build_g1(setup.train.network, scale_of(sizes), slices=setup.slices), sizes[0]
            planes = [torch.zeros(1, 1, scale * side, scale * side) for scale in g1.noise_scales]
            g1(torch.zeros(1, setup.slices, side, side), planes).sum().backward()
        return counter.get_total_flops() / 1e9


def open_unpaired(files: Mapping[str, Sequence[Path]], setup: Setup, mix_fraction: float = 0.0) -> Batches:
    """Unpaired patches of clinical CT and uCT; mix_fraction: as in `config.CycleGANMethod`."""
    settings = setup.train
    return Batches(
        files["clinical"], files["micro"], patches_per_case=settings.patches_per_case, batch_size=settings.batch_size,
        mix_fraction=mix_fraction, augment=settings.augment, window_hu=setup.window_hu, seed=setup.seed,
        start_noise=setup.scanner if settings.start_steps else None, device=setup.processes.device,
    )  # fmt: skip
