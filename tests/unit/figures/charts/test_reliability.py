"""The figure of reliability shows means over lungs and trainings of what `microsr evaluate uncertainty` has found."""

import numpy as np
import pandas as pd
import pytest

from microsr.core.errors import UserError
from microsr.evaluation.protocols.uncertainty import CURVES
from microsr.figures.charts.reliability import coverage, draw_reliability, make_reliability, mean_curve


def curves(inside, case="a", seed="1", draws=3):
    """Of draws whose interval holds the truth in a share `inside` of the pixels, in walls never."""
    rows = []
    for group, share in (("lung", inside), ("wall", 0.0), ("glass", np.nan)):
        ranks = [(1 - share) / 2, *[share / (draws - 1)] * (draws - 1), (1 - share) / 2]
        rows += [("rank", group, at, value, 1 / (draws + 1), 10) for at, value in enumerate(ranks)]
    rows += [("solid", "lung", at, share, at, 5) for at, share in ((0.0, inside / 10), (0.5, 0.4), (1.0, np.nan))]
    return pd.DataFrame([(case, "m", "pooled", seed, *row) for row in rows], columns=CURVES)


def test_means_are_over_lungs_and_trainings(tmp_path):
    grid = {("a", "1"): 0.4, ("b", "1"): 0.5, ("a", "2"): 0.6, ("b", "2"): 0.7}
    paths = [tmp_path / f"{case}{seed}.csv" for case, seed in grid]
    for (case, seed), path in zip(grid, paths, strict=True):
        curves(grid[case, seed], case, seed).to_csv(path, index=False)
    found = make_reliability({"m/pooled": paths}, tmp_path / "figure")
    assert found == {"coverage_90": {"m/pooled": {"lung": 0.55, "wall": 0.0, "glass": None, "ideal": 0.5}}}
    assert (tmp_path / "figure.png").exists() and (tmp_path / "figure.pdf").exists()
    table = pd.concat([pd.read_csv(path) for path in paths])
    assert coverage(table)["lung"] == pytest.approx(np.array([[0.4, 0.6], [0.5, 0.7]]))
    solid = mean_curve(table, "solid", "lung")
    assert solid["at"].tolist() == [0, 0.5], "there were no pixels where all draws are solid"
    assert solid["share"].tolist() == pytest.approx([0.055, 0.4]) and solid["ideal"].tolist() == [0, 0.5]


def test_panels_are_drawn_as_they_are_read():
    figure = draw_reliability({"posterior_mean/pooled": pd.concat([curves(0.4), curves(0.5, "b"), curves(0.6, "c")])})
    of_tissue, ranks, solid = figure.axes
    assert [label.get_text() for label in of_tissue.get_yticklabels()] == ["all pixels", "wall", "ground glass"]
    ideal, bar, mean, *_ = of_tissue.lines
    assert list(ideal.get_xdata()) == [0.5, 0.5], "of three draws, half"
    assert mean.get_xdata() == pytest.approx(0.5) and bar.get_xdata() == pytest.approx([0.4, 0.6])
    assert ranks.lines[0].get_ydata() == pytest.approx([1, 1, 1, 1]), "times the ideal"
    assert solid.lines[0].get_ydata() == pytest.approx([0.05, 0.4])


def test_what_is_no_table_of_curves_is_refused(tmp_path):
    path = tmp_path / "one.csv"
    curves(0.4).query("curve == 'rank'").to_csv(path, index=False)
    with pytest.raises(UserError, match="has curves rank; make it again with `microsr evaluate uncertainty`"):
        make_reliability({"m": [path]}, tmp_path / "f")
