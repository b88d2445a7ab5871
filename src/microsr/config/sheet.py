"""The case sheet: which files hold the volumes of each case.

It is read before any job, so that a mistake in it stops the workflow with one line; a simulated experiment writes its
own.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from microsr.config.cases import REFERENCES, Cases, Simulate
from microsr.config.loading import describe
from microsr.config.section import REGION, SLICES, SPACING, Name, Section
from microsr.core.errors import UserError
from microsr.core.urls import url

UNSEEN = ("Cc", "Zl", "Zp")
"""Unicode categories of control characters and line breaks."""


class Scan(Section):
    """One modality of one case, as the sheet gives it."""

    path: str
    """File or folder, or the URL of an OME-Zarr or N5 store."""
    series: str | None = None
    """DICOM SeriesInstanceUID, where the folder holds several."""
    slices: Annotated[str, Field(pattern=SLICES)] | None = None
    """Range of slices to use, first:end (end excluded)."""
    spacing: Annotated[str, Field(pattern=SPACING)] | None = None
    """Pixel size in mm, x or XxY or XxYxZ, for formats that carry none; overrides the file's."""
    resample: Literal["even"] | None = None
    """even: DICOM slices that are unevenly spaced or tilted are put on an even, untilted grid."""
    level: Annotated[int, Field(ge=0)] | None = None
    """Resolution level of a store that has several, 0 the finest."""
    region: Annotated[str, Field(pattern=REGION)] | None = None
    """Rows and columns to use, first:end,first:end (ends excluded), pixels of the level."""


Split = Literal["train", "validation", "test"]
"""What a case is for: to train on, to choose settings and models by, or to be looked at once, in the end."""


class Case(Section):
    """One row of the sheet."""

    case: Name
    split: Split
    clinical: Scan | None = None
    micro: Scan | None = None
    truth: Scan | None = None
    """What `clinical` shows, at uCT scale: HU on the clinical grid magnified in-plane."""
    thick_truth: Scan | None = None
    """`truth` averaged over the slice profile of `clinical`: the most that can be recovered in-plane."""
    noise_free: Scan | None = None
    """`clinical` without its noise."""
    labels: Scan | None = None
    """Tissue of each pixel of `truth` (`microsr.physics.tissues.Tissue`)."""
    repeat: Scan | None = None
    """The same lung scanned again, or reconstructed with another kernel, on the grid of `clinical`."""
    airways: str | None = None
    """Table of the airways that cross the slices of `truth` (docs/simulation.md)."""
    clinical_mask: str | None = None
    """Where the mask of `clinical` is not found but given (volumes.clinical.mask: file): a label volume on its grid."""
    micro_mask: str | None = None
    """The same of `micro` (volumes.micro.mask)."""
    micro_to_clinical: str | None = None
    """ITK transform of points of `micro` to points of `clinical`, of which it is a specimen: the truth inside it."""
    condition: Name | None = None
    """What sets a test case apart from the others, as another kernel: its metrics stand in tables of this name. Of
    a simulated training case its further specimen, with which models of their own are trained.
    """


OF_A_SCAN = tuple(key for key in Scan.model_fields if key != "path")
"""What else the sheet may say of a scan, each in a column <modality>_<word>."""
MODALITIES = ("clinical", "micro", "truth", "thick_truth", "labels", "noise_free", "repeat")
OF_A_CASE = tuple(key for key in Case.model_fields if key not in MODALITIES)
"""What the sheet says of a case beside its scans, each in a column of its own."""
FILES = ("clinical_mask", "micro_mask", "micro_to_clinical")
"""Those of them that are paths of what belongs to a scan."""
SHEET_COLUMNS = (*Case.model_fields, *(f"{m}_{f}" for m in MODALITIES for f in OF_A_SCAN))
"""A new field of `Case` or `Scan` is a column."""


