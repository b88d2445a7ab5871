"""What a training step minimises: the losses of the generators and of the discriminators on a portion of a batch.

Each network is evaluated as often as the losses need it and no more: G1 on A, G2 on B and A_SR at once, G1 on B_LR, and
each discriminator once for the generators and once, on real and generated images together, for itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from microsr import config
from microsr.core.registry import load_thing
from microsr.core.registry.losses import LOSSES
from microsr.networks.families import Networks, build
from microsr.training import losses
from microsr.training.batches import Batch

WEIGHT_OF = {
    "G1_adversarial": "adversarial",
    "G2_adversarial": "adversarial",
    "cycle_clinical": "cycle",
    "cycle_micro": "cycle",
    "downsample_loss": "downsample",
    "upsample_loss": "upsample",
    "clinical_ssim_loss": "clinical_ssim",
    "micro_ssim_loss": "micro_ssim",
}
"""The key of config.Losses that weighs each of the generators' losses; that of another, `<key>_loss`, is its name
without the end.
"""


def further_loss(key: str) -> losses.Loss:
    """The loss that a key of config.Losses weighs and that has a module of its own."""
    return load_thing(LOSSES[key].place)


class GeneratorPass(nn.Module):
    """All losses of the generators on one portion of a batch."""

    def __init__(self, nets: Networks, weights: config.Losses, autocast: torch.autocast) -> None:
        super().__init__()
        self.g1, self.g2 = nets.g1, nets.g2
        self._judges = (nets.d1, nets.d2)  # in a tuple, so that their parameters are not this module's
        self._weights, self._autocast = weights, autocast
        self._further = {f"{key}_loss": further_loss(key) for key in weights.further}

    def forward(
        self, batch: Batch, noise: Sequence[Sequence[Tensor]]
    ) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensor]:
        """The weighted sum of the losses, each of them unweighted, A_SR and B_LR (detached).

        noise: planes for G1(A), G2(B), G2(A_SR) and G1(B_LR).
        """
        w, (d1, d2) = self._weights, self._judges
        own, for_b, for_a_sr, for_b_lr = noise
        with self._autocast:
            a_sr = self.g1(batch.a, own)
            if w.cycle:
                both = torch.cat([batch.b, a_sr.to(batch.b.dtype)])
                b_lr, a_cycle = self.g2(
                    both, [torch.cat(planes) for planes in zip(for_b, for_a_sr, strict=True)]
                ).split(len(batch.a))
                b_cycle = self.g1(b_lr, for_b_lr)
            else:
                b_lr, a_cycle, b_cycle = self.g2(batch.b, for_b), None, None
            verdicts = (d1(a_sr), d2(b_lr)) if w.adversarial else None
        found = self._losses(batch, a_sr, b_lr, verdicts, a_cycle, b_cycle)
        images = losses.Images(batch.a, batch.b, a_sr, b_lr, a_cycle, b_cycle)
        found |= {name: loss(images) for name, loss in self._further.items()}
        weight_of = {name: WEIGHT_OF.get(name, name.removesuffix("_loss")) for name in found}
        total = sum(getattr(w, weight_of[name]) * value for name, value in found.items())
        return total, {k: v.detach() for k, v in found.items()}, a_sr.detach().float(), b_lr.detach().float()

    def _losses(
        self,
        batch: Batch,
        a_sr: Tensor,
        b_lr: Tensor,
        verdicts: tuple[Tensor, Tensor] | None,
        a_cycle: Tensor | None,
        b_cycle: Tensor | None,
    ) -> dict[str, Tensor]:
        w, a, b, found = self._weights, batch.a, batch.b, {}
        if verdicts is not None:
            found["G1_adversarial"], found["G2_adversarial"] = map(losses.generator_adversarial_loss, verdicts)
        if w.cycle:
            found["cycle_clinical"] = losses.cycle_loss(a, a_cycle)
            found["cycle_micro"] = losses.cycle_loss(b, b_cycle)
        if w.downsample:
            found["downsample_loss"] = losses.downsample_loss(a, a_sr, w.pixel_norm)
        if w.upsample:
            found["upsample_loss"] = losses.upsample_loss(b, b_lr, w.pixel_norm)
        if w.clinical_ssim:
            found["clinical_ssim_loss"] = losses.clinical_ssim_loss(a, a_sr)
        if w.micro_ssim:
            found["micro_ssim_loss"] = losses.micro_ssim_loss(b, b_lr)
        return found


class DiscriminatorPass(nn.Module):
    """The losses of both discriminators on one portion of a batch."""

    def __init__(self, nets: Networks, penalty: float, autocast: torch.autocast) -> None:
        super().__init__()
        self.d1, self.d2 = nets.d1, nets.d2
        self._penalty, self._autocast = penalty, autocast

    def forward(
        self, b: Tensor, fake_micro: Tensor, clinical: Tensor, fake_clinical: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum to minimise, and each loss."""
        found = {}
        for name, network, real, fake in (("D1", self.d1, b, fake_micro), ("D2", self.d2, clinical, fake_clinical)):
            with self._autocast:
                judged = network(torch.cat([real, fake]))
            found[name] = losses.discriminator_loss(*judged.split(len(real)))
            if self._penalty:
                found[f"{name}_penalty"] = losses.gradient_penalty(network, real)
        total = sum(value * (self._penalty if name.endswith("penalty") else 1) for name, value in found.items())
        return total, {name: value.detach() for name, value in found.items()}


@contextlib.contextmanager
def freeze(*networks: nn.Module) -> Iterator[None]:
    """No gradients into these networks' parameters."""
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(True)


def gigaflops_per_pair(settings: config.Train, losses_used: config.Losses, sizes: tuple[int, int]) -> float:
    """Arithmetic of a training step for each pair of patches, 10^9 floating point operations, counted without
    computing.

    sizes: sides of a clinical and a uCT patch, pixels. The discriminators' gradient penalty is not counted.
    """
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        nets = build(settings.network, *sizes, settings.spectral_norm)
        a, b = (torch.zeros(1, 1, size, size) for size in sizes)
        size = (sizes[0], sizes[0])
        planes = [
            [torch.zeros(1, 1, scale * size[0], scale * size[1]) for scale in network.noise_scales]
            for network in (nets.g1, nets.g2, nets.g2, nets.g1)
        ]
        autocast = torch.autocast("cpu", enabled=False)
        with freeze(nets.d1, nets.d2):
            GeneratorPass(nets, losses_used, autocast)(Batch(a, a, b), planes)[0].backward()
        DiscriminatorPass(nets, 0.0, autocast)(b, b, a, a)[0].backward()
    return counter.get_total_flops() / 1e9
