"""Images of a simulated lung whose faults are known: what a metric is shown, so that it can be trusted or not.

In: a simulated lung, and another one. Out: for each name of `evaluation.catalogue.CANDIDATES` an image on the grid of
the truth. Airways are taken from the lung itself: what is planted is a copy of one, and what is removed is covered by
copies of the parenchyma, so that no edge or grain of another kind betrays it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter

from microsr import config
from microsr.core.streams import Stream, numpy_stream
from microsr.evaluation.bronchioles import BINS_MM
from microsr.networks.layers import bicubic_upsample, nearest_upsample
from microsr.physics.airways import crossings
from microsr.physics.nullspace import Split
from microsr.physics.scanner import KERNELS, sampled_noise_power
from microsr.physics.spectrum import mean_power, radial_power
from microsr.physics.tissues import Tissue
from microsr.volume.storage import Volume

BLUR_MM = 0.25
"""Gaussian of the blurred truth: half of what a sharp clinical kernel blurs by."""
CHECKERBOARD_HU = 60.0
PLANTED = 12
"""Airways planted in a slice."""
NODULES_MM = (0.45, 0.8, 2.0)
"""Diameters of the small nodules, of each of which there are NODULES in a slice."""
NODULES = 4
LESION_MM = 5.0
"""Diameter of the one large nodule."""
NODULE_HU = 40.0
RIM = 2
"""Pixels around an airway's wall, and around what is removed, that go with it."""
COPIES = 60
"""Attempts at covering what is removed; a mean takes what is left."""
WINDOW = 64
"""Side of the windows from which the texture's power is taken, pixels."""
SEED = 0


@dataclass(frozen=True)
class Lung:
    """A simulated lung with all that is known of it: scan, truth, and the truth's mean over the slice profile (HU),
    labels [slices, rows, columns] on the truth's grid, and its table of airways.
    """

    name: str
    clinical: Volume
    truth: Volume
    thick: Volume
    labels: np.ndarray
    airways: Path

    @property
    def scale(self) -> int:
        """Pixels of the truth along a clinical one."""
        return self.truth.shape[1] // self.clinical.shape[1]

    @property
    def mask(self) -> np.ndarray:
        """Clinical pixels that lie wholly in the lung, bool."""
        slices, rows, columns = self.clinical.shape
        scale = self.scale
        return (self.labels != Tissue.OUTSIDE).reshape(slices, rows, scale, columns, scale).all(axis=(2, 4))