def simulated_cases(settings: Simulate, folder: str, training_tested: bool = False) -> list[Case]:
    """The sheet of the simulated cases, whose files the simulate step writes under `folder`.

    training_tested: whether models are tested on training cases too, which then have their truth.
    """

    def case(name: str, split: str) -> Case:
        known = split != "train" or training_tested
        modalities = MODALITIES if known else ("clinical", "micro")
        scans = {m: Scan(path=f"{folder}/{name}/{m}.nii.gz") for m in modalities}
        airways = f"{folder}/{name}/airways.csv" if known else None
        return Case(case=name, split=split, airways=airways, **scans)

    def scan_again(test: Case, condition: str) -> Case:
        """A further scan of a test lung: all but the scan is the same, and the truth's mean over another profile."""
        name = f"{test.case}-{condition}"
        scans = {key: Scan(path=f"{folder}/{name}/{key}.nii.gz") for key in ("clinical", "noise_free")}
        changed = {"case": name, "condition": condition, "repeat": None, **scans}
        if "slice_sigma_mm" in settings.further_scans[condition]:
            changed["thick_truth"] = None
        return test.model_copy(update=changed)

    def cut_again(train: Case, condition: str) -> Case:
        """A further specimen of a training lung; the clinical CT is the same."""
        name = f"{train.case}-{condition}"
        micro = Scan(path=f"{folder}/{name}/micro.nii.gz")
        return Case(case=name, split="train", condition=condition, clinical=train.clinical, micro=micro)

    counts = {
        "train": settings.training_cases,
        "validation": settings.validation_cases,
        "test": settings.test_cases,
    }
    cases = [case(f"{split}{i + 1}", split) for split, count in counts.items() for i in range(count)]
    of_split = {split: [case for case in cases if case.split == split] for split in counts}
    cut = [cut_again(one, condition) for condition in settings.further_specimens for one in of_split["train"]]
    again = of_split["test"][: settings.further_cases]
    scanned = [scan_again(one, condition) for condition in settings.further_scans for one in again]
    return cases + cut + scanned


def with_scans(cases: Sequence[Case], folder: str) -> list[Case]:
    """The cases, of which each with uCT but without a clinical CT has the scan of its uCT that `microsr scan` writes
    under `folder`; all but a training case have what is known of it, too.
    """

    def add_scans(case: Case) -> Case:
        names = ("clinical", *(REFERENCES if case.split != "train" else ()))
        return case.model_copy(update={name: Scan(path=f"{folder}/{case.case}/{name}.nii.gz") for name in names})

    return [add_scans(case) if case.clinical is None and case.micro is not None else case for case in cases]


def read_sheet(cases: Cases, scan_micro: bool = False) -> list[Case]:
    """Read and check the case sheet: one line a case, tab-separated, UTF-8, with a header.

    Columns: case, split (train, validation or test), clinical, micro, and optionally truth, labels, repeat, airways,
    clinical_mask, micro_mask, micro_to_clinical and condition (see `Case`), and for each scan <modality>_series,
    _slices, _spacing, _resample, _level and _region (see `Scan`). An empty cell means "none". scan_micro: a case with
    uCT gets its clinical CT by `with_scans`.

    Raises
    ------
    UserError
        One line that names the sheet, the line, what is wrong and what is allowed.
    """
    sheet = Path(cases.sheet)
    rows = _cells(sheet, _text(sheet))
    if not rows:
        raise UserError(f"{sheet}: is empty; its first line must name the columns: case, split, clinical, micro")
    header_line, header = rows[0]
    for column in ("case", "split"):
        if column not in header:
            raise UserError(
                f"{sheet}, line {header_line}: column '{column}' is missing; the first line must name the columns, "
                "separated by tabs (not by commas or semicolons): case, split, clinical, micro (found: "
                f"{', '.join(header)[:200]})"
            )
    for column in header:
        if column not in SHEET_COLUMNS or header.count(column) > 1:
            raise UserError(
                f"{sheet}, line {header_line}: column '{column}' is unknown or named twice; "
                f"allowed: {', '.join(SHEET_COLUMNS)}"
            )
    found: list[Case] = []
    for number, row in rows[1:]:
        found.append(_read_row(sheet, number, header, row, Path(cases.data_root), scan_micro))
        if found[-1].case.lower() in [case.case.lower() for case in found[:-1]]:
            raise UserError(f"{sheet}, line {number}: case '{found[-1].case}' appears twice; names must differ")
    return found


