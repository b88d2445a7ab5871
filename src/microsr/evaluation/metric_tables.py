"""Tables of metrics for a reader: which rows, in which words, and which method is the best. In: summary.csv,
metrics' means.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from microsr.core.csv_files import read_rows
from microsr.evaluation.catalogue import HEADLINE, Metric, find_metric
from microsr.evaluation.names import method_name, method_rank
from microsr.evaluation.summary import GROUP, SUMMARY


@dataclass(frozen=True)
class Cell:
    """A method's mean, or of a metric that may never be reached its median; its 95 % interval and how often it was
    never reached ("" without either); and whether it is better than all others, with intervals that exclude 0.
    """

    mean: str
    interval: str
    best: bool


@dataclass(frozen=True)
class Row:
    """A metric: its name for people and in the tables, unit ("" if it has none), direction, how to read it, a cell for
    each method.
    """

    name: str
    key: str
    protocol: str
    unit: str
    better: str
    sentence: str
    cells: list[Cell]


@dataclass(frozen=True)
class Table:
    """Metrics of the models of one training set, and of what is not trained."""

    training_set: str
    methods: list[str]
    rows: list[Row]
    seeds: int
    cases: int
    split: str
    """What the cases are for: "test" or "validation"."""

    @property
    def cases_in_words(self) -> str:
        """The cases in words: "2 cases", "1 validation case"."""
        kind = "" if self.split == "test" else f"{self.split} "
        return f"{self.cases} {kind}case{'s' * (self.cases != 1)}"


def read_summary(path: Path) -> pd.DataFrame:
    """The table of `microsr evaluate summarise`.

    Raises
    ------
    UserError
        The file is no such table.
    """
    columns = [*GROUP, *SUMMARY]
    names = dict.fromkeys([*GROUP, "over", "best_of", "split"], str)
    how = {"dtype": names, "keep_default_na": False, "na_values": {key: [""] for key in ("mean", "low", "high")}}
    return read_rows(path, columns, "no summary of metrics", "microsr evaluate summarise", **how)


def tables(summary: pd.DataFrame, protocol: str | None = None) -> list[Table]:
    """A table for each training set: of the metrics that matter most (protocol None), or of all of one protocol."""
    trained = [name for name in dict.fromkeys(summary["training_set"]) if name != "none"] or ["none"]
    found = []
    for training_set in trained:
        shown = summary[summary["training_set"].isin([training_set, "none"])]
        methods = sorted(shown["method"].unique(), key=method_rank)
        if protocol is None:
            keys = list(HEADLINE)
        else:
            keys = [(protocol, metric) for metric in dict.fromkeys(shown.loc[shown["protocol"] == protocol, "metric"])]
        rows = [row for key in keys if (row := _row(shown, key, methods, training_set)) is not None]
        if rows:
            names = [method_name(method) for method in methods]
            seeds, cases = (int(shown[count].max()) for count in ("seeds", "cases"))
            found.append(Table(training_set, names, rows, seeds, cases, shown["split"].iloc[0]))
    return found


def _row(shown: pd.DataFrame, key: tuple[str, str], methods: list[str], training_set: str) -> Row | None:
    own = shown[(shown["protocol"] == key[0]) & (shown["metric"] == key[1])].set_index("method")
    if own.empty:
        return None
    metric = find_metric(*key)
    means = {method: float(own.loc[method, "mean"]) for method in methods if method in own.index}
    cells = []
    for method in methods:
        if method not in means:
            cells.append(Cell("–", "", False))
            continue
        facts = own.loc[method]
        best = training_set in facts["best_of"].split()
        cells.append(Cell(_number(means[method], metric), _span(facts, metric), best))
    unit = own["unit"].iloc[0]
    unit = {"1": "", "count": "", "um": "µm"}.get(unit, unit)
    return Row(metric.name, key[1], key[0], unit, metric.better, metric.sentence, cells)


def _span(facts: pd.Series, metric: Metric) -> str:
    """The interval of a mean in words, and how often a metric was never reached."""
    low, high = (float(facts[end]) for end in ("low", "high"))
    words = [] if math.isnan(low) else [f"{_number(low, metric)} to {_number(high, metric)}"]
    whole = facts["cases"] * facts["seeds"]
    words += [f"never in {facts['never']} of {whole}"] if 0 < facts["never"] < whole else []
    return "; ".join(words)


def _number(value: float, metric: Metric) -> str:
    """Three digits, with a true minus sign; an undefined value is none."""
    if not math.isfinite(value):
        return "none" if math.isnan(value) else "never" if metric.never else "∞"
    text = f"{value:.0f}" if abs(value) >= 1000 or value == 0 else f"{value:#.3g}".removesuffix(".")
    return text.replace("-", "−")
