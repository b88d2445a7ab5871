"""Structures of a super-resolved CT beside those of the truth: airway walls, the tumour's border, airways and
solid objects lost and invented.

In: slices in HU on the super-resolved grid. Each function says what its number means, its unit, which way is better and
what fools it. What spans slices, the lesions, is found from slices that come one by one, of which only as many are held
as a lesion is thick.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pandas as pd
from scipy.ndimage import binary_erosion, distance_transform_edt, find_objects, gaussian_filter, label, map_coordinates
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from microsr.physics.pooling import average_pool
from microsr.physics.tissues import SOLID_HU

RAYS = 16
RAY_STEP_MM = 0.02
BEYOND_WALL_MM = 0.25
"""A ray looks this far beyond the outer border of the airway's wall."""
HOLE_HU = -900.0
"""Air, after the blur of SMALL_BLUR_MM: lumens are below it, and so are large alveoli."""
LEAST_HOLE_MM2 = 0.05
WALL_HU = -450.0
WALL_REACH_MM = 0.26
WALLED = 0.75
"""What tells an airway's hole from an alveolus. Of the simulated truth's holes, 95 % of the airways' have walls above
-390 HU in three quarters of all directions, 99 % of the alveoli's none above -540 HU.
"""
SECTORS = 12
"""Directions from the middle of a hole."""
BORDER_BLUR_MM = 0.15
"""Gaussian that closes the pores of a tumour's border before it is thresholded, mm."""
BORDER_SEARCH_MM = 2.0
"""The tumour's border is looked for up to this far from the true tumour; what is further off counts as this much."""
SMALL_BLUR_MM = 0.1
LESION_MM = 3.0
"""Thickness of the smallest lesion."""
SIZES_MM = (0.3, 0.625, 1.0, LESION_MM)
"""Edges of the sizes, by thickness, of the solid structures that are counted in-plane. The first size is below a usual
clinical pixel; what is thinner than that is no longer solid after the blur.
"""
KEPT = 0.5
"""An object is found in the other image if at least this share of it is solid there."""


def lumen_borders(image: np.ndarray, crossing: pd.Series, spacing: float) -> np.ndarray:
    """Distance, mm, from the airway's centre to the lumen's border along RAYS directions [RAYS]; NaN where a ray leaves
    the image.

    The border is where the profile first passes the half of the way from its darkest to its brightest value (full width
    at half maximum; Reinhardt et al., IEEE TMI 16(6), 1997), with linear interpolation. image: HU [rows, columns];
    spacing: mm.
    """
    stretch = 1 / np.cos(np.radians(crossing["tilt_degrees"]))
    reach = (crossing["diameter_mm"] / 2 + crossing["wall_mm"]) * stretch + BEYOND_WALL_MM
    radius = np.arange(0, reach, RAY_STEP_MM)
    angle = np.arange(RAYS)[:, None] * 2 * np.pi / RAYS
    places = crossing["row"] + radius * np.sin(angle) / spacing, crossing["column"] + radius * np.cos(angle) / spacing
    profile = map_coordinates(np.asarray(image, float), places, order=1, cval=np.nan)
    peak = np.argmax(profile, axis=1)
    inner = np.where(np.arange(len(radius)) <= peak[:, None], profile, np.inf)
    level = (inner.min(axis=1) + profile.max(axis=1)) / 2
    passed = np.argmax((inner >= level[:, None]) & (np.arange(len(radius)) >= inner.argmin(axis=1)[:, None]), axis=1)
    return np.where(np.isnan(profile).any(axis=1), np.nan, radius[passed])


def wall_errors(image: np.ndarray, truth: np.ndarray, crossings: pd.DataFrame, spacing: float) -> np.ndarray:
    """Distance, mm, between the lumen's borders in image and truth along the rays of the crossings of one slice; 1-D.

    Rays on which the truth itself has no border where the airway's diameter says (a branching) are left out.
    """
    found = []
    for _, crossing in crossings.iterrows():
        true = lumen_borders(truth, crossing, spacing)
        radius = crossing["diameter_mm"] / 2
        longest = radius / np.cos(np.radians(crossing["tilt_degrees"]))
        good = (true > 0.75 * radius - spacing) & (true < 1.25 * longest + spacing)
        found.append(np.abs(lumen_borders(image, crossing, spacing) - true)[good])
    return np.concatenate(found) if found else np.zeros(0)


