"""What is chosen has the best mean rank, with numbers that can be worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from microsr.core.errors import UserError
from microsr.evaluation.selection.ranks import mean_ranks
from microsr.evaluation.selection.tabulate_search import tabulate
from microsr.evaluation.tables import COLUMNS

BY = ["truth.psnr", "no_reference.spectrum_distance", "no_reference.mean_shift"]


def table(**candidates):
    """Values of PSNR, spectrum distance and shift of the mean of each candidate, on one case or more."""
    rows = []
    for name, cases in candidates.items():
        for number, values in enumerate(cases):
            for key, value in zip(BY, values, strict=True):
                rows.append((f"case{number}", name, "pooled", "1", *key.split("."), value, "HU"))
    return pd.DataFrame(rows, columns=COLUMNS)


def ranked(by=BY, **candidates):
    return mean_ranks(table(**candidates).rename(columns={"method": "candidate"}), by)


def test_each_metric_counts_by_its_direction_and_as_much_as_any_other():
    found = ranked(a=[(10, 1.0, -3)], b=[(12, 2.0, 2)], c=[(11, 3.0, 40)])
    # ranks: a 3, 1, 2; b 1, 2, 1; c 2, 3, 3
    assert list(found.index) == ["b", "a", "c"]
    assert list(found["mean_rank"]) == pytest.approx([4 / 3, 2, 8 / 3])
    assert found.loc["a", "no_reference.mean_shift"] == -3


def test_cases_are_averaged_before_they_are_ranked_and_equals_share_a_rank():
    found = ranked(by=BY[:1], a=[(10, 0, 0), (20, 0, 0)], b=[(15, 0, 0), (15, 0, 0)], c=[(1, 0, 0), (2, 0, 0)])
    assert dict(found["mean_rank"]) == {"a": 1.5, "b": 1.5, "c": 3} and list(found.index) == ["a", "b", "c"]


def test_what_a_metric_is_not_defined_for_is_last_of_it():
    found = ranked(by=BY[:1], a=[(np.nan, 0, 0), (99, 0, 0)], b=[(1, 0, 0), (1, 0, 0)])
    assert list(found.index) == ["b", "a"]


@pytest.mark.parametrize(
    ("by", "message"),
    [
        (["truth.ssim"], "choose_by: no case has the metric truth.ssim"),
        (["truth.sim"], "has no metric 'sim'"),
        (["no_reference.consistency_rmse"], "choose_by: no_reference.consistency_rmse cannot rank models"),
    ],
)
def test_a_metric_that_cannot_rank_is_refused(by, message):
    with pytest.raises(UserError, match=message):
        ranked(by=by, a=[(1, 1, 1)])


def test_a_search_says_of_each_trial_what_it_was_and_which_is_chosen():
    trials = {"p": {"p-1": {}, "p-2": {"losses.cycle": 3.0}}, "q": {"q-1": {}}}
    metrics = table(
        **{"q-1": [(1, 1, 1)] * 2, "p-2": [(9, 1, 1)] * 2, "p-1": [(8, 1, 1)] * 2, "bicubic": [(99, 0, 0)] * 2}
    )
    found = tabulate(metrics, trials, BY)
    assert list(found["method"]) == ["p", "p", "q"] and list(found["trial"]) == ["p-2", "p-1", "q-1"]
    assert list(found["chosen"]) == ["yes", "", "yes"] and found["settings"][0] == '{"losses.cycle": 3.0}'
    assert list(found["truth.psnr"]) == [9, 8, 1] and set(found["cases"]) == {2} and set(found["seeds"]) == {1}
    with pytest.raises(UserError, match="holds no trial p-3"):
        tabulate(metrics, {"p": {"p-1": {}, "p-3": {}}}, BY)


def test_of_equals_the_earlier_trial_is_chosen():
    trials = {"p": {"p-1": {}, "p-2": {"losses.cycle": 3.0}}}
    assert tabulate(table(**{"p-2": [(9, 1, 1)], "p-1": [(9, 1, 1)]}), trials, BY)["trial"][0] == "p-1"
