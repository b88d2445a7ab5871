"""Section `evaluate`: protocols and what metrics need to know."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from microsr.config.section import Positive, Section
from microsr.core.registry.protocols import ASKED_FOR


class Evaluate(Section):
    """Metrics."""

    split: Literal["test", "validation"] = "test"
    """Cases on which methods are tested. validation: those for choosing settings; test cases are then not used."""
    data_range_hu: Positive = 1400.0
    """Data range of PSNR and SSIM, HU; the width of the intensity window."""
    further_protocols: list[Literal[*ASKED_FOR]] = []
    """Protocols evaluated beside no_reference and truth, for the cases that allow them; each costs time on every result
    (docs/metrics.md).
    """
    choose_by: Annotated[list[str], Field(min_length=1)] = [
        "truth.ms_ssim",
        "truth.bronchiole_detected",
        "no_reference.spectrum_distance",
    ]
    """Metrics for choosing a trial of a search, or a model of a training: by the mean rank on validation cases."""
    feature_steps: Annotated[int, Field(ge=2)] = 400
    """Steps of the small network whose features the protocol distribution compares; fewer are quicker, but
    make the distances less informative.
    """
    validate_simulation: bool = False
    """Measure the simulated lung and scanner beside published figures: figures/validation, from a simulated lung made
    for it.
    """
    validate_metrics: bool = False
    """Try the metrics on images with known faults: figures/metrics_validation, from two small simulated lungs."""
    kernel_pair: Annotated[list[str], Field(max_length=2)] = []
    """One scan reconstructed with two kernels, [sharp, soft]: files under cases.data_root. validate_simulation uses
    them to test the simulated scanner's PSF; empty: none.
    """

    @model_validator(mode="after")
    def _check_pair(self) -> Evaluate:
        if len(self.kernel_pair) == 1:
            raise ValueError("kernel_pair must name two files, [sharp, soft], or none")
        if self.kernel_pair and not self.validate_simulation:
            raise ValueError(
                "kernel_pair is read by the validation of the simulated scanner only; set validate_simulation: true"
            )
        if len(set(self.further_protocols)) != len(self.further_protocols):
            raise ValueError("further_protocols lists one twice")
        return self


OF_PLAN = ("split", "choose_by", "further_protocols", "validate_simulation", "validate_metrics", "kernel_pair")
"""Keys of Evaluate that decide what is evaluated, and no number of it."""
