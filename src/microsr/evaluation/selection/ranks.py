"""Which of several models, or of several settings, is chosen: the one with the best mean rank over a few metrics.

A rank has no unit and no weight, so that metrics of every kind can be put together, and the same few judge every
method. What is ranked are means over validation cases and seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from microsr.core.errors import UserError
from microsr.evaluation.catalogue import find_metric

MEASURES = {
    "HIGHER": lambda value: -value,
    "LOWER": lambda value: value,
    "ZERO": abs,
    "DOWN_TO_TRUTH": lambda value: value,
}
"""What is least where a metric is best, by the name of its direction; others need the truth's own score."""


def mean_ranks(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The mean of each metric and the mean rank of each candidate, the best one first.

    table: columns candidate, case, seed, protocol, metric and value. by: metrics as "protocol.metric"; `check` says
    which there may be. Equal values share their ranks' mean, a value that is not defined is last. Returns a row a
    candidate, by its name, with a column for each metric and `mean_rank`; equals stay in the order of the table.

    Raises
    ------
    UserError
        A metric is not in the table, or cannot be ranked.
    """
    order = list(dict.fromkeys(table["candidate"]))
    found = pd.DataFrame(index=pd.Index(order, name="candidate"))
    ranks = []
    for name in by:
        measure = check(name)
        protocol, _, metric = name.partition(".")
        own = table[(table["protocol"] == protocol) & (table["metric"] == metric)]
        if own.empty:
            raise UserError(f"choose_by: no case has the metric {name}; name one that the validation cases allow")
        # A case in which a metric is not defined counts as the worst there is: it is not left out of the mean.
        means = own.groupby("candidate")["value"].agg(lambda values: values.mean(skipna=False))
        found[name] = means.reindex(order)
        ranks.append(measure(found[name]).rank(method="average", na_option="bottom"))
    found["mean_rank"] = np.mean(ranks, axis=0)
    return found.sort_values("mean_rank", kind="stable")


def check(name: str) -> Callable:
    """What is least where the metric "protocol.metric" is best.

    Raises
    ------
    UserError
        The catalogue has no such metric, or none whose best value is known without the truth's own score.
    """
    protocol, _, metric = name.partition(".")
    found = find_metric(protocol, metric)
    if found.best.name not in MEASURES:
        raise UserError(
            f"choose_by: {name} cannot rank models: {found.better}; name one that is better the higher or lower it is"
        )
    return MEASURES[found.best.name]
