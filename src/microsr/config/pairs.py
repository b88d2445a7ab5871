"""Section `pairs`: which scanners the uCT patches are seen through, for methods that learn from pairs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from microsr.config.cases import KernelName
from microsr.config.section import Count, Positive, Section, read_word


def _rising(span: tuple[float, float]) -> tuple[float, float]:
    if span[0] > span[1]:
        raise ValueError("must not fall from the first value to the second")
    return span


Span = Annotated[tuple[Positive, Positive], AfterValidator(_rising)]
"""Smallest and largest value of what is drawn evenly between them."""


NEIGHBOURS = (1, 3, 5)
"""How many slices a scan may have: the patch's own, and as many on either side."""
Slices = Annotated[Literal[*NEIGHBOURS], BeforeValidator(read_word)]


class Pairs(Section):
    """Scans of each uCT patch, made from the uCT volume: the other half of its pair (beyond the paper)."""

    scanners: Count = 4
    """Scans of each uCT patch: the first by the scanner as stated, the others by scanners drawn for it."""
    kernels: Annotated[list[KernelName], Field(min_length=1)] = ["B30", "D45", "lung"]
    """Kernels that the others are drawn from."""
    slice_sigma: Span = (0.7, 1.4)
    """Range that their slice profile is drawn from, times scanner.slice_sigma_mm."""
    slice_spacing_mm: Span | None = None
    """Where a method sees neighbouring slices (methods.<name>.slices): range that the distance of a scan's slices is
    drawn from, mm; null: what the training cases' clinical CTs have.
    """
