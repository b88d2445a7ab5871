import numpy as np
import pytest

from microsr.core.errors import UserError
from microsr.report.calibration import choose_slices, counts, draw_calibration, make_calibration
from microsr.volume.storage import Volume, open_volume, write_volume

FACTS = {"method": "two_point", "air_grey": 2000.0, "tissue_grey": 10000.0, "slope": 0.13, "offset": -1260.0}


def volume(path, hu, case="a", calibration=None):
    mask = np.zeros(hu.shape, bool)
    mask[:, 2:] = True
    attributes = {"case": case} | ({"calibration": calibration} if calibration else {})
    write_volume(path, Volume(hu, (0.1, 0.1, 0.1), attributes=attributes), mask)
    return path


def test_shares_are_of_the_pixels_inside_the_mask_and_all_are_counted(tmp_path):
    hu = np.full((3, 8, 8), -845)
    hu[:, :2] = 40  # outside
    hu[0, 4] = 3000
    path = volume(tmp_path / "v", hu)
    found = counts(path, open_volume(path), [0, 1])
    edges = -1200 + 10 * np.arange(len(found))
    assert found.sum() == pytest.approx(1)
    assert found[edges == -850] == pytest.approx(88 / 96) and found[-1] == pytest.approx(8 / 96)
    assert found[edges == 40] == 0


def test_slices_are_spread_evenly():
    assert choose_slices(3) == [0, 1, 2]
    assert len(choose_slices(500)) == 12 and choose_slices(500)[0] == 20 and choose_slices(500)[-1] == 479


def test_the_figure_shows_grey_values_before_and_hu_after_with_the_points_that_were_taken():
    micro = np.zeros(160)
    micro[20] = 1  # -1000 to -990 HU
    figure = draw_calibration([("a", FACTS, micro, micro), ("b", FACTS, micro, None)])
    before, after = figure.axes[:2]
    peak = before.patches[0].get_data()
    assert peak.edges[20] == pytest.approx((-1000 + 1260) / 0.13) and peak.values[20] == 100
    assert [line.get_xdata()[0] for line in before.lines] == [2000, 10000]
    assert [line.get_xdata()[0] for line in after.lines] == pytest.approx([-1000, 40])
    names = [text.get_text() for text in after.get_legend().get_texts()]
    assert names == ["uCT, specimen", "clinical CT"]
    assert [text.get_text() for text in figure.axes[3].get_legend().get_texts()] == ["uCT, specimen"]


def test_each_uct_has_a_row_with_the_clinical_ct_of_its_own_case(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("microsr.report.calibration.draw_calibration", lambda rows: drawn.extend(rows))
    monkeypatch.setattr("microsr.report.calibration.save", lambda figure, output: None)
    micro = [volume(tmp_path / c / "m", np.full((2, 8, 8), -500), c, FACTS) for c in ("a", "b")]
    clinical = [volume(tmp_path / "b" / "c", np.full((1, 8, 8), -700), "b")]
    read = make_calibration(micro, clinical, tmp_path / "figure")
    assert [(row[0], row[3] is None) for row in drawn] == [("a", True), ("b", False)]
    assert read == {micro[0]: [0, 1], micro[1]: [0, 1], clinical[0]: [0]}
    with pytest.raises(UserError, match="does not say how it was calibrated"):
        make_calibration(clinical, [], tmp_path / "figure")
