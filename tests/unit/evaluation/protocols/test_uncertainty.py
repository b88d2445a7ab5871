"""Draws and a truth: a sampler whose posterior is known in closed form scores the ideal, one that is too sure, too
unsure or off does not.
"""

import numpy as np
import pandas as pd
import pytest

from microsr import cli
from microsr.core.errors import UserError
from microsr.evaluation.catalogue import check_metrics
from microsr.evaluation.protocols import uncertainty
from microsr.evaluation.protocols.uncertainty import Draws, Reliability, Tally, evaluate, ideal_coverage, judge
from microsr.physics.tissues import Tissue
from microsr.volume.storage import Volume, magnified_geometry, write_volume

SIDE = 256
LUNG = np.ones((SIDE // 8, SIDE // 8))
NOISE = 80.0


def scores(number, spread=1.0, shift=0.0, labels=None, seed=0):
    """Metrics of draws from the posterior of a Gaussian prior, SD 200 HU, seen with Gaussian noise: it is Gaussian, and
    of mean k * scan, variance k * noise^2, k = prior / (prior + noise^2).

    spread, shift: times its SD, HU. In whole HU, as volumes are.
    """
    rng = np.random.default_rng(seed)
    shape = (SIDE, SIDE)
    truth = 200 * rng.standard_normal(shape)
    scan = truth + NOISE * rng.standard_normal(shape)
    k = 200**2 / (200**2 + NOISE**2)
    draws = k * scan + np.sqrt(k) * NOISE * spread * rng.standard_normal((number, *shape)) + shift
    whole = [np.rint(values - 300).astype(np.int16) for values in (draws, truth)]
    gathered = Draws.of(number, labels is not None)
    gathered.add(*whole, LUNG, labels)
    return {metric: value for _, metric, value, _ in gathered.rows()}, gathered


@pytest.mark.parametrize("number", [2, 3, 8, 16, 40])
def test_a_truth_that_is_one_draw_more_scores_the_ideal(number):
    found, _ = scores(number)
    for group in ("", "_pooled"):
        few = 1 if group == "" else 6  # 1024 means, 65,536 pixels
        assert found[f"coverage_90{group}"] == pytest.approx(found["coverage_90_ideal"], abs=0.006 * few)
        assert found[f"spread_skill{group}"] == pytest.approx(1, abs=0.01 * few)
        assert found[f"rank_unevenness{group}"] < 0.02 * few
    assert found["solid_calibration_error"] < 0.006 and not found["solid_calibration_error_unsure"] > 0.012
    k = 200**2 / (200**2 + NOISE**2)
    # Of a Gaussian forecast of its own spread; the mean of means over 64 pixels is an eighth of that.
    assert found["crps"] == pytest.approx(np.sqrt(k / np.pi) * NOISE, rel=0.01)
    assert found["crps_pooled"] == pytest.approx(np.sqrt(k / np.pi) * NOISE / 8, rel=0.06)


def test_a_sampler_that_is_too_sure_or_too_unsure_is_told():
    (ideal, _), (sure, _), (unsure, _) = (scores(16, spread) for spread in (1, 0.5, 2))
    assert sure["coverage_90"] < ideal["coverage_90_ideal"] - 0.2
    assert unsure["coverage_90"] > ideal["coverage_90_ideal"] + 0.08
    # The mean of 16 draws has an error of its own: variance 1 of the truth, spread^2 / 16 of the mean.
    for spread, found in ((0.5, sure), (2, unsure)):
        expected = np.sqrt((1 + 1 / 16) * spread**2 / (1 + spread**2 / 16))
        assert found["spread_skill"] == pytest.approx(expected, rel=0.01)
    assert min(sure["rank_unevenness"], unsure["rank_unevenness"]) > 0.1
    for found in (sure, unsure):
        assert found["solid_calibration_error"] > 0.02 > ideal["solid_calibration_error"]
        assert found["solid_calibration_error_unsure"] > found["solid_calibration_error"]
        assert found["crps"] > 1.04 * ideal["crps"]


def test_a_sampler_that_is_too_bright_has_sloping_ranks():
    found, gathered = scores(8, shift=60)
    ranks = gathered.tallies["lung"].ranks
    assert ranks[0] > 2 / 9 and (np.diff(ranks) < 0).all() and found["spread_skill"] < 0.9


def test_the_interval_is_the_nearest_to_nine_tenths_that_draws_have():
    assert [round(ideal_coverage(n), 3) for n in (2, 8, 16, 19, 30, 99)] == [0.333, 0.778, 0.882, 0.9, 0.871, 0.9]


def test_ranks_of_a_truth_that_equals_draws_are_shared():
    """Air is -1000 HU in the truth and in each draw; neither side of the interval gets all of it."""
    tally = Tally(4)
    judged = judge(np.full((4, 10), -1000), np.full(10, -1000))
    tally.add(judged, np.ones(10, bool))
    np.testing.assert_allclose(tally.ranks, 1 / 5)
    assert tally.coverage() == pytest.approx(ideal_coverage(4)) and tally.unevenness() == pytest.approx(0)
    tally = Tally(4)
    tally.add(judge(np.array([[1], [2], [2], [3]]), np.array([2])), np.ones(1, bool))
    np.testing.assert_allclose(tally.ranks, [0, 1 / 3, 1 / 3, 1 / 3, 0])


def test_unevenness_is_the_share_of_pixels_that_have_to_move():
    """All ten are above the four draws: of the five ranks each would have two."""
    tally = Tally(4)
    tally.add(judge(np.zeros((4, 10)), np.ones(10)), np.ones(10, bool))
    assert tally.unevenness() == pytest.approx(8 / 10)


def test_fair_crps_by_its_definition():
    rng = np.random.default_rng(2)
    draws, truth = rng.normal(size=(5, 7)), rng.normal(size=7)
    apart = np.abs(draws[:, None] - draws[None]).sum(axis=(0, 1)) / (5 * 4)
    np.testing.assert_allclose(judge(draws, truth).crps, np.abs(draws - truth).mean(axis=0) - apart / 2, atol=1e-6)


def test_the_share_of_few_draws_is_no_probability_but_a_further_draw_has_its_own():
    """Each pixel is solid by a chance of its own, known to the sampler."""
    rng = np.random.default_rng(3)
    chance = rng.uniform(size=200_000)
    solid = rng.binomial(3, chance)
    reliability = Reliability(3)
    reliability.add(solid, rng.uniform(size=chance.size) < chance)
    pixels, true, drawn = reliability.curve()
    # Laplace's rule of succession, of the two draws that are left.
    np.testing.assert_allclose(drawn, [1 / 4, 2 / 4, 3 / 4], atol=0.01)
    np.testing.assert_allclose(true, drawn, atol=0.01)
    assert pixels.sum() == pytest.approx(chance.size) and reliability.error() < 0.005


def test_groups_are_the_lung_and_its_tissues():
    labels = np.full((SIDE, SIDE), Tissue.PARENCHYMA, np.uint8)
    labels[:40] = Tissue.WALL
    labels[200:] = Tissue.OUTSIDE
    found, gathered = scores(4, labels=labels)
    assert gathered.tallies["wall"].pixels == 40 * SIDE and gathered.tallies["parenchyma"].pixels == 160 * SIDE
    assert gathered.tallies["lung"].pixels == SIDE * SIDE and gathered.tallies["pooled"].pixels == LUNG.size
    assert np.isnan(found["coverage_90_vessel"]) and np.isnan(found["crps_vessel"])
    assert np.isnan(found["spread_skill_vessel"])
    check_metrics((uncertainty.PROTOCOL, metric, unit) for _, metric, _, unit in gathered.rows())


def test_bands_change_nothing(monkeypatch):
    whole, _ = scores(4)
    monkeypatch.setattr(uncertainty, "BAND", 5)
    cut, _ = scores(4)
    assert cut == pytest.approx(whole)


def written(tmp_path, number=3, **changed):
    """Draws as `superresolve` writes them, their scan and their truth; the command's words."""
    ct = Volume(np.full((3, 32, 32), -850.0), (0.625, 0.625, 0.6))
    mask = np.ones(ct.shape)
    mask[:, :, 16:] = 0
    write_volume(tmp_path / "clinical", ct, changed.get("mask", mask))
    rng = np.random.default_rng(1)
    geometry = magnified_geometry(ct, 8)
    true = rng.normal(-850, 100, (3, 256, 256)).astype(np.int16)
    write_volume(tmp_path / "truth", Volume(true, **geometry))
    write_volume(tmp_path / "labels", Volume(np.full(true.shape, 1, np.uint8), **geometry | {"unit": "label"}))
    for n in range(number):
        held = changed.get("slices", {}).get(n, [0, 1, 2])
        facts = {"slices": held, "holds": changed.get("holds", {}).get(n, f"draw{n}")}
        image = rng.normal(-850, 100, (len(held), 256, 256)).astype(np.int16)
        image[..., 128:] = 40  # what lies outside the lung is asked of nobody
        write_volume(tmp_path / f"draw{n}", Volume(image, **geometry, attributes=facts))
    draws = [tmp_path / f"draw{n}" for n in range(number)]
    return draws, tmp_path / "clinical", tmp_path / "truth", tmp_path / "table.csv"


def test_command_line_writes_the_table_and_the_curves(tmp_path):
    draws, clinical, truth, output = written(tmp_path)
    words = ["evaluate", "uncertainty", "--case", "c", "--method", "m", "--training_set", "pooled", "--seed", "1"]
    words += ["--clinical", str(clinical), "--truth", str(truth), "--labels", str(tmp_path / "labels")]
    cli.main([*words, "--draws", *map(str, draws), "--output", str(output)])
    found = pd.read_csv(output).set_index("metric")["value"]
    assert found["coverage_90_ideal"] == 0.5
    assert found["coverage_90"] == pytest.approx(0.5, abs=0.01) and found["spread_skill"] == pytest.approx(1, abs=0.02)
    curves = pd.read_csv(tmp_path / "table.curves.csv")
    assert list(curves.columns) == uncertainty.CURVES
    ranks = curves[(curves["curve"] == "rank") & (curves["group"] == "lung")]
    assert ranks["pixels"].eq(3 * 256 * 128).all() and ranks["share"].sum() == pytest.approx(1)
    assert curves.loc[curves["curve"] == "solid", "at"].tolist() == [0, 0.5, 1]


NAMES = ("c", "m", "pooled", "1")


def test_what_is_no_set_of_draws_is_refused(tmp_path):
    draws, *others = written(tmp_path, holds={1: "mean"})
    with pytest.raises(UserError, match="needs two or more different draws, but they hold draw0, mean, draw2; give"):
        evaluate(NAMES, draws, *others)
    with pytest.raises(UserError, match="two or more different draws, but they hold draw0; give"):
        evaluate(NAMES, draws[:1], *others)
    with pytest.raises(UserError, match="two or more different draws, but they hold draw0, draw0; give"):
        evaluate(NAMES, [draws[0], draws[0]], *others)


def test_draws_of_other_slices_or_without_lung_are_refused(tmp_path):
    draws, *others = written(tmp_path, slices={2: [0, 1]})
    with pytest.raises(UserError, match=r"draw2 holds other slices than \S+draw0 \(\[0, 1, 2\]\)"):
        evaluate(NAMES, draws, *others)
    draws, *others = written(tmp_path, mask=np.zeros((3, 32, 32)))
    with pytest.raises(UserError, match=r"draw0: no lung in its slices \[0, 1, 2\]"):
        evaluate(NAMES, draws, *others)
