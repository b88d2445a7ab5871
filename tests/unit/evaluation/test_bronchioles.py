"""An airway counts as detected if its lumen is there, not if there is texture; the curve and its interval are what they
say.
"""

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from microsr.core.errors import UserError
from microsr.evaluation.bronchioles import (
    COLUMNS,
    FEWEST,
    contrast,
    curve_rows,
    detection_curve,
    interval,
    judge_slice,
    resample,
    ring,
    smallest_diameter,
)
from microsr.physics.airways import COLUMNS as AIRWAY_COLUMNS
from microsr.physics.airways import crossings, read_airways, same_airway
from microsr.physics.tissues import Tissue
from microsr.volume.storage import Volume

SPACING = 0.078
SIDE = 320
DIAMETERS = (0.6, 0.8, 1.0, 1.4, 2.0)
TILTS = (0, 40)


def tube_distance(crossing, angle):
    """Distance from a tilted tube's axis, mm, at each pixel."""
    y, x = (np.indices((SIDE, SIDE)) - np.reshape([crossing["row"], crossing["column"]], (2, 1, 1))) * SPACING
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return np.hypot(along * np.cos(np.radians(crossing["tilt_degrees"])), across)


@pytest.fixture(scope="module")
def lung():
    """Alveoli with ten airways in a slice: HU, labels and the crossings."""
    rng = np.random.default_rng(0)
    image = gaussian_filter(rng.normal(0, 1, (SIDE, SIDE)), 1)
    image = -860 + 100 * image / image.std()
    labels = np.full((SIDE, SIDE), Tissue.PARENCHYMA, np.uint8)
    rows = []
    for i, diameter in enumerate(DIAMETERS):
        for j, tilt in enumerate(TILTS):
            crossing = {"slice": 3, "row": 40.3 + 60 * i, "column": 90.8 + 130 * j, "diameter_mm": diameter,
                        "wall_mm": 0.17 * diameter, "tilt_degrees": float(tilt), "airway": 2 * i + j}  # fmt: skip
            distance = tube_distance(crossing, angle=np.pi / 8)
            wall = distance < diameter / 2 + crossing["wall_mm"]
            image[wall], labels[wall] = 0, Tissue.WALL
            lumen = distance < diameter / 2
            image[lumen], labels[lumen] = -1000, Tissue.LUMEN
            rows.append(crossing)
    return image, labels, pd.DataFrame(rows)


def judge(image, lung):
    truth, labels, table = lung
    return judge_slice(image, truth, labels, table, SPACING).set_index("airway")


def test_every_airway_of_the_truth_is_detected_in_the_truth(lung):
    found = judge(lung[0], lung)
    assert len(found) == 10 and found["detected"].all()
    assert found["score"].to_numpy() == pytest.approx(np.ones(10))
    assert (found["control"] < 0.5).all()


def test_the_contrast_of_a_clean_ring_is_that_of_wall_and_lumen(lung):
    image, _, table = lung
    shape = ring(table.iloc[8], SPACING, 0.0)
    value = contrast(image, shape, np.array([shape.row]), np.array([shape.column]))[0]
    assert value == pytest.approx(1000, rel=0.1)


def test_the_ring_of_a_tilted_airway_is_an_ellipse_along_its_direction():
    """Of an airway tilted by 60 degrees: twice as long as wide, in the direction where the truth has it."""
    crossing = pd.Series({"row": 160.2, "column": 159.6, "diameter_mm": 1.2, "wall_mm": 0.3, "tilt_degrees": 60.0})
    angle = np.pi / 4
    distance = tube_distance(crossing, angle)
    image = np.where(distance < 0.9, 0.0, -860.0)
    image[distance < 0.6] = -1000
    along, across = (ring(crossing, SPACING, a) for a in (angle, angle + np.pi / 2))
    values = [contrast(image, r, np.array([r.row]), np.array([r.column]))[0] for r in (along, across)]
    assert values[0] == pytest.approx(1000, rel=0.1) and values[1] < 500
    y, x = np.argwhere(along.weights > 0).T - len(along.weights) // 2
    assert np.abs(x + y).max() * SPACING / np.sqrt(2) == pytest.approx(2 * 0.9, abs=1.5 * SPACING)
    assert np.abs(x - y).max() * SPACING / np.sqrt(2) == pytest.approx(0.9, abs=1.5 * SPACING)
    assert along.weights.sum() == pytest.approx(0)
    assert len(along.weights) == 2 * (24 + 1) + 1, "1.8 mm are 24 pixels, one more is passed in part"
    assert along.fits((160 + 28, 320)) and not along.fits((160 + 27, 320)), "two pixels are for the search"


def test_a_ring_out_of_place_by_two_pixels_is_found_and_one_by_eight_is_not(lung):
    for moved, found in ((2, True), (8, False)):
        table = judge(np.roll(lung[0], (moved, moved), (0, 1)), lung)
        assert table["detected"].loc[[0, 2, 4]].all() == found
        if not found:
            assert not table["detected"].loc[[0, 2]].any()


