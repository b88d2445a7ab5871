"""Section `volumes`: import, calibration and masks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from microsr.config.section import Count, Positive, Section, Weight


class ClinicalVolume(Section):
    """Import of clinical CT."""

    lung_below_hu: float = -400.0
    """Voxels below this HU, away from the outside air, are lung before holes are closed."""
    closing_mm: Weight = 4.0
    """Vessels and tumours up to about this thickness, mm, are taken into the lung mask."""


class Calibration(Section):
    """From uncalibrated uCT grey values to the HU-like scale."""

    method: Literal["two_point", "percentile", "none"] = "two_point"
    """two_point: an air and a tissue grey value; percentile: two percentiles of the specimen; none: the values are HU
    already.
    """
    air_grey: float | None = None
    """two_point: grey value of air; null: the air peak of the histogram."""
    tissue_grey: float | None = None
    """two_point: grey value of soft tissue; null: the soft-tissue peak of the histogram."""
    low_percentile: Annotated[float, Field(ge=0, lt=100)] = 5.0
    """percentile: maps to air_hu."""
    high_percentile: Annotated[float, Field(gt=0, le=100)] = 97.0
    """percentile: maps to tissue_hu."""
    air_hu: float = -1000.0
    """HU of air."""
    tissue_hu: float = 40.0
    """HU of soft tissue."""
    mean_hu: float | None = None
    """If given, values are then scaled about air_hu until the specimen's mean is this many HU (a specimen whose
    inflation differs from the patient's).
    """

    @model_validator(mode="after")
    def _check_order(self) -> Calibration:
        if self.low_percentile >= self.high_percentile:
            raise ValueError("low_percentile must be below high_percentile")
        if self.air_hu >= self.tissue_hu:
            raise ValueError("air_hu must be below tissue_hu")
        if self.mean_hu is not None and self.mean_hu <= self.air_hu:
            raise ValueError("mean_hu must be above air_hu")
        return self


class MicroVolume(Section):
    """Import of uCT."""

    sampling: Literal["matched", "native"] = "matched"
    """matched: resampled, anti-aliased, to the clinical pixel size / 8; native: pixels as scanned (see
    area_average).
    """
    matched_spacing_mm: Positive | None = None
    """matched: target pixel size, mm; null: the pixel size of the same case's clinical CT / 8."""
    area_average: Count = 1
    """native: this many pixels along each in-plane axis are averaged into one."""
    calibration: Calibration = Field(default_factory=Calibration)


class Volumes(Section):
    """Import, calibration and masks."""

    clinical: ClinicalVolume = Field(default_factory=ClinicalVolume)
    micro: MicroVolume = Field(default_factory=MicroVolume)
