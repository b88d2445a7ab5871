"""Protocol `uncertainty`: whether the draws of a posterior sampler are as far apart as they are from the truth.

In: draws of one scan (`microsr superresolve --draws 16 --keep 16`), the lung mask, the truth on their grid and, where
they exist, its tissue labels. Out: coverage, spread over skill, ranks and CRPS, by tissue, and how far P(solid) can be
trusted; the curves behind them are a table of their own. All of it is exact for any number of draws: if the truth is
one draw more, it scores the ideal but for chance.
Everything is read slice by slice and computed in bands of rows: memory is that of a slice of each draw, in int16.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from microsr.core.errors import UserError
from microsr.core.files import write_csv
from microsr.core.progress import Progress
from microsr.core.provenance import write_run
from microsr.evaluation import tables
from microsr.evaluation.metrics import magnify
from microsr.physics.pooling import average_pool
from microsr.physics.tissues import SOLID_HU, Tissue
from microsr.volume import alignment
from microsr.volume.storage import open_mask, open_volume

PROTOCOL = "uncertainty"
LUNG, POOLED = "lung", "pooled"
"""Pixels of the lung mask; means over clinical pixels of it."""
TISSUES = tuple(tissue for tissue in Tissue if tissue is not Tissue.OUTSIDE)
OUTSIDE_SHARE = 0.05
"""Share of the truth that a 90 % interval leaves out on each side."""
BAND = 16
"""Rows that are judged at once, clinical pixels."""
CURVES = ["case", "method", "training_set", "seed", "curve", "group", "at", "share", "ideal", "pixels"]
"""Columns of the table of curves. curve rank: `share` of the pixels in which `at` draws are below the truth, ideal 1 /
(draws + 1). curve solid: of the pixels that are solid in the share `at` of all draws but one, the `share` in which the
truth is solid, and, as the ideal, the one draw more. group: lung, pooled or a tissue."""


class Judged(NamedTuple):
    """What is asked of each pixel; arrays [pixels]."""

    below: np.ndarray
    """Draws below the truth."""
    equal: np.ndarray
    """Draws equal to it."""
    variance: np.ndarray
    """Of the draws, unbiased, HU^2."""
    error: np.ndarray
    """Square of the draws' mean minus the truth, HU^2."""
    crps: np.ndarray
    """Fair CRPS, HU."""


def judge(draws: np.ndarray, truth: np.ndarray) -> Judged:
    """What the draws [draws, pixels] say of the truth [pixels], HU, two draws at least.

    Fair CRPS (Ferro 2014): mean distance of the draws to the truth, minus half their mean distance to one another.
    """
    number = len(draws)
    ordered = np.sort(draws.astype(np.float32), axis=0)
    steps = 2 * np.arange(1, number + 1, dtype=np.float32) - number - 1
    apart = np.tensordot(steps, ordered, 1) / (number * (number - 1))
    return Judged(
        np.count_nonzero(draws < truth, axis=0),
        np.count_nonzero(draws == truth, axis=0),
        ordered.var(axis=0, ddof=1),
        np.square(ordered.mean(axis=0) - truth),
        np.abs(ordered - truth).mean(axis=0) - apart,
    )


