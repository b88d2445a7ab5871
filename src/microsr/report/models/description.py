"""What is known of a trained model, for its card: from the file, from the records beside it, as far as they are there,
and from tables of `microsr evaluate uncertainty`, if the spread of its draws was measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microsr.core.errors import UserError
from microsr.core.provenance import checksum, find_run
from microsr.networks.safetensors_file import load_model
from microsr.report.lineage import trace

UNKNOWN = "not known"


@dataclass(frozen=True)
class Row:
    """A number of the calibration over the cases that it was measured on."""

    name: str
    mean: float
    low: float
    high: float
    ideal: float | None


@dataclass(frozen=True)
class Description:
    """What is known of a model."""

    title: str
    license: str | None
    facts: dict[str, Any]
    """As `networks.model_file.Facts`."""
    scale: int
    parameters: int
    noise_scales: tuple[int, ...]
    checksum: str
    """SHA-256 of the model that was exported."""
    trained_on: str | None
    """In the words of who exports it."""
    origins: dict[str, str]
    """Of each training case, by its name: what its records say of it."""
    scanners: dict[str, Any] | None
    """Settings of the scans that it learned from; None: it learned from none, or their record is not there."""
    calibration: tuple[Row, ...]
    judged: tuple[str, ...]
    """Cases of the calibration."""


def describe_model(
    model: Path, title: str, license: str | None, trained_on: str | None, calibration: Sequence[Path]
) -> Description:
    """What is known of the model at `model`.

    title: what it is called. license: as SPDX says it; None: not said. trained_on: in place of what the records say.
    calibration: tables of metrics with the protocol `uncertainty` of this model alone.

    Raises
    ------
    UserError
        The model or a table cannot be read, or the tables are of no model or of several.
    """
    g1, facts = load_model(model)
    records = _find_records(model, facts)
    judged, rows = _read_calibration(calibration)
    return Description(
        title, license, facts, g1.scale, sum(p.numel() for p in g1.parameters()), tuple(g1.noise_scales),
        checksum(model), trained_on, _find_origins(facts, records), _find_scanners(records), rows, judged,
    )  # fmt: skip


def _find_records(model: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """The records behind the model, by their names, as `lineage.trace` gives them; empty where those beside it are
    of another training or cannot be read.
    """
    if find_run(model) is None:
        return {}
    try:
        records = trace(model, check=False)["records"]
    except UserError:
        return {}
    used = {sha for _, sha in _inputs(facts)}
    own = [run for run in records.values() if run["step"] == "train" and {i["sha256"] for i in run["inputs"]} == used]
    return records if own and used else {}


def _inputs(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Name, case/file, and SHA-256 of each file that it was trained on; none where the file says it otherwise."""
    given = facts["provenance"].get("inputs")
    pairs = given if isinstance(given, list | tuple) else []
    return [(str(one[0]), str(one[1])) for one in pairs if isinstance(one, list | tuple) and len(one) == 2]


def _find_origins(facts: dict[str, Any], records: dict[str, Any]) -> dict[str, str]:
    """Of each training case, in the order of their names, where its records lead to."""
    shas = dict(_inputs(facts))
    first = {
        given["sha256"]: given["record"]
        for run in records.values()
        if run["step"] == "train"
        for given in run["inputs"]
    }
    found: dict[str, set[str]] = {}
    for name, sha in shas.items():
        steps = _steps_behind(first.get(sha), records)
        origin = UNKNOWN if not steps else "simulated" if "simulate" in steps else "scanned"
        found.setdefault(name.rpartition("/")[0] or name, set()).add(origin)
    return {case: " and ".join(sorted(found[case])) for case in sorted(found)}


def _steps_behind(name: str | None, records: dict[str, Any]) -> set[str]:
    """The steps that made what a record is of."""
    found, todo, seen = set(), [name], set()
    while todo:
        name = todo.pop()
        if name in records and name not in seen:
            seen.add(name)
            found.add(records[name]["step"])
            todo += [given["record"] for given in records[name]["inputs"]]
    return found


def _find_scanners(records: dict[str, Any]) -> dict[str, Any] | None:
    """Settings of the step `pairs`, which are the same for all cases of an experiment."""
    return next((run["settings"] for run in records.values() if run["step"] == "pairs"), None)


def _read_calibration(tables: Sequence[Path]) -> tuple[tuple[str, ...], tuple[Row, ...]]:
    """The cases, and mean and range over them of each metric of the protocol `uncertainty`."""
    if not tables:
        return (), ()
    import pandas as pd

    from microsr.evaluation.catalogue import Best, find_metric
    from microsr.evaluation.tables import read_table

    table = pd.concat([read_table(path) for path in tables])
    table = table[table["protocol"] == "uncertainty"]
    models = sorted({" ".join(key) for key in zip(table["method"], table["training_set"], table["seed"], strict=True)})
    if len(models) != 1:
        given = ", ".join(map(str, tables))
        raise UserError(
            f"{given}: the protocol uncertainty is of {', '.join(models) or 'no model'}, not of "
            "one; give tables of `microsr evaluate uncertainty` of this model"
        )
    means = table.groupby("metric", sort=False)["value"].agg(["mean", "min", "max"]).dropna()
    rows = []
    for key, (mean, low, high) in means.iterrows():
        metric = find_metric("uncertainty", key)
        ideal = float(means.loc[metric.ideal, "mean"] if isinstance(metric.ideal, str) else metric.ideal)
        if metric.best is not Best.NONE:
            name = metric.name if metric.unit == "1" else f"{metric.name}, {metric.unit}"
            rows.append(Row(name, mean, low, high, None if math.isnan(ideal) else ideal))
    return tuple(sorted(set(table["case"]))), tuple(rows)
