"""The report's tables of metrics: which rows, in which words, and which method has the best mean. In: summary.csv, metrics' means.

What each metric means and what fools it is told at length in docs/metrics.md; here is a sentence of it for each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from microsr.csv_files import read_rows
from microsr.figure_metrics import BETTER, HEADLINE
from microsr.figure_style import method_name, method_rank
from microsr.summary import GROUP

HIGHER, LOWER, ZERO = "higher", "lower", "zero"
WORDS = {HIGHER: "↑ higher is better", LOWER: "↓ lower is better", ZERO: "nearer to 0 is better"}
PROTOCOLS = {
    "no_reference": (
        "Without a reference",
        "Does the image fit its own input, and does its texture look like uCT? Read the consistency first: an image that does "
        "not give its input back is another patient's. Then the spectrum and the histogram: without uCT's texture, an image is "
        "only magnified.",
    ),
    "truth": (
        "Against the truth",
        "Is what the image shows there? Only a simulated case can say. PSNR and SSIM prefer a blur to any texture that is not in "
        "its exact place, so they rank bicubic interpolation high; structures found, lost and invented matter more.",
    ),
    "downsampled": (
        "Down-sampled uCT",
        "Does a method give back a uCT that was made coarse? The input is easier than any patient's scan (no blur of a scanner, "
        "no noise), so read these numbers as an upper bound.",
    ),
    "distribution": (
        "Distribution of texture",
        "Does the texture belong to uCT, as a network that names lung tissue sees it? It asks for the kind of texture, not for "
        "its place: any other lung would score nearly as well. Nobody can get below the floor, the distance between two halves "
        "of the uCT.",
    ),
    "repeatability": (
        "Two scans of one lung",
        "Does a second scan of the same lung give the same image? Walls and lumens that only one of the two images has are made "
        "of noise. Low values mean something only beside a good spectrum: a grey image repeats itself perfectly.",
    ),
}
"""Title of each protocol, and how to read it."""
METRICS: dict[tuple[str, str], tuple[str, str | None, str]] = {
    ("no_reference", "consistency_rmse"): (
        "Fit to the input", None,
        "Averaged back to clinical pixels, minus the scan. Best: the scan's noise; below it, noise is kept.",
    ),
    ("no_reference", "consistency_psf_rmse"): (
        "Fit when scanned again", None, "Scanned by the known scanner again, minus the scan. Best: the scan's noise."
    ),
    ("no_reference", "mean_shift"): ("Shift of the mean", ZERO, "Of the lung, against the scan. Bright and dark regions cancel."),
    ("no_reference", "spectrum_distance"): (
        "Spectrum", LOWER, "Distance to uCT in the strength of fine texture, wherever it is. Noise shaped like uCT gets 0."
    ),
    ("no_reference", "histogram_distance"): (
        "Histogram", LOWER, "Distance to uCT in which HU there are, wherever they are. Shuffled pixels get 0."
    ),
    ("no_reference", "checkerboard"): ("Checkerboard", None, "A pattern with the period of a clinical pixel. Best: 0 to 0.2."),
    ("no_reference", "texture_in_vessels"): ("Grain in vessels", None, "Texture where none should be. Best: the uCT's own."),
    ("no_reference", "texture_in_airways"): ("Grain in airways", None, "Texture where none should be. Best: the uCT's own."),
    ("distribution", "kernel_distance_tissue_features"): (
        "Kernel distance", LOWER, "To uCT, in the kind of texture as a network sees it. Any lung's texture scores well."
    ),
    ("distribution", "frechet_distance_tissue_features"): (
        "Fréchet distance", LOWER, "To uCT, as the kernel distance; depends on the number of windows."
    ),
    ("distribution", "kernel_distance_tissue_features_floor"): ("Kernel distance, floor", None, "Between two halves of the uCT."),
    ("distribution", "frechet_distance_tissue_features_floor"): ("Fréchet distance, floor", None, "Between two halves of the uCT."),
    ("truth", "psnr"): ("PSNR", HIGHER, "Pixel by pixel against the truth. Rewards blur."),
    ("truth", "ssim"): ("SSIM", HIGHER, "Likeness of small windows to the truth. Rewards blur."),
    ("truth", "ms_ssim"): ("MS-SSIM", HIGHER, "SSIM at several scales; the coarse ones weigh most. Rewards blur."),
    ("truth", "rmse"): ("Root mean square error", LOWER, "Pixel by pixel against the truth. Rewards blur."),
    ("truth", "measured_rmse"): ("Error that the scan could prevent", LOWER, "What the scanner measures. Noise that is kept counts."),
    ("truth", "null_rmse"): ("Error that no scan could prevent", LOWER, "What the scanner cannot see: texture there is invented."),
    ("truth", "bronchiole_detected"): (
        "Bronchioles found", HIGHER, "Share of airways seen, mean over diameters. A ring drawn where airways tend to be counts."
    ),
    ("truth", "smallest_bronchiole"): (
        "Smallest bronchiole", LOWER, "Lumen from which on 90 % are detected. None: never."
    ),
    ("truth", "small_lost"): ("Structures lost", LOWER, "Share of solid structures from 0.7 mm, vessels mostly, that are gone."),
    ("truth", "small_invented"): ("Structures invented", LOWER, "Share of those in the image that the truth does not have."),
    ("truth", "wall_error_um"): ("Error of airway walls", LOWER, "Inner border, median. Half of the rays may find no wall at all."),
    ("truth", "tumour_border_error_um"): ("Error of the tumour's border", LOWER, "In the slice's plane; 2000 if the tumour is gone."),
    ("truth", "lesions_lost"): ("Solid objects lost", LOWER, "Those that a 3 mm ball fits into. 0 of few proves little."),
    ("truth", "lesions_invented"): ("Solid objects invented", LOWER, "Those that a 3 mm ball fits into. 0 of few proves little."),
    ("downsampled", "psnr"): ("PSNR", HIGHER, "Against the uCT. Rewards blur; the uCT's own noise bounds it."),
    ("downsampled", "rmse"): ("Root mean square error", LOWER, "Against the uCT. Rewards blur; the uCT's own noise bounds it."),
    ("downsampled", "ssim"): ("SSIM", HIGHER, "Likeness of small windows to the uCT. Rewards blur."),
    ("downsampled", "ms_ssim"): ("MS-SSIM", HIGHER, "SSIM at several scales. Rewards blur."),
    ("repeatability", "disagreement_rmse"): ("Two scans differ by", LOWER, "The images of two scans of one lung. Images without detail agree."),
    ("repeatability", "disagreement_pooled_rmse"): (
        "Disagreement after averaging", None, "Best: near the input's own; more is noise made stronger, far less is input ignored."
    ),
    ("repeatability", "disagreement_texture_rmse"): ("Disagreement of fine texture", LOWER, "Images without detail agree."),
    ("repeatability", "input_disagreement_rmse"): ("Disagreement of the two inputs", None, "What the scans themselves differ by."),
    ("repeatability", "texture_correlation"): ("Correlation of fine texture", HIGHER, "A network's own pattern is in both images."),
    ("repeatability", "walls_in_one_only"): ("Walls in one image only", LOWER, "Unrelated lungs: 0.8 to 0.9. Images with few walls get low values."),
    ("repeatability", "lumens_in_one_only"): ("Lumens in one image only", LOWER, "A handful of lumens is chance."),
}  # fmt: skip
"""Of each metric: its name for people, which way is better (None: the best value is another one, in the sentence), how to read it."""


@dataclass(frozen=True)
class Cell:
    """A method's mean, its 95 % interval ("" without one), and whether it is the best mean of its row."""

    mean: str
    interval: str
    best: bool