def test_blur_hides_the_small_airways_first(lung):
    scores = judge(gaussian_filter(lung[0], 4), lung)
    assert scores["score"].loc[0] < scores["score"].loc[4] < scores["score"].loc[8]
    assert not scores["detected"].loc[[0, 1]].any()


def test_half_the_contrast_is_enough_and_less_is_not(lung):
    truth = lung[0]
    for share, detected in ((0.6, 1), (0.4, 0)):
        assert (judge(-860 + share * (truth + 860), lung)["detected"] == detected).all()


def test_texture_is_no_airway_however_strong_it_is(lung):
    """Rings everywhere: alveoli as large and as dark as a bronchiole, in no relation to the airways."""
    y, x = np.indices((SIDE, SIDE)) * 2 * np.pi / 14
    waves = np.cos(x + 0.7) + np.cos(x / 2 + y * 0.87 + 1.9) + np.cos(x / 2 - y * 0.87 + 0.4)
    found = judge(-800 + 400 * waves, lung)
    assert found["detected"].mean() <= 0.2
    assert found["control"].loc[0] > 0.5


def test_what_the_truth_does_not_show_is_not_judged(lung):
    truth, labels, table = lung
    flat = np.where(labels == Tissue.PARENCHYMA, truth, -860)
    assert judge_slice(truth, flat, labels, table, SPACING).empty
    outside = table.assign(row=3.0)
    assert judge_slice(truth, truth, labels, outside, SPACING).empty


def test_a_slice_without_crossings_has_no_rows(lung):
    truth, labels, table = lung
    found = judge_slice(truth, truth, labels, table[:0], SPACING)
    assert list(found.columns) == COLUMNS and found.empty


def test_the_curve_rises_and_is_the_share_where_it_rises_anyway():
    diameter = np.array([1, 1, 2, 2, 3, 3, 4, 4.0])
    sizes, curve, number = detection_curve(diameter, np.array([0, 0, 1, 0, 0, 0, 1, 1]))
    assert sizes.tolist() == [1, 2, 3, 4] and number.tolist() == [2, 2, 2, 2]
    assert curve == pytest.approx([0, 0.25, 0.25, 1])


def test_the_smallest_diameter_is_where_nine_in_ten_are_detected_from_there_on():
    diameter = np.repeat([0.6, 0.8, 1.0, 1.2], 10)
    detected = np.repeat([0, 0.5, 0.9, 1.0], 10) > np.tile(np.arange(10) / 10, 4)
    assert smallest_diameter(diameter, detected) == 1.0
    assert smallest_diameter(diameter, np.zeros(40)) == np.inf
    assert smallest_diameter(diameter, np.ones(40)) == 0.6


def test_a_few_lucky_airways_make_no_smallest_diameter():
    diameter = np.append(np.full(50, 0.6), np.full(FEWEST - 1, 2.0))
    assert smallest_diameter(diameter, diameter > 1) == np.inf
    diameter = np.append(diameter, 2.0)
    assert smallest_diameter(diameter, diameter > 1) == 2.0
    assert np.isnan(smallest_diameter(np.ones(FEWEST - 1), np.ones(FEWEST - 1)))


def known_table(repeats):
    """Airways of 0.5 to 2 mm, each crossing `repeats` slices, detected from about 1 mm on."""
    rng = np.random.default_rng(3)
    diameter = np.repeat(rng.uniform(0.5, 2, 150), repeats)
    detected = diameter + np.repeat(rng.normal(0, 0.1, 150), repeats) > 1
    return pd.DataFrame({"diameter_mm": diameter, "detected": detected, "airway": np.repeat(np.arange(150), repeats)})


def test_the_interval_holds_the_value_and_counts_airways_not_crossings():
    once, often = known_table(1), known_table(4)
    widths = []
    for table in (once, often):
        low, high = interval(table, table["airway"].to_numpy(), np.zeros(len(table)))
        assert low <= smallest_diameter(table["diameter_mm"].to_numpy(), table["detected"].to_numpy()) <= high
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0], rel=0.25)
    alone, high = interval(often, np.arange(len(often)), np.zeros(len(often)))
    assert high - alone < 0.8 * widths[1]


def test_the_interval_leaves_out_a_fortieth_of_the_draws_at_either_end(monkeypatch):
    """The draws give 0, 1, ... 1000 mm, as each takes one crossing, detected, again and again."""
    draws = [np.full(FEWEST, row) for row in np.random.default_rng(0).permutation(1001)]
    monkeypatch.setattr("microsr.evaluation.bronchioles.resample", lambda units, runs: iter(draws))
    table = pd.DataFrame({"diameter_mm": np.arange(1001.0), "detected": 1})
    assert interval(table, np.arange(1001), np.zeros(1001)) == (25, 975)


