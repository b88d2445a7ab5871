"""The bronchiole figure draws the curve that the crossings give and says the smallest diameter."""

import json

import numpy as np
import pandas as pd
import pytest

from microsr import cli
from microsr.core.errors import UserError
from microsr.figures.charts.bronchioles import draw_bronchioles, make_bronchioles
from microsr.figures.style import COLOURS


def table(from_mm, seed="1", case="test1"):
    """Crossings of 0.5 to 2 mm, of which those of `from_mm` and more are detected; four crossings an airway."""
    diameter = np.repeat(np.linspace(0.5, 2, 31), 4)
    detected = (diameter >= from_mm - 1e-9).astype(int)
    return pd.DataFrame(
        {"slice": 0, "airway": np.repeat(np.arange(31), 4), "diameter_mm": diameter, "tilt_degrees": 10.0, "score": 1.0,
         "control": 0.2, "detected": detected, "case": case, "seed": seed}
    )  # fmt: skip


def unit(frame):
    return frame.assign(unit=[f"{c}/{a}" for c, a in zip(frame["case"], frame["airway"], strict=True)])


def test_the_curve_is_the_share_detected_at_each_diameter():
    figure = draw_bronchioles({"proposed/pooled": unit(table(1.0))}, {"proposed/pooled": (1.0, 0.95, 1.05)})
    line = next(li for li in figure.axes[0].lines if len(li.get_xdata()) > 50)
    x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    assert np.all(y[x < 0.95] == 0) and np.all(y[x > 1.0] == 1)
    assert line.get_color() == COLOURS[0]
    assert "Proposed: 1.00 mm\n(0.95 to 1.05)" in [t.get_text() for t in figure.legends[0].get_texts()]


def test_cases_and_trainings_are_pooled_and_never_is_said(tmp_path):
    paths = []
    for name, frame in (("a", table(0.8)), ("b", table(1.2, "2")), ("c", table(9)), ("d", table(0.8, case="007"))):
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        paths.append(tmp_path / f"{name}.csv")
    limits = make_bronchioles({"proposed/pooled": paths[:2], "bicubic/none": [paths[2]]}, tmp_path / "figure")
    value, low, high = limits["proposed/pooled"]
    assert value == pytest.approx(1.2) and low < 0.9 and high >= 1.2
    assert limits["bicubic/none"] == [None, None, None]
    assert (tmp_path / "figure.png").exists() and (tmp_path / "figure.pdf").exists()


def test_the_command_takes_a_method_several_times(tmp_path):
    for name, frame in (("a", table(0.8)), ("b", table(0.8, case="test2"))):
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    pairs = [f"proposed/pooled={tmp_path}/{name}.csv" for name in "ab"]
    cli.main(["figures", "bronchioles", "--crossings", *pairs, "--output", str(tmp_path / "f")])
    record = json.loads((tmp_path / "f.run.json").read_text(encoding="utf-8"))
    assert record["smallest_bronchiole_mm"]["proposed/pooled"][0] == pytest.approx(0.8)


def test_another_table_and_tables_without_airways_are_refused(tmp_path):
    (tmp_path / "odd.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"odd\.csv has no column slice"):
        make_bronchioles({"a": [tmp_path / "odd.csv"]}, tmp_path / "f")
    table(1)[:0].to_csv(tmp_path / "empty.csv", index=False)
    with pytest.raises(UserError, match="no airway to judge"):
        make_bronchioles({"a": [tmp_path / "empty.csv"]}, tmp_path / "f")
