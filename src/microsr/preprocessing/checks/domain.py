"""Domain check before any training: do clinical patches look like uCT patches averaged to the clinical pixel?

In: the training patches of both modalities. Out: a table of mean, SD, histogram and spectrum of both, their
differences, the limits and a verdict; and a plain warning. The paper's losses hold the pooled SR image to the input
(Zheng et al. 2020, l_downsample) while D1 holds the SR image to uCT: where the two domains disagree, both cannot be
had.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from microsr.config import nearest_scale
from microsr.core.errors import UserError
from microsr.core.files import write_csv
from microsr.core.progress import logger
from microsr.core.provenance import write_run
from microsr.physics.moments import Moments
from microsr.physics.pooling import average_pool
from microsr.physics.spectrum import mean_power, radial_power
from microsr.preprocessing.patch_files import open_patches

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["domain", "quantity", "x", "value", "unit"]
HISTOGRAM_EDGES_HU = np.arange(-1200, 4001, 25)
"""Histogram bins, HU; values beyond them count in the first and last."""

LUNG_WINDOW_HU = (-1000.0, 400.0)
"""What networks see of a lung."""
MEAN_LIMIT = 50.0 / 1400
"""Largest difference of the means, as a part of the window that networks see: of a lung 50 HU, 5 % of the step from air
to tissue. The losses hold the pooled SR image to the input's mean, so a generator must add or remove at least this much
tissue to please D1."""
SD_LIMIT = 1.5
"""Largest ratio of the SDs either way. Beyond it, structure of the one is as strong as structure and noise of the
other: measured on real lung, a ratio of 2.2 turned noise into walls that are not there."""
HISTOGRAM_LIMIT = 0.6
"""Smallest overlap of the histograms (1: the same). Two normal distributions at both limits above overlap by about
0.7, so this finds differences of shape: a peak that only one of them has."""
SPECTRUM_FROM = 0.25
"""Spectra are compared from here to 1/2 cycles per clinical pixel: what is two to four pixels wide, noise of the one
and fine structure of the other, can be taken for one another. Coarser parts differ by the vessels that a specimen
happens to have."""
SPECTRUM_LIMIT = 2 * math.log10(SD_LIMIT)
"""Largest mean absolute difference of log10 radial power there: what a ratio SD_LIMIT at every frequency gives."""
CHUNK = 64
"""Patches in memory at a time."""


@dataclass(frozen=True)
class Profile:
    """What the patches of one domain look like, on the clinical pixel.

    mean, sd: HU. histogram: share of pixels in each bin of HISTOGRAM_EDGES_HU. frequencies: cycles per clinical pixel;
    spectrum: log10 of the power per pixel, HU^2, at each.
    """

    mean: float
    sd: float
    histogram: np.ndarray
    frequencies: np.ndarray
    spectrum: np.ndarray


def arguments(parser: argparse.ArgumentParser) -> None:
    """Command-line arguments of the step."""
    parser.add_argument(
        "--clinical", required=True, nargs="+", type=Path, help="clinical patches (.npy), one file a case"
    )
    parser.add_argument("--micro", required=True, nargs="+", type=Path, help="uCT patches (.npy), one file a case")
    parser.add_argument("--output", required=True, type=Path, help="table (.csv)")
    parser.add_argument(
        "--window_hu", nargs=2, type=float, default=LUNG_WINDOW_HU, metavar=("LOW", "HIGH"),
        help="what networks see, HU: the limit of the means is a part of it (default: -1000 400, of a lung)",
    )  # fmt: skip


def main(ns: argparse.Namespace) -> None:
    """Run the step from its command line."""
    check(ns.clinical, ns.micro, ns.output, mean_limit(ns.window_hu))


def mean_limit(window_hu: Sequence[float]) -> float:
    """Largest difference of the means, HU, where networks see a window: lowest and highest HU."""
    return MEAN_LIMIT * (window_hu[1] - window_hu[0])


def check(
    clinical: list[Path], micro: list[Path], output: Path, limit_hu: float = mean_limit(LUNG_WINDOW_HU)
) -> pd.DataFrame:
    """Compare clinical patches with average-pooled uCT patches, write the table and say plainly if they disagree.

    clinical: .npy files of int16 HU [patch, size, size]; micro: [patch, scale * size, scale *
    size], the scale one of SCALES. output: tidy .csv with
    COLUMNS. Domains: clinical, pooled_micro, difference (pooled uCT against clinical), limit. Quantities: mean (HU), sd
    (HU; as a difference: ratio), histogram (x: bin centre in HU; as a difference: overlap), spectrum (x: cycles per
    clinical pixel; as a difference: mean absolute from SPECTRUM_FROM), and in domain `difference` the verdict, 1 for
    agreement and 0 for disagreement. limit_hu: of the means.

    Raises
    ------
    UserError
        A file holds no patches, or the sizes are in no ratio of SCALES.
    """
    started = time.time()
    sizes = {path: open_patches(path).shape[1] for path in [*clinical, *micro]}
    size = sizes[clinical[0]]
    scale = nearest_scale(sizes[micro[0]] / size)
    for path in [*clinical, *micro]:
        expected = size if path in clinical else scale * size
        if sizes[path] != expected:
            raise UserError(
                f"{path} has patches of {sizes[path]} pixels, {expected} expected beside {clinical[0]} ({size}); "
                f"make all patches with the same patches.clinical_size and patches.micro_size"
            )
    a = profile(chunk for path in clinical for chunk in _chunks(path))
    b = profile(average_pool(chunk, scale) for path in micro for chunk in _chunks(path))
    differences = compare(a, b)
    report(a, b, differences, limit_hu)
    table = _table(a, b, differences, limit_hu)
    write_csv(output, table, float_format="%.6g")
    write_run(
        output, step="domain", settings={"mean_limit_hu": limit_hu}, inputs=[*clinical, *micro], started=started,
        agree=not disagreeing(differences, limit_hu),
    )  # fmt: skip
    return table


def profile(chunks: Iterator[np.ndarray]) -> Profile:
    """Profile of patches [patch, size, size] in HU that arrive in chunks."""
    moments = Moments()
    counts = np.zeros(len(HISTOGRAM_EDGES_HU) - 1)

    def patches() -> Iterator[np.ndarray]:
        for chunk in chunks:
            moments.add(chunk)
            clipped = np.clip(chunk, HISTOGRAM_EDGES_HU[0], HISTOGRAM_EDGES_HU[-1])
            counts[:] += np.histogram(clipped, HISTOGRAM_EDGES_HU)[0]
            yield from chunk

    frequencies, spectrum = radial_power(mean_power(patches()))
    sd = math.sqrt(max(moments.mean_square - moments.mean**2, 0.0))
    return Profile(moments.mean, sd, counts / counts.sum(), frequencies, spectrum)


def compare(clinical: Profile, micro: Profile) -> dict[str, float]:
    """Pooled uCT against clinical: mean (difference, HU), sd (ratio), histogram (overlap), spectrum (mean absolute)."""
    fine = clinical.frequencies >= SPECTRUM_FROM
    return {
        "mean": micro.mean - clinical.mean,
        "sd": micro.sd / clinical.sd if clinical.sd else math.inf,
        "histogram": float(np.minimum(clinical.histogram, micro.histogram).sum()),
        "spectrum": float(np.mean(np.abs(micro.spectrum - clinical.spectrum)[fine])),
    }


def disagreeing(differences: dict[str, float], limit_hu: float = mean_limit(LUNG_WINDOW_HU)) -> list[str]:
    """The quantities of `compare` that are beyond their limits; limit_hu: of the means."""
    beyond = {
        "mean": abs(differences["mean"]) > limit_hu,
        "sd": not 1 / SD_LIMIT <= differences["sd"] <= SD_LIMIT,
        "histogram": differences["histogram"] < HISTOGRAM_LIMIT,
        "spectrum": differences["spectrum"] > SPECTRUM_LIMIT,
    }
    return [quantity for quantity, is_beyond in beyond.items() if is_beyond]


def report(
    clinical: Profile, micro: Profile, differences: dict[str, float], limit_hu: float = mean_limit(LUNG_WINDOW_HU)
) -> None:
    """Say in one line whether the domains agree; if not: in what, by how much, what it does and what to change.

    limit_hu: of the means.
    """
    mean, sd = differences["mean"], differences["sd"]
    fine = clinical.frequencies >= SPECTRUM_FROM
    power = float(np.mean((micro.spectrum - clinical.spectrum)[fine]))
    found = {
        "mean": f"mean {clinical.mean:.0f} against {micro.mean:.0f} HU ({mean:+.0f}, limit {limit_hu:.0f})",
        "sd": f"SD {clinical.sd:.0f} against {micro.sd:.0f} HU (ratio {sd:.2f}, "
        f"limits 1/{SD_LIMIT:g} and {SD_LIMIT:g})",
        "histogram": f"histograms overlap by {differences['histogram']:.2f} (limit {HISTOGRAM_LIMIT:g})",
        "spectrum": f"fine spectra by {differences['spectrum']:.2f} in log10 power (limit {SPECTRUM_LIMIT:.2f}), "
        f"uCT {'above' if power > 0 else 'below'} clinical",
    }
    beyond = disagreeing(differences, limit_hu)
    if not beyond:
        logger.info("clinical and pooled uCT patches agree: %s", "; ".join(found.values()))
        return
    logger.warning(
        "clinical and pooled uCT patches disagree: %s. "
        "A network trained across such a gap turns noise into structure. Change: %s.",
        "; ".join(found[quantity] for quantity in beyond),
        "; ".join(_advice(beyond, clinical, sd, power)),
    )


def _advice(beyond: list[str], clinical: Profile, sd: float, power: float) -> list[str]:
    """What to change. sd: ratio of the pooled uCT's to the clinical one. power: difference of the fine spectra, log10,
    above 0 where the uCT has more.
    """
    advice = []
    if "mean" in beyond:
        advice.append(f"volumes.micro.calibration.mean_hu, to {clinical.mean:.0f}")
    signs = {"sd": sd > 1, "spectrum": power > 0}
    found = {signs[quantity] for quantity in ("sd", "spectrum") if quantity in beyond}
    if len(found) == 2:
        advice.append(
            "volumes.micro.calibration first, until the SDs agree: the SD and the fine spectrum point in opposite ways"
        )
    elif found == {True}:
        advice.append(
            "native: volumes.micro.area_average, to more, so that the uCT's structure lies below a clinical pixel; "
            "matched: volumes.micro.calibration, as a tissue_grey that is too low stretches all values"
        )
    elif found == {False}:
        advice.append(
            "native: volumes.micro.area_average, to less; matched: volumes.micro.calibration, as a tissue_grey that is "
            "too high flattens all values; both: a softer kernel or a scan with less noise, if the clinical CT is noisy"
        )
    return advice or ["volumes.micro.calibration (method, tissue_hu), or the masks"]


def _table(clinical: Profile, micro: Profile, differences: dict[str, float], limit_hu: float) -> pd.DataFrame:
    rows: list[tuple[str, str, float | None, float, str]] = []
    centres = (HISTOGRAM_EDGES_HU[:-1] + HISTOGRAM_EDGES_HU[1:]) / 2
    for name, side in (("clinical", clinical), ("pooled_micro", micro)):
        rows += [(name, "mean", None, side.mean, "HU"), (name, "sd", None, side.sd, "HU")]
        rows += [(name, "histogram", x, v, "share") for x, v in zip(centres, side.histogram, strict=True)]
        rows += [(name, "spectrum", x, v, "log10 HU^2") for x, v in zip(side.frequencies, side.spectrum, strict=True)]
    units = {"mean": "HU", "sd": "ratio", "histogram": "overlap", "spectrum": "log10 ratio"}
    limits = {"mean": limit_hu, "sd": SD_LIMIT, "histogram": HISTOGRAM_LIMIT, "spectrum": SPECTRUM_LIMIT}
    for quantity, unit in units.items():
        rows.append(("difference", quantity, None, differences[quantity], unit))
        rows.append(("limit", quantity, None, limits[quantity], unit))
    rows.append(("difference", "verdict", None, float(not disagreeing(differences, limit_hu)), "1 = agree"))
    import pandas as pd  # only here, as in `tables`

    return pd.DataFrame(rows, columns=COLUMNS)


def _chunks(path: Path) -> Iterator[np.ndarray]:
    patches = open_patches(path)
    for start in range(0, len(patches), CHUNK):
        yield patches[start : start + CHUNK]
