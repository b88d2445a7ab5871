"""Section `patches`: what is cut out for the training."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from microsr.config.section import Count, Fraction, Section


class Patches(Section):
    """Training patches."""

    clinical_size: Annotated[int, Field(ge=4)] = 32
    """Pixels along a side of a clinical patch (paper: 32)."""
    micro_size: Annotated[int, Field(ge=8)] = 256
    """Pixels along a side of a uCT patch (paper: 256), scale times clinical_size."""
    per_case: Count = 2000
    """Patches of each modality from each training case (open in the paper; the authors' published code: 2000)."""
    inside: Fraction = 1.0
    """Smallest share of a patch that lies inside the lung or specimen mask (open in the paper; wholly inside)."""