def test_an_interval_that_may_never_be_reached_has_no_upper_end():
    diameter = np.append(np.full(60, 0.6), np.full(12, 2.0))
    table = pd.DataFrame({"diameter_mm": diameter, "detected": diameter > 1})
    low, high = interval(table, np.arange(72), np.zeros(72))
    assert low == 2.0 and high == np.inf


def test_the_bootstrap_draws_the_same_airways_in_every_run():
    units, runs = np.tile(["a", "b", "c"], 2), np.repeat(["1", "2"], 3)
    draws = list(resample(units, runs, 50))
    for rows in draws:
        assert len(rows) == 6 and list(units[rows[:3]]) == list(units[rows[3:]])
        assert len(set(runs[rows[:3]])) == len(set(runs[rows[3:]])) == 1
    assert {tuple(runs[rows[[0, 3]]]) for rows in draws} == {("1", "1"), ("1", "2"), ("2", "1"), ("2", "2")}


def test_the_bootstrap_draws_all_rows_of_an_airway_or_none():
    units, runs = np.array(["b", "a", "b", "c", "c", "b", "c", "a"]), np.repeat([1, 2], [5, 3])
    for rows in resample(units, runs, 50):
        drawn = np.bincount(rows, minlength=8)
        assert drawn[0] == drawn[2] and drawn[3] == drawn[4]
        of_run = [{unit: int(drawn[(units == unit) & (runs == run)].max()) for unit in "abc"} for run in (1, 2)]
        times = [sum(counts.values()) for counts in of_run]
        assert sum(times) == 6 and all(number % 3 == 0 for number in times)


def test_rows_give_the_share_of_each_bin_and_all_bins_the_same_weight():
    table = pd.DataFrame({"diameter_mm": [0.6] * 4 + [1.0], "detected": [1, 0, 0, 0, 1], "airway": range(5)})
    rows = {name: value for name, value, _ in curve_rows(table)}
    assert rows["bronchiole_detected_0.5-0.7"] == 0.25 and rows["bronchiole_detected_0.9-1.2"] == 1
    assert np.isnan(rows["bronchiole_detected_1.2-1.6"]) and np.isnan(rows["smallest_bronchiole"])
    assert rows["bronchiole_detected"] == pytest.approx((0.25 + 1) / 2)


def airway_row(**changes):
    row = dict(zip(AIRWAY_COLUMNS, (2, 10.0, 20.0, 1.0, 0.2, 30.0, 5), strict=True))
    return row | changes


def test_crossings_are_placed_in_the_pixels_of_a_turned_volume(tmp_path):
    volume = Volume(np.zeros((4, 50, 60)), (0.5, 0.25, 0.6), (1.0, 2.0, 3.0), (0, 1, 0, 1, 0, 0, 0, 0, 1))
    x, y, _ = volume.point((2, 12.5, 7.0))
    rows = [airway_row(x_mm=x, y_mm=y), airway_row(tilt_degrees=75.0), airway_row(slice=1), airway_row(diameter_mm=4.0)]
    pd.DataFrame(rows).to_csv(tmp_path / "airways.csv", index=False)
    found = crossings(tmp_path / "airways.csv", volume, [0, 2], 2.4)
    assert len(found) == 1
    assert found[["row", "column"]].iloc[0].tolist() == pytest.approx([12.5, 7.0])


def test_an_airway_that_goes_on_in_the_next_slice_is_one_airway():
    rows = [
        airway_row(slice=0, x_mm=10.0),
        airway_row(slice=1, x_mm=10.35),
        airway_row(slice=1, x_mm=12.0),
        airway_row(slice=2, x_mm=10.7),
        airway_row(slice=1, x_mm=10.3, generation=6),
        airway_row(slice=1, x_mm=10.3, diameter_mm=0.7),
        airway_row(slice=4, x_mm=10.0),
    ]
    found = same_airway(pd.DataFrame(rows), 0.6)
    assert found[0] == found[1] == found[3]
    assert len(set(found)) == 5
    assert same_airway(pd.DataFrame(rows[:0], columns=AIRWAY_COLUMNS), 0.6).size == 0


@pytest.mark.parametrize(
    ("text", "what"), [("a,b\n1,2\n", "no column slice"), ("", "is no table"), (None, "is no table")]
)
def test_a_file_that_is_no_table_of_airways_is_refused(tmp_path, text, what):
    path = tmp_path / "airways.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=rf"airways\.csv .*{what}"):
        read_airways(path)


def test_a_diameter_that_is_no_number_is_refused(tmp_path):
    pd.DataFrame([airway_row(diameter_mm="wide")]).to_csv(tmp_path / "airways.csv", index=False)
    with pytest.raises(UserError, match=r"airways\.csv holds something that is no number"):
        read_airways(tmp_path / "airways.csv")
