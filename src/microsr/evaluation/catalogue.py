"""Every metric, once: name, unit, protocol, what is best, and what fools it. Figures, tables, the report and
docs/metrics.md read it.

How a metric is computed is told where it is computed. A metric that is not here is refused when the tables are put
together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from microsr.core.errors import UserError


class Best(Enum):
    """Which value of a metric is best."""

    HIGHER = "↑ higher is better"
    LOWER = "↓ lower is better"
    ZERO = "nearer to 0 is better"
    TRUTH = "nearest to the truth's score"
    """The truth itself does not get 0, and to get less is a fault too. Of a patient its score is not known, so no
    method is marked as the best."""
    DOWN_TO_TRUTH = "↓ down to the truth's score"
    """A distance to something that the truth is not; what is below the truth's score is as good as the truth."""
    IDEAL = "nearest to its ideal"
    """A number that is known, or that a row of its own gives: less is a fault as more is."""
    NONE = "a reference, no score"
    """It is no method's; others are read beside it."""


CANDIDATES = {
    "blurred": "the truth, blurred",
    "shifted": "the truth, shifted by half a clinical pixel",
    "other_lung": "another lung's truth",
    "linear": "the best linear estimate",
    "nearest": "nearest neighbour",
    "noise_texture": "bicubic with noise for texture",
    "checkerboard": "the truth with a checkerboard",
    "planted_airways": "the truth with planted airways",
    "removed_airways": "the truth without its airways",
    "planted_nodules": "the truth with planted nodules",
    "removed_nodules": "the truth without vessels and tumour",
}
"""Images that are not the truth, by which metrics are tested (`evaluation.validation`), in words."""


@dataclass(frozen=True)
class Protocol:
    """A way of testing: its name in the tables; a few words for a panel; a title, and how to read its numbers."""

    key: str
    short: str
    title: str
    reading: str


@dataclass(frozen=True)
class Metric:
    """A metric: protocol and name in the tables, name for people, unit, what is best, what it is, and what fools it.

    key: may hold a word in brackets for a family's members, as `rmse_<tissue>`. unit: "1" for a share, "count" for a
    number of things.
    never: whether it is infinite where something is never reached; then medians over cases and seeds are taken.
    ideal: of Best.IDEAL, its best value, or the metric of the same protocol that gives it.
    sees, blind: of CANDIDATES those that it ranks worse than the truth, and those that it does not; of the others
    nothing is said. They hold for every member of a family that is measured.
    """

    protocol: str
    key: str
    name: str
    unit: str
    best: Best
    about: str
    fooled: str
    never: bool = False
    ideal: float | str = float("nan")
    sees: tuple[str, ...] = ()
    blind: tuple[str, ...] = ()

    @property
    def better(self) -> str:
        """Which values are better, in words."""
        return self.best.value

    @property
    def sentence(self) -> str:
        """What it is and what fools it."""
        return f"{self.about} {self.fooled}"


PROTOCOLS = (
    Protocol(
        "no_reference",
        "no reference",
        "Without a reference",
        "Does the image fit its own input, and does its texture look like uCT? Read the consistency first: an image "
        "whose scan is further from the given one than the truth's is another patient's, one that is nearer has kept "
        "the noise. Then the spectrum and the histogram: without uCT's texture, an image is only magnified.",
    ),
    Protocol(
        "truth",
        "against the truth",
        "Against the truth",
        "Is what the image shows there? Only a simulated case can say. PSNR and SSIM prefer a blur to any texture that "
        "is not in its exact place, so they rank bicubic interpolation high; structures found, lost and invented "
        "matter more. The truth is a thin slice in the middle of each clinical one, or, where a metric's name says "
        "thick, the mean over the slice profile.",
    ),
    Protocol(
        "downsampled",
        "down-sampled uCT",
        "Down-sampled uCT",
        "Does a method give back a uCT that was made coarse? The input is easier than any patient's scan (no blur of a "
        "scanner, no noise), so read these numbers as an upper bound.",
    ),
    Protocol(
        "distribution",
        "distribution",
        "Distribution of texture",
        "Does the texture belong to uCT, as a network that names lung tissue sees it? It asks for the kind of texture, "
        "not for its place: any other lung would score nearly as well. Nobody can get below the floor, the distance "
        "between two halves of the uCT.",
    ),
    Protocol(
        "repeatability",
        "two scans",
        "Two scans of one lung",
        "Does a second scan of the same lung, with random planes of its own, give the same image? Walls and lumens "
        "that only one of the two images has "
        "are made of noise. Low values mean something only beside a good spectrum: a grey image repeats itself "
        "perfectly.",
    ),
    Protocol(
        "uncertainty",
        "uncertainty",
        "Uncertainty of the draws",
        "Can the spread of a sampler's draws be believed? Of every pixel the truth should be like one draw more, and "
        "then each number here is at its ideal but for chance, however few the draws are. Read the tissues one by one: "
        "what is too sure of one cancels what is too unsure of another. It says nothing of how good the images are: "
        "draws that ignore the scan, but are as different as lungs are, are at the ideal too, and have a bad CRPS.",
    ),
)