def wall_error_um(errors: np.ndarray) -> float:
    """How far the inner border of the airways' walls is off: median of `wall_errors`, um.

    Lower is better; NaN without airways. A radiologist's wall and lumen measurements are as wrong as this. What fools
    it: it is a median, so that up to half of the rays may hit no wall at all (read bronchiole_detected beside it);
    small airways are most numerous and bound the error by their size.
    """
    errors = errors[np.isfinite(errors)]
    return float(1000 * np.median(errors)) if len(errors) else float("nan")


def border_distances(image: np.ndarray, truth: np.ndarray, tumour: np.ndarray, spacing: float) -> np.ndarray:
    """Distances, mm, from each pixel of either tumour border to the other border in one slice; 1-D, empty without a
    tumour.

    image, truth: HU; tumour: bool, the true one; all [rows, columns]. A tumour is what is solid after a slight blur,
    touches the true tumour and lies within BORDER_SEARCH_MM of it (which keeps vessels that enter it from counting
    along their length).
    """
    if not tumour.any():
        return np.zeros(0)
    rows, columns = np.nonzero(tumour)
    margin = int(np.ceil(2 * BORDER_SEARCH_MM / spacing))
    box = tuple(slice(max(i.min() - margin, 0), i.max() + margin + 1) for i in (rows, columns))
    tumour = tumour[box]
    near = distance_transform_edt(~tumour, sampling=spacing) <= BORDER_SEARCH_MM
    borders = []
    for pixels in (image[box], truth[box]):
        solid = near & (gaussian_filter(np.asarray(pixels, float), BORDER_BLUR_MM / spacing) > SOLID_HU)
        components, _ = label(solid)
        region = np.isin(components, np.setdiff1d(components[tumour], 0))
        borders.append(region & ~binary_erosion(region, border_value=1))
    found = []
    for border, other in (borders, borders[::-1]):
        if other.any():
            found.append(distance_transform_edt(~other, sampling=spacing)[border])
        else:
            found.append(np.full(np.count_nonzero(border), BORDER_SEARCH_MM))
    return np.minimum(np.concatenate(found), BORDER_SEARCH_MM)


def tumour_border_error_um(distances: np.ndarray) -> float:
    """How far the tumour's border is off: mean symmetric surface distance in the slices, mean of `border_distances`,
    um.

    Lower is better; NaN without a tumour, 2000 um for one that is missing. What fools it: it is in-plane only; spicules
    thinner than the blur (0.15 mm) do not count; where a vessel or the pleura touches, the border is that of both.
    """
    return float(1000 * distances.mean()) if len(distances) else float("nan")


def open_by_ball(solid: np.ndarray, thickness: float, spacing: tuple[float, ...]) -> np.ndarray:
    """What of `solid` a ball (2-D: disc) of diameter `thickness` fits into (morphological opening); spacing along the
    axes.
    """
    radius = thickness / 2
    # Distances run to the centres of the pixels outside, half a pixel beyond the border.
    cores = distance_transform_edt(solid, sampling=spacing) >= radius + min(spacing) / 2
    if not cores.any():
        return np.zeros(solid.shape, bool)
    return solid & (distance_transform_edt(~cores, sampling=spacing) <= radius)


def missing_objects(objects: np.ndarray, other: np.ndarray) -> tuple[int, int]:
    """Number of connected objects of which less than KEPT is solid in `other`, and of all objects; bool arrays of one
    shape.
    """
    components, number = label(objects)
    share = np.bincount(components.ravel(), np.asarray(other).ravel(), minlength=number + 1)[1:] / np.maximum(
        np.bincount(components.ravel(), minlength=number + 1)[1:], 1
    )
    return int(np.count_nonzero(share < KEPT)), number


def small_solids(image: np.ndarray, truth: np.ndarray, lung: np.ndarray, spacing: float) -> np.ndarray:
    """Solid structures of one slice by size: counts [sizes, 4], lost, in the truth, invented, in the image.

    Vessels, tumour and thick airway walls; septa are thinner. The rows `small_lost_<size>` and `small_invented_<size>`
    are the shares lost / in the truth and invented / in the image over all slices, `small_lost` and `small_invented`
    those of all sizes: lower is better, 0 for the truth, NaN where there is none. What fools them: a structure that is
    there but thinner by half of its area counts as lost, one that is more than twice as large as invented; their HU do
    not count above -300; and dense texture hits something by chance.
    """
    solid = [lung & (_blur(a, spacing) > SOLID_HU) for a in (image, truth)]
    own, true = (objects_by_size(s, spacing) for s in solid)
    return np.array(
        [[*missing_objects(t, solid[0]), *missing_objects(o, solid[1])] for o, t in zip(own, true, strict=True)]
    )


def _blur(image: np.ndarray, spacing: float) -> np.ndarray:
    return gaussian_filter(np.asarray(image, float), SMALL_BLUR_MM / spacing)


