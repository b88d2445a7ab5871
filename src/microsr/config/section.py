"""What every section is, and the kinds of value that several of them have."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
SLICES = r"^[0-9]{0,9}:[0-9]{0,9}$"
REGION = r"^[0-9]{0,9}:[0-9]{0,9},[0-9]{0,9}:[0-9]{0,9}$"
SPACING = r"^[0-9.]+(x[0-9.]+){0,2}$"
IN_WORDS = {
    NAME: "letters, digits, '-' and '_', as case_1",
    SLICES: "first:end, end excluded, as 3:8",
    REGION: "rows and columns first:end,first:end, ends excluded, as 100:300,50:250",
    SPACING: "mm, as 0.6 or 0.6x0.6 or 0.6x0.6x1.25",
}
Name = Annotated[str, Field(pattern=NAME)]
Positive = Annotated[float, Field(gt=0)]
SCALES = (2, 4, 8, 16)
"""Factors by which a slice may be magnified in-plane: networks double its sides, once or several times."""
DEFAULT_SCALE = 8
"""The paper's (Zheng et al. 2020, section 2)."""
Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]


def read_word(given: Any) -> Any:
    """The whole number that a word of a command line means; anything else as it is, for the type to judge."""
    return int(given) if isinstance(given, str) and given.isdecimal() else given


Scale = Annotated[Literal[*SCALES], BeforeValidator(read_word)]


def nearest_scale(ratio: float) -> int:
    """The one of SCALES that is nearest to a ratio of sizes; whether it is that ratio, the caller has to see."""
    return min(SCALES, key=lambda scale: abs(math.log(scale / ratio)))


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values are checked, nothing changes after loading."""

    # defer_build: a step uses a few of the sections, and the building of all of them is a third of the time to load
    # this module.
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False, defer_build=True
    )
