"""Where a square window may lie in a mask, and windows drawn evenly from these places: of training patches and of what
metrics look at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def admissible(mask: np.ndarray, size: int, inside: float) -> np.ndarray:
    """Where a size x size window may start: at least the share `inside` of it lies in the mask.

    mask: [rows, columns], non-zero inside. Returns bool [rows - size + 1, columns - size + 1], empty if the window does
    not fit. Box sums come from an integral image, so that the cost does not grow with the window.
    """
    if min(mask.shape) < size:
        return np.zeros((max(mask.shape[0] - size + 1, 0), max(mask.shape[1] - size + 1, 0)), bool)
    integral = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int32)
    integral[1:, 1:] = (mask != 0).cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32)
    box = integral[size:, size:] - integral[:-size, size:] - integral[size:, :-size] + integral[:-size, :-size]
    # The share is a decimal fraction from the user: 0.7 of 100 pixels must mean 70, not 71.
    return box >= math.ceil(inside * size**2 - 1e-6)


def count_positions(mask: Any, size: int, inside: float, slices: Sequence[int] | None = None) -> np.ndarray:
    """Number of admissible positions on each of `slices` (None: all) of a mask [slices, rows, columns], read by
    slice.
    """
    chosen = range(mask.shape[0]) if slices is None else slices
    return np.array([np.count_nonzero(admissible(np.asarray(mask[int(z)]), size, inside)) for z in chosen], np.int64)


def draw_positions(
    mask: Any,
    size: int,
    inside: float,
    number: int,
    stream: np.random.Generator,
    counts: np.ndarray,
    slices: Sequence[int] | None = None,
) -> np.ndarray:
    """Draw windows uniformly, with replacement, from the admissible positions of a mask [slices, rows, columns].

    counts: from `count_positions` with the same mask, size, share and slices. Returns int64 [number, 3]: slice,
    first row, first column. The first windows of a longer draw are those of a shorter one.
    """
    chosen = np.arange(mask.shape[0]) if slices is None else np.asarray(slices)
    ends = np.cumsum(counts)
    ranks = stream.integers(ends[-1], size=number)
    which = np.searchsorted(ends, ranks, side="right")
    positions = np.empty((number, 3), np.int64)
    for i in np.unique(which):
        allowed = admissible(np.asarray(mask[int(chosen[i])]), size, inside)
        here = which == i
        flat = np.flatnonzero(allowed)[ranks[here] - (ends[i] - counts[i])]
        positions[here] = np.column_stack([np.full(flat.size, chosen[i]), *np.unravel_index(flat, allowed.shape)])
    return positions
