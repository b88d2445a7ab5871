"""Puts into one table which model of each training was chosen. In: tables of `choose_model`. Out: choice.csv."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd

from microsr.core.csv_files import read_rows
from microsr.core.files import write_csv
from microsr.core.provenance import write_run

BEGIN = ["method", "training_set", "seed", "candidate", "chosen"]
"""What a row begins with; behind it are the metrics and mean_rank."""


def collect_choices(inputs: list[Path], output: Path) -> None:
    """Put the tables of all trainings into one, in their order.

    Raises
    ------
    UserError
        A file is no such table.
    """
    made_by = "microsr evaluate choose"
    found = [read_rows(path, BEGIN, "no table of a choice", made_by, keep_default_na=False) for path in inputs]
    write_csv(output, pd.concat(found), float_format="%.6g")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr evaluate choices`."""
    parser.add_argument("--inputs", required=True, nargs="+", type=Path, help="tables of `microsr evaluate choose`")
    parser.add_argument("--output", required=True, type=Path, help="table (.csv)")


def run(ns: argparse.Namespace) -> None:
    """Run `microsr evaluate choices`."""
    started = time.time()
    collect_choices(ns.inputs, ns.output)
    write_run(ns.output, "evaluate.choices", {}, ns.inputs, started)
