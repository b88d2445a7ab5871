"""Section `superresolve`: inference, and the formats of its results."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from microsr.config.section import SLICES, Section
from microsr.core.registry.formats import FORMATS

EXPORTED = ("nifti", "nifti.gz", "nrrd", "metaimage", "dicom", *FORMATS)
"""Names of the formats beside OME-Zarr: those of `microsr.formats.writers`, and those in a module of their own."""


class Superresolve(Section):
    """Inference on the test cases' clinical CT."""

    slices: (
        Literal["all"]
        | Annotated[str, Field(pattern=SLICES)]
        | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    ) = "all"
    """Slices of the clinical volume to super-resolve (0 is the first): "all", "first:end" (end excluded) or a list of
    evenly spaced ones; all of them take scale^2 times the input's size, 64 at a scale of 8.
    """
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the network's layers; auto: bfloat16 where the hardware has units for it (what it changes:
    docs/tiles-and-speed.md).
    """
    draws: Annotated[int, Field(ge=2)] = 16
    """Number of draws of each scan, for methods of kind mean. With a truth all are kept: metrics need them."""
    formats: list[Literal[*EXPORTED]] = []
    """Further formats of the super-resolved volumes, beside the OME-Zarr on which the pipeline works."""

    @field_validator("slices", mode="before")
    @classmethod
    def _no_number(cls, value: Any) -> Any:
        if isinstance(value, int):  # YAML reads 3:8 as 3 * 60 + 8
            raise ValueError('slices must be "all", a list, or a range in quotation marks, as "3:8"')
        return value

    @model_validator(mode="after")
    def _check_even(self) -> Superresolve:
        chosen = [] if isinstance(self.slices, str) else sorted(set(self.slices))
        if len({after - before for before, after in pairwise(chosen)}) > 1:
            raise ValueError(
                f"slices must be evenly spaced, as [3, 5, 7] (a volume has one slice distance), not {chosen}"
            )
        return self
