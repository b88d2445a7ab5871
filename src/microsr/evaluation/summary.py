"""The table of metrics in short: mean and 95 % interval of each metric for each method, and how far methods differ.

In: metrics.csv. Out: summary.csv, and paired.csv with the differences of all pairs of methods. What varies by chance is
the lung and the training. Every method is tested on the same lungs and trained with the same seeds, so two of them are
compared lung by lung and seed by seed; lungs and seeds are then drawn anew, each by themselves (two-way bootstrap).
With fewer than ENOUGH_CASES lungs an interval is over the seeds alone (Student's t), and says nothing of other lungs.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtr, stdtrit

from microsr.config import ENOUGH_SEEDS, REFERENCES
from microsr.core.files import write_csv
from microsr.core.provenance import write_run
from microsr.core.streams import Stream, numpy_stream
from microsr.evaluation.catalogue import Best, Metric, find_metric
from microsr.evaluation.names import method_rank
from microsr.evaluation.tables import read_table

CONFIDENCE = 0.95
ENOUGH_CASES = 3
"""Lungs from which on an interval is over lungs too."""
REPEATS = 2000
SEED = 0
"""Of the bootstrap: the same draws for every method and metric."""
GROUP = ["protocol", "metric", "unit", "method", "training_set"]
SUMMARY = ["mean", "low", "high", "over", "seeds", "cases", "undefined", "never", "best_of", "split"]
"""What is said of a group."""
OF_PAIR = ["protocol", "metric", "unit", "training_set", "method", "other"]
PAIRED = [*OF_PAIR, "better_by", "low", "high", "over", "seeds", "cases"]
"""What is said of two methods."""


class Interval(NamedTuple):
    """A 95 % interval, NaN where there is too little for one, and what it is over: "cases and seeds", "cases", "seeds"
    or "".
    """

    low: float
    high: float
    over: str


def summarise(table: pd.DataFrame, split: str = "test") -> pd.DataFrame:
    """Mean over cases and seeds, and its interval.

    table: columns of `evaluation.tables.COLUMNS`. Returns GROUP; mean (of a metric that may never be reached, the
    median, in which never counts as infinite); low, high and over (see `Interval`); seeds; cases; undefined (values
    that were not a number, as there was nothing to measure; they are left out); never (values that were infinite, as
    something was never reached); best_of (the training sets among whose methods this one is the best, by `compare`,
    with a blank between two); split (of the cases, as given).
    """
    best = _best(table, compare(table))
    rows = []
    for key, group in table.groupby(GROUP, sort=False):
        metric, values = find_metric(*key[:2]), _grid(group)
        facts = (*values.shape[::-1], int(np.isnan(values).sum()), int(np.isinf(values).sum()) if metric.never else 0)
        rows.append((*key, centre(values, metric), *interval(values, metric), *facts, best.get(key, ""), split))
    return pd.DataFrame(rows, columns=[*GROUP, *SUMMARY])


def join_trainings(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the models of one protocol as trainings of one set: "per_case" of all that were trained on one
    case, whose case then counts as a part of the seed, and "leave_one_out", in which each case has its own model.
    """
    names = table["training_set"].astype(str)
    one, others = names.str.startswith("case-"), names.str.startswith("without-")
    seeds = table["seed"].where(~one, names + "." + table["seed"].astype(str))
    joined = names.mask(one, "per_case").mask(others, "leave_one_out")
    return table.assign(training_set=joined, seed=seeds)


def compare(table: pd.DataFrame) -> pd.DataFrame:
    """By how much the first of two methods is better than the second, for each metric that says what is better.

    table: as for `summarise`. Returns PAIRED, a row for each pair of methods that were trained on the same set, or not
    at all. better_by: the mean (or median, as in `summarise`) over cases and seeds of what the first is nearer to the
    best value than the second; below 0 the second is better. Its interval: see `Interval`. What is known of a case
    (config.REFERENCES) is no method.
    """
    trained = [name for name in dict.fromkeys(table["training_set"]) if name != "none"] or ["none"]
    rows = []
    for key, own in table.groupby(["protocol", "metric", "unit"], sort=False):
        metric = find_metric(*key[:2])
        truth = own[own["method"] == "truth"].set_index("case")["value"]
        ideal = _ideals(table, own, metric)
        measured = own.assign(value=_badness(metric.best, own["value"], own["case"].map(truth), ideal))
        for training_set in trained:
            shown = measured[measured["training_set"].isin([training_set, "none"])]
            methods = sorted(set(shown["method"]) - set(REFERENCES), key=method_rank)
            for method, other in itertools.combinations(methods, 2):
                difference = _difference(*(shown[shown["method"] == name] for name in (other, method)))
                if difference.size and not np.isnan(difference).all():
                    facts = centre(difference, metric), *interval(difference, metric), *difference.shape[::-1]
                    rows.append((*key, training_set, method, other, *facts))
    return pd.DataFrame(rows, columns=PAIRED)


def _ideals(table: pd.DataFrame, own: pd.DataFrame, metric: Metric) -> pd.Series:
    """The best value of each row `own` of a metric, as the catalogue has it or the rows of another metric give it."""
    if not isinstance(metric.ideal, str):
        return pd.Series(metric.ideal, own.index)
    known = table[(table["protocol"] == metric.protocol) & (table["metric"] == metric.ideal)]
    keys = ["case", "method", "training_set", "seed"]
    return own[keys].merge(known[[*keys, "value"]], "left", keys)["value"].set_axis(own.index)


