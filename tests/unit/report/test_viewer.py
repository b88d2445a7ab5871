import base64
import json
import zlib

import numpy as np
import pytest

from microsr.config import Inset
from microsr.core.errors import UserError
from microsr.figures.pictures.comparison import Field
from microsr.report.viewer import (
    Source,
    bokeh_item,
    bokeh_script,
    make_views,
    pack,
    read_source,
    region,
    sides,
    view_json,
)
from microsr.volume.storage import IDENTITY, Volume, magnified_geometry, open_volume, write_volume


def unpacked(text: str, shape: tuple[int, int]) -> np.ndarray:
    """As the page's script undoes it."""
    low, high = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(2, -1).astype(np.int32)
    return (low + 256 * high).astype(np.uint16).view(np.int16).reshape(shape).cumsum(axis=1).astype(np.int16)


def test_packing_loses_nothing_even_at_the_ends_of_int16():
    hu = np.random.default_rng(0).integers(-32768, 32767, (7, 11), dtype=np.int16, endpoint=True)
    hu[0, :4] = -32768, 32767, -32768, 0
    assert np.array_equal(unpacked(pack(hu), hu.shape), hu)


@pytest.fixture
def lung():
    mask = np.zeros((60, 80), bool)
    mask[20:40, 10:50] = True
    return mask


def test_the_region_is_that_of_the_figure_where_it_fits(lung):
    assert region(lung, (1.0, 1.0, 1.0), [], 10**6, 8) == Field(15, 45, 5, 55)
    beyond = Inset(row=2, column=70, size=8)
    assert region(lung, (1.0, 1.0, 1.0), [beyond], 10**6, 8) == Field(0, 45, 5, 80)


def test_a_region_that_is_too_large_is_a_square_about_the_first_inset_within_the_figure(lung):
    inset = Inset(row=24, column=40, size=8)
    found = region(lung, (1.0, 1.0, 1.0), [inset], 64 * 16 * 16, 8)
    assert found == Field(20, 36, 36, 52)
    edge = region(lung, (1.0, 1.0, 1.0), [Inset(row=24, column=10, size=4)], 64 * 20 * 20, 8)
    assert edge == Field(16, 36, 5, 25)
    low = region(lung, (1.0, 1.0, 1.0), [Inset(row=38, column=24, size=4)], 64 * 20 * 20, 8)
    assert low == Field(27, 47, 16, 36), "as far as the inset, which lies beyond the lung's margin"
    assert region(lung, (1.0, 1.0, 1.0), [], 64 * 10 * 10, 8) == Field(25, 35, 25, 35), (
        "without insets about the middle"
    )
    assert region(lung, (1.0, 1.0, 1.0), [], 1, 8).shape == (8, 8)


def test_letters_are_for_axial_slices_only():
    assert sides(IDENTITY) == "RA"
    assert sides((-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)) == "RA", "turned round to be shown"
    assert sides((0, 1.0, 0, 0, 0, 1.0, 1.0, 0, 0)) == ""


@pytest.fixture
def files(tmp_path):
    """A clinical CT stored upside down, a method with its slices in another order, the truth, and the figure's
    record.
    """
    rows, columns = np.mgrid[:12, :16]
    hu = np.stack([100 * z + 10 * rows + columns for z in range(3)])
    mask = np.ones(hu.shape, bool)
    clinical = Volume(hu, (0.5, 0.5, 1.0), direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1), attributes={"case": "a"})
    write_volume(tmp_path / "clinical", clinical, mask)
    fine = hu.repeat(8, 1).repeat(8, 2)
    place = magnified_geometry(clinical, 8)
    write_volume(tmp_path / "proposed", Volume(fine[[2, 1]] + 1, **place, attributes={"slices": [2, 1]}))
    write_volume(tmp_path / "truth.ome.zarr", Volume(fine + 2, **place))
    record = {
        "slice": 1,
        "insets": [],
        "settings": {"title": "a title"},
        "slices_read": {"results/x/superresolved/proposed/pooled/a.ome.zarr": [1], "results/x/truth.ome.zarr": [1]},
    }
    (tmp_path / "comparison.run.json").write_text(json.dumps(record))
    return tmp_path


