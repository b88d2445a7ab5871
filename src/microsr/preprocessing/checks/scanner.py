"""The scanner, measured on clinical CTs before any training: noise, its grain and streaks, and the slice profile.

In: clinical CTs, and what the settings say of the scanner. Out: a table, from which a training may take the noise, and
a plain warning where the two disagree. Lung and soft tissue are looked at apart, in each what is even
(`physics.noise_power`): structure only adds to noise, so where lung shows much more than soft tissue does, soft tissue
is believed.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from microsr import config
from microsr.config.sheet import Scan
from microsr.core.errors import UserError
from microsr.core.files import write_csv
from microsr.core.progress import logger
from microsr.core.provenance import write_run
from microsr.formats.readers import read_scan
from microsr.physics.noise_power import FEWEST_OF_SPECTRUM, NoisePower, measure
from microsr.physics.scanner import KERNELS
from microsr.preprocessing.hounsfield import clinical_hu
from microsr.preprocessing.masks import lung_mask
from microsr.preprocessing.patch_files import SCANNER_COLUMNS
from microsr.preprocessing.plausible import check_clinical
from microsr.volume.alignment import open_clinical
from microsr.volume.slices import Slices
from microsr.volume.storage import Volume, is_volume, open_mask

if TYPE_CHECKING:
    import pandas as pd

PAIRS = 24
"""Pairs of neighbouring slices that are looked at, evenly over the scan."""
SOFT_HU = (-100.0, 200.0)
"""Soft tissue, smoothed: fat to muscle and blood."""
STRUCTURE = 1.15
"""Lung that shows more noise than soft tissue by this factor shows structure."""
NOISE_LIMIT = 1.25
"""Largest ratio, either way, of the noise that is measured and the one that is stated."""
PROFILE_LIMIT = 1.5
"""The same of the slice profiles."""
PIXEL_LIMIT = 1.15
"""The same of the pixel sizes."""
STREAKS_LIMIT = 1.15
"""Noise whose grains are longer than wide by this factor has a direction."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Command-line arguments of the step."""
    parser.add_argument(
        "scans", nargs="+", type=Path, metavar="SCAN", help="clinical CT: an imported volume, or any readable scan"
    )
    parser.add_argument("--output", required=True, type=Path, help="table (.csv)")
    parser.add_argument("--series", help="DICOM SeriesInstanceUID, if there are several")
    parser.add_argument("--used", default="stated", choices=("stated", "measured"), help="noise that is trained with")
    config.add_flags(parser, config.Scanner)


def main(ns: argparse.Namespace) -> None:
    """Run the step from its command line."""
    measure_scanner(ns.scans, ns.output, config.from_flags(ns, config.Scanner), ns.used == "measured", ns.series)


def measure_scanner(
    scans: Sequence[Path], output: Path, stated: config.Scanner, measured_used: bool = False, series: str | None = None
) -> pd.DataFrame:
    """Measure the scanner of clinical CTs, write the table and say plainly where the settings disagree with it.

    scans: imported volumes with their lung masks, or readable scans. output: tidy .csv with SCANNER_COLUMNS. region:
    lung, soft_tissue; noise, which of the two is believed; stated, what the settings say. quantity: sd, sd_low and
    sd_high (HU; 10th and 90th percentile over places), pixels, correlation (of neighbouring slices), streaks (length
    over width), direction (degrees), mtf50 (lp/cm, of the kernel with such noise), slice_sigma (mm), pixel (mm), and
    of the noise power (HU^2; x, y: cycles per pixel along and down), which, as mtf50, takes FEWEST_OF_SPECTRUM pixels.
    What cannot be measured is left out. measured_used: whether trainings take the measured noise.

    Raises
    ------
    UserError
        A scan cannot be read with certainty, or is no chest CT in HU.
    """
    started, rows, found = time.time(), [], {}
    for path in scans:
        name, volume, mask = _open(path, series)
        name = name if name not in found else str(path)
        regions = measure_regions(volume, mask)
        chosen = believe(regions)
        found[name] = Found(volume, chosen, regions["soft_tissue"] is not None)
        for region, noise in {**regions, "noise": chosen}.items():
            if noise is not None:
                rows += _rows(name, region, noise, volume)
        rows.append((name, "noise", "pixel", math.nan, math.nan, volume.spacing[0], "mm"))
    rows += [
        ("", "stated", quantity, math.nan, math.nan, value, unit) for quantity, value, unit in _list_stated(stated)
    ]
    import pandas as pd  # only here, as in `tables`

    table = pd.DataFrame(rows, columns=SCANNER_COLUMNS)
    write_csv(output, table, float_format="%.6g")
    advice = disagreements(found, stated, measured_used)
    report(found, advice)
    write_run(
        output, step="scanner", settings=stated.model_dump(mode="json") | {"used": measured_used}, inputs=list(scans),
        started=started, agree=not advice,
    )  # fmt: skip
    return table