def _badness(best: Best, values: pd.Series, truth: pd.Series, ideal: pd.Series) -> pd.Series:
    """How far values are from what is best, of which only differences count; NaN where that cannot be said.

    truth: the truth's score of the same case; NaN where it is not known. ideal: as `_ideals` gives it.
    """
    return {
        Best.HIGHER: -values,
        Best.LOWER: values,
        Best.ZERO: values.abs(),
        Best.IDEAL: (values - ideal).abs(),
        Best.TRUTH: (values - truth).abs(),
        Best.DOWN_TO_TRUTH: np.fmax(values, truth).where(values.notna()),
    }.get(best, values * np.nan)


def _grid(group: pd.DataFrame) -> np.ndarray:
    """The values of a method, [cases, seeds]; NaN where there is none."""
    return group.pivot(index="case", columns="seed", values="value").to_numpy(float)


def _difference(first: pd.DataFrame, second: pd.DataFrame) -> np.ndarray:
    """The first method's values minus the second's, [cases, seeds], on the cases and with the seeds of both.

    A method that is not trained stands beside each seed of the other one. Two that were never reached differ by 0.
    """
    one, two = (group.pivot(index="case", columns="seed", values="value") for group in (first, second))
    seeds = [list(grid.columns) for grid in (one, two)]
    if "none" in seeds[0] or "none" in seeds[1]:
        pairs = list(itertools.product(*seeds))
    else:
        pairs = [(seed, seed) for seed in seeds[0] if seed in seeds[1]]
    cases = one.index.intersection(two.index)
    a, b = (grid.loc[cases, [pair[place] for pair in pairs]].to_numpy(float) for place, grid in enumerate((one, two)))
    both = np.isinf(a) & (a == b)
    return np.where(both, 0.0, np.where(both, 0.0, a) - np.where(both, 0.0, b))


def _best(table: pd.DataFrame, pairs: pd.DataFrame) -> dict[tuple, str]:
    """GROUP of each method that is better than all others of a training set, with an interval that excludes 0, to the
    names of these sets.
    """
    found: dict[tuple, str] = {}
    own = set(map(tuple, table[GROUP].drop_duplicates().to_numpy()))
    for (*key, training_set), rows in pairs.groupby(OF_PAIR[:4], sort=False):
        better = [(row.method, row.other) for row in rows.itertuples() if row.low > 0]
        better += [(row.other, row.method) for row in rows.itertuples() if row.high < 0]
        methods = set(rows["method"]) | set(rows["other"])
        for method in methods:
            if {other for winner, other in better if winner == method} == methods - {method}:
                group = next((*key, method, name) for name in (training_set, "none") if (*key, method, name) in own)
                found[group] = f"{found.get(group, '')} {training_set}".strip()
    return found


def centre(values: np.ndarray, metric: Metric) -> float:
    """Mean of the values, or of a metric that may never be reached their median; NaN of nothing."""
    return float(_centres(values[None], metric.never)[0])


def _centres(values: np.ndarray, median: bool) -> np.ndarray:
    """`centre` of each of several grids [number, cases, seeds]."""
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # of nothing but NaN
        return (np.nanmedian if median else np.nanmean)(values.reshape(len(values), -1), axis=1)


def interval(values: np.ndarray, metric: Metric) -> Interval:
    """95 % interval of `centre` over what varies by chance; values: [cases, seeds].

    Over cases and seeds: percentiles of the two-way bootstrap, widened for few cases as Student's t is (expanded
    percentile interval; Hesterberg, The American Statistician 69(4), 2015): with three cases these are the least and
    the largest that any draw gives. An end that is never reached is infinite.
    """
    cases, seeds = values.shape
    if cases >= ENOUGH_CASES:
        rows, columns = _draws(cases, seeds)
        drawn = _centres(values[rows[:, :, None], columns[:, None, :]], metric.never)
        drawn = drawn[~np.isnan(drawn)]
        if len(drawn):
            tail = ndtr(-np.sqrt(cases / (cases - 1)) * stdtrit(cases - 1, (1 + CONFIDENCE) / 2))
            low, high = np.quantile(drawn, [tail, 1 - tail], method="nearest")
            return Interval(float(low), float(high), "cases and seeds" if seeds > 1 else "cases")
    models = np.array([centre(values[:, [seed]], metric) for seed in range(seeds)])
    low, high = seed_interval(models[~np.isnan(models)])
    return Interval(low, high, "seeds" if np.isfinite(low) else "")


@functools.cache
def _draws(cases: int, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Cases [REPEATS, cases] and seeds [REPEATS, seeds] drawn with replacement, each by themselves."""
    rng = numpy_stream(Stream.LUNGS, SEED)
    return tuple(rng.integers(number, size=(REPEATS, number)) for number in (cases, seeds))


def seed_interval(values: np.ndarray) -> tuple[float, float]:
    """Student's t interval of the mean of `values` [n]; (NaN, NaN) for fewer than ENOUGH_SEEDS."""
    if len(values) < ENOUGH_SEEDS or not np.isfinite(values).all():
        return float("nan"), float("nan")
    half = stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr evaluate summarise`."""
    parser.add_argument("--table", required=True, type=Path, help="table of `microsr evaluate collect`")
    parser.add_argument("--split", default="test", choices=("test", "validation"), help="what the cases are for")
    parser.add_argument("--paired", type=Path, help="also write the differences of all pairs of methods (.csv)")
    parser.add_argument("--output", required=True, type=Path, help="table (.csv)")


def run(ns: argparse.Namespace) -> None:
    """Run `microsr evaluate summarise`."""
    started = time.time()
    table = join_trainings(read_table(ns.table))
    write_csv(ns.output, summarise(table, ns.split), float_format="%.6g")
    if ns.paired is not None:
        write_csv(ns.paired, compare(table), float_format="%.6g")
    outputs = [ns.output, *([ns.paired] if ns.paired else [])]
    write_run(outputs, "evaluate.summarise", {"split": ns.split}, [ns.table], started)