class Tally:
    """Sums over the pixels of one group."""

    def __init__(self, draws: int) -> None:
        self.draws, self.pixels = draws, 0
        self.counts = np.zeros(draws + 1)
        self.variance = self.error = self.distance = 0.0

    def add(self, judged: Judged, where: np.ndarray) -> None:
        """Count in the pixels `where` (bool). A truth that equals draws has each of the ranks among them in part."""
        below, equal = judged.below[where], judged.equal[where]
        for more in range(int(equal.max(initial=-1)) + 1):
            tied = equal >= more
            self.counts += np.bincount(below[tied] + more, 1 / (equal[tied] + 1), self.draws + 1)
        self.pixels += len(below)
        self.variance += float(judged.variance[where].sum(dtype=float))
        self.error += float(judged.error[where].sum(dtype=float))
        self.distance += float(judged.crps[where].sum(dtype=float))

    @property
    def ranks(self) -> np.ndarray:
        """Share of the pixels in which 0, 1, ... draws are below the truth [draws + 1]: all the same if the truth is
        like a draw; high ends: too sure; a high middle: too unsure; a slope: too bright or too dark. NaN without
        pixels.
        """
        return self.counts / self.pixels if self.pixels else np.full(self.draws + 1, np.nan)

    def coverage(self) -> float:
        """Share of the truth within the interval of `interval_ranks`. Best is `ideal_coverage`; less is too sure. What
        fools it: too sure here and too unsure there cancel, so it is taken by tissue; draws that know nothing but how
        often each HU occurs have the ideal.
        """
        low, high = interval_ranks(self.draws)
        return float(self.ranks[low : high + 1].sum())

    def spread_skill(self) -> float:
        """Root mean variance of the draws, over the root mean square error of their mean, times sqrt(1 + 1 / draws):
        so 1 is ideal for any number of draws (Fortin et al. 2014), less is too sure. What fools it: it is of sums, in
        which the most uncertain pixels weigh most. NaN without pixels, infinite without error.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.sqrt(np.float64((1 + 1 / self.draws) * self.variance) / np.float64(self.error)))

    def unevenness(self) -> float:
        """Share of the pixels that had to change their rank for all ranks to be as frequent; 0 is best, and of few
        pixels it is above 0 by chance. What fools it: as `coverage`, parts of a lung cancel.
        """
        return float(np.abs(self.ranks - 1 / (self.draws + 1)).sum() / 2)

    def crps(self) -> float:
        """Mean fair CRPS, HU, lower is better: the mean absolute error, less what the draws admit of it. What fools it:
        pixel by pixel, it does not ask whether a draw is an image of a lung: independent noise of the right size is as
        good as anatomy.
        """
        return self.distance / self.pixels if self.pixels else float("nan")


def interval_ranks(draws: int) -> tuple[int, int]:
    """Fewest and most draws below the truth, for it to lie in the interval nearest to 90 %: with fewer than 19 draws,
    between the lowest and the highest of them.
    """
    outside = max(1, round(OUTSIDE_SHARE * (draws + 1)))
    return outside, draws - outside


def ideal_coverage(draws: int) -> float:
    """Share of the truth that the interval of `interval_ranks` holds if the truth is like a draw: 16 draws, 15/17."""
    low, high = interval_ranks(draws)
    return (high - low + 1) / (draws + 1)


class Reliability:
    """How often the truth is solid where so many of the draws are.

    A share of few draws is not the probability that they are drawn by: where 2 of 2 draws are solid, a third one need
    not be. So the truth is not asked to keep to the share, but to be solid as often as one draw more is: each draw in
    turn is left out, and stands beside the truth.
    """

    def __init__(self, draws: int) -> None:
        self.draws = draws
        self.pixels, self.true = np.zeros(draws + 1), np.zeros(draws + 1)

    def add(self, solid: np.ndarray, true: np.ndarray) -> None:
        """Count in pixels. solid: number of the draws that are solid; true: bool, whether the truth is; [pixels]."""
        self.pixels += np.bincount(solid, minlength=self.draws + 1)
        self.true += np.bincount(solid[true], minlength=self.draws + 1)

    def curve(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of pixels in which 0, 1, ..., draws - 1 of the others are solid [draws]: how many (a draw left out counts
        as 1 / draws of a pixel), the share in which the truth is solid, and that in which the draw left out is.
        """
        number = np.arange(self.draws + 1)
        with_solid_out = number[1:] / self.draws
        with_other_out = 1 - number[:-1] / self.draws
        pixels = self.pixels[:-1] * with_other_out + self.pixels[1:] * with_solid_out
        true = self.true[:-1] * with_other_out + self.true[1:] * with_solid_out
        with np.errstate(invalid="ignore"):
            return pixels, true / pixels, self.pixels[1:] * with_solid_out / pixels

    def error(self, unsure: bool = False) -> float:
        """Expected calibration error: mean difference of the two shares, 0 is best. unsure: of the pixels alone in
        which the draws do not agree. What fools it: where most pixels are surely not solid, it is low whatever is said
        of the others; there, and of who only knows how much is solid, nothing is asked but to be right on average.
        """
        pixels, true, drawn = (values[1:-1] if unsure else values for values in self.curve())
        there = pixels > 0
        if not there.any():
            return float("nan")
        return float(np.average(np.abs(true - drawn)[there], weights=pixels[there]))