class Found(NamedTuple):
    """What was found of a scan."""

    volume: Volume
    noise: NoisePower | None
    """None: it cannot be measured."""
    sure: bool
    """Whether soft tissue tells that it is no structure of the lung; if not, the noise is at most this."""


def _open(path: Path, series: str | None) -> tuple[str, Volume, Any]:
    """Name, volume in HU and lung mask of a clinical CT."""
    if is_volume(path):
        volume = open_clinical(path)
        return volume.attributes.get("case") or path.name, volume, open_mask(path)
    volume = read_scan(Scan(path=str(path), series=series))
    check_clinical(volume, str(path))
    volume = clinical_hu(volume, str(path))
    try:
        return path.name, volume, lung_mask(volume.array, volume.spacing, config.ClinicalVolume(), volume.array.padding)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def measure_regions(volume: Volume, mask: np.ndarray | Slices) -> dict[str, NoisePower | None]:
    """The noise in lung and in soft tissue of a clinical CT, HU; None where there is too little that is even.

    mask: [slices, rows, columns], non-zero in the lung.
    """
    last = volume.shape[0] - 1
    chosen = np.unique(np.linspace(0, last - 1, min(last, PAIRS)).round().astype(int)) if last else []
    pairs = [tuple(np.asarray(volume.array[int(z + k)], np.float32) for k in (0, 1)) for z in chosen]
    lungs = [np.logical_and(*(np.asarray(mask[int(z + k)]) != 0 for k in (0, 1))) for z in chosen]

    def soft(number: int, smooth: np.ndarray) -> np.ndarray:
        return (smooth > SOFT_HU[0]) & (smooth < SOFT_HU[1]) & ~lungs[number]

    regions: dict[str, Callable] = {"lung": lambda number, _: lungs[number], "soft_tissue": soft}
    return {name: measure(pairs, region) if pairs else None for name, region in regions.items()}


def believe(regions: dict[str, NoisePower | None]) -> NoisePower | None:
    """The noise of the lung, unless soft tissue tells that it is structure as well; None: neither is known."""
    lung, soft = regions["lung"], regions["soft_tissue"]
    if lung is None or soft is None:
        return lung or soft
    return lung if lung.sd <= STRUCTURE * soft.sd else soft


def _rows(name: str, region: str, noise: NoisePower, volume: Volume) -> list[tuple]:
    streaks, direction = noise.streaks
    values = [
        ("sd", noise.sd, "HU"), ("sd_low", noise.local[0], "HU"), ("sd_high", noise.local[1], "HU"),
        ("pixels", noise.pixels, ""), ("correlation", noise.correlation, ""),
        ("slice_sigma", noise.slice_sigma_mm(volume.spacing[2]), "mm"),
    ]  # fmt: skip
    known = noise.pixels >= FEWEST_OF_SPECTRUM
    if known:
        values += [("streaks", streaks, "length/width"), ("direction", direction, "degrees")]
        values += [("mtf50", noise.mtf50(volume.spacing[0]), "lp/cm")]
    rows = [(name, region, q, math.nan, math.nan, value, unit) for q, value, unit in values if value is not None]
    if known and region == "noise":
        step = np.fft.fftfreq(len(noise.power))
        rows += [
            (name, region, "power", along, down, noise.power[i, j], "HU^2")
            for i, down in enumerate(step)
            for j, along in enumerate(step)
        ]
    return rows