@dataclass(frozen=True)
class Row:
    """A metric: its name for people and in the tables, unit ("" if it has none), direction, how to read it, a cell for each method."""

    name: str
    key: str
    protocol: str
    unit: str
    better: str
    sentence: str
    cells: list[Cell]


@dataclass(frozen=True)
class Table:
    """Metrics of the models of one training set, and of what is not trained."""

    training_set: str
    methods: list[str]
    rows: list[Row]
    seeds: int
    cases: int


def read_summary(path: Path) -> pd.DataFrame:
    """The table of `microsr evaluate summarise`.

    Raises
    ------
    UserError
        The file is no such table.
    """
    columns = [*GROUP, "mean", "low", "high", "seeds", "cases", "undefined"]
    names = dict.fromkeys(GROUP, str)
    how = {"dtype": names, "keep_default_na": False, "na_values": {key: [""] for key in ("mean", "low", "high")}}
    return read_rows(path, columns, "no summary of metrics", "microsr evaluate summarise", **how)


def tables(summary: pd.DataFrame, protocol: str | None = None) -> list[Table]:
    """A table for each training set: of the metrics that matter most (protocol None), or of all of one protocol."""
    trained = [name for name in dict.fromkeys(summary["training_set"]) if name != "none"] or ["none"]
    found = []
    for training_set in trained:
        shown = summary[summary["training_set"].isin([training_set, "none"])]
        methods = sorted(shown["method"].unique(), key=method_rank)
        if protocol is None:
            keys = list(HEADLINE)
        else:
            keys = [(protocol, metric) for metric in dict.fromkeys(shown.loc[shown["protocol"] == protocol, "metric"])]
        rows = [row for key in keys if (row := _row(shown, key, methods)) is not None]
        if rows:
            names = [method_name(method) for method in methods]
            found.append(Table(training_set, names, rows, int(shown["seeds"].max()), int(shown["cases"].max())))
    return found


