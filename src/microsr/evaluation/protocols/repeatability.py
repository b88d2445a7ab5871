"""Protocol `repeatability`: the super-resolved CTs of two scans of one lung should agree; what differs came from noise
or kernel.

In: the super-resolved volumes of both scans (fresh noise, or two reconstruction kernels) and the mask. Out: how
far they disagree in HU, in texture, and in structures that only one of them shows. Needs no truth, so it works on
patients.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_filter, label
from scipy.ndimage import sum as label_sum
from skimage.morphology import skeletonize

from microsr.core.errors import UserError
from microsr.core.progress import Progress
from microsr.core.provenance import write_run
from microsr.evaluation import metrics, tables
from microsr.physics.moments import Moments
from microsr.physics.pooling import average_pool
from microsr.volume import alignment
from microsr.volume.storage import open_mask, open_volume

PROTOCOL = "repeatability"
TEXTURE_SIGMA = 3.0
"""Gaussian, pixels, at half strength at the clinical Nyquist limit (1/16 cycles per pixel): what it removes is no
texture.
"""
STRUCTURE_SIGMA = 1.0
"""Walls and lumens are looked for after this smoothing, pixels: single bright or dark pixels are neither."""
WALL_HU = -500.0
"""Walls, septa and vessels are above: half way between air and soft tissue."""
WALL_REACH = 2.0
"""A wall in the other image within this many pixels (0.16 mm at 0.078 mm) is the same wall."""
LUMEN_HU, FAINT_LUMEN_HU = -950.0, -900.0
"""Lumens are below the first; in the other image, below the second is enough to count as there."""
LUMEN_PIXELS = 12
"""Smallest lumen, a disc 4 pixels wide: 0.31 mm at 0.078 mm, about the last airway (0.34 mm) and above alveoli (0.2
mm).
"""
HALF_WIDTH = 1.645
"""Standard deviations on either side of a Gaussian's mean that hold 90 % of it."""
ROUNDING_VARIANCE = 1 / 12
"""Of values in whole HU: in air, draws may all be the same."""
LUMEN_OVERLAP = 0.5
"""A lumen of which less than this share is dark in the other image is in one only."""


@dataclass
class Counts:
    """Structures in each of the two images, and those of them that the other image lacks."""

    there: list[int] = field(default_factory=lambda: [0, 0])
    alone: list[int] = field(default_factory=lambda: [0, 0])

    def add(self, image: int, alone: np.ndarray) -> None:
        """Count the structures of one image (0 or 1); alone: bool, one each."""
        self.there[image] += int(alone.size)
        self.alone[image] += int(np.count_nonzero(alone))

    @property
    def share(self) -> float:
        """Mean over the images of the share that the other one lacks; an image without any is left out, NaN if both
        are.
        """
        shares = [a / n for a, n in zip(self.alone, self.there, strict=True) if n]
        return float(np.mean(shares)) if shares else float("nan")


def disagreement_rmse(differences: Moments) -> float:
    """Root mean square of one SR image minus the other, inside the lung, HU.

    Lower is better, 0 for a pair that is the same. The same number of the average-pooled images
    (`disagreement_pooled_rmse`) tells what of it a clinical scanner would see; its best value is that of the two inputs
    (`input_disagreement_rmse`), which is what noise alone makes. What fools it: an image without detail, as bicubic's,
    or one that ignores its input has little to disagree about; read it beside the spectrum and the consistency.
    """
    return float(np.sqrt(differences.mean_square)) if differences.number else float("nan")


