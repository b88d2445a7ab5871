"""Means and intervals of the metrics, with numbers that can be worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from microsr.core.errors import UserError
from microsr.evaluation import summary, tables
from microsr.evaluation.collect import collect


def table(*values):
    """Rows of (case, method, seed, value) of one metric."""
    rows = [(case, method, "pooled", seed, "truth", "psnr", value, "dB") for case, method, seed, value in values]
    return pd.DataFrame(rows, columns=tables.COLUMNS)


def test_cases_are_averaged_and_only_trainings_count_as_chance():
    found = summary.summarise(
        table(*[(case, "proposed", seed, mean + shift)
                for seed, mean in (("1", 10.0), ("2", 12.0), ("3", 14.0)) for case, shift in (("a", -5), ("b", 5))])
    ).iloc[0]  # fmt: skip
    assert (found["mean"], found["seeds"], found["cases"], found["undefined"]) == (12.0, 3, 2, 0)
    half = 4.302653 * 2 / np.sqrt(3)  # t of 2 degrees of freedom at 97.5 %, SD 2
    assert (found["low"], found["high"]) == pytest.approx((12 - half, 12 + half))


def test_fewer_than_three_trainings_have_no_interval():
    found = summary.summarise(table(("a", "bicubic", "none", 17.0), ("b", "bicubic", "none", 18.0))).iloc[0]
    assert found["mean"] == 17.5
    assert np.isnan(found["low"]) and np.isnan(found["high"])


def test_a_summary_says_of_which_split_it_is():
    rows = table(("a", "bicubic", "none", 17.0))
    assert list(summary.summarise(rows)["split"]) == ["test"]
    assert list(summary.summarise(rows, "validation")["split"]) == ["validation"]


def test_what_is_undefined_is_counted_and_left_out():
    found = summary.summarise(table(("a", "proposed", "1", np.nan), ("b", "proposed", "1", 3.0))).iloc[0]
    assert (found["mean"], found["undefined"]) == (3.0, 1)


def test_a_table_is_read_as_it_was_written(tmp_path):
    rows = [("truth", "psnr", 17.25, "dB"), ("truth", "smallest_bronchiole", float("nan"), "mm")]
    tables.write_table(tmp_path / "a.csv", ("a", "bicubic", "none", "none"), rows)
    tables.write_table(tmp_path / "b.csv", ("b", "bicubic", "none", "none"), rows)
    collect([tmp_path / "b.csv", tmp_path / "a.csv"], tmp_path / "all.csv")
    found = tables.read_table(tmp_path / "all.csv")
    assert list(found["case"]) == ["a", "a", "b", "b"] and set(found["seed"]) == {"none"}
    assert found["value"].iloc[0] == 17.25 and np.isnan(found["value"].iloc[1])


@pytest.mark.parametrize("content", ["", "case,method\na,b\n", ",".join(tables.COLUMNS) + "\n"])
def test_a_foreign_or_empty_table_is_refused(tmp_path, content):
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(UserError, match=r"x\.csv"):
        tables.read_table(tmp_path / "x.csv")
    with pytest.raises(UserError, match=r"x\.csv"):
        collect([tmp_path / "x.csv"], tmp_path / "all.csv")


def test_a_row_twice_is_refused(tmp_path):
    tables.write_table(tmp_path / "a.csv", ("a", "m", "pooled", "1"), [("truth", "psnr", 1.0, "dB")])
    with pytest.raises(UserError, match="second row for a, m, pooled, 1, truth, psnr"):
        collect([tmp_path / "a.csv", tmp_path / "a.csv"], tmp_path / "all.csv")
