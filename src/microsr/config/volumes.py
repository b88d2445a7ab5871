"""Section `volumes`: import, calibration and masks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from microsr.config.section import Count, Positive, Section, Weight

MaskRange = tuple[float, float] | None


def _check_mask(mask: str, limits: MaskRange) -> None:
    """Refuse a mask by values without its range, and a range that does not rise."""
    if limits is None and mask == "values":
        raise ValueError("mask is values, so mask_range must give the lowest and the highest one, as [200, 3000]")
    if limits is not None and limits[0] >= limits[1]:
        raise ValueError("mask_range must rise from the first value to the second")


class ClinicalVolume(Section):
    """Import of clinical CT."""

    mask: Literal["lung", "values", "file", "none"] = "lung"
    """Where patches and metrics come from. lung: found by its values and its place; values: voxels within mask_range;
    file: the sheet's column clinical_mask; none: the whole volume, without padding.
    """
    organ: Literal["lung", "other"] | None = None
    """other: leave out what is meant for lungs alone, such as the check for a chest CT; null: lung if the mask is lung,
    else other.
    """
    lung_below_hu: float = -400.0
    """lung: voxels below this HU, away from the outside air, are lung before holes are closed."""
    mask_range: MaskRange = None
    """values: lowest and highest HU inside the mask."""
    closing_mm: Weight = 4.0
    """lung, values: vessels, tumours and gaps up to about this thickness, mm, are taken into the mask."""
    fill_mm: Weight = 30.0
    """lung, values: holes in a slice up to the area of a disc of this diameter, mm, are filled (30: a T1 tumour)."""

    @model_validator(mode="after")
    def _check_range(self) -> ClinicalVolume:
        _check_mask(self.mask, self.mask_range)
        return self

    @property
    def is_lung(self) -> bool:
        """Whether it is a lung that is imported, by `organ`, else by `mask`."""
        return (self.organ or self.mask) == "lung"


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
    """matched: resampled, anti-aliased, to the clinical pixel size / scale; native: pixels as scanned (see
    area_average).
    """
    matched_spacing_mm: Positive | None = None
    """matched: target pixel size, mm; null: the pixel size of the same case's clinical CT / scale."""
    area_average: Count = 1
    """native: this many pixels along each in-plane axis are averaged into one."""
    calibration: Calibration = Field(default_factory=Calibration)
    mask: Literal["specimen", "values", "file", "none"] = "specimen"
    """Where patches and metrics come from. specimen: tissue with its air spaces; values: voxels within mask_range;
    file: the sheet's column micro_mask; none: the whole volume, without padding.
    """
    mask_range: MaskRange = None
    """values: lowest and highest grey value inside the mask, before the calibration."""
    closing_mm: Weight = 1.0
    """values: gaps up to about this thickness, mm, are taken into the mask."""
    fill_mm: Weight = 30.0
    """values: holes in a slice up to the area of a disc of this diameter, mm, are filled."""

    @model_validator(mode="after")
    def _check_range(self) -> MicroVolume:
        _check_mask(self.mask, self.mask_range)
        return self


class Volumes(Section):
    """Import, calibration and masks."""

    clinical: ClinicalVolume = Field(default_factory=ClinicalVolume)
    micro: MicroVolume = Field(default_factory=MicroVolume)