def airway_holes(image: np.ndarray, lung: np.ndarray, spacing: float) -> np.ndarray:
    """The lumens of one slice, bool [rows, columns]: dark holes with a wall around them.

    A hole is a region below HOLE_HU after the blur. It has a wall if in WALLED of the directions from its centre
    something within WALL_REACH_MM of its border is above WALL_HU. Alveoli are holes, but their walls are too thin to
    be that bright; lung: bool.
    """
    components, number = label(lung & (_blur(image, spacing) < HOLE_HU))
    margin, found = math.ceil(WALL_REACH_MM / spacing) + 1, np.zeros(number + 1, bool)
    for hole, box in enumerate(find_objects(components), start=1):
        box = tuple(slice(max(side.start - margin, 0), side.stop + margin) for side in box)
        inside = components[box] == hole
        if np.count_nonzero(inside) < LEAST_HOLE_MM2 / spacing**2:
            continue
        distance = distance_transform_edt(~inside, sampling=spacing)
        around = np.nonzero((distance > 0) & (distance <= WALL_REACH_MM))
        row, column = (axis.mean() for axis in np.nonzero(inside))
        turn = np.arctan2(around[0] - row, around[1] - column) / (2 * np.pi)
        brightest = np.full(SECTORS, -np.inf)
        np.maximum.at(brightest, (turn * SECTORS).astype(int) % SECTORS, np.asarray(image[box], float)[around])
        found[hole] = np.mean(brightest > WALL_HU) >= WALLED
    return found[components]


def airways(image: np.ndarray, truth: np.ndarray, lung: np.ndarray, spacing: float) -> np.ndarray:
    """Airways of one slice by their rings, wherever they are: counts [3], lost, invented, in the truth.

    The rows `airways_lost` and `airways_invented` are lost / in the truth and invented / in the truth over all slices:
    lower is better, 0 for the truth, NaN where it has none; more than 1 may be invented for each that there is. An
    airway is in the other image if half of its lumen is the lumen of one there. What fools them: a lumen of less than
    about 0.5 mm is no hole after the blur; and an airway that is narrower by half of its area is lost, one more than
    twice as large invented.
    """
    own, true = (airway_holes(one, lung, spacing) for one in (image, truth))
    lost, present = missing_objects(true, own)
    return np.array([lost, missing_objects(own, true)[0], present])


def objects_by_size(solid: np.ndarray, spacing: float) -> list[np.ndarray]:
    """The solid structures of each size of SIZES_MM in a slice, bool [rows, columns] each.

    A structure has a size if a disc of the smaller diameter fits into it where none of the larger one does: a vessel
    that tapers is in several. spacing: mm.
    """
    depth = distance_transform_edt(solid, sampling=spacing)

    def holds(thickness: float) -> np.ndarray:
        cores = depth >= thickness / 2 + spacing / 2
        return solid & (distance_transform_edt(~cores, sampling=spacing) <= thickness / 2) if cores.any() else cores

    found, thicker = [], holds(SIZES_MM[-1])
    for low in SIZES_MM[-2::-1]:
        thick = holds(low)
        # What a thicker structure leaves of its rim is thinner than any of this size.
        components, number = label(thick & ~thicker)
        deep = distance_transform_edt(components > 0, sampling=spacing) >= low / 2
        found.append((np.bincount(components[deep], minlength=number + 1) > 0)[components] & (components > 0))
        thicker = thick
    return found[::-1]


def pooling(scale: int) -> int:
    """Pixels of an SR slice along one of those that lesions are looked for on: half a clinical pixel."""
    return scale // 2


def pool(image: np.ndarray, scale: int) -> np.ndarray:
    """Means of blocks of half a clinical pixel, [rows, columns] -> float32: what `lesions` takes."""
    return average_pool(image, pooling(scale), np.float32)


def lesions(
    slices: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]], spacing: tuple[float, float, float]
) -> tuple[int, int]:
    """Lesions lost and lesions invented: solid objects that a ball of LESION_MM fits into, in 3-D, in one volume only.

    slices: image, truth (HU) and lung (bool) of each slice, [rows, columns], one after the other. spacing: z, y, x, mm.
    An object is in the other volume if half of it is solid there. Beyond the first and the last slice the volume is
    taken to go on as it ends, so that a thin slab has lesions. Fewer is better; the truth has (0, 0). An unpaired
    training with other shares of tumour in its two domains fails here (Cohen et al., MICCAI 2018). What fools it: large
    vessels are solid objects too; a lesion that is displaced by more than its radius is both lost and invented; in few
    lesions a count of 0 proves little.
    """
    solid = (np.stack([image > SOLID_HU, truth > SOLID_HU]) & lung for image, truth, lung in slices)
    lost, invented = Objects(), Objects()
    for here, thick in open_slices_by_ball(_with_ends(solid, math.ceil(LESION_MM / spacing[0])), LESION_MM, spacing):
        lost.add(thick[1], here[0])
        invented.add(thick[0], here[1])
    return lost.missing()[0], invented.missing()[0]


