"""Proper scores of a few draws against the truth of their pair: what a sampler of the posterior minimises.

A score is least, in the mean, where draws are as the truth is distributed given what G1 sees; it needs no
discriminator. All are of the form mean |X - y| - (1 - e) / 2 mean |X - X'|, in float32 and without randomness; images
are [..., batch, 1, rows, columns] in [-1, 1]. Draws of a batch are [draws, batch, 1, rows, columns].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from microsr.networks.families import doublings
from microsr.networks.layers import average_pool, keep_type


def almost_fair(distance_to_truth: Tensor, distance_between: Tensor, draws: int, alpha: float) -> Tensor:
    """Almost fair score (Lang et al. 2024, AIFS-CRPS, eq. 4), the mean over all that is scored.

    distance_to_truth: mean over the draws of their distances to the truth. distance_between: mean over the pairs of
    different draws of their distances. alpha: 1 is the fair score, which draws that fall together in one do not worsen;
    0 the score of the draws as if there were no others.
    """
    e = (1 - alpha) / draws
    return (distance_to_truth - (1 - e) / 2 * distance_between).mean()


def _score(draws: Tensor, truth: Tensor, alpha: float, size: float = 1.0) -> Tensor:
    """Almost fair score of values [draws, n, d] against [n, d] by the distance |x| / size in d dimensions."""
    n = len(draws)
    to_truth = _length(draws - truth).mean(0)
    between = sum(_length(draws[j] - draws[k]) for j in range(n) for k in range(j)) / (n * (n - 1) / 2)
    return almost_fair(to_truth, between, n, alpha) / size


def _length(values: Tensor) -> Tensor:
    if values.shape[-1] == 1:
        return values[..., 0].abs()
    # The gradient of a length has no direction at 0.
    return (values.square().sum(-1) + 1e-12).sqrt()


def pool_score(draws: Tensor, truth: Tensor, alpha: float, scale: int) -> Tensor:
    """CRPS of the means over squares of 1, 2, 4, ... pixels a side, up to a clinical pixel (`scale`), averaged over
    them.
    """
    draws, truth, found = draws.float(), truth.float(), []
    for side in (2**k for k in range(doublings(scale) + 1)):
        pooled = average_pool(draws.flatten(0, 1), side).unflatten(0, draws.shape[:2])
        found.append(_score(pooled.unsqueeze(-1), average_pool(truth, side).unsqueeze(-1), alpha))
    return torch.stack(found).mean()


def neighbourhood_score(draws: Tensor, truth: Tensor, alpha: float, scale: int) -> Tensor:
    """Energy score of neighbourhoods, a clinical pixel (`scale` pixels) a side, laid every half of it: how pixels go
    together.

    Divided by the square root of their number, so that it is of the size of a pixel's CRPS.
    """

    def cut(images: Tensor) -> Tensor:
        blocks = functional.unfold(images.float(), scale, stride=scale // 2)
        return blocks.transpose(1, 2)

    of_draws = cut(draws.flatten(0, 1)).unflatten(0, draws.shape[:2])
    return _score(of_draws, cut(truth), alpha, scale)


def spectrum_score(draws: Tensor, truth: Tensor, alpha: float) -> Tensor:
    """Energy score of each mode of the two-dimensional Fourier transform, in the complex plane; the mean of all.

    Of the orthonormal transform, so that noise without grain has the same score in each mode as in a pixel.
    """

    def modes(images: Tensor) -> Tensor:
        with keep_type(images):
            return torch.view_as_real(torch.fft.rfft2(images.float(), norm="ortho"))

    return _score(modes(draws), modes(truth), alpha, 2**0.5)
