"""The step that validates the simulation: each quantity measured from the simulated lung and scanner, beside the
literature's.

In: folders of simulated test cases, the scanner's settings, and optionally one real scan in two kernels. Out: a tidy
table (`microsr.simulation.validation.checks`) and run.json beside it. A figure outside its range is a finding, not an
error.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from microsr import config
from microsr.core.progress import logger
from microsr.core.provenance import write_run
from microsr.core.streams import Stream, numpy_stream
from microsr.simulation.validation import lung
from microsr.simulation.validation import scanner as validate_scanner
from microsr.simulation.validation.checks import write_checks

CASE_FILES = ("clinical.nii.gz", "truth.nii.gz", "labels.nii.gz", "repeat.nii.gz", "airways.csv")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Command line of the step."""
    parser.add_argument("--case-folders", required=True, nargs="+", type=Path, help="folders of simulated test cases")
    parser.add_argument(
        "--kernel_pair", nargs=2, type=Path, metavar=("SHARP", "SOFT"), help="a real scan in a sharp and a soft kernel"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the noise, foam and tree that are measured")
    parser.add_argument("--output", required=True, type=Path, help="table to write (.csv)")
    config.add_flags(parser, config.Scanner)


def main(ns: argparse.Namespace) -> None:
    """Run the step from its command line."""
    validate(ns.case_folders, ns.kernel_pair, ns.seed, config.from_flags(ns, config.Scanner), ns.output)


def validate(folders: list[Path], pair: list[Path] | None, seed: int, scanner: config.Scanner, output: Path) -> None:
    """Measure everything and write the table and its run.json.

    folders: simulated test cases. pair: the sharp and the soft volume of one real scan, or None.

    Raises
    ------
    UserError
        A file is missing, or is not what it should be.
    """
    started = time.time()
    streams = numpy_stream(Stream.VALIDATION, seed).spawn(3)
    kernels = validate_scanner.read_kernel_pair(*pair) if pair else None
    cases = [lung.SimulatedCase.read(folder) for folder in folders]
    checks = [
        *validate_scanner.check_mtf(scanner.pixel_mm),
        *validate_scanner.check_slice_profile(scanner),
        *validate_scanner.check_noise(scanner, cases[0].slice_mm, streams[0]),
        *(validate_scanner.check_kernel_pair(*kernels) if kernels else []),
        *lung.check_tissues(cases),
        *lung.check_foam(streams[1]),
        *lung.check_tree(streams[2]),
        *lung.check_walls(pd.concat([case.airways for case in cases])),
    ]
    write_checks(output, checks)
    single = [check for check in checks if np.isnan(check.x)]
    outside = [f"{c.quantity} ({c.group})" for c in single if c.verdict == "outside"]
    judged = sum(c.verdict != "no figure" for c in single)
    inputs = [folder / name for folder in folders for name in CASE_FILES] + (pair or [])
    settings = {"seed": seed, "scanner": scanner.model_dump(mode="json")}
    write_run(output, "validate", settings, inputs, started, outside=outside)
    logger.info("%d of %d figures within their range; outside: %s", judged - len(outside), judged, outside or "none")
