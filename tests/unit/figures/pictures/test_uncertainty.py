"""The figure of draws shows each image where it belongs, and the error of the mean in the scale of the SD."""

import numpy as np
import pytest

from microsr.config import Figures, Inset
from microsr.core.errors import UserError
from microsr.figures.pictures.uncertainty import make_uncertainty
from microsr.figures.style import SPREAD_HU
from microsr.volume.storage import Volume, magnified_geometry, write_volume

IMAGES = {"mean": -820, "sd": 45, "solid": 25, "draw0": -900, "draw1": -750, "draw2": -800, "draw3": -700}
SETTINGS = Figures(slice=2, insets=[Inset(row=4, column=6, size=8), Inset(row=20, column=20, size=8)])


@pytest.fixture
def files(tmp_path):
    """A flat lung; what draws say of its slices 1 and 2, each image of one value."""
    clinical = Volume(np.full((3, 40, 40), -850.0), (0.6, 0.6, 1.0))
    write_volume(tmp_path / "clinical", clinical, np.ones(clinical.shape))
    truth = np.full((3, 320, 320), -850.0)
    truth[2, :48] = 50
    write_volume(tmp_path / "truth", Volume(truth, **magnified_geometry(clinical, 8)))
    later = magnified_geometry(clinical.slices(1, 2), 8)
    for name, value in IMAGES.items():
        facts = later | {"attributes": {"slices": [1, 2], "draws": 16}} | ({"unit": "%"} if name == "solid" else {})
        write_volume(tmp_path / name, Volume(np.full((2, 320, 320), value, np.int16), **facts))
    return tmp_path


def made(files, truth=True, settings=SETTINGS):
    clinical, mean, sd, solid, *draws = (files / name for name in ("clinical", *IMAGES))
    return make_uncertainty(clinical, mean, sd, solid, draws, settings, files / "f", files / "truth" if truth else None)


def test_each_field_has_its_images_and_what_the_draws_say_of_it(files, monkeypatch):
    drawn = []
    monkeypatch.setattr("microsr.figures.pictures.uncertainty.save", lambda figure, output: drawn.append(figure))
    assert made(files)["slice"] == 2
    titles = ["Clinical CT", "Draw 1", "Draw 2", "Draw 3", "Truth"]
    titles += ["Mean of 16", "SD of the draws", "|mean − truth|", "P(solid)", "Solid in truth"]
    panels = [axes for axes in drawn[0].axes if axes.get_title(loc="left")]
    assert [axes.get_title(loc="left") for axes in panels] == 2 * titles
    shown = [np.unique(axes.images[0].get_array()).tolist() for axes in panels]
    # The first field reaches from row 32 to 96 of the truth, whose rows up to 48 are solid.
    assert shown[:10] == [[-850], [-900], [-750], [-800], [-850, 50], [-820], [45], [30, 870], [25], [0, 100]]
    assert shown[14:20] == [[-850], [-820], [45], [30], [25], [0]]
    assert {panels[place].images[0].get_clim() for place in (6, 7)} == {(0, SPREAD_HU)}
    assert {panels[place].images[0].get_clim() for place in (8, 9)} == {(0, 100)}
    made(files, truth=False)
    panels = [axes.get_title(loc="left") for axes in drawn[1].axes if axes.get_title(loc="left")]
    assert panels == 2 * [*titles[:4], *titles[5:7], "P(solid)"]


def test_the_files_are_written_and_wrong_ones_are_refused(files):
    shown = made(files)
    assert (files / "f.png").exists() and shown["slices_read"][files / "sd"] == [1]
    with pytest.raises(UserError, match="does not lie in the slice of 40 rows"):
        made(files, settings=Figures(insets=[Inset(row=36, column=0, size=8)]))
    write_volume(files / "clinical", Volume(np.full((3, 40, 40), -850.0), (0.6, 0.6, 1.0)), np.zeros((3, 40, 40)))
    with pytest.raises(UserError, match="slice 1 has too little lung for the figure"):
        made(files, settings=Figures())
