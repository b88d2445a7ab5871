"""From uncalibrated uCT grey values to the HU-like scale: hu = slope * grey + offset.

The losses compare clinical patches with pooled uCT patches, so that both must live on one scale (open in the paper).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from scipy import ndimage

from microsr.config import Calibration
from microsr.core.errors import UserError
from microsr.preprocessing.morphology import erode
from microsr.volume.slices import Slices, in_order

BINS = 256
ENOUGH = 50
"""Fewest voxels that make a peak."""
NOTABLE = 0.1
"""A peak stands out from its surroundings by this share of the highest one."""


@dataclass(frozen=True)
class Mapping:
    """hu = slope * grey + offset, and the facts that it was found from."""

    slope: float
    offset: float
    facts: dict[str, Any] = field(default_factory=dict)

    def __call__(self, grey: np.ndarray) -> np.ndarray:
        """Grey values as HU, float32."""
        hu = grey.astype(np.float32)
        hu *= np.float32(self.slope)
        hu += np.float32(self.offset)
        return hu


@dataclass(frozen=True)
class Values:
    """Grey values and how often each is there; None: once each."""

    values: np.ndarray
    counts: np.ndarray | None = None

    @classmethod
    def of(cls, slices: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> Values:
        """Those of 2-D slices within their masks (bool); whole numbers of 8 or 16 bits are counted."""
        dtype, numbers = slices[0].dtype, range(len(slices))
        if dtype.kind == "f" or dtype.itemsize > 2:
            return cls(np.concatenate([slices[n][masks[n]] for n in numbers]))
        lowest, length = np.iinfo(dtype).min, 256**dtype.itemsize
        counts = np.zeros(length, np.int64)
        for found in in_order(
            lambda n: np.bincount(slices[n][masks[n]].astype(np.int64) - lowest, minlength=length), numbers
        ):
            counts += found
        there = np.flatnonzero(counts)
        return cls(there + lowest, counts[there])

    @property
    def size(self) -> int:
        """Number of values."""
        return self.values.size if self.counts is None else int(self.counts.sum())

    def percentile(self, shares: Sequence[float]) -> np.ndarray:
        """Percentiles as NumPy's, interpolated between neighbours."""
        if self.counts is None:
            return np.percentile(self.values, shares)
        ends = np.cumsum(self.counts)
        places = (ends[-1] - 1) * np.asarray(shares) / 100
        low, high = (self.values[np.searchsorted(ends, rank, "right")] for rank in (np.floor(places), np.ceil(places)))
        return low + (high - low) * (places % 1)

    def mean(self, above: float = -np.inf) -> float:
        """Mean of the values higher than `above`."""
        chosen = self.values > above
        return float(np.average(self.values[chosen], weights=None if self.counts is None else self.counts[chosen]))

    def sd(self) -> float:
        """Standard deviation."""
        return float(np.sqrt(np.average((self.values - self.mean()) ** 2, weights=self.counts)))


