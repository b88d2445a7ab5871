"""Two super-resolved scans of one lung: what they disagree about, in HU, in texture and in structures of one only."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.special import erf

from microsr import cli
from microsr.core.errors import UserError
from microsr.evaluation.protocols.repeatability import Comparison, evaluate
from microsr.networks.layers import bicubic_upsample
from microsr.physics.pooling import average_pool
from microsr.volume.storage import Volume, magnified_geometry, write_volume

SIDE = 256
MASK = np.ones((SIDE // 8, SIDE // 8))


def plain():
    return np.full((SIDE, SIDE), -850.0)


def compared(first, second, mask=MASK):
    comparison = Comparison()
    comparison.add(first, second, mask)
    return {metric: value for _, metric, value, _ in comparison.rows()}


def lung(seed):
    """Grain, six vertical septa 6 pixels wide and nine lumens 12 pixels wide, some way from the border."""
    rng = np.random.default_rng(seed)
    image = plain() + 200 * gaussian_filter(rng.standard_normal((SIDE, SIDE)), 1)
    row, column = np.indices(image.shape)
    for x in rng.integers(20, SIDE - 20, 6):
        image[20:-20, x : x + 6] = 0
    for y, x in rng.integers(30, SIDE - 30, (9, 2)):
        image[np.hypot(row - y, column - x) < 6] = -1000
    return image


def test_an_identical_pair_disagrees_about_nothing():
    found = compared(lung(1), lung(1))
    assert found.pop("texture_correlation") == pytest.approx(1)
    assert set(found.values()) == {0.0} and len(found) == 5


def test_an_offset_is_no_difference_of_texture():
    found = compared(lung(1), lung(1) + 7)
    assert found["disagreement_rmse"] == pytest.approx(7)
    assert found["disagreement_pooled_rmse"] == pytest.approx(7)
    assert found["disagreement_texture_rmse"] == pytest.approx(0, abs=1e-3)


def test_a_checkerboard_of_one_only_is_texture_that_pooling_hides():
    row, column = np.indices((SIDE, SIDE))
    found = compared(lung(1), lung(1) + 30 * (-1.0) ** (row + column))
    assert found["disagreement_rmse"] == pytest.approx(30, rel=1e-3)
    assert found["disagreement_texture_rmse"] == pytest.approx(30, rel=1e-2)
    assert found["disagreement_pooled_rmse"] == pytest.approx(0, abs=1e-3)


def test_texture_is_what_the_clinical_grid_cannot_carry():
    column = np.arange(SIDE)[None, :]
    coarse = 100 * np.cos(2 * np.pi * column / 64) + 0 * plain()
    fine = 100 * np.cos(2 * np.pi * column / 6) + 0 * plain()
    assert compared(plain(), plain() + coarse)["disagreement_texture_rmse"] < 5
    assert compared(plain(), plain() + fine)["disagreement_texture_rmse"] == pytest.approx(100 / np.sqrt(2), rel=0.02)


def test_what_lies_outside_the_lung_is_no_texture_inside():
    mask = MASK.copy()
    mask[:, 16:] = 0
    chest = plain()
    chest[:, 128:] = 40
    assert compared(plain(), chest + 10, mask)["disagreement_texture_rmse"] == pytest.approx(0, abs=1e-3)


def test_textures_drawn_independently_are_uncorrelated_and_half_shared_ones_by_half():
    rng = np.random.default_rng(0)
    a, b, c = (100 * rng.standard_normal((SIDE, SIDE)) for _ in range(3))
    assert compared(plain() + a, plain() + b)["texture_correlation"] == pytest.approx(0, abs=0.02)
    assert compared(plain() + a + b, plain() + a + c)["texture_correlation"] == pytest.approx(0.5, abs=0.02)
    assert compared(plain() + a, plain() - a)["texture_correlation"] == pytest.approx(-1)


def walls(*columns):
    image = plain()
    for column in columns:
        image[40:216, column : column + 3] = 40
    return image


def test_a_wall_in_one_only_is_counted_by_its_length():
    one_of_two = compared(walls(60, 120), walls(60))["walls_in_one_only"]
    assert one_of_two == pytest.approx((0.5 + 0) / 2, abs=0.02)
    assert compared(walls(60), walls(60, 120))["walls_in_one_only"] == pytest.approx(one_of_two)
    assert compared(walls(60), walls(120))["walls_in_one_only"] == 1
    assert compared(walls(60), plain())["walls_in_one_only"] == 1


def test_a_thick_wall_counts_by_its_length_too():
    thick = walls(60, 120)
    thick[40:216, 120:132] = 40
    assert compared(thick, walls(60))["walls_in_one_only"] == pytest.approx(0.25, abs=0.02)


def test_a_wall_two_pixels_away_is_the_same_wall_and_one_farther_is_another():
    assert compared(walls(60), walls(62))["walls_in_one_only"] == 0
    assert compared(walls(60), walls(66))["walls_in_one_only"] == 1


def lumens(*places, radius=4):
    image = plain()
    row, column = np.indices(image.shape)
    for y, x in places:
        image[np.hypot(row - y, column - x) < radius] = -1000
    return image


def test_a_lumen_in_one_only_is_counted_once():
    found = compared(lumens((60, 60), (120, 120)), lumens((60, 60), (180, 60), (60, 180), (200, 200)))
    assert found["lumens_in_one_only"] == pytest.approx((1 / 2 + 3 / 4) / 2)


def test_a_lumen_that_is_fainter_or_moved_a_little_is_still_there_and_an_alveolus_is_none():
    assert compared(lumens((60, 60)), lumens((62, 61)))["lumens_in_one_only"] == 0
    faint = np.maximum(lumens((60, 60)), -930)
    assert compared(lumens((60, 60)), faint)["lumens_in_one_only"] == 0
    assert np.isnan(compared(lumens((60, 60), radius=1.5), plain())["lumens_in_one_only"])


def test_without_structures_nothing_can_be_said_of_them():
    found = compared(plain(), plain())
    assert found["disagreement_rmse"] == 0
    assert all(np.isnan(found[name]) for name in ("texture_correlation", "walls_in_one_only", "lumens_in_one_only"))


def test_two_images_of_noise_score_badly_and_two_bicubic_scans_between():
    rng = np.random.default_rng(3)
    grains = [plain() + 600 * gaussian_filter(rng.standard_normal((SIDE, SIDE)), 1) for _ in range(2)]
    noise = compared(*grains)
    scan = average_pool(lung(1), 8)
    scans = [scan + 30 * rng.standard_normal(scan.shape) for _ in range(2)]
    bicubic = [bicubic_upsample(torch.from_numpy(s)[None, None], 8)[0, 0].numpy() for s in scans]
    between = compared(*bicubic)
    assert noise["disagreement_rmse"] > 5 * between["disagreement_rmse"] > 50
    assert noise["texture_correlation"] < 0.05 and 0.5 < between["texture_correlation"] < 0.99
    assert noise["walls_in_one_only"] > 0.5 > 0.2 > between["walls_in_one_only"] > 0
    assert noise["lumens_in_one_only"] > 0.5


def test_only_the_lung_counts_and_structures_only_away_from_its_border():
    mask = MASK.copy()
    mask[:, 16:] = 0
    second = lung(1)
    second[:, 128:] = lung(2)[:, 128:]
    found = compared(lung(1), second, mask)
    assert found["disagreement_rmse"] == 0 and found["disagreement_texture_rmse"] == 0
    assert found["walls_in_one_only"] == 0
    chest = plain()
    chest[:, 124:] = 40  # the chest wall reaches into the last clinical pixel of the mask, in one image only
    assert np.isnan(compared(chest, plain(), mask)["walls_in_one_only"])


def test_a_new_draw_and_a_new_scan_are_told_apart(tmp_path):
    """A method that draws texture anew each time, and one that takes the scan's noise for it."""
    ct = Volume(np.full((2, 32, 32), -850.0), (0.625, 0.625, 0.6))
    write_volume(tmp_path / "clinical", ct, np.ones(ct.shape))
    texture = {key: np.random.default_rng(n).normal(0, 40, (2, 256, 256)) for n, key in enumerate("abcd")}

    def rows(of_scan, of_draw):
        names = {"sr": "ac", "repeated": "bd", "redrawn": "ad", "same_draw": "bc"}
        for name, (scan, draw) in names.items():
            image = -850 + of_scan * texture[scan] + of_draw * texture[draw]
            write_volume(tmp_path / name, Volume(image, **magnified_geometry(ct, 8), attributes={"slices": [0, 1]}))
        paths = [tmp_path / name for name in ("sr", "repeated", "clinical", "table.csv")]
        further = {name: tmp_path / name for name in ("redrawn", "same_draw")}
        evaluate(("c", "m", "pooled", "1"), *paths, **further)
        return pd.read_csv(tmp_path / "table.csv").set_index("metric")["value"]

    draws, follows = rows(0, 1), rows(1, 0)
    apart = 40 * np.sqrt(2)
    for value, redrawn, rescanned in ((draws, apart, 0), (follows, 0, apart)):
        assert value["disagreement_rmse"] == pytest.approx(apart, rel=0.02)
        assert value["disagreement_rmse_redrawn"] == pytest.approx(redrawn, rel=0.02)
        assert value["disagreement_rmse_rescanned"] == pytest.approx(rescanned, rel=0.02)
        assert value["texture_correlation_redrawn"] == pytest.approx(0 if redrawn else 1, abs=0.02)
    both = rows(1, 1)
    parts = np.hypot(both["disagreement_rmse_redrawn"], both["disagreement_rmse_rescanned"])
    assert both["disagreement_rmse"] == pytest.approx(parts, rel=0.02)


