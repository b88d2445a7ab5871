"""The window in which a viewer opens DICOM and OME-Zarr: a lung's, bone's, the scan's own where it suits, or chosen."""

import numpy as np
import pydicom
import pytest
import zarr

from microsr import cli
from microsr.config.sheet import Scan
from microsr.formats.dicom_series import write_series
from microsr.formats.readers import read_scan
from microsr.volume.storage import Volume, open_volume, write_volume

PLACE = {"spacing": (0.5, 0.5, 1.0), "origin": (-4.0, -4.0, 0.0)}


@pytest.fixture
def scan(tmp_path):
    """Makes the folder of a CT with windows of its own: centres, widths."""

    def make(centre=None, width=None):
        hu = np.random.default_rng(2).integers(-1000, 1500, (3, 16, 16)).astype(np.int16)
        hu[:, :8] = -900
        write_series(tmp_path / "scan", Volume(hu, **PLACE), "a", 1, "lung")
        for path in sorted((tmp_path / "scan").iterdir()):
            data = pydicom.dcmread(path)
            if centre is not None:
                data.WindowCenter, data.WindowWidth = centre, width
            data.save_as(path)
        return tmp_path / "scan"

    return make


def window_of(folder):
    """Centre and width of a series."""
    found = {(float(d.WindowCenter), float(d.WindowWidth)) for d in map(pydicom.dcmread, sorted(folder.iterdir()))}
    assert len(found) == 1
    return found.pop()


def limits_of(path):
    shown = zarr.open_group(str(path), mode="r").attrs["ome"]["omero"]["channels"][0]["window"]
    return shown["start"], shown["end"]


@pytest.mark.parametrize(
    ("organ", "own", "window"),
    [
        ("lung", (None, None), (-600, 1500)),
        ("other", (None, None), (500, 2000)),
        ("lung", (-500, 1400), (-500, 1400)),
        ("lung", ([-700, 40], [1200, 400]), (-700, 1200)),
        ("lung", (40, 400), (-600, 1500)),
        ("lung", (0, 5000), (-600, 1500)),
        ("other", (300, 1500), (300, 1500)),
        ("other", (700, 4000), (700, 4000)),
        ("other", (40, 400), (500, 2000)),
        ("lung", ("", ""), (-600, 1500)),
    ],
    ids=str,
)
def test_a_series_opens_as_its_scan_does_where_that_shows_the_organ(organ, own, window, scan, tmp_path):
    """So that both look alike side by side; but not a lung in a mediastinal window, nor bone in one of soft tissue."""
    source = scan(*own)
    words = ["superresolve", str(source), "--upsampler", "nearest", "--scale", "2", "--organ", organ, "--output"]
    cli.main([*words, str(tmp_path / "sr")])
    assert window_of(tmp_path / "sr") == window
    cli.main([*words, str(tmp_path / "sr.ome.zarr")])
    assert limits_of(tmp_path / "sr.ome.zarr") == (window[0] - window[1] / 2, window[0] + window[1] / 2)


def test_a_window_that_is_chosen_comes_before_all_others(scan, tmp_path):
    words = ["superresolve", str(scan(-500, 1400)), "--upsampler", "nearest", "--scale", "2"]
    cli.main([*words, "--display", "-1000", "3000", "--output", str(tmp_path / "sr.ome.zarr")])
    assert limits_of(tmp_path / "sr.ome.zarr") == (-1000, 3000)
    cli.main(["export", str(tmp_path / "sr.ome.zarr"), "--output", str(tmp_path / "a")])
    assert window_of(tmp_path / "a") == (1000, 4000), "an export opens as the volume does"
    cli.main(["export", str(tmp_path / "sr.ome.zarr"), "--output", str(tmp_path / "b"), "--display", "0", "1000"])
    assert window_of(tmp_path / "b") == (500, 1000)


@pytest.mark.parametrize(
    ("facts", "unit", "window"),
    [
        ({"holds": "sd"}, "HU", (150, 300)),
        ({"holds": "solid"}, "%", (50, 100)),
        ({"organ": "other"}, "HU", (500, 2000)),
    ],
    ids=str,
)
def test_what_draws_say_has_a_window_of_its_own(facts, unit, window, tmp_path):
    volume = Volume(np.zeros((2, 4, 4), np.int16), (1, 1, 1), unit=unit, attributes=facts)
    write_volume(tmp_path / "v.ome.zarr", volume)
    cli.main(["export", str(tmp_path / "v.ome.zarr"), "--output", str(tmp_path / "d")])
    assert window_of(tmp_path / "d") == window


def test_a_window_that_does_not_rise_is_refused(scan, tmp_path, capsys):
    words = ["superresolve", str(scan()), "--upsampler", "nearest", "--output", str(tmp_path / "a.nii")]
    with pytest.raises(SystemExit):
        cli.main([*words, "--display", "3000", "-1000"])
    assert "--display 3000 -1000 does not rise; give the HU shown black" in capsys.readouterr().err


@pytest.mark.parametrize("width", ["0", "-5", "wide", "1e400"])
def test_a_damaged_window_is_none(width, scan):
    folder = scan(1, 12345678)
    for path in folder.iterdir():  # pydicom itself would write no such value
        path.write_bytes(path.read_bytes().replace(b"12345678", width.ljust(8).encode()))
    assert "window" not in read_scan(Scan(path=str(folder))).attributes["source"]


def test_volumes_of_the_pipeline_open_in_the_window_that_is_chosen(scan, tmp_path):
    common = ["--case", "a", "--display", "-500", "2500", "--input"]
    source = str(scan(40, 400))
    flags = ["--mask", "none"]
    cli.main(["volumes", "clinical", *common, source, *flags, "--output", str(tmp_path / "c.ome.zarr")])
    flags += ["--sampling", "native", "--calibration.method", "none", "--spacing", "0.05x0.05x0.1"]
    cli.main(["volumes", "micro", *common, source, *flags, "--output", str(tmp_path / "m.ome.zarr")])
    cli.main(["volumes", "truth", *common, source, "--output", str(tmp_path / "t.ome.zarr")])
    assert "window" not in open_volume(tmp_path / "m.ome.zarr").attributes["source"], "grey values have another one"
    for name in "cmt":
        assert limits_of(tmp_path / f"{name}.ome.zarr") == (-500, 2500)
    words = ["--upsampler", "nearest", "--output", str(tmp_path / "sr.ome.zarr")]
    cli.main(["superresolve", str(tmp_path / "c.ome.zarr"), *words])
    assert open_volume(tmp_path / "sr.ome.zarr").attributes["display"] == [-500, 2500]
