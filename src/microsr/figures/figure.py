"""What a figure in `core.registry.figures` must offer. docs/extending.md shows how one is added."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from microsr.config import named_paths


class Record(NamedTuple):
    """What run.json says of a figure beside its time and code: settings, inputs, and facts about what is drawn."""

    settings: dict[str, Any]
    inputs: list[Path]
    facts: dict[str, Any]


class Figure(Protocol):
    """A module that draws one figure."""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the flags of `microsr figures <figure>` without `--output`, which every one has."""

    def draw(self, ns: argparse.Namespace) -> Record:
        """Write the figure.

        ns.output is its path without ending; `figures.style.save` adds those of a picture.

        Raises
        ------
        UserError
            The files do not allow it. The message names the file and what mends it.
        """


def group_paths(pairs: list[str], flag: str) -> dict[str, list[Path]]:
    """As `config.named_paths`, but a name may come several times."""
    grouped: dict[str, list[Path]] = {}
    for pair in pairs:
        for name, path in named_paths([pair], flag).items():
            grouped.setdefault(name, []).append(path)
    return grouped
