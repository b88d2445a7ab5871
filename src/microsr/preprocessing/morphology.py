"""Work on 2-D masks and slices: what SciPy's tools give, to the last bit, in a fraction of their time."""

from __future__ import annotations

import numpy as np

from microsr.preprocessing.components import Runs


def average_neighbours(image: np.ndarray) -> np.ndarray:
    """Means of 3 x 3 pixels, float32: those of `scipy.ndimage.uniform_filter` to the last bit, in a third of its
    time.
    """
    wide = np.pad(image, 1, mode="edge")
    rows = _mean_of_three(wide[:-2], wide[1:-1], wide[2:])
    return _mean_of_three(rows[:, :-2], rows[:, 1:-1], rows[:, 2:])


def _mean_of_three(one: np.ndarray, two: np.ndarray, three: np.ndarray) -> np.ndarray:
    total = np.add(one, two, dtype=np.float64)
    total += three
    total /= 3
    return total.astype(np.float32)


def erode(mask: np.ndarray) -> np.ndarray:
    """Pixels of a 2-D mask whose neighbours, all 8 that there are, are in it too."""
    rows = mask.copy()
    rows[1:] &= mask[:-1]
    rows[:-1] &= mask[1:]
    both = rows.copy()
    both[:, 1:] &= rows[:, :-1]
    both[:, :-1] &= rows[:, 1:]
    return both


def close_by_disc(mask: np.ndarray, radius: float, pixel: tuple[float, float]) -> np.ndarray:
    """Closing of a 2-D mask by a disc; beyond the border nothing grows and nothing shrinks. radius, pixel (y, x): one
    unit.
    """
    down, across = (np.arange(int(radius / p) + 2) * p for p in pixel)
    inside = np.sqrt(down[:, None] ** 2 + across**2) <= radius
    widths = [int(n) - 1 for n in inside.sum(axis=1) if n]
    return ~_grow(~_grow(mask, widths), widths)


def _grow(mask: np.ndarray, widths: list[int]) -> np.ndarray:
    """A 2-D mask grown by a shape whose row at a distance of n from its middle reaches widths[n] pixels to either
    side.
    """
    columns = mask.shape[1]
    # As one line, in which the rows lie so far apart that none grows into the next, moving by pixels or rows is the
    # same.
    wide = np.pad(mask, [(0, 0), (0, widths[0])])
    length, line = wide.shape[1], wide.ravel()
    grown, reach = np.zeros_like(line), 0
    for distance in reversed(range(len(widths))):
        for _ in range(widths[distance] - reach):
            line = _add_shifted(line, line.copy(), 1)
        reach = widths[distance]
        grown = _add_shifted(line, grown, distance * length)
    return grown.reshape(wide.shape)[:, :columns]


def _add_shifted(line: np.ndarray, grown: np.ndarray, shift: int) -> np.ndarray:
    """`grown` with what lies in `line`, moved either way, added."""
    kept = max(line.size - shift, 0)
    grown[shift:] |= line[:kept]
    grown[:kept] |= line[shift:]
    return grown


def fill_holes(mask: np.ndarray, largest: float = np.inf) -> np.ndarray:
    """A 2-D mask whose holes of at most `largest` pixels are filled."""
    rest = Runs.of(~mask)
    fill = rest.component_sizes <= largest
    fill[rest.components[1][rest.at_border]] = False
    return mask | rest.select(fill).paint()