METRICS = (
    Metric(
        "no_reference", "consistency_rmse", "Fit to the input", "HU", Best.TRUTH,
        "Averaged back to clinical pixels, minus the scan: the truth differs from its scan too, by noise, blur and "
        "thinner slices.",
        "Nearest-neighbour up-sampling gets 0, and keeping the scan's noise gets below the truth.",
        sees=(
            "blurred", "shifted", "other_lung", "linear", "nearest", "removed_airways", "planted_nodules",
            "removed_nodules",
        ),
        blind=("checkerboard",),
    ),
    Metric(
        "no_reference", "consistency_scan_rmse", "Fit when scanned again", "HU", Best.TRUTH,
        "Scanned again (kernel, sampling, slice profile), minus the scan: the truth differs by the scan's noise.",
        "Nearest neighbour happens to be near the truth, explaining the noise gets below it, a wrong kernel shifts "
        "all.",
        sees=("shifted", "other_lung", "linear", "removed_airways", "planted_nodules", "removed_nodules"),
        blind=("checkerboard",),
    ),
    Metric(
        "no_reference", "mean_shift", "Shift of the mean", "HU", Best.ZERO,
        "Mean of the lung, minus that of the scan.",
        "Regions that are too bright and too dark cancel.",
        sees=("removed_airways", "planted_nodules", "removed_nodules"),
        blind=("linear", "nearest", "noise_texture", "checkerboard"),
    ),
    Metric(
        "no_reference", "spectrum_distance", "Spectrum", "log10 power", Best.DOWN_TO_TRUTH,
        "Distance to uCT in the strength of texture above the clinical Nyquist limit, wherever it is.",
        "Noise shaped like uCT gets 0, and the uCT's own noise is part of the aim.",
        sees=("blurred", "linear", "nearest"),
        blind=("shifted", "other_lung", "noise_texture", "checkerboard", "planted_airways", "planted_nodules"),
    ),
    Metric(
        "no_reference", "histogram_distance", "Histogram", "HU", Best.DOWN_TO_TRUTH,
        "Distance to uCT in which HU there are (Wasserstein-1), wherever they are.",
        "Shuffled pixels get 0, and a specimen may be inflated otherwise than the patient.",
        sees=("blurred", "linear", "nearest", "noise_texture", "removed_nodules"),
        blind=("other_lung",),
    ),
    Metric(
        "no_reference", "checkerboard", "Checkerboard", "log10 ratio", Best.DOWN_TO_TRUTH,
        "Power at multiples of 1 / scale cycles per pixel above that around them: a pattern with the period of a "
        "clinical pixel.",
        "A pattern that changes with the image hides; by chance it is up to 0.2.",
        sees=("linear", "checkerboard"),
        blind=("blurred", "shifted", "noise_texture", "planted_airways", "removed_airways", "planted_nodules"),
    ),
    Metric(
        "no_reference", "texture_in_vessels", "Grain in vessels", "HU", Best.TRUTH,
        "Texture where the scan shows solid tissue, which has no more of it than the uCT has noise.",
        "Smooth images get 0, and air spaces of a tumour are real.",
        sees=("blurred", "shifted", "other_lung", "nearest", "noise_texture", "checkerboard", "removed_nodules"),
        blind=("planted_airways", "removed_airways", "planted_nodules"),
    ),
    Metric(
        "no_reference", "texture_in_airways", "Grain in airways", "HU", Best.TRUTH,
        "Texture where the scan shows air, which has no more of it than the uCT has noise.",
        "Smooth images get 0, and emphysema has walls.",
    ),
    Metric(
        "truth", "psnr", "PSNR", "dB", Best.HIGHER,
        "Pixel by pixel, over the data range of the settings.",
        "Blur is rewarded, and doubling the range adds 6 dB.",
        sees=(
            "blurred", "shifted", "other_lung", "linear", "nearest", "noise_texture", "checkerboard",
            "planted_airways", "removed_airways", "planted_nodules", "removed_nodules",
        ),
    ),
    Metric(
        "truth", "ssim", "SSIM", "1", Best.HIGHER,
        "Likeness of small windows.",
        "Blur is rewarded, and a wide data range makes flat tissue alike.",
        sees=(
            "blurred", "shifted", "other_lung", "linear", "nearest", "noise_texture", "checkerboard",
            "removed_airways", "planted_nodules", "removed_nodules",
        ),
    ),
    Metric(
        "truth", "ms_ssim", "MS-SSIM", "1", Best.HIGHER,
        "SSIM at several scales.",
        "Blur is rewarded, and the coarse scales weigh most.",
        sees=(
            "blurred", "shifted", "other_lung", "linear", "nearest", "noise_texture", "removed_airways",
            "planted_nodules", "removed_nodules",
        ),
        blind=("checkerboard",),
    ),
    Metric(
        "truth", "psnr_thick", "PSNR, thick truth", "dB", Best.HIGHER,
        "Against the truth averaged over the slice profile: what is left to recover in-plane.",
        "Blur is rewarded, and the thin truth itself is not at the top.",
        sees=(
            "shifted", "other_lung", "noise_texture", "checkerboard", "planted_airways", "removed_airways",
            "planted_nodules", "removed_nodules",
        ),
        blind=("blurred", "linear", "nearest"),
    ),
    Metric(
        "truth", "ssim_thick", "SSIM, thick truth", "1", Best.HIGHER,
        "Likeness of small windows to the truth averaged over the slice profile.",
        "Blur is rewarded, and the thin truth itself is not at the top.",
        sees=(
            "shifted", "other_lung", "nearest", "noise_texture", "checkerboard", "removed_airways", "planted_nodules",
            "removed_nodules",
        ),
        blind=("blurred",),
    ),
    Metric(
        "truth", "rmse_<tissue>", "RMS error", "HU", Best.LOWER,
        "Pixel by pixel in one tissue.",
        "Blur is rewarded, and rare tissues have few pixels.",
        sees=(
            "blurred", "shifted", "other_lung", "linear", "nearest", "noise_texture", "checkerboard",
            "removed_airways", "removed_nodules",
        ),
    ),
    Metric(
        "truth", "ssim_<tissue>", "SSIM", "1", Best.HIGHER,
        "Likeness of small windows in one tissue.",
        "Blur is rewarded, and rare tissues have few pixels.",
        sees=("blurred", "shifted", "other_lung", "linear", "nearest", "noise_texture", "removed_nodules"),
    ),
    Metric(
        "truth", "measured_rmse", "Error that the scan could prevent", "HU", Best.LOWER,
        "The part of the error that lies in what the scanner measures.",
        "Noise taken over from the scan counts as a mistake, and so does what neighbouring slices add to the scan.",
        sees=(
            "blurred", "shifted", "other_lung", "linear", "nearest", "noise_texture", "planted_airways",
            "removed_airways", "planted_nodules", "removed_nodules",
        ),
        blind=("checkerboard",),
    ),
    Metric(
        "truth", "null_rmse", "Error that no scan could prevent", "HU", Best.LOWER,
        "The part of the error that lies in what the scanner cannot see.",
        "Without any texture it is the truth's own content, and texture out of place costs more than none.",
        sees=(
            "blurred", "shifted", "other_lung", "linear", "nearest", "noise_texture", "checkerboard",
            "planted_airways", "removed_airways", "planted_nodules", "removed_nodules",
        ),
    ),
    Metric(
        "truth", "bronchiole_detected", "Bronchioles found", "1", Best.HIGHER,
        "Share of airways that are detected, mean over the diameters below.",
        "A ring drawn where airways use to be is a ring, and one that is invented elsewhere is not counted.",
        sees=("blurred", "shifted", "other_lung", "linear", "nearest", "noise_texture", "removed_airways"),
        blind=("checkerboard", "planted_airways", "planted_nodules"),
    ),
    Metric(
        "truth", "bronchiole_detected_<from>-<to>", "Bronchioles found", "1", Best.HIGHER,
        "Share of airways that are detected, of those with a lumen of so many mm.",
        "A ring drawn where airways use to be is a ring, and one that is invented elsewhere is not counted.",
        sees=("blurred", "other_lung", "linear", "nearest", "noise_texture", "removed_airways"),
        blind=("checkerboard", "planted_airways", "planted_nodules"),
    ),
    Metric(
        "truth", "smallest_bronchiole", "Smallest bronchiole", "mm", Best.LOWER,
        "Lumen from which on 90 % are detected; never counts as infinite, so medians are taken.",
        "With few airways the interval is the finding.",
        never=True,
        sees=("blurred", "other_lung", "linear", "nearest", "noise_texture", "removed_airways"),
        blind=("checkerboard", "planted_airways", "planted_nodules"),
    ),
    Metric(
        "truth", "smallest_bronchiole_low", "Smallest bronchiole, low end of the interval", "mm", Best.LOWER,
        "2.5th percentile over bootstrap draws of the airways.",
        "With few airways it is wide.",
        never=True,
        sees=("blurred", "other_lung", "linear", "nearest", "noise_texture", "removed_airways"),
        blind=("checkerboard", "planted_airways", "planted_nodules"),
    ),
    Metric(
        "truth", "smallest_bronchiole_high", "Smallest bronchiole, high end of the interval", "mm", Best.LOWER,
        "97.5th percentile over bootstrap draws of the airways.",
        "With few airways it is wide.",
        never=True,
    ),
    Metric(
        "truth", "wall_error_um", "Error of airway walls", "um", Best.LOWER,
        "Distance of the walls' inner borders, median.",
        "Half of the rays may find no wall at all.",
        sees=("blurred", "shifted", "other_lung", "linear", "nearest", "noise_texture", "removed_airways"),
        blind=("checkerboard", "planted_airways", "planted_nodules", "removed_nodules"),
    ),
    Metric(
        "truth", "tumour_border_error_um", "Error of the tumour's border", "um", Best.LOWER,
        "Distance of the borders in the slice's plane; 2000 if the tumour is gone.",
        "Spicules below 0.15 mm do not count.",
        sees=("shifted", "other_lung", "linear", "nearest", "noise_texture", "removed_nodules"),
        blind=("checkerboard", "planted_airways", "planted_nodules"),
    ),
    Metric(
        "truth", "small_lost", "Structures lost", "1", Best.LOWER,
        "Share of the truth's solid structures 0.3 to 3 mm thick, vessels mostly, that the image lacks.",
        "One that is thinner by half its area counts as lost, and walls and septa are too thin to count.",
        sees=("blurred", "shifted", "other_lung", "linear", "nearest", "noise_texture", "removed_nodules"),
        blind=("checkerboard", "planted_airways", "planted_nodules"),
    ),
    Metric(
        "truth", "small_invented", "Structures invented", "1", Best.LOWER,
        "Share of the image's solid structures 0.3 to 3 mm thick that the truth lacks.",
        "One that is more than twice as large counts as invented, and dense texture hits something by chance.",
        sees=("shifted", "other_lung", "planted_nodules"),
        blind=("blurred", "checkerboard", "removed_airways", "removed_nodules"),
    ),
    Metric(
        "truth", "small_lost_<from>-<to>", "Structures lost", "1", Best.LOWER,
        "The same of structures so many mm thick; the thinnest are below a clinical pixel.",
        "One that is thinner by half its area counts as lost, and a vessel that tapers has several sizes.",
        sees=("other_lung", "removed_nodules"),
        blind=("checkerboard", "planted_airways", "planted_nodules"),
    ),
    Metric(
        "truth", "small_invented_<from>-<to>", "Structures invented", "1", Best.LOWER,
        "The same of structures so many mm thick; the thinnest are below a clinical pixel.",
        "One that is more than twice as large counts as invented, and dense texture hits something by chance.",
        sees=("other_lung",),
        blind=("blurred", "checkerboard", "removed_airways"),
    ),
    Metric(
        "truth", "airways_lost", "Airways lost", "1", Best.LOWER,
        "Share of the truth's airways, dark holes with a wall around, that the image lacks.",
        "Lumens below about 0.5 mm are not looked for, and one that is narrower by half its area counts as lost.",
        sees=("blurred", "shifted", "other_lung", "linear", "nearest", "noise_texture", "removed_airways"),
        blind=("checkerboard", "planted_airways", "planted_nodules"),
    ),
    Metric(
        "truth", "airways_invented", "Airways invented", "1", Best.LOWER,
        "Airways of the image, dark holes with a wall around, that the truth lacks, for each one of the truth.",
        "Lumens below about 0.5 mm are not looked for, and one that is more than twice as large counts as invented.",
        sees=("shifted", "other_lung", "planted_airways"),
        blind=("blurred", "linear", "nearest", "planted_nodules"),
    ),
    Metric(
        "truth", "lesions_lost", "Solid objects lost", "count", Best.LOWER,
        "Solid objects of the truth, into which a 3 mm ball fits, that the image lacks.",
        "Large vessels count, and 0 of few proves little.",
        sees=("removed_nodules",),
        blind=(
            "blurred", "shifted", "linear", "nearest", "noise_texture", "checkerboard", "planted_airways",
            "removed_airways", "planted_nodules",
        ),
    ),
    Metric(
        "truth", "lesions_invented", "Solid objects invented", "count", Best.LOWER,
        "Solid objects of the image, into which a 3 mm ball fits, that the truth lacks.",
        "Large vessels count, and 0 of few proves little.",
        sees=("planted_nodules",),
        blind=(
            "blurred", "shifted", "linear", "nearest", "noise_texture", "checkerboard", "planted_airways",
            "removed_airways", "removed_nodules",
        ),
    ),
    Metric(
        "downsampled", "psnr", "PSNR", "dB", Best.HIGHER,
        "Pixel by pixel against the uCT.",
        "Blur is rewarded, and the uCT's own noise, which nobody can restore, bounds it.",
    ),
    Metric(
        "downsampled", "rmse", "RMS error", "HU", Best.LOWER,
        "Pixel by pixel against the uCT.",
        "Blur is rewarded, and the uCT's own noise, which nobody can restore, bounds it.",
    ),
    Metric(
        "downsampled", "ssim", "SSIM", "1", Best.HIGHER,
        "Likeness of small windows to the uCT's.",
        "Blur is rewarded.",
    ),
    Metric(
        "downsampled", "ms_ssim", "MS-SSIM", "1", Best.HIGHER,
        "SSIM at several scales; none below 176 pixels.",
        "Blur is rewarded, and the coarse scales weigh most.",
    ),
    Metric(
        "distribution", "frechet_distance_tissue_features", "Fréchet distance", "1", Best.DOWN_TO_TRUTH,
        "To uCT, in the kind of texture as a network sees it; at best about its floor.",
        "Any other lung's texture scores nearly as well, and it depends on the number and the size of the windows "
        "(run.json).",
    ),
    Metric(
        "distribution", "frechet_distance_tissue_features_floor", "Fréchet distance, floor", "1", Best.NONE,
        "Between two halves of the uCT.",
        "A uCT of mixed tissue has a high one.",
    ),
    Metric(
        "distribution", "kernel_distance_tissue_features", "Kernel distance", "1", Best.DOWN_TO_TRUTH,
        "To uCT, in the kind of texture as a network sees it; at best about its floor.",
        "Any other lung's texture scores nearly as well, and by chance it may be negative.",
    ),
    Metric(
        "distribution", "kernel_distance_tissue_features_floor", "Kernel distance, floor", "1", Best.NONE,
        "Between two halves of the uCT.",
        "A uCT of mixed tissue has a high one.",
    ),
    Metric(
        "repeatability", "disagreement_rmse", "Two scans differ by", "HU", Best.LOWER,
        "The images of two scans of one lung, each with random planes of its own.",
        "Images without detail, and methods that ignore their input, agree.",
    ),
    Metric(
        "repeatability", "disagreement_pooled_rmse", "Disagreement after averaging", "HU", Best.LOWER,
        "The images of two scans, averaged back to clinical pixels; more than the scans differ by is noise made "
        "stronger.",
        "A method that ignores its input gets 0, as one would that removes all noise.",
    ),
    Metric(
        "repeatability", "disagreement_texture_rmse", "Disagreement of fine texture", "HU", Best.LOWER,
        "The images of two scans, above the clinical Nyquist limit.",
        "Images without detail, and methods that ignore their input, agree.",
    ),
    Metric(
        "repeatability", "input_disagreement_rmse", "Disagreement of the two inputs", "HU", Best.NONE,
        "What the scans themselves differ by: their noise, or their kernels.",
        "Scans that are not well aligned differ by more.",
    ),
    Metric(
        "repeatability", "texture_correlation", "Correlation of fine texture", "1", Best.HIGHER,
        "Of the images of two scans.",
        "A pattern of the network's own (a checkerboard) is in both, and bicubic has hardly any texture to correlate.",
    ),
    Metric(
        "repeatability", "walls_in_one_only", "Walls in one image only", "1", Best.LOWER,
        "Share of the length of bright structures (above -500 HU) with none within 2 pixels in the other image.",
        "Unrelated lungs have 0.8 to 0.9, less where walls are dense, and images with few walls have little.",
    ),
    Metric(
        "repeatability", "lumens_in_one_only", "Lumens in one image only", "1", Best.LOWER,
        "Share of the dark regions (below -950 HU, 12 pixels and more) that the other image does not show.",
        "Emphysema counts as lumens, and a handful of them is chance (run.json has the numbers).",
    ),
    Metric(
        "repeatability", "means_agree", "Means of two scans agree", "1", Best.HIGHER,
        "Share of the pixels in which the means of draws differ by no more than their 90 % intervals promise.",
        "Honest draws have 0.9 at least; draws that are too unsure, or ignore the scan, have 1.",
    ),
    Metric(
        "repeatability", "disagreement_rmse_<alone>", "Two scans differ by", "HU", Best.LOWER,
        "Redrawn: one scan and two draws of the random planes; rescanned: two scans and one draw.",
        "One draw for two scans hides what the draw invents, and images without detail agree.",
    ),
    Metric(
        "repeatability", "texture_correlation_<alone>", "Correlation of fine texture", "1", Best.HIGHER,
        "Redrawn: one scan and two draws of the random planes; rescanned: two scans and one draw.",
        "One draw for two scans is texture in common that no scan has.",
    ),
    Metric(
        "repeatability", "walls_in_one_only_<alone>", "Walls in one image only", "1", Best.LOWER,
        "Redrawn: one scan and two draws of the random planes; rescanned: two scans and one draw.",
        "One draw for two scans hides what the draw invents, and images with few walls have little.",
    ),
    Metric(
        "repeatability", "lumens_in_one_only_<alone>", "Lumens in one image only", "1", Best.LOWER,
        "Redrawn: one scan and two draws of the random planes; rescanned: two scans and one draw.",
        "One draw for two scans hides what the draw invents, and a handful of lumens is chance.",
    ),
    Metric(
        "uncertainty", "coverage_90_ideal", "Coverage, ideal", "1", Best.NONE,
        "Share of the truth that the interval should hold: 16 draws, whose interval is all of them, 15 of 17.",
        "It is 90 % only from 19 draws on.",
    ),
    Metric(
        "uncertainty", "coverage_90", "Coverage", "1", Best.IDEAL,
        "Share of the truth inside the draws' 90 % interval; less than the ideal is too sure.",
        "Too sure here and too unsure there cancel.",
        ideal="coverage_90_ideal",
    ),
    Metric(
        "uncertainty", "coverage_90_pooled", "Coverage of a clinical pixel", "1", Best.IDEAL,
        "The same of means over clinical pixels.",
        "Too sure here and too unsure there cancel.",
        ideal="coverage_90_ideal",
    ),
    Metric(
        "uncertainty", "coverage_90_<tissue>", "Coverage", "1", Best.IDEAL,
        "The same of one tissue's pixels.",
        "Where a tissue is cannot be known of a scan, so even an honest sampler is off where it is rare or extreme.",
        ideal="coverage_90_ideal",
    ),
    Metric(
        "uncertainty", "spread_skill", "Spread over skill", "1", Best.IDEAL,
        "SD of the draws over the error of their mean, for the number of draws; less than 1 is too sure.",
        "The most uncertain pixels weigh most.",
        ideal=1.0,
    ),
    Metric(
        "uncertainty", "spread_skill_pooled", "Spread over skill of a clinical pixel", "1", Best.IDEAL,
        "The same of means over clinical pixels.",
        "The most uncertain pixels weigh most.",
        ideal=1.0,
    ),
    Metric(
        "uncertainty", "spread_skill_<tissue>", "Spread over skill", "1", Best.IDEAL,
        "The same of one tissue's pixels.",
        "Where a tissue is cannot be known of a scan, so even an honest sampler is off where it is rare or extreme.",
        ideal=1.0,
    ),
    Metric(
        "uncertainty", "rank_unevenness", "Unevenness of ranks", "1", Best.LOWER,
        "Share of the pixels that had to change the truth's rank among the draws for all ranks to be as frequent.",
        "Parts that are too sure and too unsure cancel, and few pixels are uneven by chance.",
    ),
    Metric(
        "uncertainty", "rank_unevenness_pooled", "Unevenness of ranks of a clinical pixel", "1", Best.LOWER,
        "The same of means over clinical pixels.",
        "Parts that are too sure and too unsure cancel, and few pixels are uneven by chance.",
    ),
    Metric(
        "uncertainty", "crps", "CRPS", "HU", Best.LOWER,
        "Fair: mean error of the draws, less half of what they differ by.",
        "Pixel by pixel: independent noise of the right size is as good as anatomy.",
    ),
    Metric(
        "uncertainty", "crps_pooled", "CRPS of a clinical pixel", "HU", Best.LOWER,
        "The same of means over clinical pixels.",
        "It sees nothing of how fine structure is drawn.",
    ),
    Metric(
        "uncertainty", "crps_<tissue>", "CRPS", "HU", Best.LOWER,
        "The same of one tissue's pixels.",
        "Draws that favour a tissue everywhere do well where it is.",
    ),
    Metric(
        "uncertainty", "solid_calibration_error", "Calibration error of P(solid)", "1", Best.LOWER,
        "Mean difference between how often the truth and one draw more are above -300 HU, by P(solid) of the others.",
        "Most pixels are surely not solid, and are right.",
    ),
    Metric(
        "uncertainty", "solid_calibration_error_unsure", "Calibration error of P(solid), unsure", "1", Best.LOWER,
        "The same of the pixels in which the draws do not agree.",
        "It does not see what the draws agree on and have wrong.",
    ),
)  # fmt: skip

