"""Metrics of super-resolved CT as tidy tables: one sub-command a protocol, and `collect` and `summarise` for all of
them.

Here: `metrics`, the protocols no_reference and truth. In: a super-resolved volume, its clinical input with its mask,
the uCT that it should look like, and the truth with its labels and airways where they exist. Out: rows of
`evaluation.tables.COLUMNS`.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from microsr import config
from microsr.core.code_version import STEPS
from microsr.core.errors import UserError
from microsr.core.files import replacing, write_csv
from microsr.core.progress import logger
from microsr.core.provenance import write_run
from microsr.core.registry.protocols import PROTOCOLS
from microsr.core.subcommands import add_subcommand, add_subcommands
from microsr.evaluation import tables
from microsr.volume import alignment
from microsr.volume.storage import open_mask, open_volume

if TYPE_CHECKING:
    from microsr.evaluation.protocols import truth

TABLES = {
    "collect": "put the tables of all cases and protocols into one",
    "summarise": "mean and interval of each metric",
    "search": "rank the trials of a search",
    "choices": "put into one table which model of each training was chosen",
    "choose": "choose among the models kept of a training",
    "validate": "show the metrics images whose faults are known",
}
"""What is no protocol, each a module of its own, which is loaded when it is asked for."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Command-line arguments of the step."""
    commands = add_subcommands(parser, "COMMAND")

    one = add_subcommand(
        commands, "metrics", "metrics of one super-resolved case: protocols no_reference and truth", None
    )
    _add_names(one)
    one.add_argument("--superresolved", required=True, type=Path, help="super-resolved CT (OME-Zarr)")
    one.add_argument("--clinical", required=True, type=Path, help="its input (OME-Zarr with its mask)")
    one.add_argument(
        "--micro", required=True, nargs="+", type=Path, help="uCT volumes (OME-Zarr with the specimen mask)"
    )
    one.add_argument("--truth", type=Path, help="truth on the super-resolved grid, every clinical slice (OME-Zarr)")
    one.add_argument("--thick_truth", type=Path, help="the truth's mean over the slice profile; needs --truth")
    one.add_argument("--labels", type=Path, help="tissue labels on the truth's grid (OME-Zarr)")
    one.add_argument("--airways", type=Path, help="airways that cross the truth's slices (.csv); needs --labels")
    one.add_argument("--maps", type=Path, help="volume of hallucinations to write (OME-Zarr); needs --truth")
    one.add_argument(
        "--output", required=True, type=Path, help="table (.csv); with --airways, .bronchioles.csv beside it"
    )
    config.add_flags(one, config.Evaluate, without=config.OF_PLAN)
    config.add_flags(one, config.Scanner)

    for name, entry in PROTOCOLS.items():
        protocol = add_subcommand(commands, name, entry.help, entry.module)
        _add_names(protocol)
        protocol.add_argument("--output", required=True, type=Path, help="table (.csv)")

    for name, summary in TABLES.items():
        add_subcommand(commands, name, summary, STEPS[f"evaluate.{name}"])


def _add_names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--case", required=True, help="name of the case")
    parser.add_argument("--method", required=True, help="name of the method")
    parser.add_argument("--training_set", required=True, help="name of the training set, or none")
    parser.add_argument("--seed", required=True, help="seed of the training, or none")


def main(ns: argparse.Namespace) -> None:
    """Run the step from its command line."""
    (ns.module.run if ns.module else run)(ns)


def run(ns: argparse.Namespace) -> None:
    """Run `microsr evaluate metrics`."""
    if ns.truth:  # only here, as below, since each command loads what it needs
        from microsr.evaluation.protocols import truth

    evaluate(
        (ns.case, ns.method, ns.training_set, ns.seed),
        ns.superresolved,
        ns.clinical,
        ns.micro,
        ns.output,
        config.from_flags(ns, config.Evaluate),
        config.from_flags(ns, config.Scanner),
        truth.Reference(ns.truth, ns.labels, ns.airways, ns.thick_truth) if ns.truth else None,
        ns.maps,
    )


def evaluate(
    names: tables.Names,
    superresolved: Path,
    clinical: Path,
    micro: list[Path],
    output: Path,
    settings: config.Evaluate,
    scanner: config.Scanner,
    reference: truth.Reference | None = None,
    maps: Path | None = None,
) -> None:
    """Write the metrics of one super-resolved volume as a tidy .csv.

    superresolved: HU, scale times the clinical size in-plane, its attribute `slices` the clinical slices that it holds.
    reference: the truth on the same grid, all clinical slices; None: no metrics of protocol truth. maps: where to write
    the hallucinations (see `evaluation.protocols.truth.rows`). With airways in the reference, the crossings go to
    <output stem>.bronchioles.csv.

    Raises
    ------
    UserError
        A volume is not in HU, the volumes do not overlay, or nothing of the super-resolved slices is inside the mask.
    """
    from microsr.evaluation.protocols import no_reference

    started = time.time()
    sr, ct, references = open_volume(superresolved), open_volume(clinical), [open_volume(path) for path in micro]
    for path, volume in zip([superresolved, clinical, *micro], [sr, ct, *references], strict=True):
        alignment.check_unit(volume, path)
    slices = alignment.held_slices(sr, superresolved, ct, clinical)
    alignment.check_input(sr, superresolved, ct, clinical, slices)
    if maps is not None and reference is None:
        raise UserError("--maps needs --truth: what is invented is known only beside the truth")

    mask = open_mask(clinical)
    if not ct.is_lung:
        logger.info("%s is no lung: metrics of vessels, airways, small solids and lesions are left out", clinical)
    whole = mask
    if reference is not None and names[1] in config.REFERENCES:
        mask = alignment.where_known(mask, reference.truth)
    rows = no_reference.slice_rows(sr, superresolved, ct, mask, slices, scanner)
    try:
        masks = [open_mask(path) for path in micro]
        rows += no_reference.window_rows(sr, superresolved, mask, slices, references, masks, micro)
    except UserError as error:
        if mask is whole:
            raise
        logger.info("of the truth no texture is measured: %s", error)
    inputs, results = [superresolved, clinical, *micro], [output] + ([maps] if maps else [])
    if reference is not None:
        from microsr.evaluation.protocols import truth

        inputs += reference.paths
        with replacing(maps) if maps is not None else contextlib.nullcontext() as temporary:
            found, crossings = truth.rows(
                sr, superresolved, mask, slices, reference, settings, scanner, temporary, ct.is_lung
            )
        rows += found
        if crossings is not None:
            crossings = crossings.assign(case=names[0], seed=names[3])
            results.append(output.with_suffix(".bronchioles.csv"))
            write_csv(results[-1], crossings, float_format="%.6g")
    tables.write_table(output, names, rows)
    write_run(
        results,
        step="evaluate",
        settings=settings.model_dump(mode="json") | {"scanner": scanner.model_dump(mode="json")},
        inputs=inputs,
        started=started,
        slices=slices,
    )
