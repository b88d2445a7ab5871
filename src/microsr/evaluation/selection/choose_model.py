"""Which of the models kept of a training is the one: the validation cases choose, for every method by the same rule.

In: the candidates, generator.1.pt, generator.2.pt, ..., and the validation cases. Out: generator.pt, a copy of the one
with the best mean rank over a few metrics, and a table of what each of them gave.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from microsr import config
from microsr.core.errors import UserError
from microsr.core.files import replacing, write_csv
from microsr.core.progress import logger
from microsr.core.provenance import write_run
from microsr.evaluation.evaluate import evaluate
from microsr.evaluation.protocols.truth import Reference
from microsr.evaluation.selection.ranks import mean_ranks
from microsr.evaluation.selection.tabulate_choices import BEGIN
from microsr.evaluation.tables import read_table
from microsr.inference.superresolve import superresolve
from microsr.inference.upsamplers import Generator

NEEDED, KNOWN = ("name", "clinical", "micro"), ("truth", "labels", "airways")
"""What is said of every validation case, and of one that is known."""


@dataclasses.dataclass(frozen=True)
class ValidationCase:
    """The imported volumes of a validation case, and the table of its airways, where it is known."""

    name: str
    clinical: Path
    micro: list[Path]
    reference: Reference | None = None

    @property
    def paths(self) -> list[Path]:
        """All that a choice depends on."""
        return [self.clinical, *self.micro, *(self.reference.paths if self.reference else [])]


def choose(
    names: tuple[str, str, str],
    candidates: Sequence[Path],
    cases: Sequence[ValidationCase],
    output: Path,
    table: Path,
    settings: config.Evaluate,
    scanner: config.Scanner,
    inference: config.Superresolve,
    compute: config.Compute,
) -> None:
    """Copy the chosen one of `candidates` to `output`, and write what each of them gave into `table` (.csv).

    names: method, training set and seed. Of equals the later one is chosen: it was trained longer.

    Raises
    ------
    UserError
        A model or a volume cannot be read, or a metric of `settings.choose_by` is not measured on the cases.
    """
    started = time.time()
    order = list(reversed(candidates))
    found = []
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".choose.") as folder:
        for model in order:
            upsampler = Generator(model, compute.device, inference.precision)
            for case in cases:
                image, metrics = Path(folder, "image.ome.zarr"), Path(folder, "metrics.csv")
                superresolve(case.clinical, image, upsampler, inference.slices, threads=compute.threads)
                of = (case.name, *names)
                evaluate(of, image, case.clinical, case.micro, metrics, settings, scanner, case.reference)
                found.append(read_table(metrics).assign(candidate=model.name))
    ranked = mean_ranks(pd.concat(found), settings.choose_by).reset_index()
    chosen = next(model for model in candidates if model.name == ranked["candidate"][0])
    metrics = [name for name in ranked if name != "candidate"]
    ranked = ranked.assign(**dict(zip(BEGIN[:3], names, strict=True)), chosen=["yes", *[""] * (len(ranked) - 1)])
    write_csv(table, ranked[[*BEGIN, *metrics]], float_format="%.6g")
    with replacing(output) as temporary:
        temporary.write_bytes(chosen.read_bytes())
    logger.info("%s of %s %s: %s is chosen", len(candidates), *names[:2], chosen.name)
    settings_used = {"choose_by": settings.choose_by, "slices": inference.slices, "scanner": scanner.model_dump()}
    inputs = [*candidates, *(path for case in cases for path in case.paths)]
    write_run([output, table], "evaluate.choose", settings_used, inputs, started, chosen=chosen.name)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr evaluate choose`."""
    parser.add_argument("--method", required=True)
    parser.add_argument("--training_set", required=True)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--candidates", required=True, nargs="+", type=Path, help="models of the training (.pt)")
    parser.add_argument(
        "--case", required=True, action="append", nargs="+", metavar="KIND=PATH",
        help="a validation case: name=NAME, clinical=, micro= (one or more), truth=, labels=, airways=",
    )  # fmt: skip
    parser.add_argument("--by", required=True, nargs="+", help="metrics that rank the models, as truth.ms_ssim")
    parser.add_argument("--output", required=True, type=Path, help="the chosen model (.pt)")
    parser.add_argument("--table", required=True, type=Path, help="what each gave (.csv)")
    config.add_flags(parser, config.Evaluate, without=config.OF_PLAN)
    config.add_flags(parser, config.Scanner)
    config.add_flags(parser, config.Superresolve, without=["formats", "draws"])
    config.add_flags(parser, config.Compute, without=config.OF_TRAINING)


def case_of(words: Sequence[str]) -> ValidationCase:
    """The case that the words of --case give.

    Raises
    ------
    UserError
        They are malformed, or lack the name, the clinical CT or the uCT.
    """
    given: dict[str, list[str]] = {}
    for word in words:
        kind, _, value = word.partition("=")
        given.setdefault(kind, []).append(value)
    if not set(NEEDED) <= set(given) <= {*NEEDED, *KNOWN}:
        raise UserError(
            f"--case {' '.join(words)}: give name=, clinical= and micro=, and of a known case truth=, labels= and "
            "airways="
        )
    known = {kind: Path(given[kind][0]) for kind in KNOWN if kind in given}
    micro = [Path(path) for path in given["micro"]]
    reference = Reference(**known) if "truth" in known else None
    return ValidationCase(given["name"][0], Path(given["clinical"][0]), micro, reference)


def run(ns: argparse.Namespace) -> None:
    """Run `microsr evaluate choose`."""
    settings = config.from_flags(ns, config.Evaluate).model_copy(update={"choose_by": ns.by})
    sections = (config.Scanner, config.Superresolve, config.Compute)
    names = (ns.method, ns.training_set, ns.seed)
    cases = [case_of(words) for words in ns.case]
    choose(names, ns.candidates, cases, ns.output, ns.table, settings, *(config.from_flags(ns, s) for s in sections))
