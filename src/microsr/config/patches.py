"""Section `patches`: what is cut out for the training."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from microsr.config.section import Count, Fraction, Section
from microsr.core.scale import SCALE


class Patches(Section):
    """Training patches."""

    clinical_size: Annotated[int, Field(ge=4)] = 32
    """Pixels along a side of a clinical patch (paper: 32)."""
    micro_size: Annotated[int, Field(ge=4 * SCALE)] = 256
    """Pixels along a side of a uCT patch (paper: 256), 8 times clinical_size."""
    per_case: Count = 2000
    """Patches of each modality from each training case (open in the paper; the authors' published code: 2000)."""
    inside: Fraction = 1.0
    """Smallest share of a patch that lies inside the lung or specimen mask (open in the paper; wholly inside)."""

    @model_validator(mode="after")
    def _check_ratio(self) -> Patches:
        if self.micro_size != SCALE * self.clinical_size:
            raise ValueError(
                f"micro_size is {self.micro_size}, must be {SCALE} x clinical_size = {SCALE * self.clinical_size}"
            )
        return self
