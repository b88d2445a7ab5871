"""File formats in a module of their own (docs/extending.md): what each must offer, and where it is found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from microsr.core.registry import load_thing
from microsr.core.registry.formats import FORMATS

if TYPE_CHECKING:
    from microsr.config.sheet import Scan
    from microsr.formats.writers import Writer
    from microsr.volume.storage import Volume


class Format(Protocol):
    """A file format; one that is in `core.registry.read_only_formats` has `read` alone."""

    def read(self, path: Path, scan: Scan, scratch: Path | None) -> Volume:
        """Open a volume, whose slices are read when they are asked for; see `formats.readers.read_scan`.

        Raises
        ------
        UserError
            It is of another kind, damaged or truncated, or its geometry is not certain.
        """
        ...

    def writer(self, path: Path, shape: tuple[int, int, int], volume: Volume, state: dict[str, Any] | None) -> Writer:
        """A writer of int16 HU, slice by slice; see `formats.writers.open_writer`.

        Raises
        ------
        UserError
            The format cannot hold such a volume.
        """
        ...


def further_format(name: str) -> Format | None:
    """The format of this name that has a module of its own and is written too; None if there is none."""
    place = FORMATS.get(name)
    return None if place is None else load_thing(place)
