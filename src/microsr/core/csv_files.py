"""Tables that a step wrote as .csv, read with one line for the user where they are not what they should be."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from microsr.core.errors import UserError, brief

if TYPE_CHECKING:
    import pandas as pd


def read_columns(path: Path, columns: Iterable[str], what: str, command: str, **how: Any) -> pd.DataFrame:
    """Read a .csv that a step wrote, checked to have `columns`; it may have no rows.

    what: as "no table of airways". command: what makes it, as "microsr simulate". how: options of pandas.read_csv.

    Raises
    ------
    UserError
        The file cannot be read, or a column is missing.
    """
    import pandas as pd  # only here, as in `tables`

    try:
        found = pd.read_csv(path, **how)
    except (
        OSError,
        ValueError,
        OverflowError,
    ) as error:  # pandas' errors of parsing and of empty files are ValueErrors
        raise UserError(f"{path} is {what} ({brief(error)}); make it with `{command}`") from None
    missing = [column for column in columns if column not in found]
    if missing:
        raise UserError(f"{path} has no column {missing[0]}; make it with `{command}`")
    return found


def read_rows(path: Path, columns: Iterable[str], what: str, command: str, **how: Any) -> pd.DataFrame:
    """As `read_columns`, and there must be rows."""
    found = read_columns(path, columns, what, command, **how)
    if found.empty:
        raise UserError(f"{path} has no rows; make it with `{command}`")
    return found
