"""Protocol `no_reference`: what can be measured on any super-resolved CT, real or simulated.

In: the super-resolved volume, its clinical input with its mask, and uCT volumes as the model of texture. Out: rows
of the table of metrics. The formulas are in metrics.py and texture.py.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from microsr import config
from microsr.core.errors import UserError
from microsr.core.progress import Progress, logger
from microsr.core.streams import Stream, numpy_stream
from microsr.evaluation import metrics, texture
from microsr.evaluation.tables import Row
from microsr.physics import spectrum
from microsr.physics.moments import Moments
from microsr.physics.scanner import KERNELS
from microsr.preprocessing import positions
from microsr.volume.alignment import scale_of
from microsr.volume.storage import Volume

PROTOCOL = "no_reference"
WINDOWS = 256
"""Windows drawn from each volume for its spectrum and its histogram."""
WINDOW_SIZES = (128, 64, 32)
"""Sides of the windows, pixels: the largest that fits is used, of those of at least four clinical pixels. Multiples of
32, so that the clinical Nyquist limit and the checkerboard's frequencies fall on exact steps."""
ENOUGH_ROOM = 8
"""Windows, each half overlapping the next, that must fit into a volume's mask for a size to be taken."""
WINDOW_SEED = 0
"""The windows' places are always the same, so that methods are compared on the same tissue."""


def slice_rows(
    sr: Volume, sr_path: Path, clinical: Volume, mask: Any, slices: list[int], scanner: config.Scanner
) -> list[Row]:
    """Metrics that compare a super-resolved slice with its own input.

    sr: the clinical slices `slices`. mask: [clinical slices, rows, columns]. What is in vessels and airways is measured
    in lungs alone.

    Raises
    ------
    UserError
        Nothing of these slices is inside the mask.
    """
    pooled, vessels, airways = (Moments() for _ in range(3))
    again = _ScannedAgain(clinical, mask, scanner, scale_of(sr, clinical))
    progress = Progress(len(slices), "slices")
    for i, z in enumerate(slices):
        image, pixels, lung = np.asarray(sr.array[i]), np.asarray(clinical.array[z]), np.asarray(mask[z])
        pooled.add(metrics.pooled_difference(image, pixels, lung))
        again.add(z, image)
        if clinical.is_lung:
            vessels.add(texture.detail_at(image, texture.solid_places(pixels, lung)))
            airways.add(texture.detail_at(image, texture.airway_places(pixels, lung)))
        progress.advance()
    progress.close()
    if not pooled.number:
        raise UserError(
            f"{sr_path}: nothing of its slices {slices} is inside the mask; choose others with superresolve.slices"
        )
    found = [
        (PROTOCOL, "consistency_rmse", metrics.consistency_rmse(pooled), "HU"),
        (PROTOCOL, "consistency_scan_rmse", metrics.consistency_scan_rmse(again.differences), "HU"),
        (PROTOCOL, "mean_shift", metrics.mean_shift(pooled), "HU"),
    ]
    if not clinical.is_lung:
        return found
    return [
        *found,
        (PROTOCOL, "texture_in_vessels", texture.texture_in_vessels(vessels), "HU"),
        (PROTOCOL, "texture_in_airways", texture.texture_in_airways(airways), "HU"),
    ]


class _ScannedAgain:
    """Super-resolved slices, scanned again, minus the clinical ones, at the mask's pixels."""

    def __init__(self, clinical: Volume, mask: Any, scanner: config.Scanner, scale: int) -> None:
        self._scale, self._clinical, self._mask, self._kernel = scale, clinical, mask, KERNELS[scanner.kernel]
        self._weights = metrics.slice_weights(clinical.spacing[2], scanner.slice_sigma_mm)
        self._in_plane, self._whole = Moments(), Moments()
        self._last: deque[tuple[int, np.ndarray]] = deque(maxlen=len(self._weights))

    def add(self, z: int, image: np.ndarray) -> None:
        """Scan the slice z, HU [scale * rows, scale * columns]; slices come in rising order."""
        scanned = metrics.scan_in_plane(image, self._kernel, self._clinical.spacing[:2], self._scale)
        self._compare(z, scanned, self._in_plane)
        self._last.append((z, scanned))
        reach = len(self._weights) // 2
        if [place for place, _ in self._last] == list(range(z - 2 * reach, z + 1)):
            mean = np.tensordot(self._weights, np.stack([scan for _, scan in self._last]), axes=1)
            self._compare(z - reach, mean, self._whole)

    def _compare(self, z: int, scanned: np.ndarray, differences: Moments) -> None:
        lung = np.asarray(self._mask[z]) != 0
        differences.add(scanned[lung].astype(float) - np.asarray(self._clinical.array[z], float)[lung])

    @property
    def differences(self) -> Moments:
        """Under the whole operator where slices have their neighbours, else under its in-plane part."""
        return self._whole if self._whole.number else self._in_plane


