"""The table of a search: what was tried of each method, what it gave on the validation cases, and which trial it is
that is chosen.

In: metrics.csv of the trials, each a method of its own there, and what each trial changes. Out: search.csv.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from microsr.core.errors import UserError
from microsr.core.files import write_csv
from microsr.core.provenance import write_run
from microsr.evaluation.selection.ranks import mean_ranks
from microsr.evaluation.tables import read_table

Trials = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""What each trial changes: {method: {name of the trial: {key: value}}}."""


def tabulate(table: pd.DataFrame, trials: Trials, by: Sequence[str]) -> pd.DataFrame:
    """A row a trial, those of a method together, the chosen one first: it has the least mean rank among them.

    table: columns of `evaluation.tables.COLUMNS`. by: metrics, see `ranks.mean_ranks`. Returns method, trial, chosen
    ("yes" or ""), settings (JSON; {} as they stand), seeds, cases, the mean of each metric and mean_rank.

    Raises
    ------
    UserError
        A trial is not in the table, or a metric cannot rank.
    """
    parts = []
    for method, tried in trials.items():
        own = table[table["method"].isin(tried)].rename(columns={"method": "candidate"})
        if missing := [trial for trial in tried if trial not in set(own["candidate"])]:
            raise UserError(f"the table of metrics holds no trial {missing[0]}; make it again from all trials")
        order = {trial: place for place, trial in enumerate(tried)}
        ranked = mean_ranks(own.sort_values("candidate", key=lambda names: names.map(order), kind="stable"), by)
        counts = own.groupby("candidate")[["seed", "case"]].nunique().reindex(ranked.index)
        facts = {
            "method": method,
            "trial": ranked.index,
            "chosen": ["yes", *[""] * (len(ranked) - 1)],
            "settings": [json.dumps(tried[trial]) for trial in ranked.index],
            "seeds": counts["seed"].to_numpy(),
            "cases": counts["case"].to_numpy(),
        }
        parts.append(pd.concat([pd.DataFrame(facts), ranked.reset_index(drop=True)], axis=1))
    return pd.concat(parts, ignore_index=True)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr evaluate search`."""
    parser.add_argument("--table", required=True, type=Path, help="metrics of the trials (`microsr evaluate collect`)")
    parser.add_argument(
        "--trials", required=True, type=json.loads, help="what each changes, as JSON: {method: {trial: {key: value}}}"
    )
    parser.add_argument("--by", required=True, nargs="+", help="metrics that rank the trials, as truth.ms_ssim")
    parser.add_argument("--output", required=True, type=Path, help="table (.csv)")


def run(ns: argparse.Namespace) -> None:
    """Run `microsr evaluate search`."""
    started = time.time()
    write_csv(ns.output, tabulate(read_table(ns.table), ns.trials, ns.by), float_format="%.6g")
    write_run(ns.output, "evaluate.search", {"trials": ns.trials, "by": ns.by}, [ns.table], started)
