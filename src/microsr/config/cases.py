"""Sections `cases`, `simulate`, `scanner` and `scan`: where the cases come from, and what they are scanned with."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from microsr.config.section import Count, Name, Positive, Section, Weight

KernelName = Literal["B30", "D45", "lung"]
"""Names of `microsr.physics.scanner.KERNELS`."""

REFERENCES = ("truth", "thick_truth", "noise_free")
"""What may be known of a case (columns of its sheet) and then stands beside the methods' results; no method's name."""


class Cases(Section):
    """Where the cases come from."""

    sheet: str | None = None
    """Case sheet (tab-separated), relative to the working directory; null: simulate the cases."""
    data_root: str = "."
    """Folder that relative paths in the sheet start from."""


class Scanner(Section):
    """What is known of the clinical scanner: the simulation scans with it, methods that learn from pairs train and the
    metrics judge with it.
    """

    kernel: KernelName = "lung"
    """Reconstruction kernel, which decides the in-plane blur and the noise's grain
    (`microsr.physics.scanner.KERNELS`).
    """
    pixel_mm: Positive = 0.625
    """Clinical pixel size, mm (Table 1 of the paper)."""
    slice_sigma_mm: Positive = 0.29
    """Slice profile as a Gaussian, mm."""
    noise_hu: Weight = 30.0
    """Standard deviation of the noise in the lung, HU."""


class MicroScan(Section):
    """Clinical CT made by scanning uCT with the scanner of the section `scanner`: pairs of any structure whose truth is
    known.
    """

    micro: bool = False
    """Make a clinical CT, by scanning the uCT, for each case of the sheet that has uCT but no clinical CT. A validation
    or test case also gets its truth.
    """
    slice_spacing_mm: Positive = 0.6
    """Distance of the slices of these scans, mm."""


def _other_scanner(changes: dict[str, Any]) -> dict[str, Any]:
    """Keys in which a scanner differs from the one that is stated, checked by the section's own rules."""
    checked = Scanner.model_validate(changes)
    if "pixel_mm" in changes:
        raise ValueError(
            "pixel_mm must be the one that is stated: it is in the header of every scan; set it in scanner"
        )
    return {key: getattr(checked, key) for key in changes}  # numbers: on a command line all values are texts


Place = Literal["matched", "random", "tumour"]
"""Where a specimen is cut."""
OffsetHU = Annotated[float, Field(ge=-60, le=600)]
"""By how much a specimen's parenchyma is denser than the patient's, HU."""


class Specimen(Section):
    """How a specimen may differ from the one that is stated."""

    specimen: Place = "matched"
    """As `Simulate.specimen`."""
    micro_offset_hu: OffsetHU = 0.0
    """As `Simulate.micro_offset_hu`."""


def _other_specimen(changes: dict[str, Any]) -> dict[str, Any]:
    """Keys in which a specimen differs from the one that is stated, checked by the section's own rules."""
    checked = Specimen.model_validate(changes)
    return {key: getattr(checked, key) for key in changes}


class Simulate(Section):
    """Simulated lungs with a known truth, for when no sheet is given."""

    training_cases: Count = 3
    """Number of training cases, named train1, train2, ..."""
    validation_cases: Annotated[int, Field(ge=0)] = 0
    """Number of cases to choose settings and models by, named validation1, validation2, ..."""
    test_cases: Count = 1
    """Number of held-out cases, named test1, test2, ..."""
    clinical_size: Annotated[int, Field(ge=16)] = 96
    """Clinical pixels along each side of a slice."""
    clinical_slices: Count = 8
    """Clinical slices per case."""
    slice_spacing_mm: Positive = 0.6
    """Clinical slice distance, mm (Table 1 of the paper)."""
    micro_spacing_mm: Positive = 0.05
    """uCT voxel size, mm; the paper's specimens: 0.034 to 0.053."""
    specimen_mm: Positive = 20.0
    """In-plane size of the specimen that is scanned by uCT, mm."""
    specimen: Place = "matched"
    """Where it is cut. matched: where its mix of tissue is most like the whole lung's, so that an unpaired training has
    nothing to invent or to lose; random: anywhere; tumour: as near to the tumour as it fits.
    """
    micro_offset_hu: OffsetHU = 0.0
    """How much denser the specimen's parenchyma is than the patient's, HU, as that of a lung fixed with less air; its
    vessels and airways stay as they are.
    """
    scanner: Annotated[dict[str, Any], AfterValidator(_other_scanner)] = {}
    """Keys of the section `scanner` in which the true scanner of all clinical scans differs from the stated one:
    trainings use the stated one, and so are wrong about it.
    """
    further_scans: Annotated[dict[Name, Annotated[dict[str, Any], AfterValidator(_other_scanner)]], Field()] = {}
    """Further scans of each test lung by scanners that differ in these keys of `scanner`, by name, as
    {D45: {kernel: D45}}: nothing is trained with them, and each has tables of its own.
    """
    further_cases: Count | None = None
    """Number of test lungs, from the first, that get further scans, and on which models other than the pooled ones are
    tested; null: all.
    """
    further_specimens: Annotated[dict[Name, Annotated[dict[str, Any], AfterValidator(_other_specimen)]], Field()] = {}
    """Further specimens of each training lung, by name, that differ in `specimen` or `micro_offset_hu`, as
    {denser: {micro_offset_hu: 60}}: each name has models of its own, trained on the same clinical CTs and these uCTs.
    """


OF_CASES = ("training_cases", "validation_cases", "test_cases", "further_cases")
"""Keys of Simulate that say which cases there are, and nothing of any of them."""
