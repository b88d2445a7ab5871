"""The tidy table of metrics: one row a number, whatever measured it.

Rows of case, method, training_set, seed, protocol, metric, value, unit. `seed` is the training's; "none" where nothing
is trained.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from microsr.core.csv_files import read_rows
from microsr.core.files import write_csv

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["case", "method", "training_set", "seed", "protocol", "metric", "value", "unit"]
KEYS = COLUMNS[:6]
"""What identifies a row."""

Names = tuple[str, str, str, str]
"""Case, method, training set, seed."""
Row = tuple[str, str, float, str]
"""Protocol, metric, value, unit."""


def write_table(output: Path, names: Names, rows: Iterable[Row]) -> None:
    """Write the metrics of one case and model as a tidy .csv; an undefined value (NaN) is left empty."""
    import pandas as pd  # only here: it takes as long to load as the rest of most steps, which read no table

    write_csv(output, pd.DataFrame([(*names, *row) for row in rows], columns=COLUMNS), float_format="%.6g")


def read_table(path: Path) -> pd.DataFrame:
    """Read a table of metrics: text in every column but `value`, float.

    Raises
    ------
    UserError
        The file is no such table.
    """
    types = dict.fromkeys(KEYS, str) | {"value": float}
    how = {"keep_default_na": False, "na_values": {"value": [""]}, "dtype": types}
    return read_rows(path, COLUMNS, "no table of metrics", "microsr evaluate collect", **how)
