"""What a sampler leaves open: three draws of a scan, and what all of them say together, beside the truth.

In: the clinical CT, a few draws, the volumes that `microsr superresolve --draws` writes of all of them, and the truth
where there is one. Out: a figure; for each field a row of images and a row of maps. The SD and the error of the mean
share one scale: an honest SD is large where the error is.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from microsr import config
from microsr.config import Inset
from microsr.figures.figure import Record
from microsr.figures.pictures.comparison import choose_slice, crop_inset, require_insets
from microsr.figures.style import (
    PAGE,
    SPREAD_COLOURS,
    SPREAD_HU,
    bare,
    colour_bar,
    fitting,
    grey_bar,
    new_figure,
    orient_radiologically,
    save,
    scale_bar,
    styled,
)
from microsr.physics.tissues import SOLID_HU
from microsr.volume.alignment import check_input, check_overlay, check_unit, held_slices
from microsr.volume.storage import Volume, open_mask, open_volume

SHARE_COLOURS = "cividis"
FIELDS = 2
"""At most so many are shown."""
MOST_DRAWS = 3


class Panel(NamedTuple):
    """An image [rows, columns], its title, and how its values are shown: "HU", "spread" (HU, from 0) or "share" (%)."""

    title: str
    image: np.ndarray
    shown: str = "HU"


def make_uncertainty(
    clinical: Path,
    mean: Path,
    sd: Path,
    solid: Path,
    draws: list[Path],
    settings: config.Figures,
    output: Path,
    truth: Path | None = None,
) -> dict[str, Any]:
    """Write the figure of one case and return the slice and the fields that it shows, and the slice read of each large
    volume.

    mean, sd, solid, draws: what `superresolve --draws` has written. truth: HU, on their grid, all clinical slices. The
    fields are those of settings.insets, or where the clinical CT has most structure. output: path without extension.

    Raises
    ------
    UserError
        The volumes do not belong together, or the lung has no room for a field.
    """
    ct, mask = open_volume(clinical), open_mask(clinical)
    paths = [mean, sd, solid, *draws[:MOST_DRAWS]]
    volumes = [open_volume(path) for path in paths]
    slices = {path: held_slices(volume, path, ct, clinical) for path, volume in zip(paths, volumes, strict=True)}
    for path, volume in zip(paths, volumes, strict=True):
        check_unit(volume, path, "%" if path == solid else "HU")
        check_input(volume, path, ct, clinical, slices[path])
    index = choose_slice(mask, slices, settings.slice)
    lung, pixels = np.asarray(mask[index]) > 0, np.asarray(ct.array[index], np.float32)
    insets = require_insets(settings.insets, pixels, lung, clinical, index)[:FIELDS]
    read = {path: volume.array[slices[path].index(index)] for path, volume in zip(paths, volumes, strict=True)}
    if truth is not None:
        true = open_volume(truth)
        check_unit(true, truth)
        check_overlay(volumes[0], mean, true, true.shape, truth, slices[mean])
        read[truth] = true.array[index]
    scale = volumes[0].shape[1] // ct.shape[1]
    count = volumes[0].attributes.get("draws", len(draws))
    rows = []
    for inset in insets:
        seen = crop_inset(pixels, inset, 1, str(inset))
        of = {path: crop_inset(image, inset, scale, str(inset)) for path, image in read.items()}
        known = None if truth is None else of[truth]
        rows += _rows(seen, {p.stem: of[p] for p in paths[3:]}, (of[mean], of[sd], of[solid]), known, count)
    save(draw_uncertainty(rows, insets, ct, settings.display_window_hu), output)
    drawn = {path: [held.index(index)] for path, held in slices.items()} | ({truth: [index]} if truth else {})
    return {"slice": index, "fields": [inset.model_dump() for inset in insets], "draws": count, "slices_read": drawn}


def _rows(
    clinical: np.ndarray,
    draws: dict[str, np.ndarray],
    summary: tuple[np.ndarray, np.ndarray, np.ndarray],
    truth: np.ndarray | None,
    count: int,
) -> list[list[Panel]]:
    """The two rows of a field. summary: mean, SD and P(solid) of `count` draws."""
    mean, sd, solid = summary
    images = [Panel("Clinical CT", clinical)]
    images += [Panel(f"Draw {number}", image) for number, image in enumerate(draws.values(), start=1)]
    maps = [Panel(f"Mean of {count}", mean), Panel("SD of the draws", sd, "spread")]
    if truth is None:
        return [images, [*maps, Panel("P(solid)", solid, "share")]]
    images.append(Panel("Truth", truth))
    maps.append(Panel("|mean − truth|", np.abs(mean - truth), "spread"))
    solid_truth = np.where(truth > SOLID_HU, 100.0, 0.0)
    return [images, [*maps, Panel("P(solid)", solid, "share"), Panel("Solid in truth", solid_truth, "share")]]


@styled
def draw_uncertainty(
    rows: list[list[Panel]], fields: list[Inset], volume: Volume, window: tuple[float, float]
) -> Figure:
    """Draw rows of panels, two for each field, and the three scales below them.

    volume: gives the clinical pixel size and the direction. window: HU, of the images.
    """
    edge, gap, head, foot, between = 0.04, 0.05, 0.19, 0.48, 0.1
    columns = max(map(len, rows))
    rest = foot + head * len(rows) + between * (len(fields) - 1)
    side = fitting((PAGE - 2 * edge - gap * (columns - 1)) / columns, rest, len(rows))
    height = rest + side * len(rows)
    figure = new_figure(PAGE, height)
    how = {
        "HU": ("gray", *window),
        "spread": (SPREAD_COLOURS, 0, SPREAD_HU),
        "share": (SHARE_COLOURS, 0, 100),
    }
    top = height
    for number, row in enumerate(rows):
        field = fields[number // 2]
        width = field.size * volume.spacing[0]
        top -= head + (between if number and number % 2 == 0 else 0)
        for column, panel in enumerate(row):
            left = edge + column * (side + gap)
            axes = figure.add_axes((left / PAGE, (top - side) / height, side / PAGE, side / height))
            colours, low, high = how[panel.shown]
            extent = (0, width, field.size * volume.spacing[1], 0)
            axes.imshow(
                panel.image, cmap=colours, vmin=low, vmax=high, interpolation="nearest", extent=extent, aspect="auto"
            )
            axes.set_title(panel.title, loc="left", pad=2)
            bare(axes)
            orient_radiologically(axes, volume.direction)
            if column == 0 and number % 2 == 0:
                scale_bar(axes, width)
        top -= side
    bar, space = (PAGE - 2 * edge - 0.6) / 3, 0.3

    def box(place: int) -> tuple[float, float, float, float]:
        return ((edge + place * (bar + space)) / PAGE, 0.17 / height, bar / PAGE, 0.08 / height)

    grey_bar(figure, box(0), window)
    colour_bar(figure, box(1), (0, SPREAD_HU), SPREAD_COLOURS, "SD, error (HU)")
    colour_bar(
        figure, box(2), (0, 100), SHARE_COLOURS, f"share of the draws above {SOLID_HU:g} HU (%)".replace("-", "−")
    )
    return figure


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr figures uncertainty`."""
    parser.add_argument("--clinical", required=True, type=Path, help="clinical CT with its lung mask (OME-Zarr)")
    parser.add_argument("--mean", required=True, type=Path, help="mean of the draws (OME-Zarr), as the following")
    parser.add_argument("--sd", required=True, type=Path, help="their standard deviation")
    parser.add_argument("--solid", required=True, type=Path, help="per cent of them above -300 HU")
    parser.add_argument("--draws", required=True, nargs="+", type=Path, help="draws, of which three are shown")
    parser.add_argument("--truth", type=Path, help="truth on the super-resolved grid (OME-Zarr)")
    config.add_flags(parser, config.Figures)


def draw(ns: argparse.Namespace) -> Record:
    """Draw the figure from its command line."""
    settings = config.from_flags(ns, config.Figures)
    draws = ns.draws[:MOST_DRAWS]
    shown = make_uncertainty(ns.clinical, ns.mean, ns.sd, ns.solid, draws, settings, ns.output, ns.truth)
    volumes = [ns.clinical, ns.mean, ns.sd, ns.solid, *draws, *([ns.truth] if ns.truth else [])]
    return Record(settings.model_dump(mode="json"), volumes, shown)