def source(files) -> Source:
    return Source(
        files / "comparison.run.json", files / "clinical", {"proposed": files / "proposed"}, files / "truth.ome.zarr"
    )


def test_all_images_show_the_figure_s_slice_turned_as_radiologists_see_it(files):
    (view,), read = make_views([source(files)])
    clinical, proposed, truth = view.layers
    wanted = (100 + 10 * np.mgrid[:12, :16][0] + np.mgrid[:12, :16][1])[::-1, ::-1]
    assert np.array_equal(clinical.hu, wanted)
    assert np.array_equal(proposed.hu, wanted.repeat(8, 0).repeat(8, 1) + 1)
    assert np.array_equal(truth.hu, wanted.repeat(8, 0).repeat(8, 1) + 2)
    assert (view.title, view.size, view.sides, view.training_set) == ("a title", (8.0, 6.0), "RA", "pooled")
    assert read == {files / "clinical": [1], files / "proposed": [1], files / "truth.ome.zarr": [1]}
    plain = view_json(view)
    assert [layer["repeat"] for layer in plain["layers"]] == [8, 1, 1]
    assert np.array_equal(unpacked(plain["layers"][0]["data"], (12, 16)), clinical.hu)


def test_draws_and_their_sd_come_last_each_told_for_what_it_is(files):
    volume = open_volume(files / "proposed")
    for name in ("draw", "sd"):
        facts = {"direction": volume.direction, "origin": volume.origin, "attributes": volume.attributes}
        write_volume(files / name, Volume(volume.array[:] + (5 if name == "sd" else 3), volume.spacing, **facts))
    words = [str(files / "comparison.run.json"), f"clinical={files / 'clinical'}", f"truth={files / 'truth.ome.zarr'}"]
    words += [f"method/proposed={files / 'proposed'}", f"draw/Draw 1={files / 'draw'}", f"sd/SD={files / 'sd'}"]
    (view,), read = make_views([read_source(words)])
    names = ["Clinical CT", "Proposed", "Truth", "Draw 1", "SD"]
    assert [layer.name for layer in view.layers] == names
    assert np.array_equal(view.layers[3].hu, view.layers[1].hu + 3)
    plain = view_json(view)["layers"]
    assert [layer["draw"] for layer in plain] == [False, False, False, True, False]
    assert [layer["window"] for layer in plain] == [None, None, None, None, (0, 300)]
    assert files / "sd" in read
    for wrong in ("draw/=x", "other/a=x", "sd/SD="):
        with pytest.raises(UserError, match="draw/NAME=PATH or sd/NAME=PATH"):
            read_source([*words, wrong])


def test_what_the_record_says_must_be_in_the_volumes(files):
    text = (files / "comparison.run.json").read_text(encoding="utf-8")
    (files / "comparison.run.json").write_text(text.replace('"slice": 1', '"slice": 0'))
    with pytest.raises(UserError, match="proposed: does not hold slice 0, which the comparison figure shows"):
        make_views([source(files)])
    (files / "comparison.run.json").write_text(text.replace('"slice": 1', '"slice": 9'))
    with pytest.raises(UserError, match="clinical: has no slice 9"):
        make_views([source(files)])
    (files / "comparison.run.json").write_text("[]")
    with pytest.raises(UserError, match=r"comparison.run.json: is no record of a comparison figure"):
        make_views([source(files)])


def test_the_figure_is_the_same_at_each_call_and_bokeh_is_whole():
    first = json.dumps(bokeh_item((-1000, 200)))
    assert json.dumps(bokeh_item((-1000, 200))) == first
    assert all(f'"name": "{name}"' in first for name in ("viewer", "shown", "window", "divider"))
    script = bokeh_script()
    assert len(script) > 1_000_000 and "sourceMappingURL" not in script and "</script" not in script.lower()
