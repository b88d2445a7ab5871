"""Snakemake on the workflow of this folder: `microsr run`, for who does not want to know Snakemake."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from microsr.core.errors import UserError

HELP = """usage: microsr run [ARGUMENT ...]

Run Snakemake in a folder that `microsr new` made, or in a clone, with the Python that microsr is installed in.

  microsr run -n                              say what would be done
  microsr run                                 do it, on all cores
  microsr run --cores 2 figures               the figures alone, on two
  microsr run --configfile experiments/paper.yaml

All arguments are Snakemake's: `snakemake --help` tells them. Without one that says how many cores there are, it is
`--cores all`.
"""
CORES = ("--cores", "-c", "--jobs", "-j", "--profile", "--workflow-profile")
"""Arguments of Snakemake that say, or may say, how many jobs run side by side."""
SNAKEFILES = ("Snakefile", "snakefile", "workflow/Snakefile", "workflow/snakefile")
"""Where Snakemake looks for a workflow."""


def command(arguments: list[str]) -> list[str]:
    """The command that runs Snakemake with these arguments.

    Raises
    ------
    UserError
        There is no workflow in the working folder, and the arguments name none.
    """
    names = [argument.partition("=")[0] for argument in arguments]
    here = any(Path(name).is_file() for name in SNAKEFILES)
    if not here and not {"--snakefile", "-s", "--directory", "-d"} & set(names):
        raise UserError(
            f"{Path.cwd()}: has no Snakefile; go into the folder of your study, or make one: microsr new my-study"
        )
    said = any(name in CORES or (name[:2] in ("-c", "-j") and name[2:].isdigit()) for name in names)
    return [sys.executable, "-m", "snakemake", *([] if said else ["--cores", "all"]), *arguments]


def check_arguments(arguments: Sequence[str]) -> None:
    """Check that Snakemake's arguments do not ask for a file of settings as if it were a result.

    Raises
    ------
    UserError
        They do.
    """
    if any(argument.startswith(("--config", "--snakefile", "-s", "--profile")) for argument in arguments):
        return  # it may belong to one of these
    for argument in arguments:
        path = Path(argument)
        if path.suffix in (".yaml", ".yml") and path.is_file() and path.parts[0] != "results":
            raise UserError(f"{path}: is a file of settings, not a result to make; give it as --configfile {path}")


def main(namespace: argparse.Namespace) -> None:
    """Run `microsr run`: this process becomes Snakemake."""
    arguments = namespace.arguments
    if arguments[:1] in (["-h"], ["--help"]):
        print(HELP, end="")
        return
    os.execv(sys.executable, command(arguments))
