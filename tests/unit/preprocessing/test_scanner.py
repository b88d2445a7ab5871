"""The scanner of clinical CTs is measured, and the settings are told where they say something else."""

import dataclasses
import logging

import numpy as np
import pandas as pd
import pytest

from microsr import cli, config
from microsr.core.errors import UserError
from microsr.physics.noise_power import draw
from microsr.physics.scanner import noise
from microsr.preprocessing.checks.scanner import measure_scanner
from microsr.preprocessing.patch_files import read_noise, read_scanner
from microsr.volume.storage import Volume, open_volume, write_volume

SHAPE = (8, 96, 96)
LUNG = np.zeros(SHAPE, bool)
LUNG[:, 30:70, 20:80] = True


def write(path, sd=30.0, foam=0.0, streaked=False, kernel="lung", unit="HU"):
    """A scan of even lung in a body, with noise."""
    random, scanner = np.random.default_rng(3), config.Scanner(kernel=kernel)
    if streaked:
        along = np.fft.fftfreq(16)
        power = np.exp(-((along / 0.08) ** 2))[None] * np.exp(-((along / 0.2) ** 2))[:, None]
        grain = np.stack([draw(power / power.mean(), SHAPE[1:], random) for _ in range(SHAPE[0])])
    else:
        grain = noise(SHAPE, scanner, 0.6, random)
    hu = np.where(LUNG, -850 + foam * random.normal(size=SHAPE), 40) + sd * grain
    write_volume(path, Volume(hu.round().astype(np.int16), (0.625, 0.625, 0.6), unit=unit), LUNG)
    return path


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def value(table, region, quantity):
    return table.loc[(table["region"] == region) & (table["quantity"] == quantity), "value"].iloc[0]


def test_a_scanner_as_stated_is_measured_without_a_warning(tmp_path, caplog):
    table = measure_scanner([write(tmp_path / "a.ome.zarr")], tmp_path / "scanner.csv", config.Scanner())
    assert warnings(caplog) == []
    assert value(table, "noise", "sd") == pytest.approx(30, rel=0.08)
    assert value(table, "noise", "slice_sigma") == pytest.approx(0.29, rel=0.1)
    assert value(table, "noise", "streaks") < 1.1 and value(table, "stated", "sd") == 30
    (power,) = read_noise(tmp_path / "scanner.csv")
    assert np.sqrt(power.mean()) == pytest.approx(value(table, "noise", "sd"), rel=1e-4)


def test_lung_that_shows_structure_is_not_believed(tmp_path):
    table = measure_scanner([write(tmp_path / "a.ome.zarr", foam=60)], tmp_path / "scanner.csv", config.Scanner())
    assert value(table, "lung", "sd") > 55
    assert value(table, "noise", "sd") == value(table, "soft_tissue", "sd") == pytest.approx(30, rel=0.1)


def test_lung_alone_tells_only_how_large_the_noise_is_at_most(tmp_path, caplog):
    scan = write(tmp_path / "a.ome.zarr", foam=60)
    whole = np.ones(SHAPE, bool)  # all is lung: none is left to compare with
    lung = open_volume(scan)
    write_volume(
        tmp_path / "b.ome.zarr", dataclasses.replace(lung, array=lung.array[:, 30:70, 20:80]), whole[:, 30:70, 20:80]
    )
    for stated, told in ((30.0, False), (150.0, True)):
        caplog.clear()
        measure_scanner([tmp_path / "b.ome.zarr"], tmp_path / "s.csv", config.Scanner(noise_hu=stated))
        assert any("scanner.noise_hu" in said for said in warnings(caplog)) == told


def test_what_a_warning_advises_ends_it(tmp_path, caplog):
    scan, output = write(tmp_path / "a.ome.zarr", sd=60, streaked=True), tmp_path / "scanner.csv"
    stated = config.Scanner(slice_sigma_mm=0.15, pixel_mm=0.8)
    measure_scanner([scan], output, stated)
    (said,) = warnings(caplog)
    assert "noise of 57 HU, not 30" in said and "noise drawn out 1.9" in said
    advised = said.split("Set ")[1].rstrip(".").split("; ")
    scanner = dict(text.removeprefix("scanner.").split(": ") for text in advised if text.startswith("scanner."))
    assert set(scanner) == {"pixel_mm", "noise_hu", "kernel"}
    assert "methods.<name>.noise: measured" in said
    caplog.clear()
    better = config.Scanner.model_validate(stated.model_dump() | scanner, strict=False)
    measure_scanner([scan], output, better, measured_used=True)
    assert warnings(caplog) == []


def test_a_wider_slice_profile_is_found(tmp_path, caplog):
    scan = write(tmp_path / "a.ome.zarr")
    measure_scanner([scan], tmp_path / "scanner.csv", config.Scanner(slice_sigma_mm=0.6))
    (said,) = warnings(caplog)
    assert "slice profile of sigma 0.2" in said and "Set scanner.slice_sigma_mm: 0.2" in said


def test_a_scan_that_tells_nothing_says_so(tmp_path, caplog):
    hu = np.full((1, 40, 40), -850, np.int16)
    write_volume(tmp_path / "a.ome.zarr", Volume(hu, (0.625, 0.625, 0.6)), np.ones(hu.shape, bool))
    measure_scanner([tmp_path / "a.ome.zarr"], tmp_path / "scanner.csv", config.Scanner())
    assert "its noise cannot be measured" in warnings(caplog)[0]
    with pytest.raises(UserError, match=r"set methods\.<name>\.noise to stated"):
        read_noise(tmp_path / "scanner.csv")


def test_the_command_refuses_what_is_no_clinical_ct(tmp_path, capsys):
    grey, air = write(tmp_path / "grey.ome.zarr", unit="grey"), tmp_path / "air.nii"
    import SimpleITK as sitk

    hu = np.random.default_rng(0).normal(-1000, 10, (8, 64, 64)).astype(np.int16)
    hu[:, 16:48, 16:48] = 40
    sitk.WriteImage(sitk.GetImageFromArray(hu), str(air))
    for scan, said in ((grey, "has unit 'grey', not HU"), (air, f"{air}: holds no lung")):
        with pytest.raises(SystemExit):
            cli.main(["scanner", str(scan), "--output", str(tmp_path / "scanner.csv")])
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(("change", "said"), [
    (lambda t: t[t["region"] != "stated"], "is no complete table of scanners"),
    (lambda t: t.drop(t[t["quantity"] == "power"].index[3]), "has no whole noise power of a.ome.zarr"),
])  # fmt: skip
def test_a_table_that_is_not_whole_is_refused(tmp_path, change, said):
    table = tmp_path / "scanner.csv"
    measure_scanner([write(tmp_path / "a.ome.zarr")], table, config.Scanner())
    change(pd.read_csv(table)).to_csv(table, index=False)
    with pytest.raises(UserError, match=said):
        read_noise(table)
        read_scanner(table)
