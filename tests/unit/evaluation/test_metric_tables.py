import numpy as np
import pandas as pd
import pytest

from microsr.config import REFERENCES
from microsr.core.errors import UserError
from microsr.evaluation.metric_tables import tables
from microsr.evaluation.summary import summarise
from microsr.evaluation.tables import COLUMNS


def summary(
    values: dict[str, list[float]],
    metric: str = "psnr",
    protocol: str = "truth",
    unit: str = "dB",
    training_set="pooled",
    cases: int = 1,
):
    """A summary of one metric: method -> value of each seed, the same in each case."""
    rows = []
    for method, each in values.items():
        untrained = method in ("bicubic", *REFERENCES)
        trained = "none" if untrained else training_set
        seeds = ["none"] if untrained else [str(n) for n in range(len(each))]
        rows += [
            (f"c{case}", method, trained, seed, protocol, metric, value, unit)
            for seed, value in zip(seeds, each, strict=True)
            for case in range(cases)
        ]
    return summarise(pd.DataFrame(rows, columns=COLUMNS))


def best(values: dict[str, list[float]], metric: str = "psnr", protocol: str = "truth", cases: int = 3) -> list[str]:
    (table,) = tables(summary(values, metric, protocol, cases=cases), protocol)
    return [method for method, cell in zip(table.methods, table.rows[0].cells, strict=True) if cell.best]


@pytest.mark.parametrize(
    ("protocol", "metric", "values", "wanted"),
    [
        ("truth", "psnr", {"proposed": [20.0], "bicubic": [25.0]}, ["Bicubic"]),
        ("truth", "measured_rmse", {"proposed": [20.0], "bicubic": [25.0]}, ["Proposed"]),
        ("no_reference", "mean_shift", {"proposed": [-3.0], "bicubic": [2.0], "cyclegan": [9.0]}, ["Bicubic"]),
        ("no_reference", "consistency_rmse", {"proposed": [20.0], "bicubic": [25.0]}, []),
        ("no_reference", "consistency_rmse", {"truth": [70.0], "proposed": [20.0], "bicubic": [75.0]}, ["Bicubic"]),
        ("no_reference", "consistency_rmse", {"truth": [70.0], "proposed": [66.0], "bicubic": [75.0]}, ["Proposed"]),
        ("no_reference", "spectrum_distance", {"proposed": [0.1], "bicubic": [0.4]}, ["Proposed"]),
        ("no_reference", "spectrum_distance", {"truth": [0.3], "proposed": [0.1], "bicubic": [0.4]}, ["Proposed"]),
        (
            "no_reference",
            "spectrum_distance",
            {"truth": [0.3], "proposed": [0.1], "bicubic": [0.4], "cyclegan": [0.2]},
            [],
        ),
        (
            "truth",
            "psnr",
            {"truth": [np.inf], "thick_truth": [30.0], "proposed": [20.0], "bicubic": [25.0]},
            ["Bicubic"],
        ),
        ("truth", "psnr", {"proposed": [20.0], "bicubic": [20.0]}, []),
        ("truth", "psnr", {"proposed": [20.0], "bicubic": [20.0], "cyclegan": [1.0]}, []),
        ("truth", "psnr", {"proposed": [20.0]}, []),
        ("truth", "smallest_bronchiole", {"proposed": [np.nan], "bicubic": [np.nan]}, []),
        ("truth", "smallest_bronchiole", {"proposed": [1.5], "bicubic": [np.inf], "cyclegan": [1.7]}, ["Proposed"]),
    ],
)
def test_the_best_method_is_that_of_the_metric_s_direction(protocol, metric, values, wanted):
    assert best(values, metric, protocol) == wanted
    assert best(values, metric, protocol, cases=1) == [], "one lung and one training have no interval"


def test_a_row_says_how_often_a_diameter_was_never_reached():
    (table,) = tables(summary({"proposed": [1.4, 1.5, np.inf], "bicubic": [np.inf]}, "smallest_bronchiole"), "truth")
    assert [(cell.mean, cell.interval) for cell in table.rows[0].cells] == [
        ("1.50", "never in 1 of 3"),
        ("never", ""),
    ]
    (table,) = tables(summary({"proposed": [1.4, 1.5, np.inf]}, "smallest_bronchiole", cases=3), "truth")
    assert table.rows[0].cells[0].interval == "1.40 to never; never in 3 of 9"
    (table,) = tables(summary({"truth": [np.inf], "bicubic": [15.0]}), "truth")
    assert [cell.mean for cell in table.rows[0].cells] == ["∞", "15.0"]


def test_a_row_has_mean_interval_unit_and_a_sentence():
    (table,) = tables(
        summary({"proposed": [-1.0, -2.0, -3.0], "bicubic": [1234.4]}, "mean_shift", "no_reference", "HU"),
        "no_reference",
    )
    (row,) = table.rows
    assert (row.name, row.unit, row.better) == ("Shift of the mean", "HU", "nearer to 0 is better")
    assert row.cells[0].mean == "−2.00" and row.cells[0].interval == "−4.48 to 0.484"
    assert row.cells[1].mean == "1234" and row.cells[1].interval == ""
    assert row.sentence and (table.seeds, table.cases) == (3, 1)


def test_the_first_table_has_the_metrics_that_matter_most_in_their_order():
    found = pd.concat(
        [
            summary({"proposed": [1.0]}, "ssim", "truth", "1"),
            summary({"proposed": [1.0]}, "spectrum_distance", "no_reference"),
        ]
    )
    more = summary({"proposed": [1.0]}, "ms_ssim", "truth", "1")
    (table,) = tables(pd.concat([found, more]))
    assert [row.key for row in table.rows] == ["spectrum_distance", "ssim"]
    assert [row.unit for row in table.rows] == ["dB", ""]


def test_each_training_set_is_a_table_with_what_is_not_trained():
    found = pd.concat(
        [
            summary({"proposed": [1.0], "bicubic": [2.0]}, training_set="without-a"),
            summary({"proposed": [3.0]}, training_set="without-b"),
        ]
    )
    first, second = tables(found, "truth")
    assert [cell.mean for cell in first.rows[0].cells] == ["1.00", "2.00"]
    assert [cell.mean for cell in second.rows[0].cells] == ["3.00", "2.00"]
    (only,) = tables(summary({"bicubic": [2.0]}), "truth")
    assert only.training_set == "none" and only.methods == ["Bicubic"]


def test_a_metric_that_a_method_lacks():
    found = pd.concat(
        [summary({"proposed": [1.0], "bicubic": [1.0]}, "psnr"), summary({"proposed": [2.0]}, "ssim", unit="1")]
    )
    (table,) = tables(found, "truth")
    row = next(row for row in table.rows if row.key == "ssim")
    assert row.name == "SSIM" and [cell.mean for cell in row.cells] == ["2.00", "–"]


def test_a_metric_that_nobody_described_is_refused():
    with pytest.raises(UserError, match="the protocol 'truth' has no metric 'brand_new'"):
        tables(summary({"proposed": [2.0]}, "brand_new", unit="1"), "truth")


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("rmse_glass", "RMS error, glass"),
        ("ssim_wall", "SSIM, wall"),
        ("bronchiole_detected_0.5-0.7", "Bronchioles found, 0.5-0.7"),
        ("smallest_bronchiole_low", "Smallest bronchiole, low end of the interval"),
    ],
)
def test_a_member_of_a_family_is_named_after_it(metric, name):
    (table,) = tables(summary({"proposed": [1.0]}, metric), "truth")
    assert table.rows[0].name == name
