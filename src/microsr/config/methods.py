"""Section `methods`: what is compared, each method with its losses and its own changes to the training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, create_model

from microsr.config.section import Section, Weight
from microsr.config.train import Train
from microsr.core.registry.losses import LOSSES
from microsr.core.registry.upsamplers import UPSAMPLERS

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


def _changes(train: dict[str, Any]) -> dict[str, Any]:
    """A method's changes to the section `train`, checked by the section's own rules."""
    Train.model_validate(train)
    if "repeats" in train:
        raise ValueError("repeats must be the same for all methods; set it in train")
    return train


class Method(Section):
    """One way of super-resolving a clinical CT."""

    upsampler: Literal["generator", *UPSAMPLERS] = "generator"
    """generator: a trained G1; bicubic: interpolation, nothing is trained."""
    losses: Losses = Field(default_factory=Losses)
    mix_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Share of the clinical inputs that are down-sampled uCT patches (paper: 25 %)."""
    mix_noise: bool = False
    """Add the scanner's noise to those patches; the losses compare with what they were without it (beyond the
    paper).
    """
    train: Annotated[dict[str, Any], AfterValidator(_changes)] = {}
    """Keys of the section `train` that differ for this method, as {network: resnet}; any but repeats."""

    @property
    def uses_noise(self) -> bool:
        """Whether training depends on the scanner's noise."""
        return self.losses.repeat > 0 or (self.mix_noise and self.mix_fraction > 0)

    def needs_scanner(self, train: Train) -> bool:
        """Whether a training of the method by such a section `train` depends on the scanner."""
        return self.uses_noise or train.start_steps > 0


INTERPOLATIONS = tuple(UPSAMPLERS)
"""Upsamplers that need no model."""


def default_methods() -> dict[str, Method]:
    """The methods of an experiment that names none: the paper's, and the two it is compared with."""
    cyclegan = Losses(cycle=10, downsample=0, upsample=0, clinical_ssim=0, micro_ssim=0)
    return {
        "proposed": Method(),
        "bicubic": Method(upsampler="bicubic"),
        "cyclegan": Method(losses=cyclegan, mix_fraction=0),
    }
