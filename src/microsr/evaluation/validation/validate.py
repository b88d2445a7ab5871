"""The step that validates the metrics: each is shown images whose faults are known, and must rank them as the catalogue
says.

In: a scanner. Small lungs are simulated for the step, each of which is another lung to the one before it. Out: a table
with a row for each lung, image and metric of the protocols no_reference and truth. In place of uCT the metrics are
given the truth of the other lung. A metric that ranks otherwise than it should is a finding, not an error.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from microsr import config
from microsr.config.sheet import Scan
from microsr.core.errors import UserError
from microsr.core.files import write_csv
from microsr.core.progress import Progress, logger
from microsr.core.provenance import write_run
from microsr.evaluation.catalogue import CANDIDATES, Best, Metric, find_metric
from microsr.evaluation.evaluate import evaluate
from microsr.evaluation.protocols.truth import Reference
from microsr.evaluation.tables import read_table
from microsr.evaluation.validation.candidates import Lung, make_candidates
from microsr.formats.readers import read_scan
from microsr.physics.tissues import Tissue
from microsr.simulation.simulate import simulate
from microsr.volume.storage import Volume, magnified_geometry, write_volume

COLUMNS = ["lung", "candidate", "protocol", "metric", "value", "unit", "loss", "claim", "verdict"]
LEAST = 0.02
"""Share of the worst candidate's loss from which on a candidate is ranked worse than the truth."""
WORSE, FOOLED = "worse", "as good"
"""Verdicts on a candidate beside the truth: ranked worse than it, or not."""
VOLUMES = ("clinical", "truth", "thick_truth", "labels")
SIMULATED = config.Simulate(clinical_size=64, clinical_slices=3, specimen_mm=8)
"""Small lungs: what a metric tells apart it has to tell apart on a few slices."""


def validate(seeds: Sequence[int], scanner: config.Scanner, settings: config.Evaluate, output: Path) -> None:
    """Show every metric the candidates of a lung of each seed, and write what it makes of them (COLUMNS, .csv).

    scanner: that of the scans.

    Raises
    ------
    UserError
        There is only one seed.
    """
    started = time.time()
    if len(set(seeds)) < 2:
        raise UserError(f"--seeds {seeds[0]}: give two or more, as another lung's truth is one of the images")
    with tempfile.TemporaryDirectory(prefix="microsr.") as folder:
        for seed in seeds:
            simulate(Path(folder, f"seed {seed}"), "metrics", "test", seed, SIMULATED, scanner)
        lungs = [read_lung(Path(folder, f"seed {seed}")) for seed in seeds]
        table = pd.concat(
            judge(measure(lung, other, scanner, settings)).assign(lung=lung.name)
            for lung, other in zip(lungs, [*lungs[1:], lungs[0]], strict=True)
        )
    write_csv(output, table[COLUMNS], float_format="%.6g")
    broken = broken_claims(table)
    chosen = {"seeds": list(seeds), "scanner": scanner.model_dump(mode="json"), "data_range_hu": settings.data_range_hu}
    write_run(output, "evaluate.validate", chosen, [], started, broken=broken)
    claims = int(np.count_nonzero(table["claim"]))
    logger.info("%d of %d claims of the catalogue hold; not: %s", claims - len(broken), claims, broken or "none")


def read_lung(folder: Path) -> Lung:
    """A test case in the folder that `microsr simulate` made."""
    volumes = (read_scan(Scan(path=str(folder / f"{name}.nii.gz"))) for name in VOLUMES)
    clinical, truth, thick, labels = (replace(one, array=np.asarray(one.array), unit="HU") for one in volumes)
    return Lung(folder.name, clinical, truth, thick, labels.array, folder / "airways.csv")