def sheet_text(cases: Sequence[Case]) -> str:
    """The sheet that `read_sheet` reads as `cases`, with paths as they are used, relative to the working directory."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(SHEET_COLUMNS)
    for case in cases:
        cells: dict[str, Any] = {key: getattr(case, key) for key in OF_A_CASE}
        for modality in MODALITIES:
            scan = getattr(case, modality)
            for key, value in scan.model_dump(exclude_none=True).items() if scan else ():
                cells[modality if key == "path" else f"{modality}_{key}"] = value
        writer.writerow([cells.get(column) or "" for column in SHEET_COLUMNS])
    return text.getvalue()


def _text(sheet: Path) -> str:
    """The content of a case sheet."""
    try:
        content = sheet.read_bytes()
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise UserError(
                f"cases.sheet: {sheet} is UTF-16, as a spreadsheet's 'Unicode text'; save it as UTF-8 text with tabs"
            )
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"cases.sheet: {sheet} does not exist; give the path of a case sheet") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cases.sheet: {sheet} cannot be read as UTF-8 text: {error}; save it as UTF-8 text with tabs"
        ) from None


def _cells(sheet: Path, text: str) -> list[tuple[int, list[str]]]:
    """Number and cells of each line that is no remark and not empty."""
    rows = []
    for number, line in enumerate(re.split("\r\n|\r|\n", text), start=1):
        if not line.strip() or line.lstrip(" ").startswith("#"):
            continue
        try:
            (row,) = csv.reader([line], delimiter="\t", strict=True)
        except csv.Error as error:
            raise UserError(
                f"{sheet}, line {number}: cannot be read ({error}); a quotation mark that opens a cell must close it, "
                "and a line break within a cell is not allowed"
            ) from None
        row = [cell.strip() for cell in row]
        if unseen := [c for cell in row for c in cell if unicodedata.category(c) in UNSEEN]:
            raise UserError(f"{sheet}, line {number}: holds the control character {unseen[0]!r}; remove it")
        if any(row) and not row[0].startswith("#"):
            rows.append((number, row))
    return rows


def _read_row(
    sheet: Path, number: int, header: list[str], row: list[str], root: Path, scan_micro: bool = False
) -> Case:
    where = f"{sheet}, line {number}"
    if len(row) < 2 or len(row) > len(header):
        raise UserError(f"{where}: has {len(row)} tab-separated cells, the header has {len(header)}")
    # Editors drop tabs at the end of a line: cells that are missing there are empty.
    cells = {column: cell for column, cell in zip(header, row, strict=False) if cell}
    values: dict[str, Any] = {key: cells[key] for key in OF_A_CASE if key in cells}
    for modality in MODALITIES:
        extras = {f: cells[f"{modality}_{f}"] for f in OF_A_SCAN if f"{modality}_{f}" in cells}
        if modality in cells:
            path = url(cells[modality]) or root / cells[modality]
            # Of a name that no system can have, Path.exists raises an error
            if not url(path) and not os.path.exists(path):  # noqa: PTH110
                raise UserError(
                    f"{where}: {modality}: {path} does not exist; correct the sheet, or cases.data_root (now '{root}')"
                )
            values[modality] = {"path": str(path), **extras}
        elif extras:
            raise UserError(f"{where}: {modality}_{next(iter(extras))} is given but {modality} is empty")
    if "airways" in cells:
        values["airways"] = str(root / cells["airways"])
        if not os.path.isfile(values["airways"]):  # noqa: PTH113 - as above
            raise UserError(
                f"{where}: airways: {values['airways']} does not exist; correct the sheet, or cases.data_root"
            )
    for key in FILES:
        if key in cells:
            values[key] = url(cells[key]) or str(root / cells[key])
            if not url(values[key]) and not os.path.exists(values[key]):  # noqa: PTH110 - as above
                raise UserError(f"{where}: {key}: {values[key]} does not exist; correct the sheet, or cases.data_root")
    needs = {"labels": "truth", "thick_truth": "truth", "airways": "truth"}
    needs |= {"clinical_mask": "clinical", "micro_mask": "micro", "micro_to_clinical": "micro"}
    for extra, needed in (needs | {"noise_free": "clinical", "repeat": "clinical"}).items():
        if extra in values and needed not in values:
            raise UserError(f"{where}: {extra} is given but {needed} is empty")
    try:
        case = Case.model_validate(values)
    except ValidationError as error:
        raise UserError(describe(error, where)) from None
    if case.micro_to_clinical is not None and (case.clinical is None or case.truth is not None):
        raise UserError(
            f"{where}: micro_to_clinical makes the truth of a clinical CT out of its specimen's uCT; fill column "
            "'clinical', and leave 'truth' and 'thick_truth' empty"
        )
    if case.split != "test" and case.condition is not None:
        raise UserError(f"{where}: {case.split} case '{case.case}' has a condition; only a test case may have one")
    if case.split != "train" and case.clinical is None and not (scan_micro and case.micro is not None):
        raise UserError(
            f"{where}: {case.split} case '{case.case}' has no clinical CT to super-resolve; fill column 'clinical'"
        )
    if case.clinical is None and case.micro is None:
        raise UserError(f"{where}: case '{case.case}' has neither clinical nor micro; fill at least one")
    return case