def window_rows(
    sr: Volume,
    sr_path: Path,
    mask: Any,
    slices: list[int],
    references: list[Volume],
    masks: list[Any],
    paths: list[Path],
) -> list[Row]:
    """Metrics of the texture, from windows inside the mask of the SR volume and inside the uCT specimens.

    references, masks, paths: the uCT volumes with their specimen masks; each counts the same.

    Raises
    ------
    UserError
        A mask has no room for the smallest window.
    """
    scale = sr.shape[1] // len(mask[slices[0]])
    size, counts = _window_size(mask, slices, scale, sr_path, masks, paths)
    logger.info("spectra from %d windows of %dx%d pixels in each volume", WINDOWS, size, size)
    stream = numpy_stream(Stream.TEXTURE_WINDOWS, WINDOW_SEED)
    places = positions.draw_positions(mask, size // scale, 1.0, WINDOWS, stream, counts[0], slices)
    places = np.column_stack([np.searchsorted(slices, places[:, 0]), scale * places[:, 1:]])
    power, share = _power_and_histogram(sr.array, places, size)
    reference_power, reference_share = np.zeros_like(power), np.zeros_like(share)
    for volume, specimen, count in zip(references, masks, counts[1:], strict=True):
        places = positions.draw_positions(specimen, size, 1.0, WINDOWS, stream, count)
        one_power, one_share = _power_and_histogram(volume.array, places, size)
        reference_power += one_power / len(references)
        reference_share += one_share / len(references)
    return [
        (PROTOCOL, "spectrum_distance", metrics.spectrum_distance(power, reference_power, scale), "log10 power"),
        (PROTOCOL, "histogram_distance", texture.histogram_distance(share, reference_share), "HU"),
        (PROTOCOL, "checkerboard", metrics.checkerboard(power, scale), "log10 ratio"),
    ]


def _power_and_histogram(array: Any, places: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    windows = []
    for z in np.unique(places[:, 0]):
        # A slice is read once, not once a window.
        starts = places[places[:, 0] == z] - [z, 0, 0]
        # Copies, as a window that is a part of the slice would keep all of it in memory.
        windows += [window.copy() for window in spectrum.windows_at(np.asarray(array[int(z)])[None], starts, size)]
    return spectrum.mean_power(windows), texture.histogram(np.stack(windows))


def _window_size(
    mask: Any, slices: list[int], scale: int, sr_path: Path, masks: list[Any], paths: list[Path]
) -> tuple[int, list[np.ndarray]]:
    """The largest window with room in every volume, and the number of its positions on each slice of each volume."""
    for size in (size for size in WINDOW_SIZES if size >= 4 * scale):
        counts = [positions.count_positions(mask, size // scale, 1.0, slices)]
        counts += [positions.count_positions(m, size, 1.0) for m in masks]
        steps = [size // scale / 2] + [size / 2] * len(masks)
        if all(c.sum() >= ENOUGH_ROOM * step**2 for c, step in zip(counts, steps, strict=True)):
            return size, counts
    for count, path, what in zip(counts, [sr_path, *paths], ["clinical"] + ["specimen"] * len(paths), strict=True):
        if not count.sum():
            raise UserError(
                f"{path}: its {what} mask has no room for a window of {size}x{size} pixels, which the spectrum needs; "
                f"correct the mask or choose other slices"
            )
    return size, counts
