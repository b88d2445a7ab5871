"""The domain check: what it measures of each side, and when it warns."""

import logging

import numpy as np
import pandas as pd
import pytest

from microsr import cli
from microsr.core.errors import UserError
from microsr.preprocessing.checks.domain import check, compare, disagreeing, profile


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.INFO, logger="microsr")
    return lambda: [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def clinical(rng, mean=-850.0, sd=80.0, size=8, number=300):
    return np.rint(rng.normal(mean, sd, (number, size, size))).astype(np.int16)


def micro(rng, mean=-850.0, pooled_sd=80.0, size=8, number=300):
    """uCT patches whose pooled pixels are white with `pooled_sd`, with zero-mean texture inside each clinical pixel."""
    pooled = np.rint(rng.normal(mean, pooled_sd, (number, size, size)))
    texture = np.tile([[40, -40], [-40, 40]], (4 * size, 4 * size))
    return (np.kron(pooled, np.ones((1, 8, 8))) + texture).astype(np.int16)


def run(tmp_path, a, b):
    np.save(tmp_path / "a.npy", a)
    np.save(tmp_path / "b.npy", b)
    table = check([tmp_path / "a.npy"], [tmp_path / "b.npy"], tmp_path / "domain.csv")
    return {(d, q): v for d, q, x, v in table[["domain", "quantity", "x", "value"]].to_numpy() if np.isnan(x)}


def test_alike_domains_agree_and_give_no_warning(rng, tmp_path, warnings):
    value = run(tmp_path, clinical(rng), micro(rng))
    assert value["clinical", "mean"] == pytest.approx(-850, abs=3)
    assert value["pooled_micro", "sd"] == pytest.approx(80, abs=3)
    assert value["difference", "sd"] == pytest.approx(1, abs=0.05)
    assert value["difference", "histogram"] > 0.9
    assert value["difference", "spectrum"] < 0.1
    assert value["difference", "verdict"] == 1
    assert not warnings()


def test_another_mean_is_told_with_its_remedy(rng, tmp_path, warnings):
    value = run(tmp_path, clinical(rng), micro(rng, mean=-665))
    assert value["difference", "mean"] == pytest.approx(185, abs=5)
    assert value["difference", "verdict"] == 0
    (line,) = warnings()
    assert "\n" not in line
    assert "turns noise into structure" in line
    assert "mean -8" in line and "against -66" in line
    assert "volumes.micro.calibration.mean_hu" in line
    assert "SD" not in line and "area_average" not in line


MORE = ("native: volumes.micro.area_average, to more", "matched: volumes.micro.calibration", "too low stretches")
LESS = ("native: volumes.micro.area_average, to less", "too high flattens", "a softer kernel")


@pytest.mark.parametrize(("pooled_sd", "ratio", "remedy"), [(176, 2.2, MORE), (40, 0.5, LESS)])
def test_another_sd_is_told_with_its_remedy(rng, tmp_path, warnings, pooled_sd, ratio, remedy):
    value = run(tmp_path, clinical(rng), micro(rng, pooled_sd=pooled_sd))
    assert value["difference", "sd"] == pytest.approx(ratio, rel=0.05)
    assert value["difference", "spectrum"] == pytest.approx(abs(np.log10(ratio**2)), abs=0.05)
    (line,) = warnings()
    assert "SD" in line and "spectra" in line and all(part in line for part in remedy)
    assert "mean_hu" not in line and not any(part in line for part in (LESS if remedy is MORE else MORE)[:1])


def test_an_sd_and_a_spectrum_that_point_in_opposite_ways_ask_for_the_calibration_first(rng, tmp_path, warnings):
    """The uCT is finer than the scan, whose large structures make its SD the larger one."""
    wave = 250 * np.cos(2 * np.pi * (np.arange(8) / 8 + rng.uniform(size=(300, 8, 1))[:, :1]))
    large = np.rint(-850 + wave + rng.normal(0, 15, (300, 8, 8))).astype(np.int16)
    value = run(tmp_path, large, micro(rng, pooled_sd=60))
    assert value["difference", "sd"] < 1 / 1.5
    (line,) = warnings()
    assert "uCT above clinical" in line and "point in opposite ways" in line and "area_average" not in line


def test_less_averaging_raises_the_sd_as_the_advice_has_it(rng):
    """What `area_average` averages before the pooling takes from the SD: to less raises it, to more lowers it."""
    fine = rng.normal(-850, 400, (64, 192, 192))
    sds = [fine.reshape(64, 192 // n, n, 192 // n, n).mean((2, 4)).std() for n in (8, 16, 24)]
    assert sds[0] > sds[1] > sds[2]


def test_the_same_mean_and_sd_with_another_spectrum_are_told_apart(rng, tmp_path, warnings):
    noise = clinical(rng, number=600)
    smooth = np.kron(rng.normal(-850, 80, (600, 2, 2)), np.ones((1, 4, 4))).astype(np.int16)
    value = run(tmp_path, noise, np.kron(smooth, np.ones((1, 8, 8))).astype(np.int16))
    assert value["difference", "sd"] == pytest.approx(1, abs=0.1)
    (line,) = warnings()
    assert "spectra" in line and "softer kernel" in line and "SD" not in line


def test_larger_structures_that_one_side_lacks_are_no_gap(rng, tmp_path, warnings):
    """A difference at 1/8 cycles per pixel alone: waves 8 pixels long, within the limit of the SD."""
    wave = 60 * np.cos(2 * np.pi * (np.arange(8) / 8 + rng.uniform(size=(300, 8, 1))))
    value = run(tmp_path, clinical(rng) + np.rint(wave).astype(np.int16), micro(rng))
    assert value["difference", "spectrum"] < 0.3 and not warnings()


def test_the_same_moments_with_another_histogram_are_told_apart(rng, tmp_path, warnings):
    two_peaks = rng.choice([-930, -770], (300, 8, 8)).astype(np.int16)
    value = run(tmp_path, clinical(rng), np.kron(two_peaks, np.ones((1, 8, 8))).astype(np.int16))
    assert value["difference", "histogram"] < 0.3
    (line,) = warnings()
    assert "histograms overlap" in line and "SD" not in line and "mean -" not in line


@pytest.mark.parametrize(
    ("quantity", "within", "beyond"),
    [("mean", -49.0, -51.0), ("sd", 0.68, 0.66), ("histogram", 0.61, 0.59), ("spectrum", 0.35, 0.36)],
)
def test_each_limit_is_where_it_says(quantity, within, beyond):
    alike = {"mean": 0.0, "sd": 1.0, "histogram": 1.0, "spectrum": 0.0}
    assert disagreeing(alike | {quantity: within}) == []
    assert disagreeing(alike | {quantity: beyond}) == [quantity]


def test_histograms_of_bone_are_told_apart(rng, tmp_path):
    value = run(tmp_path, clinical(rng, mean=1500, sd=200), micro(rng, mean=1500, pooled_sd=50))
    assert value["difference", "histogram"] < 0.5


def test_histogram_is_the_share_of_pixels_in_each_bin():
    patch = np.full((1, 8, 8), -850)
    patch[0, 0, 0], patch[0, 0, 1] = -3024, 4500
    found = profile(iter([patch]))
    assert found.histogram.sum() == pytest.approx(1)
    assert found.histogram[0] == found.histogram[-1] == 1 / 64
    assert found.histogram[(1200 - 850) // 25] == 62 / 64


def test_chunks_do_not_change_the_profile(rng):
    patches = clinical(rng, number=10)
    whole, parts = profile(iter([patches])), profile(iter([patches[:3], patches[3:]]))
    assert compare(whole, parts) == pytest.approx({"mean": 0, "sd": 1, "histogram": 1, "spectrum": 0}, abs=1e-9)


def test_every_patch_counts(tmp_path):
    patches = np.full((150, 8, 8), -900, np.int16)
    patches[70:] = -800
    value = run(tmp_path, patches, np.full((2, 64, 64), -850, np.int16))
    assert value["clinical", "mean"] == pytest.approx((70 * -900 + 80 * -800) / 150)
    assert value["clinical", "sd"] == pytest.approx(100 * np.sqrt(70 * 80) / 150)


def test_table_is_tidy_and_complete_for_patches_of_8x8(rng, tmp_path):
    run(tmp_path, clinical(rng), micro(rng))
    table = pd.read_csv(tmp_path / "domain.csv")
    assert list(table.columns) == ["domain", "quantity", "x", "value", "unit"]
    for side in ("clinical", "pooled_micro"):
        spectrum = table[(table["domain"] == side) & (table["quantity"] == "spectrum")]
        assert spectrum["x"].tolist() == [1 / 8, 2 / 8, 3 / 8, 4 / 8]
        assert table[(table["domain"] == side) & (table["quantity"] == "histogram")]["value"].sum() == pytest.approx(1)
    assert set(table[table["domain"] == "limit"]["quantity"]) == {"mean", "sd", "histogram", "spectrum"}
    assert (tmp_path / "domain.run.json").exists()


def test_flat_clinical_patches_disagree_rather_than_fail(rng, tmp_path, warnings):
    value = run(tmp_path, np.full((4, 8, 8), -850, np.int16), micro(rng))
    assert value["difference", "verdict"] == 0 and len(warnings()) == 1


def test_patches_in_the_ratio_of_no_scale_are_refused(rng, tmp_path):
    with pytest.raises(UserError, match=r"b\.npy has patches of 48 pixels, 64 expected"):
        run(tmp_path, clinical(rng, size=16), micro(rng, size=6))


def test_command_line_takes_several_cases(rng, tmp_path):
    for name, patches in (("a", clinical(rng, mean=-900)), ("b", clinical(rng, mean=-800)), ("m", micro(rng))):
        np.save(tmp_path / f"{name}.npy", patches)
    a, b, m, out = (str(tmp_path / n) for n in ("a.npy", "b.npy", "m.npy", "tables/domain.csv"))
    cli.main(["domain", "--clinical", a, b, "--micro", m, m, "--output", out])
    table = pd.read_csv(out)
    mean = table[(table["domain"] == "clinical") & (table["quantity"] == "mean")]["value"].item()
    assert mean == pytest.approx(-850, abs=3)


def test_the_means_are_judged_by_the_window_that_networks_see(rng, tmp_path):
    """Of a lung 50 HU of 1400; of bone, which is seen in a window of 4000 HU, 143."""
    np.save(tmp_path / "a.npy", clinical(rng, mean=0.0, sd=300.0))
    np.save(tmp_path / "b.npy", micro(rng, mean=100.0, pooled_sd=300.0))
    words = ["domain", "--clinical", tmp_path / "a.npy", "--micro", tmp_path / "b.npy", "--output", tmp_path / "d.csv"]
    found = []
    for further in ([], ["--window_hu", -1000, 3000]):
        cli.main([str(word) for word in (*words, *further)])
        table = pd.read_csv(tmp_path / "d.csv").set_index(["domain", "quantity"])["value"]
        found.append((round(table["limit", "mean"], 1), table["difference", "verdict"]))
    assert found == [(50.0, 0), (142.9, 1)]