def _with_ends(slices: Iterable, number: int) -> Iterator:
    """The slices, the first and the last of them `number` times more."""
    for place, one in enumerate(slices):
        yield from itertools.repeat(one, 1 if place else 1 + number)
    yield from itertools.repeat(one, number)


def open_slices_by_ball(
    solid: Iterable[np.ndarray], thickness: float, spacing: tuple[float, float, float]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What `open_by_ball` finds in volumes whose slices come one by one: each slice, and what of it is thick enough.

    solid: bool [volumes, rows, columns]; spacing: z, y, x. As many slices are held as a ball of diameter `thickness`
    spans.
    """
    radius = thickness / 2
    rims = _near(((here, ~here) for here in solid), radius + min(spacing) / 2, spacing, operator.lt)
    balls = _near(((here, ~rim) for here, rim in rims), radius, spacing, operator.le)
    return ((here, here & ball) for here, ball in balls)


def _near(
    slices: Iterable[tuple[np.ndarray, np.ndarray]], radius: float, spacing: tuple[float, float, float],
    compare: Callable,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """Each slice, and which of its pixels have some of `components`, in any slice, at a distance that is `compare`
    (< or <=) `radius`.

    slices: pairs of a slice and its components, bool [volumes, rows, columns].
    """
    # In a slice some steps away, a ball is a disc.
    steps = range(math.floor(radius / spacing[0]) + 1)
    discs = [math.sqrt(max(radius**2 - (step * spacing[0]) ** 2, 0)) for step in steps]

    def count_reach(components: np.ndarray) -> np.ndarray:
        """To how many slices on either side, its own included, the components of this slice are near each pixel."""
        number = np.zeros(components.shape, np.uint8)
        for component, count in zip(components, number, strict=True):
            if component.any():
                distance = distance_transform_edt(~component, sampling=spacing[1:])
                for disc in discs:
                    count += compare(distance, disc)
        return number

    for here, around in _around(((here, count_reach(components)) for here, components in slices), len(discs) - 1):
        yield here, functools.reduce(np.logical_or, (number > abs(step) for step, number in around))


def _around(
    slices: Iterable[tuple[np.ndarray, np.ndarray]], number: int
) -> Iterator[tuple[np.ndarray, list[tuple[int, np.ndarray]]]]:
    """Each slice, and what belongs to it and to up to `number` slices before (steps below 0) and after it, with the
    steps.
    """
    held: deque = deque([None] * (2 * number + 1), maxlen=2 * number + 1)
    for place, pair in enumerate(itertools.chain(slices, [None] * number)):
        held.append(pair)
        if place >= number:
            yield held[number][0], [(step - number, other[1]) for step, other in enumerate(held) if other is not None]


class Objects:
    """The connected objects of a volume, and how much of each is solid in another one; slices come one by one."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        # Of the components that objects have in each slice: pixels, those solid in the other volume, and which touch
        # across slices.
        self._pixels: list[int] = []
        self._shared: list[int] = []
        self._pairs: list[tuple[int, int]] = []

    def add(self, objects: np.ndarray, other: np.ndarray) -> None:
        """Count the next slice in; bool [rows, columns] both."""
        components, number = label(objects)
        components[objects] += len(self._pixels)
        first = len(self._pixels) + 1
        for counts, inside in ((self._pixels, objects), (self._shared, objects & other)):
            counts += np.bincount(components[inside] - first, minlength=number).tolist()
        if self._last is not None:
            touching = objects & (self._last > 0)
            self._pairs += {*zip(self._last[touching].tolist(), components[touching].tolist(), strict=True)}
        self._last = components

    def missing(self) -> tuple[int, int]:
        """What `missing_objects` finds in the whole volumes."""
        number = len(self._pixels)
        pairs = np.reshape(self._pairs, (-1, 2)).T.astype(int) - 1
        graph = coo_array((np.ones(pairs.shape[1]), tuple(pairs)), shape=(number, number))
        objects, of_part = connected_components(graph, directed=False)
        pixels, shared = (np.bincount(of_part, counts, objects) for counts in (self._pixels, self._shared))
        return int(np.count_nonzero(shared / pixels < KEPT)), objects
