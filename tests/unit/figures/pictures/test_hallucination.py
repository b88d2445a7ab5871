"""The hallucination figure shows the parts of the error where they are, in one symmetric scale."""

import numpy as np
import pytest

from microsr.config import Figures, Inset
from microsr.core.errors import UserError
from microsr.figures.pictures.hallucination import ERROR_HU, make_hallucination
from microsr.volume.storage import Volume, magnified_geometry, write_volume


@pytest.fixture
def files(tmp_path):
    """A flat lung in slices 0 to 2; the super-resolved slices 1 and 2 are 30 HU too bright, 10 HU of it in the null
    space.
    """
    clinical = Volume(np.full((3, 40, 40), -850.0), (0.6, 0.6, 1.0))
    grid = magnified_geometry(clinical, 8)
    later = magnified_geometry(clinical.slices(1, 2), 8)
    slices = {"slices": [1, 2]}
    write_volume(tmp_path / "clinical", clinical, np.ones(clinical.shape))
    write_volume(tmp_path / "truth", Volume(np.full((3, 320, 320), -850.0), **grid))
    write_volume(tmp_path / "sr", Volume(np.full((2, 320, 320), -820.0), **later, attributes=slices))
    write_volume(tmp_path / "map", Volume(np.full((2, 320, 320), 10.0), **later, attributes=slices))
    return tmp_path


def test_measurable_error_is_what_the_hallucination_leaves(files, monkeypatch):
    drawn = []
    monkeypatch.setattr("microsr.figures.pictures.hallucination.save", lambda figure, output: drawn.append(figure))
    settings = Figures(slice=2, insets=[Inset(row=4, column=6, size=8)])
    one = {"proposed/pooled": files / "sr"}
    shown = make_hallucination(
        files / "clinical", files / "truth", one, {"proposed/pooled": files / "map"}, settings, files / "f"
    )
    assert shown["slice"] == 2 and shown["field"] == {"row": 4, "column": 6, "size": 8}
    panels = {axes.get_title(loc="left"): axes.images[0] for axes in drawn[0].axes if axes.get_title(loc="left")}
    assert panels["Clinical CT"].get_array().shape == (8, 8)
    assert panels["Truth"].get_array().shape == (64, 64)
    assert np.all(panels["Measurable error"].get_array() == 20)
    assert np.all(panels["Hallucination (null space)"].get_array() == 10)
    assert panels["Measurable error"].get_clim() == (-ERROR_HU, ERROR_HU)


def test_the_files_are_written_and_wrong_ones_are_refused(files):
    settings = Figures(insets=[Inset(row=4, column=6, size=8)])
    clinical, truth, one, maps = files / "clinical", files / "truth", {"a": files / "sr"}, {"a": files / "map"}
    make_hallucination(clinical, truth, one, maps, settings, files / "f")
    assert (files / "f.png").exists()
    with pytest.raises(UserError, match="give both of each method"):
        make_hallucination(clinical, truth, one, {"b": files / "map"}, settings, files / "f")
    with pytest.raises(UserError, match="too little lung"):
        write_volume(clinical, Volume(np.full((3, 40, 40), -850.0), (0.6, 0.6, 1.0)), np.zeros((3, 40, 40)))
        make_hallucination(clinical, truth, one, maps, Figures(), files / "f")
    with pytest.raises(UserError, match="does not lie in the slice"):
        make_hallucination(clinical, truth, one, maps, Figures(insets=[Inset(row=36, column=0, size=8)]), files / "f")
