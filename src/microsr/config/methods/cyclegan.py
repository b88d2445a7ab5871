"""Settings of a method of kind cyclegan: its losses, and the mix of its clinical inputs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, create_model, model_validator

from microsr.config.methods.method import TrainedMethod
from microsr.config.section import Section, Weight
from microsr.core.registry.losses import LOSSES

_weights: dict[str, Any] = {key: (Annotated[Weight, Field(description=loss.help)], 0.0) for key, loss in LOSSES.items()}
FurtherLosses = create_model("FurtherLosses", __base__=Section, **_weights)
"""Weights of the losses in a module of their own (docs/extending.md)."""


def refuse_noise_aware(given: Any, *keys: str) -> Any:
    """Settings as they are given, unless they have a key of the method `noise_aware`, which was removed."""
    for key in keys:
        if isinstance(given, dict) and key in given:
            raise ValueError(
                f"{key} was a key of the method noise_aware, which was removed, as it did not help (docs/results.md); "
                f"delete the key, and the method if it is noise_aware"
            )
    return given


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

    @model_validator(mode="before")
    @classmethod
    def _without_noise_aware(cls, given: Any) -> Any:
        return refuse_noise_aware(given, "repeat", "forgive_px")

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

    @model_validator(mode="before")
    @classmethod
    def _without_noise_aware(cls, given: Any) -> Any:
        return refuse_noise_aware(given, "mix_noise")