def measure(lung: Lung, other: Lung, scanner: config.Scanner, settings: config.Evaluate) -> pd.DataFrame:
    """The metrics of a lung's truth and of its candidates: columns candidate, protocol, metric, value, unit.

    other: of the same size; another lung's truth, and what the texture is compared with.
    """
    images = {"truth": lung.truth.array} | make_candidates(lung, other, scanner)
    slices, fine = list(range(len(lung.clinical.array))), magnified_geometry(lung.clinical, lung.scale)
    found = []
    progress = Progress(len(images), "images")
    with tempfile.TemporaryDirectory(prefix="microsr.") as name:
        folder = Path(name)
        write_volume(folder / "clinical", lung.clinical, lung.mask)
        write_volume(folder / "truth", lung.truth)
        write_volume(folder / "thick", lung.thick)
        write_volume(folder / "labels", Volume(lung.labels, **fine, unit="label"))
        write_volume(folder / "micro", other.truth, other.labels != Tissue.OUTSIDE)
        reference = Reference(folder / "truth", folder / "labels", lung.airways, folder / "thick")
        for candidate, image in images.items():
            write_volume(folder / "sr", Volume(image, **fine, attributes={"slices": slices}))
            paths = folder / "sr", folder / "clinical", [folder / "micro"], folder / "metrics.csv"
            evaluate((lung.name, candidate, "none", "none"), *paths, settings, scanner, reference)
            found.append(read_table(folder / "metrics.csv").rename(columns={"method": "candidate"}))
            progress.advance()
    progress.close()
    return pd.concat(found)[["candidate", "protocol", "metric", "value", "unit"]]


def judge(table: pd.DataFrame) -> pd.DataFrame:
    """What each metric makes of each candidate of one lung, added as loss, claim and verdict; the truth has none.

    loss: how much worse than the truth, as a share of the worst candidate (1); 0 or less: no worse. claim: what the
    catalogue says of it, if anything. verdict: what it is, unless nothing was measured.
    """
    parts = []
    for (protocol, key), own in table.groupby(["protocol", "metric"], sort=False):
        metric = find_metric(protocol, key)
        values = own.set_index("candidate")["value"]
        badness = _badness(metric, values)
        losses = badness - badness["truth"]
        worst = losses[np.isfinite(losses)].max()
        losses = (losses / worst if worst > 0 else 0 * losses).clip(upper=1)
        own = own.assign(loss=losses.reindex(own["candidate"]).to_numpy())
        known = not np.isnan(values["truth"])  # else there is none of what it measures in this lung
        own["claim"] = [_claim(metric, name) if known else "" for name in own["candidate"]]
        own["verdict"] = np.select([own["loss"].isna(), own["loss"] >= LEAST], ["", WORSE], FOOLED)
        parts.append(own)
    found = pd.concat(parts)
    return found.assign(verdict=found["verdict"].where(found["candidate"] != "truth", ""))


def _claim(metric: Metric, candidate: str) -> str:
    return WORSE if candidate in metric.sees else FOOLED if candidate in metric.blind else ""


def _badness(metric: Metric, values: pd.Series) -> pd.Series:
    """How bad values are, 0 or more for the best that there can be; infinite: never reached; NaN: not measured."""
    if metric.unit == "dB":
        return 10 ** (-values / 20)
    if metric.best is Best.TRUTH:
        return (values - values["truth"]).abs()
    if metric.best is Best.ZERO:
        return values.abs()
    return -values if metric.best is Best.HIGHER else values


def broken_claims(table: pd.DataFrame) -> list[str]:
    """What a metric does otherwise than the catalogue says, in words; what was not measured is no claim kept."""
    broken = table[(table["claim"] != "") & (table["claim"] != table["verdict"])]
    return [
        f"{row.protocol}.{row.metric}: {CANDIDATES[row.candidate]} of {row.lung} is {row.verdict or 'not measured'}, "
        f"not {row.claim}"
        for row in broken.itertuples()
    ]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr evaluate validate`."""
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2], help="of the lungs that are simulated for it")
    parser.add_argument("--output", required=True, type=Path, help="table (.csv)")
    config.add_flags(parser, config.Evaluate, without=config.OF_PLAN)
    config.add_flags(parser, config.Scanner)


def run(ns: argparse.Namespace) -> None:
    """Run `microsr evaluate validate`."""
    validate(ns.seeds, config.from_flags(ns, config.Scanner), config.from_flags(ns, config.Evaluate), ns.output)
