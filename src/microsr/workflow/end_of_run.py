"""What is said when an experiment has run to its end: where things are, how long it took, and what was left out and
why.

For the Snakefile. What is left out is known from the configuration and the case sheet, but for the device of the
trainings.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from microsr.config import ENOUGH_SEEDS, Experiment
from microsr.config.sheet import Case
from microsr.core.progress import duration
from microsr.core.registry.protocols import ASKED_FOR

PLACES = {
    "report": "report.html",
    "comparison": "figures/comparison.png",
    "figures": "figures",
    "metrics": "tables/summary.csv",
    "models": "models",
    "volumes": "superresolved",
}
"""What a person looks for, and where it is among the results of an experiment."""
NAMED = 5
"""So many cases are named in a line, and the others counted."""
TESTS = {
    "downsampled": ("micro", "no uCT"),
    "repeatability": ("repeat", "no second scan"),
    "truth": ("truth", "no known truth"),
}
"""Protocols of evaluation that a case may lack: the column of the sheet, and why they lack where it is empty."""


def ending(experiment: str, results: Path, seconds: float, reasons: Sequence[str], without: Iterable[str] = ()) -> str:
    """The lines that say how an experiment ended.

    results: its folder. reasons: what was left out, as of `list_left_out`. without: names of PLACES that this run did
    not bring up to date.
    """
    found = [(name, results / place) for name, place in PLACES.items() if name not in without]
    lines = [f"Experiment {experiment} is finished; this run took {duration(seconds)}. In {results}:"]
    lines += [f"  {name:<12}{path.relative_to(results)}{'/' * path.is_dir()}" for name, path in found if path.exists()]
    if reasons:
        lines += ["Left out:", *(f"  {line}" for line in reasons)]
    return "\n".join(lines)


def list_left_out(
    experiment: Experiment, cases: Mapping[str, Case], tested: Sequence[str], nulls: Sequence[str]
) -> list[str]:
    """What an experiment does not make although it could be expected, with the reason, a line each.

    tested: names of the cases that methods are tested on. nulls: methods that the configuration sets to null.
    """
    lines = [f"method {name}: null in the configuration" for name in nulls]
    trained = experiment.trained_methods
    for modality, name in (("clinical", "clinical CT"), ("micro", "uCT")) if trained else ():
        lacking = [case.case for case in cases.values() if case.split == "train" and getattr(case, modality) is None]
        lines += [f"{name} of {_names(lacking)} in training: none in the sheet"] if lacking else []
    other = "validation" if experiment.evaluate.split == "test" else "test"
    if untested := [case.case for case in cases.values() if case.split == other]:
        lines.append(f"{other} cases {_names(untested)}: methods are tested on another split (evaluate.split)")
    asked = experiment.evaluate.further_protocols
    if unasked := [protocol for protocol in ASKED_FOR if protocol not in asked]:
        lines.append(f"metrics {', '.join(unasked)}: not asked for (evaluate.further_protocols)")
    for protocol, (column, why) in TESTS.items():
        if protocol in unasked:
            continue
        lacking = [case for case in tested if getattr(cases[case], column) is None]
        if column == "truth":
            lacking = [case for case in lacking if cases[case].micro_to_clinical is None]
        lines += [f"metrics {protocol} of {_names(lacking)}: {why} in the sheet"] if lacking else []
    unknown = [name for name in tested if not (cases[name].truth and cases[name].labels and cases[name].airways)]
    if unknown:
        lines.append(f"bronchioles and hallucination of {_names(unknown)}: truth, labels and airways are not all known")
    if not experiment.evaluate.validate_simulation:
        lines.append("validation of the simulated lung and scanner: not asked for (evaluate.validate_simulation)")
    if not experiment.evaluate.validate_metrics:
        lines.append("validation of the metrics: not asked for (evaluate.validate_metrics)")
    if experiment.superresolve.slices != "all":
        lines.append(f"slices: only {experiment.superresolve.slices} are super-resolved (superresolve.slices)")
    if not trained:
        lines.append("models, and figures of trainings: no method is trained (methods.<name>.kind: cyclegan, for one)")
    elif (repeats := experiment.train.repeats) < ENOUGH_SEEDS:
        lines.append(f"95 % intervals: they need {ENOUGH_SEEDS} trainings of each model, train.repeats is {repeats}")
    families = {experiment.training_of(method).network for method in trained}
    if len(families) == 1:
        lines.append(f"figure efficiency: all trained methods have networks of one family, {families.pop()}")
    return lines


def unused_gpu(device: str, records: Iterable[Path]) -> list[str]:
    """A line that says that models were trained on the CPU although this machine has a GPU, if they were.

    device: compute.device. records: run.json of the models.
    """
    on = []
    for record in records:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            on.append(json.loads(record.read_text(encoding="utf-8"))["speed"]["device"])
    if "cpu" not in on:
        return []
    why = "compute.device is cpu" if device == "cpu" else "PyTorch sees none"
    return [f"GPU: {on.count('cpu')} of {len(on)} models were trained on the CPU; {why}"]


def failures(logs: Path, began: float) -> list[str]:
    """Why steps failed, a line each: the errors that their logs end with.

    logs: the folder of all logs. began: when the run began, seconds since the epoch; what was written before is of an
    earlier run.
    """
    lines = []
    for log in sorted(logs.rglob("*.log")):
        written = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.stat().st_mtime >= began else []
        _, error, why = (written or [""])[-1].partition(" ERROR error: ")
        if error:
            lines.append(f"Failed: {why} [{log}]")
    return lines


def _names(cases: Sequence[str]) -> str:
    """Cases by name, and by number where there are many."""
    more = len(cases) - NAMED
    return ", ".join(cases[:NAMED]) + (f" and {more} more" if more > 0 else "")
