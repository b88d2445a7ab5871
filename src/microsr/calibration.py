"""From uncalibrated uCT grey values to the HU-like scale: hu = slope * grey + offset.

The losses compare clinical patches with pooled uCT patches, so that both must live on one scale (open in the paper).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.signal import find_peaks
from skimage.filters import threshold_otsu

from microsr import UserError
from microsr.config import Calibration

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
        return np.float32(self.slope) * grey.astype(np.float32) + np.float32(self.offset)


def tissue_threshold(slices: list[np.ndarray], fields: list[np.ndarray]) -> float:
    """Grey value between air and tissue (Otsu) in 2-D slices, within the fields of view (bool), extremes left out.

    Raises
    ------
    UserError
        The values do not vary (no file name: the caller knows it).
    """
    values = np.concatenate([grey[inside] for grey, inside in zip(slices, fields, strict=True)])
    low, high = np.percentile(values, [0.1, 99.9]) if values.size else (0, 0)
    if not low < high:
        raise UserError("has no contrast: nearly all of its values are the same; give a uCT volume of tissue and air")
    return float(threshold_otsu(np.clip(values, low, high).astype(np.float32), BINS))


def levels(slices: list[np.ndarray], fields: list[np.ndarray], threshold: float) -> tuple[float, float]:
    """Rough grey values of air and of tissue, which exist in any volume, for finding the specimen."""
    values = np.concatenate([grey[inside] for grey, inside in zip(slices, fields, strict=True)])
    try:
        air = _peak(slices, fields, threshold, -1)
    except UserError:
        air = float(np.percentile(values, 1))
    return air, float(values[values > threshold].mean(dtype=np.float64))


def fit(
    settings: Calibration,
    slices: list[np.ndarray],
    fields: list[np.ndarray],
    specimens: list[np.ndarray],
    threshold: float,
) -> Mapping:
    """Find the calibration from 2-D slices, their fields of view and specimen masks (bool).

    two_point takes the air and tissue peaks of the whole field of view, percentile those of the specimen. With mean_hu, HU are
    then scaled about air_hu: hu' = air_hu + (hu - air_hu) * (mean_hu - air_hu) / (mean - air_hu), mean over the specimen.

    Raises
    ------
    UserError
        Peaks or percentiles that cannot be told apart, or no tissue peak (no file name: the caller knows it).
    """
    specimen = np.concatenate([grey[inside] for grey, inside in zip(slices, specimens, strict=True)])
    facts: dict[str, Any] = {"method": settings.method}
    slope, offset = 1.0, 0.0
    if settings.method != "none":
        if settings.method == "two_point":
            low, high = _two_points(settings, slices, fields, threshold)
            facts |= {"air_grey": low, "tissue_grey": high}
        else:
            low, high = (float(v) for v in np.percentile(specimen, [settings.low_percentile, settings.high_percentile]))
            facts |= {"low_grey": low, "high_grey": high}
        if not low < high:
            raise UserError(
                f"calibration: the grey value of air ({low:g}) is not below that of tissue ({high:g}); "
                "set volumes.micro.calibration.air_grey and tissue_grey, or use the method percentile"
            )
        slope = (settings.tissue_hu - settings.air_hu) / (high - low)
        offset = settings.air_hu - slope * low
    mean = slope * float(specimen.mean(dtype=np.float64)) + offset
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
        "specimen_sd_hu": slope * float(specimen.std(dtype=np.float64)),
    }
    return Mapping(slope, offset, facts)


def _two_points(
    settings: Calibration, slices: list[np.ndarray], fields: list[np.ndarray], threshold: float
) -> tuple[float, float]:
    """Grey values of air and tissue: as set, or the peaks on either side of the threshold."""
    return (
        settings.air_grey if settings.air_grey is not None else _peak(slices, fields, threshold, -1),
        settings.tissue_grey if settings.tissue_grey is not None else _peak(slices, fields, threshold, 1),
    )


def _peak(slices: list[np.ndarray], fields: list[np.ndarray], threshold: float, side: int) -> float:
    """Grey value of the air peak (side -1) below or the tissue peak (side +1) above the threshold.

    Only pixels whose neighbours are on that side too: septa thinner than a few pixels are mixtures of air and tissue, and away
    from the boundary there is nearly pure tissue. The air peak is the lowest notable one, since unresolved parenchyma may
    have a higher one of its own; the tissue peak is the highest.
    """
    found = []
    for grey, inside in zip(slices, fields, strict=True):
        beyond = inside & ((grey > threshold) if side > 0 else (grey <= threshold))
        found.append(grey[ndimage.binary_erosion(beyond, np.ones((3, 3)))])
    values = np.concatenate(found).astype(np.float64)
    name = "tissue" if side > 0 else "air"
    if values.size < ENOUGH:
        raise UserError(
            f"calibration: no {name} peak in the histogram; set volumes.micro.calibration.{name}_grey, "
            "or use the method percentile"
        )
    low, high = np.percentile(values, [0.5, 99.5])
    if low == high:
        return float(low)
    # Whole-numbered values get whole-numbered bins, or some bins would hold more of them than others.
    width = (high - low) / BINS
    width = max(1.0, np.ceil(width)) if (values[:1000] == np.rint(values[:1000])).all() else width
    counts, edges = np.histogram(values, np.arange(low - width / 2, high + width, width))
    smooth = ndimage.gaussian_filter1d(counts.astype(float), max(1.0, len(counts) / 64), mode="constant")
    at = int(smooth.argmax())
    if side < 0:
        # With a bin of nothing at either end, a peak at the end is one too.
        peaks, _ = find_peaks(np.pad(smooth, 1), prominence=NOTABLE * smooth.max())
        at = int(peaks[0]) - 1
    return float((edges[at] + edges[at + 1]) / 2)