@dataclass(frozen=True)
class Sample:
    """Some 2-D slices of grey values and their fields of view (bool), and what is found in them once it is asked
    for.
    """

    slices: Sequence[np.ndarray]
    fields: Sequence[np.ndarray]

    @cached_property
    def values(self) -> Values:
        """All values within the fields of view."""
        return Values.of(self.slices, self.fields)

    @cached_property
    def threshold(self) -> float:
        """Grey value between air and tissue (Otsu), extremes left out.

        Raises
        ------
        UserError
            The values do not vary (no file name: the caller knows it).
        """
        found = self.values
        low, high = found.percentile([0.1, 99.9]) if found.size else (0, 0)
        if not low < high:
            raise UserError(
                "has no contrast: nearly all of its values are the same; give a uCT volume of tissue and air"
            )
        counts, edges = np.histogram(np.clip(found.values, low, high).astype(np.float32), BINS, weights=found.counts)
        from skimage.filters import threshold_otsu  # only here: clinical CT needs none

        return float(threshold_otsu(hist=(counts, (edges[:-1] + edges[1:]) / 2)))

    @property
    def levels(self) -> tuple[float, float]:
        """Rough grey values of air and of tissue, which exist in any volume, for finding the specimen."""
        try:
            air = self.air_peak
        except UserError:
            air = float(self.values.percentile([1])[0])
        return air, self.values.mean(above=self.threshold)

    @cached_property
    def air_peak(self) -> float:
        """Grey value of the lowest notable peak below the threshold: unresolved parenchyma may have a higher one of its
        own.
        """
        counts, edges = self._histogram("air")
        return _middle(edges, first_peak(counts))

    @cached_property
    def tissue_peak(self) -> float:
        """Grey value of the highest peak above the threshold."""
        counts, edges = self._histogram("tissue")
        return _middle(edges, int(counts.argmax()))

    def _histogram(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Smooth histogram, and its edges, of the pixels on one side of the threshold whose neighbours are there too.

        Septa thinner than a few pixels are mixtures of air and tissue; away from the boundary there is nearly pure
        tissue.
        """

        def pure(number: int) -> np.ndarray:
            grey = self.slices[number]
            inner = erode(
                self.fields[number] & ((grey > self.threshold) if name == "tissue" else (grey <= self.threshold))
            )
            inner[[0, -1]] = inner[:, [0, -1]] = False
            return inner

        found = Values.of(self.slices, Slices(pure, (len(self.slices), *self.slices[0].shape), bool))
        if found.size < ENOUGH:
            raise UserError(
                f"calibration: no {name} peak in the histogram; set volumes.micro.calibration.{name}_grey, "
                "or use the method percentile"
            )
        low, high = found.percentile([0.5, 99.5])
        if low == high:
            return np.ones(1), np.array([low, low])
        values = found.values.astype(np.float64)
        # Whole-numbered values get whole-numbered bins, or some bins would hold more of them than others.
        width = (high - low) / BINS
        width = max(1.0, np.ceil(width)) if (values[:1000] == np.rint(values[:1000])).all() else width
        counts, edges = np.histogram(values, np.arange(low - width / 2, high + width, width), weights=found.counts)
        return ndimage.gaussian_filter1d(counts.astype(float), max(1.0, len(counts) / 64), mode="constant"), edges


def first_peak(curve: np.ndarray) -> int:
    """Index of the first notable peak: the first that `scipy.signal.find_peaks` finds, whose import takes half a
    second.
    """
    curve = np.append(curve, 0)  # a peak at the end is one too
    fallen = np.maximum.accumulate(curve) - curve >= NOTABLE * curve.max()
    return int(curve[: fallen.argmax()].argmax())


def _middle(edges: np.ndarray, at: int) -> float:
    return float((edges[at] + edges[at + 1]) / 2)


def fit(settings: Calibration, sample: Sample, specimens: Sequence[np.ndarray]) -> Mapping:
    """Find the calibration from a sample and the specimen in its slices (bool).

    two_point takes the air and tissue peaks of the whole field of view, percentile those of the specimen. With mean_hu,
    HU are then scaled about air_hu: hu' = air_hu + (hu - air_hu) * (mean_hu - air_hu) / (mean - air_hu), mean over the
    specimen.

    Raises
    ------
    UserError
        Peaks or percentiles that cannot be told apart, or no tissue peak (no file name: the caller knows it).
    """
    specimen = Values.of(sample.slices, specimens)
    facts: dict[str, Any] = {"method": settings.method}
    slope, offset = 1.0, 0.0
    if settings.method != "none":
        if settings.method == "two_point":
            low = settings.air_grey if settings.air_grey is not None else sample.air_peak
            high = settings.tissue_grey if settings.tissue_grey is not None else sample.tissue_peak
            facts |= {"air_grey": low, "tissue_grey": high}
        else:
            low, high = map(float, specimen.percentile([settings.low_percentile, settings.high_percentile]))
            facts |= {"low_grey": low, "high_grey": high}
        if not low < high:
            raise UserError(
                f"calibration: the grey value of air ({low:g}) is not below that of tissue ({high:g}); "
                "set volumes.micro.calibration.air_grey and tissue_grey, or use the method percentile"
            )
        slope = (settings.tissue_hu - settings.air_hu) / (high - low)
        offset = settings.air_hu - slope * low
    mean = slope * specimen.mean() + offset
    if settings.mean_hu is not None:
        if mean <= settings.air_hu:
            raise UserError(
                f"calibration: the specimen's mean is {mean:.0f} HU, not above air; mean_hu cannot be reached"
            )
        scale = (settings.mean_hu - settings.air_hu) / (mean - settings.air_hu)
        slope, offset = slope * scale, settings.air_hu + scale * (offset - settings.air_hu)
        facts |= {"scale_about_air": scale, "mean_hu_before": mean}
        mean = settings.mean_hu
    facts |= {
        "slope": slope,
        "offset": offset,
        "specimen_mean_hu": mean,
        "specimen_sd_hu": slope * specimen.sd(),
    }
    return Mapping(slope, offset, facts)