def _row(shown: pd.DataFrame, key: tuple[str, str], methods: list[str]) -> Row | None:
    own = shown[(shown["protocol"] == key[0]) & (shown["metric"] == key[1])].set_index("method")
    if own.empty:
        return None
    name, better, sentence = _described(*key)
    means = {method: float(own.loc[method, "mean"]) for method in methods if method in own.index}
    best = _best(means, better)
    cells = []
    for method in methods:
        if method not in means:
            cells.append(Cell("–", "", False))
            continue
        low, high = float(own.loc[method, "low"]), float(own.loc[method, "high"])
        span = f"{_number(low)} to {_number(high)}" if math.isfinite(low) and math.isfinite(high) else ""
        cells.append(Cell(_number(means[method]), span, method in best))
    unit = own["unit"].iloc[0]
    unit = {"1": "", "count": "", "um": "µm"}.get(unit, unit)
    return Row(name, key[1], key[0], unit, WORDS.get(better or "", ""), sentence, cells)


def _described(protocol: str, metric: str) -> tuple[str, str | None, str]:
    """Name, direction and sentence; of a metric that is one of a family (a tissue, a range of diameters) the family's."""
    if (protocol, metric) in METRICS:
        return METRICS[protocol, metric]
    family = max(
        (known for p, known in METRICS if p == protocol and metric.startswith(f"{known}_")), key=len, default=None
    )
    if family is not None and not metric.startswith("smallest_bronchiole"):
        name, better, _ = METRICS[protocol, family]
        return f"{name}, {metric.removeprefix(f'{family}_').replace('_', ' ')}", better, ""
    if metric.startswith("smallest_bronchiole"):
        return f"Smallest bronchiole, {metric.rpartition('_')[2]} end of the interval", LOWER, ""
    words = next((words for name, words in BETTER.items() if metric.startswith(name)), "")
    better = ZERO if "0" in words else HIGHER if "higher" in words else LOWER
    return metric.replace("_", " ").capitalize(), better, ""


def _best(means: dict[str, float], better: str | None) -> set[str]:
    """The methods whose mean is best, as it is written; none where that cannot be said, or where all are the same."""
    measure = {HIGHER: lambda v: -v, LOWER: lambda v: v, ZERO: abs}.get(better or "")
    finite = {method: float(f"{mean:.3g}") for method, mean in means.items() if math.isfinite(mean)}
    if measure is None or len(set(finite.values())) < 2:
        return set()
    least = min(map(measure, finite.values()))
    return {method for method, mean in finite.items() if measure(mean) == least}


def _number(value: float) -> str:
    """Three digits, with a true minus sign; an undefined value is none."""
    if not math.isfinite(value):
        return "none"
    text = f"{value:.0f}" if abs(value) >= 1000 or value == 0 else f"{value:#.3g}".removesuffix(".")
    return text.replace("-", "−")
