"""Means of blocks of pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike


def average_pool(image: np.ndarray, size: int, dtype: DTypeLike = np.float64) -> np.ndarray:
    """f() of Zheng et al. 2020: mean of each size x size block, [..., rows, columns] -> [..., rows // size, columns //
    size].

    What does not fill a block at the far edges is left out. dtype: in which the means are computed.
    """
    rows, columns = image.shape[-2] // size, image.shape[-1] // size
    whole = np.asarray(image)[..., : rows * size, : columns * size]
    return whole.reshape(*image.shape[:-2], rows, size, columns, size).mean(axis=(-3, -1), dtype=dtype)
