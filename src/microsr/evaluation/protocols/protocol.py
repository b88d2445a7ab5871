"""What a protocol of evaluation in `core.registry.protocols` must offer. docs/extending.md shows how one is added."""

from __future__ import annotations

import argparse
import typing


class Protocol(typing.Protocol):
    """A module that measures one super-resolved CT.

    Its metrics, and how it is read, are in `evaluation.catalogue`.
    """

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the flags of `microsr evaluate <protocol>` without those that every one has.

        Those are `--case`, `--method`, `--training_set`, `--seed` and `--output`.
        """

    def run(self, ns: argparse.Namespace) -> None:
        """Measure, and write `ns.output`, a table of `evaluation.tables.COLUMNS`, with its run.json.

        Raises
        ------
        UserError
            The files do not allow it. The message names the file and what mends it.
        """