def make_candidates(lung: Lung, other: Lung, scanner: config.Scanner) -> dict[str, np.ndarray]:
    """An image for each candidate, HU [slices, rows, columns] on the truth's grid; scanner: that of the lung's scan."""
    truth, random = lung.truth.array.astype(np.float32), numpy_stream(Stream.CANDIDATES, SEED)
    rows = pd.DataFrame(crossings(lung.airways, lung.truth, list(range(len(truth))), BINS_MM[-1]))
    tubes, solids = (np.isin(lung.labels, kinds) for kinds in (_TUBES, _SOLIDS))
    scan = torch.from_numpy(lung.clinical.array.astype(np.float32))[:, None]
    ways = (bicubic_upsample, nearest_upsample)
    bicubic, nearest = (np.asarray(upsample(scan, lung.scale)[:, 0]) for upsample in ways)
    power = _texture_power(other)
    fine = np.where(lung.labels != Tissue.OUTSIDE, _grain(truth.shape, power, random, 1 / (2 * lung.scale)), 0)
    checks = (-1.0) ** np.indices(truth.shape)[1:].sum(axis=0)
    return {
        "blurred": _each(truth, lambda image: gaussian_filter(image, BLUR_MM / lung.truth.spacing[0])),
        "shifted": np.roll(truth, lung.scale // 2, axis=1),
        "other_lung": other.truth.array.astype(np.float32),
        "linear": _linear_estimate(lung, power, scanner),
        "nearest": nearest,
        "noise_texture": bicubic + fine,
        "checkerboard": truth + CHECKERBOARD_HU * checks,
        "planted_airways": _plant_airways(lung, rows, random),
        "removed_airways": _cover(truth, tubes, lung.labels, random),
        "planted_nodules": _plant_nodules(lung, random),
        "removed_nodules": _cover(truth, solids, lung.labels, random),
    }


_TUBES, _SOLIDS = (Tissue.LUMEN, Tissue.WALL), (Tissue.VESSEL, Tissue.TUMOUR)
_SOFT = (Tissue.PARENCHYMA, Tissue.SEPTUM, Tissue.GLASS)


def _each(volume: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return np.stack([change(image) for image in volume])


def _texture_power(lung: Lung) -> Callable[[np.ndarray], np.ndarray]:
    """Power of the truth's texture, HU^2, at frequencies in cycles per pixel, from windows inside the lung."""
    inside = lung.labels != Tissue.OUTSIDE
    corners = [
        (z, row, column)
        for z in range(len(inside))
        for row in range(0, inside.shape[1] - WINDOW + 1, WINDOW // 2)
        for column in range(0, inside.shape[2] - WINDOW + 1, WINDOW // 2)
        if inside[z, row : row + WINDOW, column : column + WINDOW].all()
    ]
    windows = (lung.truth.array[z, row : row + WINDOW, column : column + WINDOW] for z, row, column in corners)
    frequency, power = radial_power(mean_power(windows))
    return lambda f: 10 ** np.interp(f, frequency, power)


def _frequencies(shape: tuple[int, int]) -> np.ndarray:
    return np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1]))


def _grain(shape: tuple[int, ...], power: Callable, random: np.random.Generator, nyquist: float) -> np.ndarray:
    """Noise of the texture's power above the clinical grid's Nyquist limit, in cycles per fine pixel; HU."""
    frequency = _frequencies(shape[1:])
    amplitude = np.where(frequency > nyquist, np.sqrt(power(frequency)), 0)
    white = random.standard_normal(shape)
    return np.fft.ifft2(np.fft.fft2(white) * amplitude).real


def _linear_estimate(lung: Lung, power: Callable, scanner: config.Scanner) -> np.ndarray:
    """The scan through the Wiener filter of the scanner's in-plane part, slice by slice."""
    scan, kernel = lung.clinical.array.astype(np.float32), KERNELS[scanner.kernel]
    split = Split(kernel, lung.clinical.spacing[:2], scan.shape[1:], lung.scale)
    noise = scanner.noise_hu**2 * sampled_noise_power(kernel, scanner.pixel_mm, scan.shape[1:])
    level = np.median(scan[lung.mask])
    signal = power(_frequencies(lung.truth.shape[1:]))
    return _each(scan, lambda image: level + split.estimate(image - level, signal, noise))


def _places(
    free: np.ndarray, reach: list[int], random: np.random.Generator
) -> list[tuple[int, int]]:  # fmt: skip
    """Centres of discs of these radii in pixels, largest first, that lie in `free` [rows, columns] and do not touch."""
    free, found = free.copy(), []
    rows, columns = np.ogrid[: free.shape[0], : free.shape[1]]
    for radius in reach:
        room = np.flatnonzero(distance_transform_edt(np.pad(free, 1))[1:-1, 1:-1] > radius + 1)
        if not len(room):
            break
        row, column = np.unravel_index(random.choice(room), free.shape)
        free &= np.hypot(rows - row, columns - column) > radius + 1
        found.append((int(row), int(column)))
    return found


def _plant_airways(lung: Lung, rows: pd.DataFrame, random: np.random.Generator) -> np.ndarray:
    """The truth with copies of its own airways in the parenchyma."""
    image, spacing = lung.truth.array.astype(np.float32), lung.truth.spacing[0]
    soft = np.isin(lung.labels, _SOFT)
    for z in range(len(image)):
        own = rows[rows["slice"] == z]
        outer = (own["diameter_mm"] / 2 + own["wall_mm"]) / np.cos(np.radians(own["tilt_degrees"]))
        radius = np.ceil(outer / spacing).astype(int) + RIM
        at = own[["row", "column"]].round().astype(int)
        margin = np.minimum(at, np.array(image.shape[1:]) - 1 - at).min(axis=1)
        whole = np.flatnonzero(margin >= radius)
        if not len(whole):
            continue
        chosen = random.choice(whole, PLANTED)
        chosen = chosen[np.argsort(-radius.to_numpy()[chosen], kind="stable")]
        reach = radius.to_numpy()[chosen].tolist()
        for (row, column), place, r in zip(
            _places(soft[z], reach, random), at.to_numpy()[chosen].tolist(), reach, strict=False
        ):
            disc = np.hypot(*np.ogrid[-r : r + 1, -r : r + 1]) <= r
            source, target = (image[z, y - r : y + r + 1, x - r : x + r + 1] for y, x in (place, (row, column)))
            target[disc] = source[disc].copy()
    return image


def _plant_nodules(lung: Lung, random: np.random.Generator) -> np.ndarray:
    """The truth with small solid discs in each slice, and one ball across all of them."""
    image, (spacing, _, step) = lung.truth.array.astype(np.float32), lung.truth.spacing
    free = np.isin(lung.labels, _SOFT)
    middle = (len(image) - 1) / 2
    ball = [np.sqrt(max((LESION_MM / 2) ** 2 - ((z - middle) * step) ** 2, 0)) for z in range(len(image))]
    small = [size / 2 for size in sorted(NODULES_MM, reverse=True) for _ in range(NODULES)]
    rows, columns = np.ogrid[: image.shape[1], : image.shape[2]]
    room = distance_transform_edt(np.pad(free.all(axis=0), 1))[1:-1, 1:-1]
    centre = np.unravel_index(np.argmax(room), room.shape)
    for z, across in enumerate(ball):
        distance = np.hypot(rows - centre[0], columns - centre[1]) * spacing
        image[z][distance < across] = NODULE_HU
        free[z] &= distance > across + 1
        reach = [int(np.ceil(radius / spacing)) for radius in small]
        for (row, column), radius in zip(_places(free[z], reach, random), small, strict=False):
            image[z][np.hypot(rows - row, columns - column) * spacing < radius] = NODULE_HU
    return image


def _cover(
    truth: np.ndarray, removed: np.ndarray, labels: np.ndarray, random: np.random.Generator
) -> np.ndarray:  # fmt: skip
    """The truth with copies of the parenchyma over what is removed, bool [slices, rows, columns], and its rim."""
    found = truth.copy()
    for image, own, tissue in zip(found, removed, labels, strict=True):
        todo = binary_dilation(own, iterations=RIM) & (tissue != Tissue.OUTSIDE)
        good = np.isin(tissue, _SOFT) & ~todo
        source = image.copy()
        for _ in range(COPIES):
            by = tuple(int(n) for n in random.integers(0, image.shape))
            taken = todo & np.roll(good, by, (0, 1))
            image[taken] = np.roll(source, by, (0, 1))[taken]
            todo &= ~taken
        image[todo] = source[good].mean() if good.any() else image[todo]
    return found
