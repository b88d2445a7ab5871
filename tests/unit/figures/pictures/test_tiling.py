"""The tiling figure shows the seams that tiles by themselves have, and would show those of a halo that is too small."""

import json

import numpy as np
import pandas as pd
import pytest

from microsr import cli
from microsr.config import Figures
from microsr.core.errors import UserError
from microsr.figures.pictures import tiling
from microsr.figures.pictures.tiling import each_alone, make_tiling, most_lung
from microsr.inference.upsamplers import Bicubic, upsample_slice
from microsr.volume.storage import Volume, write_volume

EXACT_HU = 1e-3
"""Rounding of float32 in a network, at most."""


@pytest.fixture
def clinical(tmp_path):
    """A CT of 3 slices of 44x40 noisy pixels; slice 1 has most lung, in rows 4 to 43."""
    hu = np.random.default_rng(0).normal(-850, 100, (3, 44, 40))
    lung = np.zeros(hu.shape, bool)
    lung[:, 4:, 10:30] = True
    lung[1, 4:, :] = True
    write_volume(tmp_path / "clinical", Volume(hu, (0.6, 0.5, 1.0)), lung)
    return tmp_path / "clinical"


@pytest.fixture
def draw(clinical, trained_model, tmp_path, monkeypatch):
    """Draws bicubic and a generator, tiles of 16 in a square of 40; gives the panels by row and column, table and
    facts.
    """

    def drawn():
        figures = []
        monkeypatch.setattr(tiling, "save", lambda figure, output: figures.append(figure))
        models, table = {"proposed/pooled": trained_model("efficient")}, tmp_path / "tables" / "tiling.csv"
        facts = make_tiling(clinical, models, Figures(), tmp_path / "f", table, size=40, tile=16)
        panels = [axes for axes in figures[0].axes if axes.get_title(loc="left")]
        return np.reshape(panels, (2, 3)), pd.read_csv(table), facts

    return drawn


def test_a_halo_leaves_rounding_and_tiles_alone_have_seams_where_they_meet(draw):
    panels, table, facts = draw()
    assert facts == {"slice": 1, "row": 4, "column": 0}
    assert table["method"].tolist() == ["bicubic", "bicubic", "proposed/pooled", "proposed/pooled"]
    assert table["tiles"].tolist() == ["halo", "alone"] * 2
    assert (table["halo_px"] > 0).tolist() == [True, False] * 2
    largest, rms = (table[c].to_numpy().reshape(2, 2) for c in ("largest_hu", "rms_hu"))
    assert (largest[:, 0] < EXACT_HU).all() and (largest[:, 1] > 10).all()
    assert (rms < largest)[:, 1].all() and (rms[:, 0] <= largest[:, 0]).all()
    for (one, halo, alone), values in zip(panels, largest, strict=True):
        shown = [np.asarray(axes.images[0].get_array()) for axes in (one, halo, alone)]
        assert shown[0].shape == (320, 320)
        assert shown[1].max() == pytest.approx(max(values[0], 1e-5), rel=0.01)
        assert shown[2].max() == pytest.approx(values[1], rel=0.01)
        rows, columns = np.nonzero(shown[2] > 0.5 * shown[2].max())
        from_border = np.minimum(*(np.abs(place[:, None] + 0.5 - [128, 256]).min(axis=1) for place in (rows, columns)))
        assert from_border.max() < 16, "two clinical pixels"
        assert halo.images[0].norm.vmin == alone.images[0].norm.vmin == 1e-5
        assert halo.images[0].norm.vmax == alone.images[0].norm.vmax == 1e3
        assert alone.get_xticks() == pytest.approx([16 * 0.6, 32 * 0.6])
        assert alone.get_yticks() == pytest.approx([16 * 0.5, 32 * 0.5])
        assert f"at most {values[1]:.0f} HU" in [text.get_text() for text in alone.texts]
    assert panels[1, 0].get_title(loc="left") == "Proposed"
    assert panels[1, 1].get_title(loc="left") == f"tiles of 16 pixels, halo of {table['halo_px'][2]}"


def test_a_halo_that_is_too_small_would_be_seen(draw, monkeypatch):
    monkeypatch.setattr(Bicubic, "halo", 1)
    _, table, _ = draw()
    assert table["largest_hu"][0] > 1


def test_tiles_alone_are_slices_of_their_own():
    hu = np.random.default_rng(1).normal(-800, 100, (20, 24))
    found = each_alone(hu, 0, Bicubic(), 16)
    for rows, columns in ((slice(0, 16), slice(16, 24)), (slice(16, 20), slice(0, 16))):
        part = found[8 * rows.start : 8 * rows.stop, 8 * columns.start : 8 * columns.stop]
        assert np.array_equal(part, upsample_slice(hu[rows, columns], 0, Bicubic()))


def test_a_seam_of_one_pixel_is_not_lost_in_print():
    image = np.zeros((64, 1024), np.float32)
    image[:, 513] = 7
    shown = tiling._coarsen(image, 300, 8)
    assert shown.shape == (16, 256) and (shown[:, 128] == 7).all() and np.count_nonzero(shown) == 16
    assert np.array_equal(tiling._coarsen(image, 2000, 8), image)


def test_the_square_with_most_lung_is_shown():
    lung = np.zeros((30, 50), bool)
    lung[11:19, 33:41] = True
    assert most_lung(lung, 8) == (11, 33)
    assert most_lung(lung, 100) == (0, 0)
    lung[:] = True
    lung[:23] = False
    row, _ = most_lung(lung, 7)
    assert row == 23


def test_numbers_are_short():
    assert [tiling._short(value) for value in (0.0, 181.2, 3.14, 0.25)] == ["0", "181", "3.1", "0.25"]
    assert tiling._short(2.44e-4) == r"$2.4 \times 10^{-4}$"


def test_the_command_writes_figure_table_and_record(clinical, trained_model, tmp_path):
    output, model = tmp_path / "out" / "tiling", trained_model("compact")
    cli.main([
        "figures", "tiling", "--clinical", str(clinical), "--models", f"compact={model}", "--size", "24", "--tile", "8",
        "--slice", "2", "--output", str(output), "--table", str(tmp_path / "tiling.csv"), "--debug",
    ])  # fmt: skip
    assert output.with_suffix(".png").exists() and output.with_suffix(".pdf").exists()
    record = json.loads((tmp_path / "out" / "tiling.run.json").read_text(encoding="utf-8"))
    assert record["slice"] == 2 and record["settings"]["tile"] == 8 and str(model) in record["inputs"]
    assert len(pd.read_csv(tmp_path / "tiling.csv")) == 4


def test_what_cannot_be_shown_is_refused(clinical, tmp_path):
    how = {"output": tmp_path / "f", "table": tmp_path / "t.csv"}
    with pytest.raises(UserError, match="--tile is 0"):
        make_tiling(clinical, {}, Figures(), **how, tile=0)
    with pytest.raises(UserError, match=r"figures\.slice is 7"):
        make_tiling(clinical, {}, Figures(slice=7), **how)
    write_volume(clinical, Volume(np.zeros((1, 16, 16)), (1, 1, 1), unit="grey"), np.ones((1, 16, 16)))
    with pytest.raises(UserError, match="unit 'grey'"):
        make_tiling(clinical, {}, Figures(), **how)
