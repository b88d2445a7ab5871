"""Means and intervals of the metrics, with numbers that can be worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from microsr import cli
from microsr.core.errors import UserError
from microsr.evaluation import summary, tables
from microsr.evaluation.catalogue import find_metric
from microsr.evaluation.collect import collect
from microsr.evaluation.metric_tables import read_summary


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


def diameters(**methods):
    """Smallest bronchiole of each case after one training each, by method: "inf" is never."""
    rows = [
        (f"c{n}", method, "pooled", "1", "truth", "smallest_bronchiole", value, "mm")
        for method, values in methods.items()
        for n, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=tables.COLUMNS)


def test_a_method_that_never_succeeds_on_a_case_does_not_beat_one_that_does():
    """Means over what was reached are 1.22 mm for the first and 1.44 mm for the second."""
    never = np.inf
    found = summary.summarise(diameters(proposed=[1.22, never, never], cyclegan=[1.33, 1.44, 1.55]))
    assert found["mean"].tolist() == [never, 1.44] and found["never"].tolist() == [2, 0]
    (pair,) = summary.compare(diameters(proposed=[1.22, never, never], cyclegan=[1.33, 1.44, 1.55])).itertuples()
    assert (pair.method, pair.other, pair.better_by) == ("proposed", "cyclegan", -never)
    tie = summary.compare(diameters(proposed=[1.2, never, never], cyclegan=[1.3, never, never])).iloc[0]
    assert tie["better_by"] == 0, "neither is better where both never succeed"


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


def drawn(cases, seeds, better=1.0, lung=3.0, training=0.5, noise=0.2):
    """PSNR of two trained methods and bicubic: the second is better by `better`, lungs and trainings differ."""
    rng = np.random.default_rng(0)
    of_lung, of_seed = rng.normal(0, lung, cases), rng.normal(0, training, (2, seeds))
    rows = []
    for place, method in enumerate(("proposed", "cyclegan")):
        for case in range(cases):
            for seed in range(seeds):
                value = 15 + place * better + of_lung[case] + of_seed[place, seed] + rng.normal(0, noise)
                rows.append((f"c{case}", method, "pooled", str(seed), "truth", "psnr", value, "dB"))
    rows += [
        (f"c{case}", "bicubic", "none", "none", "truth", "psnr", 10 + of_lung[case], "dB") for case in range(cases)
    ]
    return pd.DataFrame(rows, columns=tables.COLUMNS)


def test_methods_are_compared_lung_by_lung_and_seed_by_seed():
    table = drawn(8, 3)
    pairs = summary.compare(table).set_index(["method", "other"])
    assert list(pairs.index) == [("proposed", "bicubic"), ("proposed", "cyclegan"), ("bicubic", "cyclegan")]
    mean = table.groupby("method")["value"].mean()
    for (method, other), pair in pairs.iterrows():
        assert pair["better_by"] == pytest.approx(mean[method] - mean[other])
        assert pair["low"] < pair["better_by"] < pair["high"]
        assert (pair["over"], pair["seeds"], pair["cases"]) == ("cases and seeds", 3, 8)
    own = summary.summarise(table).set_index("method")
    paired, single = (frame["high"] - frame["low"] for frame in (pairs, own))
    assert paired[("proposed", "bicubic")] < 0.5 * single["proposed"], "what lungs have in common is no chance"
    assert own.loc["bicubic", "over"] == "cases" and own.loc["proposed", "over"] == "cases and seeds"


def test_the_interval_of_a_difference_holds_what_it_should():
    """Of 60 made-up experiments, about 95 % of the intervals hold the true difference; fewer than 80 % never do."""
    held = []
    for number in range(60):
        rng = np.random.default_rng(number)
        values = rng.normal(0, 1, (8, 1)) + rng.normal(0, 0.5, (1, 3)) + rng.normal(0, 0.5, (8, 3))
        low, high, _ = summary.interval(values, find_metric("truth", "psnr"))
        held.append(low < 0 < high)
    assert np.mean(held) > 0.8


def test_with_three_lungs_an_interval_excludes_0_only_where_all_agree():
    metric = find_metric("truth", "psnr")
    assert summary.interval(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), metric) == (1.0, 6.0, "cases and seeds")
    low, high, _ = summary.interval(np.array([[1.0, 2.0], [3.0, -1.0], [5.0, 6.0]]), metric)
    assert low < 0 < high


def test_the_best_of_a_training_set_is_better_than_each_other_one_beyond_chance():
    clear = summary.summarise(drawn(8, 3, better=3)).set_index("method")["best_of"]
    assert dict(clear) == {"proposed": "", "bicubic": "", "cyclegan": "pooled"}
    assert not summary.summarise(drawn(8, 3, better=0.1))["best_of"].any()
    assert not summary.summarise(drawn(1, 1, better=3))["best_of"].any(), "one lung and one training: no interval"


def test_a_distance_to_the_truths_score_is_taken_in_each_case():
    rows = [
        (case, method, "none", "none", "no_reference", "consistency_rmse", value, "HU")
        for method, values in {"truth": (70, 50), "bicubic": (40, 80), "nearest": (0, 0)}.items()
        for case, value in zip("ab", values, strict=True)
    ]
    (pair,) = summary.compare(pd.DataFrame(rows, columns=tables.COLUMNS)).itertuples()
    assert (pair.method, pair.other) == ("nearest", "bicubic")
    assert pair.better_by == pytest.approx((30 + 30) / 2 - (70 + 50) / 2)


def test_the_command_writes_both_tables(tmp_path):
    table = drawn(3, 3)
    table.to_csv(tmp_path / "metrics.csv", index=False)
    words = ["--table", tmp_path / "metrics.csv", "--output", tmp_path / "summary.csv", "--paired", tmp_path / "p.csv"]
    cli.main(["evaluate", "summarise", *map(str, words)])
    assert list(pd.read_csv(tmp_path / "p.csv").columns) == summary.PAIRED
    read = read_summary(tmp_path / "summary.csv")
    assert list(read.columns) == [*summary.GROUP, *summary.SUMMARY]
    assert set(read["over"]) == {"cases", "cases and seeds"}


def test_what_is_nearest_to_its_ideal_is_better_on_either_side_of_it():
    """Of a coverage the ideal is a row of its own, of the method's own number of draws; of a spread it is 1."""
    rows = []
    for method, ideal, coverage, spread in (("a", 0.88, 0.80, 1.3), ("b", 0.78, 0.80, 0.8)):
        names = ("coverage_90_ideal", "coverage_90", "coverage_90_wall", "spread_skill")
        rows += [("c", method, "none", "none", "uncertainty", key, value, "1")
                 for key, value in zip(names, (ideal, coverage, coverage, spread), strict=True)]  # fmt: skip
    found = summary.compare(pd.DataFrame(rows, columns=tables.COLUMNS)).set_index("metric")["better_by"]
    assert list(found.index) == ["coverage_90", "coverage_90_wall", "spread_skill"], "an ideal is no score"
    assert found.to_numpy() == pytest.approx([0.02 - 0.08, 0.02 - 0.08, 0.2 - 0.3])