@pytest.mark.parametrize(("spread", "promised"), [(1.0, True), (0.5, False)])
def test_means_of_two_scans_differ_by_what_an_honest_sampler_promises(tmp_path, spread, promised):
    """Gaussian posteriors in closed form, prior SD 200 HU, noise 100 HU: errors of two means are partly the same."""
    ct = Volume(np.full((1, 32, 32), -850.0), (0.625, 0.625, 0.6))
    write_volume(tmp_path / "clinical", ct, np.ones(ct.shape))
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 200, (1, 256, 256))
    k = 200**2 / (200**2 + 100**2)
    images = {name: k * (truth + rng.normal(0, 100, truth.shape)) for name in ("superresolved", "repeated")}
    images |= dict.fromkeys(("sd", "repeated_sd"), np.full(truth.shape, spread * 100 * np.sqrt(k)))
    for name, image in images.items():
        facts = {"attributes": {"slices": [0], "draws": 10**9}}
        write_volume(tmp_path / name, Volume(np.rint(image).astype(np.int16), **magnified_geometry(ct, 8), **facts))
    words = ["evaluate", "repeatability", "--case", "c", "--method", "m", "--training_set", "s", "--seed", "1"]
    words += [word for name in (*images, "clinical") for word in (f"--{name}", str(tmp_path / name))]
    cli.main([*words, "--output", str(tmp_path / "table.csv")])
    found = pd.read_csv(tmp_path / "table.csv").set_index("metric")["value"]["means_agree"]
    # The difference has SD k * sqrt(2) * noise, the promise is spread * sqrt(2 k) * noise.
    assert found == pytest.approx(erf(1.645 * spread / np.sqrt(2 * k)), abs=0.005)
    assert (found >= 0.9) == promised


