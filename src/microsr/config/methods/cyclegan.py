"""Settings of a method of kind cyclegan: its losses, and the mix of its clinical inputs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, create_model

from microsr.config.methods.method import TrainedMethod
from microsr.config.section import Section, Weight
from microsr.core.registry.losses import LOSSES

FurtherLosses = create_model(
    "FurtherLosses",
    __base__=Section,
    **{key: (Annotated[Weight, Field(description=loss.help)], 0.0) for key, loss in LOSSES.items()},
)
"""Weights of the losses in a module of their own (docs/extending.md)."""


class Losses(FurtherLosses):
    """Weights of the generators' losses; 0 switches a loss off. Defaults: the proposed method (weights open in the
    paper).
    """

    adversarial: Weight = 1.0
    """Least-squares adversarial losses of G1 and G2."""
    cycle: Weight = 1.0
    """L1 cycle consistency, both ways."""
    downsample: Weight = 1.0
    """downsample_loss: A against average-pooled A_SR."""
    upsample: Weight = 1.0
    """upsample_loss: B against nearest-neighbour up-sampled B_LR."""
    clinical_ssim: Weight = 1.0
    """clinical_ssim_loss: 1 - SSIM(A, average-pooled A_SR)."""
    micro_ssim: Weight = 1.0
    """micro_ssim_loss: 1 - SSIM(B, up-sampled B_LR)."""
    pixel_norm: Literal["mse", "l1"] = "mse"
    """Norm of downsample_loss and upsample_loss (paper: mse)."""
    repeat: Weight = 0.0
    """repeat_loss: A_SR against G1(A + the scanner's noise), so that the SR image does not follow the noise (beyond the
    paper).
    """
    forgive_px: Weight = 0.0
    """Losses against a clinical A see both images blurred by a Gaussian of this sigma, clinical pixels: noise is finer,
    and is forgiven (beyond the paper).
    """

    @property
    def further(self) -> dict[str, float]:
        """Weights, by their keys, of the losses in use that have a module of their own (docs/extending.md)."""
        return {key: weight for key, weight in self if key in LOSSES and weight}


class CycleGANMethod(TrainedMethod):
    """The modified CycleGAN; defaults: the paper's proposed method."""

    kind: Literal["cyclegan"] = "cyclegan"
    """Networks that learn from unpaired patches, by an adversarial and a cycle loss."""
    losses: Losses = Field(default_factory=Losses)
    mix_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Share of the clinical inputs that are down-sampled uCT patches (paper: 25 %)."""
    mix_noise: bool = False
    """Add the scanner's noise to those patches; the losses compare with what they were without it (beyond the
    paper).
    """

    @property
    def uses_noise(self) -> bool:
        """Whether training depends on the scanner's noise."""
        return self.losses.repeat > 0 or (self.mix_noise and self.mix_fraction > 0)
