"""Puts the tables of metrics of all cases and protocols into one. In: tables of the protocols. Out: metrics.csv, the
same columns.

Only metrics that the catalogue describes are taken, so that each reaches figures and report with its direction and its
unit.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

from microsr.core.errors import UserError
from microsr.core.files import replacing
from microsr.core.provenance import write_run
from microsr.evaluation.catalogue import check_metrics
from microsr.evaluation.tables import COLUMNS, KEYS


def collect(inputs: list[Path], output: Path) -> None:
    """Put several tables into one, sorted by what identifies a row; values are copied as they are written.

    Raises
    ------
    UserError
        A file has other columns, is empty, repeats a row, or has a metric that is not in the catalogue.
    """
    rows: dict[tuple[str, ...], list[str]] = {}
    for path in inputs:
        with path.open(encoding="utf-8", newline="") as stream:
            header, *body = list(csv.reader(stream)) or [[]]
        if header != COLUMNS:
            raise UserError(f"{path} has columns {', '.join(header) or '(none)'}; expected {', '.join(COLUMNS)}")
        if not body:
            raise UserError(f"{path} holds no metrics; make it again with `microsr evaluate metrics`")
        for row in body:
            key = tuple(row[: len(KEYS)])
            if key in rows:
                raise UserError(f"{path} has a second row for {', '.join(key)}; give each table once")
            rows[key] = row
        try:
            check_metrics((protocol, metric, unit) for *_, protocol, metric, _, unit in body)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
    with replacing(output) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([COLUMNS, *(rows[key] for key in sorted(rows))])


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr evaluate collect`."""
    parser.add_argument("--inputs", required=True, nargs="+", type=Path, help="tables of the other commands")
    parser.add_argument("--output", required=True, type=Path, help="table (.csv)")


def run(ns: argparse.Namespace) -> None:
    """Run `microsr evaluate collect`."""
    started = time.time()
    collect(ns.inputs, ns.output)
    write_run(ns.output, "evaluate.collect", {}, ns.inputs, started)
