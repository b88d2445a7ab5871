"""Protocol `truth`: a super-resolved CT against what the simulated scanner looked at.

In: the super-resolved volume, the truth on its grid (a thin slice in the middle of each clinical one), the lung mask,
and where they exist the truth averaged over the slice profile, the truth's tissue labels and its airways. All metrics
are against the thin truth, but those whose name ends in `_thick`.
Out: rows of the table of metrics, the crossings of airways that were judged, and a volume of hallucinations. Everything
is read slice by slice. The formulas are in metrics.py, nullspace.py, structures.py and bronchioles.py.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from microsr import config
from microsr.core.errors import UserError
from microsr.core.progress import Progress
from microsr.evaluation import bronchioles, metrics, structures
from microsr.evaluation.tables import Row
from microsr.physics import airways, nullspace
from microsr.physics.moments import Moments
from microsr.physics.scanner import KERNELS
from microsr.physics.tissues import Tissue
from microsr.volume import alignment
from microsr.volume.storage import Volume, create_volume, open_volume
from microsr.volume.viewing import ERROR_WINDOW

PROTOCOL = "truth"
LUNG_TISSUES = tuple(tissue for tissue in Tissue if tissue is not Tissue.OUTSIDE)


@dataclass(frozen=True)
class Reference:
    """Paths of the truth (HU), its labels (`Tissue`, the same grid), its airways (airways.csv) and its mean over the
    slice profile (HU, the same grid).

    A truth whose attribute `region` is set, of a specimen brought into its CT, counts inside its mask alone.
    """

    truth: Path
    labels: Path | None = None
    airways: Path | None = None
    thick: Path | None = None

    @property
    def paths(self) -> list[Path]:
        """Those that are given."""
        return [path for path in (self.truth, self.labels, self.airways, self.thick) if path is not None]


def rows(
    sr: Volume,
    sr_path: Path,
    mask: Any,
    slices: list[int],
    reference: Reference,
    settings: config.Evaluate,
    scanner: config.Scanner,
    maps: Path | None = None,
    is_lung: bool = True,
) -> tuple[list[Row], pd.DataFrame | None]:
    """Metrics of `sr`, which holds the clinical slices `slices`, against the reference.

    mask: [clinical slices, rows, columns]. PSNR, SSIM and MS-SSIM take settings.data_range_hu as data range. is_lung:
    whether solid structures are told from lung by their HU.
    maps: where to write, per slice, what SR has in the scanner's null space and the truth has not (HU, OME-Zarr on SR's
    grid). Returns the rows, and bronchioles.COLUMNS if airways are given.

    Raises
    ------
    UserError
        Truth or labels do not overlay, have another unit, or airways are given without labels.
    """
    truth, labels, thick = _open(sr, sr_path, slices, reference)
    region, thick_region = (alignment.known_region(path) for path in (reference.truth, reference.thick))
    crossings = None
    if reference.airways is not None:
        crossings = airways.crossings(reference.airways, truth, slices, bronchioles.BINS_MM[-1])
    scale = sr.shape[1] // len(mask[slices[0]])
    measures = _Measures(sr, settings.data_range_hu, KERNELS[scanner.kernel], np.asarray(mask[slices[0]]).shape)
    shown = replace(sr, attributes={**sr.attributes, "display": list(ERROR_WINDOW)})
    volume = create_volume(maps, sr.shape, shown)[0] if maps is not None else None
    progress = Progress(len(slices), "slices")

    def compare_slices() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Compare slice by slice; yields what the lesions, which span slices, need of each."""
        for i, z in enumerate(slices):
            image, true, lung = np.asarray(sr.array[i]), np.asarray(truth.array[z]), metrics.magnify(mask[z], scale)
            if region is not None:
                # Beyond it nothing is known: what is there must not count as wrong near its border.
                known = np.asarray(region[z]) != 0
                true, lung = np.where(known, true, image), lung & known
            null = measures.compare(image, true, lung)
            if thick is not None:
                mean, where = np.asarray(thick.array[z]), lung
                if thick_region is not None:
                    known = np.asarray(thick_region[z]) != 0
                    mean, where = np.where(known, mean, image), lung & known
                measures.compare_thick(image, mean, where)
            if volume is not None:
                volume[i] = np.rint(null).astype(np.int16)
            del null
            tissues = None if labels is None else np.asarray(labels.array[z])
            inside = lung if tissues is None else tissues != Tissue.OUTSIDE
            if is_lung:
                measures.compare_structures(image, true, inside)
            if tissues is not None:
                measures.compare_tissues(image, true, tissues)
                if crossings is not None:
                    measures.compare_airways(image, true, tissues, crossings[crossings["slice"] == z])
            pooled = [structures.pool(values, scale) for values in (image, true, inside)]
            yield pooled[0], pooled[1], pooled[2] > 0.5
            progress.advance()

    spacing = (sr.spacing[2], *(structures.pooling(scale) * s for s in sr.spacing[1::-1]))
    if is_lung:
        lesions = structures.lesions(compare_slices(), spacing)
    else:
        lesions = None
        deque(compare_slices(), maxlen=0)
    progress.close()
    if not measures.difference.number:
        raise UserError(
            f"{sr_path}: the truth is not known in its slices {slices}; choose others with superresolve.slices, "
            f"between {_tell_slices(truth)}"
        )
    found, table = measures.rows(lesions, thick is not None, labels is not None, crossings is not None)
    return [(PROTOCOL, *row) for row in found], table