def test_models_of_one_protocol_are_trainings_of_one_set():
    rows = [
        ("a", "m", "case-one", "1", 1.0), ("b", "m", "case-one", "1", 2.0), ("a", "m", "case-two", "1", 5.0),
        ("b", "m", "case-two", "1", 8.0), ("one", "m", "without-one", "1", 3.0), ("two", "m", "without-two", "1", 4.0),
        ("a", "m", "pooled", "1", 7.0), ("a", "n", "none", "none", 6.0),
    ]  # fmt: skip
    names = ["case", "method", "training_set", "seed", "value"]
    table = pd.DataFrame(rows, columns=names).assign(protocol="truth", metric="psnr", unit="dB")
    found = summary.summarise(summary.join_trainings(table)).set_index(["method", "training_set"])
    assert found.loc[("m", "per_case"), ["mean", "seeds", "cases"]].tolist() == [4.0, 2, 2]
    assert found.loc[("m", "leave_one_out"), ["mean", "seeds", "cases"]].tolist() == [3.5, 1, 2]
    assert found.loc[("m", "pooled"), "mean"] == 7.0 and found.loc[("n", "none"), "mean"] == 6.0
    paired = summary.compare(summary.join_trainings(table))
    per_case = paired[paired["training_set"] == "per_case"].iloc[0]
    assert (per_case["seeds"], per_case["cases"], abs(per_case["better_by"])) == (2, 1, 3.0)