def test_the_sd_of_one_scan_alone_is_refused(capsys):
    words = ["evaluate", "repeatability", "--case", "c", "--method", "m", "--training_set", "s", "--seed", "1"]
    words += [word for name in ("superresolved", "repeated", "clinical", "sd", "output") for word in (f"--{name}", "x")]
    with pytest.raises(SystemExit):
        cli.main(words)
    assert "--sd and --repeated_sd go together" in capsys.readouterr().err


def test_command_line_compares_the_same_slices_and_their_inputs(tmp_path):
    ct = Volume(np.full((3, 32, 32), -850.0), (0.625, 0.625, 0.6))
    again = Volume(ct.array + 12, ct.spacing)
    mask = np.ones(ct.shape)

    def run(first=(1, 2), second=(1, 2), *flags):
        for name, slices, offset in (("superresolved", first, 0), ("repeated", second, 5)):
            geometry = magnified_geometry(ct.slices(slices[0], slices[0] + 1), 8)
            array = np.stack([lung(z) + offset for z in slices])
            write_volume(tmp_path / name, Volume(array, **geometry, attributes={"slices": list(slices)}))
        write_volume(tmp_path / "clinical", ct, mask)
        write_volume(tmp_path / "repeated_clinical", again, mask)
        names = ["--case", "c", "--method", "m", "--training_set", "none", "--seed", "none"]
        paths = [a for n in ("superresolved", "repeated", "clinical", *flags) for a in (f"--{n}", str(tmp_path / n))]
        cli.main(["evaluate", "repeatability", *names, *paths, "--debug", "--output", str(tmp_path / "t.csv")])
        table = pd.read_csv(tmp_path / "t.csv")
        assert set(table["protocol"]) == {"repeatability"} and (tmp_path / "t.run.json").exists()
        return dict(zip(table["metric"], table["value"], strict=True))

    assert run()["disagreement_pooled_rmse"] == pytest.approx(5, abs=0.1)
    assert "input_disagreement_rmse" not in run()
    assert run((1, 2), (1, 2), "repeated_clinical")["input_disagreement_rmse"] == pytest.approx(12)
    with pytest.raises(UserError, match=r"repeated holds other slices than .*superresolved"):
        run((1, 2), (0, 1))
    again = Volume(ct.array, ct.spacing, (5.0, 0.0, 0.0))
    with pytest.raises(UserError, match=r"clinical and .*repeated_clinical do not overlay"):
        run((1, 2), (1, 2), "repeated_clinical")
    assert "walls_in_one_only" in run()
    ct = Volume(ct.array, ct.spacing, attributes={"organ": "other"})
    assert not [name for name in run() if name.startswith(("walls", "lumens"))]
    mask[:] = 0
    with pytest.raises(UserError, match=r"superresolved: nothing of its slices \[1, 2\] is inside the mask"):
        run()
