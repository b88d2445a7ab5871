"""The table of the simulation's validation: each row a measured quantity beside the range that the literature gives for
it.

Rows of quantity, group, x, measured, low, high, unit, source, verdict. `group` is the kernel, tissue or generation; `x`
is the abscissa where a quantity is a curve (frequency, generation), else empty. Shared by the step and its figure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from microsr.core.errors import UserError
from microsr.core.files import write_csv

COLUMNS = ["quantity", "group", "x", "measured", "low", "high", "unit", "source", "verdict"]
NONE = (math.nan, math.nan)
"""No figure is at hand."""


@dataclass(frozen=True)
class Check:
    """One measured number, the range it should be in (`NONE`: none is known), its unit, and whose range that is."""

    quantity: str
    group: str
    measured: float
    expected: tuple[float, float]
    unit: str
    source: str
    x: float = math.nan

    @property
    def verdict(self) -> str:
        """within, outside, or no figure."""
        low, high = self.expected
        if math.isnan(low) or math.isnan(high):
            return "no figure"
        return "within" if low <= self.measured <= high else "outside"


def write_checks(output: Path, checks: Iterable[Check]) -> None:
    """Write the table as .csv, in the order of the checks; what is undefined is left empty."""
    rows = [(c.quantity, c.group, c.x, c.measured, *c.expected, c.unit, c.source, c.verdict) for c in checks]
    write_csv(output, pd.DataFrame(rows, columns=COLUMNS), float_format="%.6g")


def read_checks(path: Path) -> pd.DataFrame:
    """Read such a table; numbers as float (empty: NaN), all else as text.

    Raises
    ------
    UserError
        The file is no such table.
    """
    numbers = ["x", "measured", "low", "high"]
    try:
        found = pd.read_csv(path, dtype=dict.fromkeys(set(COLUMNS) - set(numbers), str))
        missing = [column for column in COLUMNS if column not in found]
        problem = f"no column {missing[0]}" if missing else "no rows" if found.empty else ""
        if not problem:
            found[numbers] = found[numbers].astype(float)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, FileNotFoundError, ValueError) as error:
        problem = str(error)
    if problem:
        raise UserError(f"{path} is no table of the validation ({problem}); make it with `microsr validate`")
    return found