def _tell_slices(truth: Volume) -> str:
    first, end = truth.attributes.get("specimen_slices", (0, truth.shape[0]))
    return f"{first} and {end - 1}"


def _open(
    sr: Volume, sr_path: Path, slices: list[int], reference: Reference
) -> tuple[Volume, Volume | None, Volume | None]:
    """The truth, its labels and its mean over the slice profile."""

    def open_if_given(path: Path | None, unit: str) -> Volume | None:
        if path is None:
            return None
        volume = open_volume(path)
        alignment.check_unit(volume, path, unit)
        alignment.check_overlay(sr, sr_path, volume, volume.shape, path, slices)
        return volume

    if reference.airways is not None and reference.labels is None:
        raise UserError(f"{reference.airways}: airways need the truth's labels too; give --labels")
    return (
        open_if_given(reference.truth, "HU"),
        open_if_given(reference.labels, "label"),
        open_if_given(reference.thick, "HU"),
    )


def _shares(counts: np.ndarray) -> tuple[float, float]:
    """Shares lost and invented, of counts as of `structures.small_solids`; NaN of nothing."""
    lost, present, invented, shown = counts
    return lost / present if present else float("nan"), invented / shown if shown else float("nan")


class _Measures:
    """What is gathered of each slice, and the metrics of all of them."""

    def __init__(self, sr: Volume, data_range: float, kernel: Any, shape: tuple[int, int]) -> None:
        self.spacing, self.data_range = sr.spacing, data_range
        clinical = tuple(s * sr.shape[1] / shape[0] for s in sr.spacing[:2])
        self.split = nullspace.Split(kernel, clinical, shape, sr.shape[1] // shape[0])
        self.difference, self.similarity, self.measured = Moments(), Moments(), Moments()
        self.thick = Moments(), Moments()
        self.multiscale: list[tuple[float, int]] = []
        self.by_tissue = {t: (Moments(), Moments()) for t in LUNG_TISSUES}
        self.solids, self.airways = np.zeros((len(structures.SIZES_MM) - 1, 4), int), np.zeros(3, int)
        self.walls: list[np.ndarray] = []
        self.borders: list[np.ndarray] = []
        self.bronchioles: list[pd.DataFrame] = []

    def compare(self, image: np.ndarray, true: np.ndarray, lung: np.ndarray) -> np.ndarray:
        """Pixel by pixel in the lung; returns the null-space part of the error, HU [rows, columns]."""
        if not lung.any():
            return np.zeros(lung.shape, np.float32)
        self.difference.add(metrics.truth_difference(image, true, lung))
        self.similarity.add(metrics.ssim_values(image, true, lung, self.data_range))
        value = metrics.ms_ssim_value(image, true, lung, self.data_range)
        if np.isfinite(value):
            self.multiscale.append((value, int(np.count_nonzero(lung))))
        error = np.where(lung, image.astype(np.float32) - true, 0)
        measured = self.split.project(error)
        self.measured.add(measured)
        return error - measured

    def compare_thick(self, image: np.ndarray, true: np.ndarray, lung: np.ndarray) -> None:
        """Pixel by pixel in the lung, against the truth's mean over the slice profile."""
        if not lung.any():
            return
        difference, alike = self.thick
        difference.add(metrics.truth_difference(image, true, lung))
        alike.add(metrics.ssim_values(image, true, lung, self.data_range))

    def compare_structures(self, image: np.ndarray, true: np.ndarray, lung: np.ndarray) -> None:
        """Solid objects and airways in the lung, in-plane."""
        self.solids += structures.small_solids(image, true, lung, self.spacing[0])
        self.airways += structures.airways(image, true, lung, self.spacing[0])

    def compare_tissues(self, image: np.ndarray, true: np.ndarray, tissues: np.ndarray) -> None:
        """Pixel by pixel in each tissue of the label volume, and the tumour's border."""
        similarity = metrics.ssim_map(image, true, tissues != Tissue.OUTSIDE, self.data_range)
        for tissue, (difference, alike) in self.by_tissue.items():
            difference.add(metrics.truth_difference(image, true, tissues == tissue))
            alike.add(similarity[tissues == tissue])
        self.borders.append(structures.border_distances(image, true, tissues == Tissue.TUMOUR, self.spacing[0]))

    def compare_airways(
        self, image: np.ndarray, true: np.ndarray, tissues: np.ndarray, crossings: pd.DataFrame
    ) -> None:
        """Lumens and walls of the airways that cross the slice."""
        self.walls.append(structures.wall_errors(image, true, crossings, self.spacing[0]))
        self.bronchioles.append(bronchioles.judge_slice(image, true, tissues, crossings, self.spacing[0]))

    def rows(
        self, lesions: tuple[int, int] | None, with_thick: bool, with_labels: bool, with_airways: bool
    ) -> tuple[list[tuple[str, float, str]], pd.DataFrame | None]:
        """Metric, value and unit of everything that was gathered, and the crossings of airways.

        lesions: how many are lost and how many invented; None: structures are not looked for.
        """
        weights = [w for _, w in self.multiscale]
        alike = np.average([v for v, _ in self.multiscale], weights=weights) if self.multiscale else np.nan
        measured = self.measured.squares / self.difference.number
        found = [
            ("psnr", metrics.psnr(self.difference, self.data_range), "dB"),
            ("ssim", metrics.ssim(self.similarity), "1"),
            ("ms_ssim", float(alike), "1"),
            ("measured_rmse", nullspace.measured_rmse(measured), "HU"),
            ("null_rmse", nullspace.null_rmse(max(self.difference.mean_square - measured, 0.0)), "HU"),
        ]
        if with_thick and self.thick[0].number:
            difference, similarity = self.thick
            found.append(("psnr_thick", metrics.psnr(difference, self.data_range), "dB"))
            found.append(("ssim_thick", metrics.ssim(similarity), "1"))
        if lesions is not None:
            found += self._structure_rows(lesions)
        if with_labels:
            for tissue, (difference, similarity) in self.by_tissue.items():
                name = tissue.name.lower()
                found.append((f"rmse_{name}", metrics.rmse(difference), "HU"))
                found.append((f"ssim_{name}", metrics.ssim(similarity), "1"))
            border = structures.tumour_border_error_um(np.concatenate(self.borders))
            found.append(("tumour_border_error_um", border, "um"))
        if not with_airways:
            return found, None
        found.append(("wall_error_um", structures.wall_error_um(np.concatenate(self.walls)), "um"))
        table = pd.concat(self.bronchioles, ignore_index=True)
        return found + bronchioles.curve_rows(table), table

    def _structure_rows(self, lesions: tuple[int, int]) -> list[tuple[str, float, str]]:
        lost, invented = _shares(self.solids.sum(axis=0))
        found = [("small_lost", lost, "1"), ("small_invented", invented, "1")]
        for (low, high), counts in zip(itertools.pairwise(structures.SIZES_MM), self.solids, strict=True):
            lost, invented = _shares(counts)
            found.append((f"small_lost_{low:g}-{high:g}", lost, "1"))
            found.append((f"small_invented_{low:g}-{high:g}", invented, "1"))
        lost, invented, present = self.airways
        lost, invented = _shares(np.array([lost, present, invented, present]))
        found += [("airways_lost", lost, "1"), ("airways_invented", invented, "1")]
        return [*found, ("lesions_lost", lesions[0], "count"), ("lesions_invented", lesions[1], "count")]
