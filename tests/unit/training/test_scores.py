"""Scores of draws: the closed forms, what is best, and that gradients are finite where draws meet."""

import functools
import math

import pytest
import torch

from microsr.training.scores import neighbourhood_score, pool_score, spectrum_score

POOLS, NEIGHBOURHOODS = (functools.partial(score, scale=8) for score in (pool_score, neighbourhood_score))
COARSE = [functools.partial(score, scale=2) for score in (pool_score, neighbourhood_score)]
SCORES = pytest.mark.parametrize("score", [POOLS, NEIGHBOURHOODS, spectrum_score, *COARSE])


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@SCORES
@pytest.mark.parametrize(("alpha", "share"), [(1.0, 0.5), (0.0, 0.25), (0.95, 0.4875)])
def test_flat_images_have_the_score_of_a_number(score, alpha, share):
    """Two draws 0.1 below and 0.4 above the truth: their mean distance, less a share of the distance between them."""
    truth = torch.full((1, 1, 16, 16), 0.2)
    value = score(torch.stack([truth - 0.1, truth + 0.4]), truth, alpha)
    expected = 0.25 - share * 0.5
    if score is spectrum_score:  # only the mean of the image has a mode, of 16 rows and 9 columns
        expected *= 16 / (16 * 9) / math.sqrt(2)
    assert value.item() == pytest.approx(expected, abs=1e-5)


@SCORES
def test_the_score_of_one_draw_twice_is_its_distance(score):
    truth, image = normal(2, 1, 16, 16), normal(2, 1, 16, 16, seed=1)
    same = score(torch.stack([image, image]), truth, 1.0)
    assert same > score(torch.stack([truth, truth]), truth, 1.0) == pytest.approx(0, abs=1e-5)


@SCORES
def test_draws_as_the_truth_is_distributed_are_best(score):
    """Wider, narrower and shifted ones are worse, in the mean over many."""
    truth = 0.3 * normal(400, 1, 16, 16)
    draws = 0.3 * normal(2, 400, 1, 16, 16, seed=1)
    best = score(draws, truth, 1.0)
    for other in (1.4 * draws, 0.6 * draws, 0 * draws, draws + 0.15):
        assert score(other, truth, 1.0) > best + 0.002


def test_grain_is_scored_that_no_single_pixel_shows():
    """Truth and draws have the same distribution in each pixel; the truth's neighbours go together. Only the modes tell
    well: the energy score of a neighbourhood hardly changes (0.05 %).
    """
    smooth = torch.nn.functional.avg_pool2d(normal(200, 1, 18, 18), 3, 1) * 3
    likewise = torch.nn.functional.avg_pool2d(normal(400, 1, 18, 18, seed=1), 3, 1).unflatten(0, (2, 200)) * 3
    white = normal(2, 200, 1, 16, 16, seed=2)
    assert spectrum_score(likewise, smooth, 1.0) < 0.98 * spectrum_score(white, smooth, 1.0)


def test_what_a_clinical_pixel_holds_is_scored():
    """Pools see that all pixels of a block are wrong together."""
    truth = torch.zeros(50, 1, 16, 16)
    own = normal(2, 50, 1, 16, 16)
    together = normal(2, 50, 1, 2, 2, seed=1).repeat_interleave(8, -1).repeat_interleave(8, -2)
    assert POOLS(together, truth, 1.0) > 1.5 * POOLS(own, truth, 1.0)


@SCORES
def test_gradients_are_finite_where_draws_and_truth_meet(score):
    truth = normal(1, 1, 16, 16)
    draws = torch.stack([truth, truth]).requires_grad_()
    score(draws, truth, 0.95).backward()
    assert draws.grad.isfinite().all()


@SCORES
def test_more_draws_are_scored_by_the_same_measure(score):
    """The fair score does not depend on their number, in the mean over many."""
    truth = normal(300, 1, 16, 16)
    two, four = (score(normal(n, 300, 1, 16, 16, seed=n), truth, 1.0).item() for n in (2, 4))
    assert four == pytest.approx(two, rel=0.02)


@SCORES
def test_images_in_bfloat16_are_scored_in_float32(score):
    truth = normal(1, 1, 16, 16)
    assert score(normal(2, 1, 1, 16, 16, seed=1).bfloat16(), truth, 0.95).dtype == torch.float32
