"""With which grey scale viewers open what is written: what OME-Zarr says of it."""

import numpy as np
import ome_zarr_models
import pytest
import zarr

from microsr.core.errors import UserError
from microsr.volume.storage import Volume, open_volume, write_volume
from microsr.volume.viewing import display_window

OTHER = {"organ": "other"}


def of(unit="HU", **attributes):
    return Volume(None, (1.0, 1.0, 1.0), unit=unit, attributes=attributes)


@pytest.mark.parametrize(
    ("volume", "window"),
    [
        (of(), (-1350, 150)),
        (of(holds="mean", draws=16), (-1350, 150)),
        (of(organ="other"), (-500, 1500)),
        (of(organ="other", display=[-1000, 3000]), (-1000, 3000)),
        (of(display=[-1200, 0]), (-1200, 0)),
        (of(holds="sd"), (0, 300)),
        (of(holds="sd", display=[-1000, 3000]), (0, 800)),
        (of("%", holds="solid"), (0, 100)),
        (of("%", holds="solid", display=[-1000, 3000]), (0, 100)),
        (of("grey"), None),
        (of("label"), None),
    ],
    ids=str,
)
def test_black_and_white_suit_what_a_volume_is(volume, window):
    """A lung in a lung window, bone in a bone window; an SD from 0 to a fifth of the images' width; a share to 100."""
    assert display_window(volume) == (window and pytest.approx(window))


def test_ome_zarr_says_name_and_window_and_stays_valid(tmp_path):
    attributes = {"holds": "sd", "description": "SD of 16 draws, not for diagnosis"}
    write_volume(tmp_path / "v.ome.zarr", Volume(np.zeros((2, 3, 4)), (1, 1, 1), attributes=attributes))
    group = zarr.open_group(str(tmp_path / "v.ome.zarr"), mode="r")
    (shown,) = group.attrs["ome"]["omero"]["channels"]
    assert shown["label"] == "SD of 16 draws, not for diagnosis" and shown["active"]
    assert shown["window"] == {"min": 0, "max": 3071, "start": 0, "end": 300}
    ome_zarr_models.v05.Image.from_zarr(group)


def test_the_slider_of_a_viewer_reaches_the_window_s_ends(tmp_path):
    bone = Volume(np.zeros((2, 3, 4)), (1, 1, 1), attributes={"display": [-1500, 4000]})
    write_volume(tmp_path / "v.ome.zarr", bone)
    limits = zarr.open_group(str(tmp_path / "v.ome.zarr"), mode="r").attrs["ome"]["omero"]["channels"][0]["window"]
    assert limits == {"min": -1500, "max": 4000, "start": -1500, "end": 4000}


def test_values_that_no_grey_scale_is_known_for_get_none(tmp_path):
    write_volume(tmp_path / "v.ome.zarr", Volume(np.zeros((2, 3, 4)), (1, 1, 1), unit="label"))
    assert "omero" not in zarr.open_group(str(tmp_path / "v.ome.zarr"), mode="r").attrs["ome"]


@pytest.mark.parametrize("display", [[0], [0, "white"], [0, float("inf")]], ids=str)
def test_a_damaged_window_is_no_volume(display, tmp_path):
    write_volume(tmp_path / "v.ome.zarr", Volume(np.zeros((2, 3, 4)), (1, 1, 1)))
    group = zarr.open_group(str(tmp_path / "v.ome.zarr"), mode="r+")
    facts = group.attrs["microsr"]
    group.attrs["microsr"] = facts | {"attributes": {"display": display}}
    with pytest.raises(UserError, match="not a volume in the working format"):
        open_volume(tmp_path / "v.ome.zarr")
