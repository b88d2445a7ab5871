"""The table of metrics in short: mean and 95 % interval of each metric for each method. In: metrics.csv. Out:
summary.csv.

What varies by chance is the training: a model's value is its mean over the cases, and the interval is Student's t over
the models that differ in their seed only. Cases are the same for every method, so they are averaged, not counted as
chance.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from microsr.config import ENOUGH_SEEDS
from microsr.core.files import write_csv
from microsr.core.provenance import write_run
from microsr.evaluation.tables import read_table

CONFIDENCE = 0.95
GROUP = ["protocol", "metric", "unit", "method", "training_set"]
SUMMARY = ["mean", "low", "high", "seeds", "cases", "undefined", "split"]
"""What is said of a group."""


def summarise(table: pd.DataFrame, split: str = "test") -> pd.DataFrame:
    """Mean over cases and seeds, and its interval over seeds.

    table: columns of `evaluation.tables.COLUMNS`. Returns GROUP, mean, low, high (NaN without ENOUGH_SEEDS), seeds,
    cases, undefined (values that were not a number: a metric that has nothing to measure there, or a diameter that was
    never detected), split (of the cases, as given).
    """
    rows = []
    for key, group in table.groupby(GROUP, sort=False):
        models = group.groupby("seed")["value"].mean()  # leaves undefined values out
        values = models.dropna().to_numpy(float)
        mean, (low, high) = (values.mean(), interval(values)) if len(values) else (np.nan, (np.nan, np.nan))
        missing = int(group["value"].isna().sum())
        rows.append((*key, mean, low, high, len(models), group["case"].nunique(), missing, split))
    return pd.DataFrame(rows, columns=[*GROUP, *SUMMARY])


def interval(values: np.ndarray) -> tuple[float, float]:
    """Student's t interval of the mean of `values` [n]; (NaN, NaN) for fewer than ENOUGH_SEEDS."""
    if len(values) < ENOUGH_SEEDS or not np.isfinite(values).all():
        return float("nan"), float("nan")
    half = stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr evaluate summarise`."""
    parser.add_argument("--table", required=True, type=Path, help="table of `microsr evaluate collect`")
    parser.add_argument("--split", default="test", choices=("test", "validation"), help="what the cases are for")
    parser.add_argument("--output", required=True, type=Path, help="table (.csv)")


def run(ns: argparse.Namespace) -> None:
    """Run `microsr evaluate summarise`."""
    started = time.time()
    write_csv(ns.output, summarise(read_table(ns.table), ns.split), float_format="%.6g")
    write_run(ns.output, "evaluate.summarise", {"split": ns.split}, [ns.table], started)