HEADLINE = (
    ("no_reference", "consistency_scan_rmse"),
    ("no_reference", "spectrum_distance"),
    ("distribution", "kernel_distance_tissue_features"),
    ("truth", "psnr"),
    ("truth", "ssim"),
    ("truth", "bronchiole_detected"),
    ("truth", "small_lost"),
    ("truth", "small_invented"),
    ("repeatability", "disagreement_rmse"),
    ("uncertainty", "coverage_90"),
    ("uncertainty", "spread_skill"),
)
"""The few that answer the question of the comparison, in their order."""


def find_protocol(key: str) -> Protocol:
    """The protocol of this name.

    Raises
    ------
    UserError
        There is none.
    """
    found = next((protocol for protocol in PROTOCOLS if protocol.key == key), None)
    if found is None:
        raise UserError(
            f"no protocol is called '{key}', but {', '.join(p.key for p in PROTOCOLS)}; make the tables again"
        )
    return found


def find_metric(protocol: str, key: str) -> Metric:
    """The metric of this name; a family's member as one of its own.

    Raises
    ------
    UserError
        There is none.
    """
    for metric in METRICS:
        if metric.protocol == protocol and (member := _member(metric.key, key)) is not None:
            return replace(metric, key=key, name=f"{metric.name}, {member}" if member else metric.name)
    raise UserError(
        f"the protocol '{protocol}' has no metric '{key}' that src/microsr/evaluation/catalogue.py describes; describe "
        "it there, or make the tables again"
    )


def check_metrics(rows: Iterable[tuple[str, str, str]]) -> None:
    """Refuse what is not described here. rows: protocol, name and unit of each metric.

    Raises
    ------
    UserError
        A metric is not described, or has another unit.
    """
    for protocol, key, unit in dict.fromkeys(rows):
        metric = find_metric(protocol, key)
        if unit != metric.unit:
            raise UserError(
                f"'{key}' of the protocol '{protocol}' is in '{unit}', not in '{metric.unit}'; make the tables again"
            )


def _member(pattern: str, key: str) -> str | None:
    """What a name has in the place of a family's brackets, "" for a metric of its own; None if it is another's."""
    words = re.sub(r"<\w+>", r"([a-z]+|\\d+(?:\\.\\d+)?)", re.escape(pattern))
    found = re.fullmatch(words, key)
    return None if found is None else "-".join(found.groups())
