"""Section `train`: how a method is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from microsr.config.section import Count, Fraction, Positive, Section, Weight
from microsr.core.registry.families import FAMILIES

ENOUGH_SEEDS = 3
"""Trainings of a model, `train.repeats`, from which on a metric has an interval."""


class Train(Section):
    """Training of the modified CycleGAN."""

    network: Literal[*FAMILIES] = "efficient"
    """Network family: efficient (near resnet's quality at a fraction of its arithmetic), resnet (the paper's class) or
    compact (the smallest).
    """
    repeats: Count = 1
    """Trainings of each model, which differ in their seed only (seed, seed + 1, ...): from three on the tables have
    intervals.
    """
    candidates: Count = 1
    """Models kept of each training, at evenly spaced steps up to its end: from two on the validation cases choose among
    them, by evaluate.choose_by. The same for all methods.
    """
    epochs: Count = 200
    """Passes over the training patches (paper: 200)."""
    patches_per_case: Count = 2000
    """Patch pairs drawn from each case in an epoch (open in the paper; the authors' published code: 2000)."""
    batch_size: Count = 4
    """Patch pairs in a step, over all processes (open in the paper)."""
    learning_rate: Positive = 1e-5
    """Adam's learning rate while constant (open in the paper)."""
    adam_betas: tuple[Fraction, Fraction] = (0.5, 0.999)
    """Adam's moment decay rates (open in the paper; CycleGAN's)."""
    constant_fraction: Fraction = 0.5
    """Share of the training with a constant learning rate; then it falls linearly to 0 (open in the paper;
    CycleGAN's).
    """
    pool_size: Annotated[int, Field(ge=0)] = 50
    """Generated images kept to show the discriminators (open in the paper; CycleGAN's)."""
    augment: bool = True
    """Flip and rotate patches by multiples of 90 degrees."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 autocast where the hardware computes in it, else float32; losses are float32 always."""
    start_steps: Annotated[int, Field(ge=0)] = 0
    """Steps before all others in which G1 alone learns from pairs, uCT patches and what the scanner would make of them
    (beyond the paper; docs/method.md).
    """
    noise_gain: Positive = 1.0
    """Strength of G1's and G2's random planes in the first weights, beside that of a feature (efficient, compact;
    beyond the paper).
    """
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay per step of the exponential moving average of G1's weights that is saved as the model; 0: the weights
    themselves (beyond the paper).
    """
    gradient_penalty: Weight = 0.0
    """Weight of the R1 penalty on the discriminators' gradient at real patches (Mescheder et al. 2018; beyond the
    paper).
    """
    spectral_norm: bool | None = None
    """Spectral normalisation of the discriminators (Miyato et al. 2018); null: as the network family has it, efficient
    and compact on, resnet off.
    """