def _list_stated(stated: config.Scanner) -> list[tuple[str, float, str]]:
    return [
        ("sd", stated.noise_hu, "HU"), ("slice_sigma", stated.slice_sigma_mm, "mm"),
        ("mtf50", KERNELS[stated.kernel].mtf50, "lp/cm"), ("pixel", stated.pixel_mm, "mm"),
    ]  # fmt: skip


def disagreements(found: Mapping[str, Found], stated: config.Scanner, measured_used: bool) -> list[tuple[str, str]]:
    """In what the settings disagree with the scans, taken together, and what to set instead.

    measured_used: whether trainings take the measured noise, so that what is
    stated of it does not matter to them.
    """
    known = [(one.volume, one.noise) for one in found.values() if one.noise is not None]
    sure = all(one.sure for one in found.values() if one.noise is not None)
    pixel = float(np.mean([one.volume.spacing[0] for one in found.values()]))
    told = []
    if not _near(pixel, stated.pixel_mm, PIXEL_LIMIT):
        told.append((f"pixels of {pixel:.3g} mm, not {stated.pixel_mm:g}", f"scanner.pixel_mm: {pixel:.3g}"))
    if not known:
        return told
    sigmas = [noise.slice_sigma_mm(volume.spacing[2]) for volume, noise in known]
    sigma = float(np.mean([s for s in sigmas if s])) if any(sigmas) else None
    if sigma and not _near(sigma, stated.slice_sigma_mm, PROFILE_LIMIT):
        told.append(
            (f"slice profile of sigma {sigma:.2g} mm, not {stated.slice_sigma_mm:g}",
             f"scanner.slice_sigma_mm: {sigma:.2g}")
        )  # fmt: skip
    if measured_used:
        return told
    sd = math.sqrt(np.mean([noise.sd**2 for _, noise in known]))
    if not _near(sd, stated.noise_hu, NOISE_LIMIT) and (sure or sd < stated.noise_hu):
        told.append((f"noise of {sd:.0f} HU, not {stated.noise_hu:g}", f"scanner.noise_hu: {sd:.0f}"))
    shaped = [(volume, noise) for volume, noise in known if sure and noise.pixels >= FEWEST_OF_SPECTRUM]
    kernels = [_nearest(noise.mtf50(volume.spacing[0])) for volume, noise in shaped]
    if kernels and stated.kernel not in kernels:
        told.append((f"noise as fine as kernel {kernels[0]}'s, not {stated.kernel}'s", f"scanner.kernel: {kernels[0]}"))
    longest = max((noise.streaks for _, noise in shaped), default=(1.0, 0.0))
    if longest[0] > STREAKS_LIMIT:
        told.append(
            (f"noise drawn out {longest[0]:.2f} times, at {longest[1]:.0f} degrees to the rows, where round noise is "
             "trained with", "methods.<name>.noise: measured, of methods that learn from pairs")
        )  # fmt: skip
    return told


def _nearest(mtf50: float) -> str:
    """The named kernel that is most like one of this mtf50, lp/cm."""
    return min(KERNELS, key=lambda name: abs(math.log(mtf50 / KERNELS[name].mtf50)))


def _near(value: float, other: float, limit: float) -> bool:
    return other > 0 and 1 / limit <= value / other <= limit


def report(found: Mapping[str, Found], advice: list[tuple[str, str]]) -> None:
    """Say in a line what each scan's noise is, and in another where the settings disagree."""
    for name, (_, noise, sure) in found.items():
        if noise is None:
            logger.warning("%s: its noise cannot be measured: there is too little even lung or soft tissue in it", name)
        else:
            low, high = noise.local
            most = "" if sure else ", at most: there is no soft tissue to tell it from the lung's structure"
            logger.info("%s: noise of %.0f HU (%.0f to %.0f over places)%s", name, noise.sd, low, high, most)
    if advice:
        logger.warning(
            "the scans show another scanner than the settings: %s. A network takes noise that it was not trained with "
            "for structure. Set %s.",
            "; ".join(what for what, _ in advice), "; ".join(cure for _, cure in advice),
        )  # fmt: skip
