"""Libraries that only few formats need: the extra `uct`."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from microsr.core.errors import UserError


def load(library: str, path: Path) -> ModuleType:
    """The library that reads the file at `path`.

    Raises
    ------
    UserError
        It is not installed.
    """
    try:
        return importlib.import_module(library)
    except ImportError:
        raise UserError(
            f"{path}: needs the library {library}, which is not installed; install it: python -m pip install "
            "'microsr[uct]', or python -m pip install " + library
        ) from None