@dataclass
class Draws:
    """Open draws of a scan, and what is gathered of them slice by slice."""

    tallies: dict[str, Tally]
    solid: Reliability

    @classmethod
    def of(cls, number: int, labelled: bool) -> Draws:
        """Nothing yet, of so many draws."""
        groups = [LUNG, POOLED, *([tissue.name.lower() for tissue in TISSUES] if labelled else [])]
        return cls({group: Tally(number) for group in groups}, Reliability(number))

    def add(self, draws: np.ndarray, truth: np.ndarray, lung: np.ndarray, labels: np.ndarray | None) -> None:
        """Count in a slice: draws [draws, rows, columns] and truth [rows, columns], HU; lung: the mask on clinical
        pixels; labels: `Tissue` [rows, columns].
        """
        scale = truth.shape[0] // lung.shape[0]
        for first in range(0, lung.shape[0], BAND):
            clinical = lung[first : first + BAND] != 0
            if not clinical.any() and labels is None:
                continue
            rows = slice(scale * first, scale * (first + BAND))
            inside = magnify(clinical, scale)
            tissues = np.zeros(inside.shape, np.uint8) if labels is None else labels[rows]
            asked = inside | (tissues != Tissue.OUTSIDE)
            seen, true = draws[:, rows][:, asked], truth[rows][asked]
            judged, own = judge(seen, true), inside[asked]
            self.tallies[LUNG].add(judged, own)
            for tissue in TISSUES if labels is not None else ():
                self.tallies[tissue.name.lower()].add(judged, tissues[asked] == tissue)
            solid = np.count_nonzero(seen > SOLID_HU, axis=0)
            self.solid.add(solid[own], (true > SOLID_HU)[own])
            means = [average_pool(image, scale)[..., clinical] for image in (draws[:, rows], truth[rows])]
            self.tallies[POOLED].add(judge(*means), np.ones(means[1].shape, bool))

    def rows(self) -> list[tables.Row]:
        """The rows of the protocol."""
        lung, pooled = self.tallies[LUNG], self.tallies[POOLED]
        found = [
            (PROTOCOL, "coverage_90_ideal", ideal_coverage(self.solid.draws), "1"),
            (PROTOCOL, "coverage_90", lung.coverage(), "1"),
            (PROTOCOL, "coverage_90_pooled", pooled.coverage(), "1"),
            (PROTOCOL, "spread_skill", lung.spread_skill(), "1"),
            (PROTOCOL, "spread_skill_pooled", pooled.spread_skill(), "1"),
            (PROTOCOL, "rank_unevenness", lung.unevenness(), "1"),
            (PROTOCOL, "rank_unevenness_pooled", pooled.unevenness(), "1"),
            (PROTOCOL, "crps", lung.crps(), "HU"),
            (PROTOCOL, "crps_pooled", pooled.crps(), "HU"),
            (PROTOCOL, "solid_calibration_error", self.solid.error(), "1"),
            (PROTOCOL, "solid_calibration_error_unsure", self.solid.error(unsure=True), "1"),
        ]
        for tissue, tally in self.tallies.items():
            if tissue not in (LUNG, POOLED):
                found.append((PROTOCOL, f"coverage_90_{tissue}", tally.coverage(), "1"))
                found.append((PROTOCOL, f"spread_skill_{tissue}", tally.spread_skill(), "1"))
                found.append((PROTOCOL, f"crps_{tissue}", tally.crps(), "HU"))
        return found

    def curves(self, names: tables.Names) -> pd.DataFrame:
        """The table of curves, as CURVES says."""
        number = self.solid.draws
        found = []
        for group, tally in self.tallies.items():
            facts = 1 / (number + 1), tally.pixels
            found += [(*names, "rank", group, rank, share, *facts) for rank, share in enumerate(tally.ranks)]
        for solid, (pixels, true, drawn) in enumerate(zip(*self.solid.curve(), strict=True)):
            found.append((*names, "solid", LUNG, solid / (number - 1), true, drawn, pixels))
        return pd.DataFrame(found, columns=CURVES)