def texture(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """What is finer than the clinical Nyquist limit, HU: the image minus its Gaussian mean (TEXTURE_SIGMA) inside the
    mask.

    Both [rows, columns]; 0 outside the mask, whose outside has no influence.
    """
    weights = gaussian_filter(inside.astype(np.float32), TEXTURE_SIGMA)
    mean = gaussian_filter(np.where(inside, image, 0).astype(np.float32), TEXTURE_SIGMA) / np.maximum(weights, 1e-6)
    return np.where(inside, image - mean, 0)


def texture_correlation(both: Moments, first: Moments, second: Moments) -> float:
    """Correlation of the two images' `texture`, from the moments of their product and of each; no unit.

    Higher is better: 1 for a pair that is the same, 0 for textures drawn independently. What fools it: a pattern that
    belongs to the network, as a checkerboard, is the same in both and counts as agreement; NaN without any texture.
    """
    scale = np.sqrt(first.mean_square * second.mean_square) if both.number else 0.0
    return float(both.mean / scale) if scale > 0 else float("nan")


def count_walls(pair: list[np.ndarray], inside: np.ndarray, counts: Counts) -> None:
    """Add one slice to `walls_in_one_only`: share of wall length in one image with no wall nearby in the other.

    pair: two images smoothed by STRUCTURE_SIGMA, HU. Walls are above WALL_HU (vessels too); their length is that of
    their skeletons, so that thick ones do not weigh more. Lower is better, 0 for a pair that is the same; chance, two
    unrelated lungs, gives about 0.8 to 0.9. What fools it: walls so dense that chance finds one within reach; images
    with no wall.
    """
    walls = [image > WALL_HU for image in pair]
    for i, (own, other) in enumerate([walls, walls[::-1]]):
        distance = distance_transform_edt(~other) if other.any() else np.full(own.shape, np.inf)
        counts.add(i, distance[skeletonize(own & inside)] > WALL_REACH)


def count_lumens(pair: list[np.ndarray], inside: np.ndarray, counts: Counts) -> None:
    """Add one slice to `lumens_in_one_only`: share of the lumens of one image that the other does not show.

    pair: as in `count_walls`. Lumens are connected regions below LUMEN_HU of at least LUMEN_PIXELS; the other image
    shows one if at least LUMEN_OVERLAP of it is below FAINT_LUMEN_HU. Lower is better, 0 for a pair that is the same.
    What fools it: emphysema and wide air spaces count as lumens; a handful of lumens, as in bicubic's, gives a number
    that is mostly chance.
    """
    for i, (own, other) in enumerate([pair, pair[::-1]]):
        regions, number = label((own < LUMEN_HU) & inside)
        index = np.arange(1, number + 1)
        area = label_sum(regions > 0, regions, index)
        shared = label_sum(other < FAINT_LUMEN_HU, regions, index)
        large = area >= LUMEN_PIXELS
        counts.add(i, shared[large] / area[large] < LUMEN_OVERLAP)


@dataclass
class Comparison:
    """What two SR images of one lung have and have not in common, gathered slice by slice."""

    is_lung: bool = True
    """Whether walls and lumens are told by their HU."""
    full: Moments = field(default_factory=Moments)
    pooled: Moments = field(default_factory=Moments)
    fine: Moments = field(default_factory=Moments)
    product: Moments = field(default_factory=Moments)
    textures: tuple[Moments, Moments] = field(default_factory=lambda: (Moments(), Moments()))
    walls: Counts = field(default_factory=Counts)
    lumens: Counts = field(default_factory=Counts)

    def add(self, first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> None:
        """Add one slice: two images in HU, [scale * rows, scale * columns], and its clinical mask [rows, columns].

        Structures are looked for one clinical pixel inside the mask's border: the chest wall there is in every image.
        """
        lung = np.asarray(mask) != 0
        scale = len(first) // len(lung)
        inside = metrics.magnify(lung, scale)
        pair = [np.asarray(image, np.float32) for image in (first, second)]
        self.full.add((pair[0] - pair[1])[inside])
        self.pooled.add(average_pool(pair[0] - pair[1], scale)[lung])
        details = [texture(image, inside)[inside] for image in pair]
        self.fine.add(details[0] - details[1])
        self.product.add(details[0] * details[1])
        for moments, detail in zip(self.textures, details, strict=True):
            moments.add(detail)
        if not self.is_lung:
            return
        smoothed = [gaussian_filter(image, STRUCTURE_SIGMA) for image in pair]
        core = binary_erosion(inside, iterations=scale)
        count_walls(smoothed, core, self.walls)
        count_lumens(smoothed, core, self.lumens)

    @property
    def correlation(self) -> float:
        """`texture_correlation` of the two images."""
        return texture_correlation(self.product, *self.textures)

    def rows(self) -> list[tables.Row]:
        """The rows of the protocol."""
        return [
            (PROTOCOL, "disagreement_rmse", disagreement_rmse(self.full), "HU"),
            (PROTOCOL, "disagreement_pooled_rmse", disagreement_rmse(self.pooled), "HU"),
            (PROTOCOL, "disagreement_texture_rmse", disagreement_rmse(self.fine), "HU"),
            (PROTOCOL, "texture_correlation", self.correlation, "1"),
            *self.structure_rows(),
        ]

    def structure_rows(self, alone: str | None = None) -> list[tables.Row]:
        """The rows of walls and lumens, of a further pair under its names; none where they are not looked for."""
        if not self.is_lung:
            return []
        if alone is None:
            return [
                (PROTOCOL, "walls_in_one_only", self.walls.share, "1"),
                (PROTOCOL, "lumens_in_one_only", self.lumens.share, "1"),
            ]
        return [
            (PROTOCOL, f"walls_in_one_only_{alone}", self.walls.share, "1"),
            (PROTOCOL, f"lumens_in_one_only_{alone}", self.lumens.share, "1"),
        ]


def agree(
    first: np.ndarray, second: np.ndarray, first_sd: np.ndarray, second_sd: np.ndarray, draws: float
) -> np.ndarray:
    """Where the means of two scans differ by no more than the draws of both promise: bool, the images' shape.

    first, second: means of so many draws, HU; first_sd, second_sd: the draws' SD. `means_agree` is its share. The
    difference of two means is that of their errors. Were these independent, 90 % would lie within 1.645 times the root
    of the sum of their variances; what neither scan shows is the same error in both, so an honest sampler has 90 % at
    least. Higher is better. What fools it: draws that are too unsure, or that ignore the scan, always agree.
    """
    variance = np.square(first_sd, dtype=float) + np.square(second_sd, dtype=float) + 2 * ROUNDING_VARIANCE
    return np.abs(np.asarray(first, float) - second) <= HALF_WIDTH * np.sqrt((1 + 1 / draws) * variance)


ALONE = ("redrawn", "rescanned")
"""What alone is new in a further pair, the draw or the scan, as in the names of its metrics."""


def evaluate(
    names: tables.Names,
    superresolved: Path,
    repeated: Path,
    clinical: Path,
    output: Path,
    repeated_clinical: Path | None = None,
    redrawn: Path | None = None,
    same_draw: Path | None = None,
    spreads: tuple[Path, Path] | None = None,
) -> None:
    """Write the table of the protocol.

    superresolved, repeated: HU, of the first and of the second scan, the same slices; of a method with random planes
    from draws of their own, as two scans of a patient have. clinical: the first scan, with its mask.
    repeated_clinical: the second scan; None: no row `input_disagreement_rmse`. redrawn: of the first scan, with the
    second one's draw; same_draw: of the second scan, with the first one's draw; None: no rows `..._redrawn` and
    `..._rescanned`. spreads: where the two images are means of draws, the SD of the draws of each scan; None: no row
    `means_agree`.

    Raises
    ------
    UserError
        A volume is not in HU, the volumes do not overlay, or nothing of the slices is inside the mask.
    """
    started = time.time()
    others = {"": repeated} | {key: path for key, path in zip(ALONE, (redrawn, same_draw), strict=True) if path}
    paths = [superresolved, *others.values(), *(spreads or ())]
    first, *volumes = (open_volume(path) for path in paths)
    ct, mask = open_volume(clinical), open_mask(clinical)
    for volume, path in zip([first, *volumes, ct], [*paths, clinical], strict=True):
        alignment.check_unit(volume, path)
    slices = alignment.held_slices(first, superresolved, ct, clinical)
    for volume, path in zip(volumes, paths[1:], strict=True):
        if alignment.held_slices(volume, path, ct, clinical) != slices:
            raise UserError(f"{path} holds other slices than {superresolved} ({slices}); super-resolve the same ones")
    for volume, path in zip([first, *volumes], paths, strict=True):
        alignment.check_input(volume, path, ct, clinical, slices)

    spread, agreeing = volumes[len(others) :], Moments()
    found, inputs = [Comparison(ct.is_lung) for _ in others], Moments()
    again = None if repeated_clinical is None else open_volume(repeated_clinical)
    if again is not None:
        alignment.check_overlay(ct, clinical, again, again.shape, repeated_clinical, list(range(ct.shape[0])))
    progress = Progress(len(slices), "slices")
    for i, z in enumerate(slices):
        lung = np.asarray(mask[z]) != 0
        image = np.asarray(first.array[i])
        for comparison, volume in zip(found, volumes, strict=False):  # the spreads are no images
            comparison.add(image, volume.array[i], lung)
        if spread:
            own, other = (np.asarray(volume.array[i], np.float32) for volume in spread)
            draws = first.attributes.get("draws", np.inf)
            within = agree(image, np.asarray(volumes[0].array[i]), own, other, draws)
            agreeing.add(within[metrics.magnify(lung, len(image) // len(lung))])
        if again is not None:
            inputs.add((np.asarray(ct.array[z], float) - np.asarray(again.array[z], float))[lung])
        progress.advance()
    progress.close()
    whole, *further = found
    if not whole.full.number:
        raise UserError(
            f"{superresolved}: nothing of its slices {slices} is inside the mask; choose others with "
            "superresolve.slices"
        )
    rows = whole.rows()
    for alone, comparison in zip(list(others)[1:], further, strict=True):
        rows += [
            (PROTOCOL, f"disagreement_rmse_{alone}", disagreement_rmse(comparison.full), "HU"),
            (PROTOCOL, f"texture_correlation_{alone}", comparison.correlation, "1"),
            *comparison.structure_rows(alone),
        ]
    if spread:
        rows.append((PROTOCOL, "means_agree", agreeing.mean, "1"))
    if again is not None:
        rows.append((PROTOCOL, "input_disagreement_rmse", disagreement_rmse(inputs), "HU"))
    tables.write_table(output, names, rows)
    inputs_of_run = [*paths, clinical, *([repeated_clinical] if repeated_clinical else [])]
    counted = {"walls": whole.walls.there, "lumens": whole.lumens.there}
    write_run(output, "evaluate.repeatability", {}, inputs_of_run, started, slices=slices, counted=counted)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr evaluate repeatability`, without those that every protocol has."""
    parser.add_argument(
        "--superresolved", required=True, type=Path, help="super-resolved CT of the first scan (OME-Zarr)"
    )
    parser.add_argument("--repeated", required=True, type=Path, help="super-resolved CT of the second scan (OME-Zarr)")
    parser.add_argument("--clinical", required=True, type=Path, help="the first scan (OME-Zarr with its mask)")
    parser.add_argument("--repeated_clinical", type=Path, help="the second scan; adds the disagreement of the inputs")
    parser.add_argument("--redrawn", type=Path, help="super-resolved CT of the first scan, with the second one's draw")
    parser.add_argument(
        "--same_draw", type=Path, help="super-resolved CT of the second scan, with the first one's draw"
    )
    parser.add_argument("--sd", type=Path, help="SD of the draws that --superresolved is the mean of")
    parser.add_argument("--repeated_sd", type=Path, help="the same of --repeated")


def run(ns: argparse.Namespace) -> None:
    """Run the protocol from its command line."""
    names = (ns.case, ns.method, ns.training_set, ns.seed)
    paths = (ns.superresolved, ns.repeated, ns.clinical, ns.output, ns.repeated_clinical, ns.redrawn, ns.same_draw)
    if (ns.sd is None) != (ns.repeated_sd is None):
        raise UserError("--sd and --repeated_sd go together: the SD of the draws of either scan; give both, or none")
    evaluate(names, *paths, spreads=(ns.sd, ns.repeated_sd) if ns.sd else None)