def evaluate(
    names: tables.Names, draws: list[Path], clinical: Path, truth: Path, output: Path, labels: Path | None = None
) -> None:
    """Write the table of the protocol and, as <output stem>.curves.csv, the curves.

    draws: HU, of the same slices of one scan, each a draw of its own. clinical: the scan, with the lung mask. truth:
    HU, and labels: `Tissue`, on the draws' grid, every clinical slice.

    Raises
    ------
    UserError
        There are fewer than two draws; one is another image, holds other slices, or does not overlay; no lung is in
        the slices.
    """
    started = time.time()
    volumes = [open_volume(path) for path in draws]
    held = [str(volume.attributes.get("holds")) for volume in volumes]
    if len(held) < 2 or len(set(held)) < len(held) or not all(what.startswith("draw") for what in held):
        raise UserError(
            f"--draws {' '.join(map(str, draws))}: needs two or more different draws, but they hold {', '.join(held)}; "
            "give those that microsr superresolve --draws 16 --keep 16 writes beside their mean"
        )
    ct, true = open_volume(clinical), open_volume(truth)
    mask = alignment.where_known(open_mask(clinical), truth)
    tissues = None if labels is None else open_volume(labels)
    slices = alignment.held_slices(volumes[0], draws[0], ct, clinical)
    for volume, path in zip(volumes, draws, strict=True):
        alignment.check_unit(volume, path)
        if alignment.held_slices(volume, path, ct, clinical) != slices:
            raise UserError(f"{path} holds other slices than {draws[0]} ({slices}); super-resolve the same ones")
        alignment.check_input(volume, path, ct, clinical, slices)
    for volume, path, unit in ((true, truth, "HU"), (tissues, labels, "label")):
        if volume is not None:
            alignment.check_unit(volume, path, unit)
            alignment.check_overlay(volumes[0], draws[0], volume, volume.shape, path, slices)

    gathered = Draws.of(len(draws), tissues is not None)
    progress = Progress(len(slices), "slices")
    for i, z in enumerate(slices):
        images = np.stack([np.asarray(volume.array[i]) for volume in volumes])
        own = None if tissues is None else np.asarray(tissues.array[z])
        gathered.add(images, np.asarray(true.array[z]), np.asarray(mask[z]), own)
        progress.advance()
    progress.close()
    if not gathered.tallies[LUNG].pixels:
        raise UserError(f"{draws[0]}: no lung in its slices {slices}; choose others with superresolve.slices")
    tables.write_table(output, names, gathered.rows())
    curves = output.with_suffix(".curves.csv")
    write_csv(curves, gathered.curves(names), float_format="%.6g")
    inputs = [*draws, clinical, truth, *([labels] if labels else [])]
    write_run([output, curves], "evaluate.uncertainty", {}, inputs, started, slices=slices, draws=len(draws))


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr evaluate uncertainty`, without those that every protocol has."""
    parser.add_argument("--draws", required=True, nargs="+", type=Path, help="draws of one scan (OME-Zarr)")
    parser.add_argument("--clinical", required=True, type=Path, help="the scan (OME-Zarr with the lung mask)")
    parser.add_argument("--truth", required=True, type=Path, help="truth on the draws' grid (OME-Zarr)")
    parser.add_argument("--labels", type=Path, help="tissue labels on the truth's grid (OME-Zarr): metrics by tissue")


def run(ns: argparse.Namespace) -> None:
    """Run the protocol from its command line."""
    names = (ns.case, ns.method, ns.training_set, ns.seed)
    evaluate(names, ns.draws, ns.clinical, ns.truth, ns.output, ns.labels)
