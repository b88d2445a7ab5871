"""Where training patches were taken: the slices with most of them, how often each pixel was covered, and some of the
squares.

In: a volume with its mask and the index of its patches. Out: a figure.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from microsr import config
from microsr.core.errors import UserError
from microsr.figures.figure import Record
from microsr.figures.style import COLOURS, PAGE, bare, new_figure, orient_radiologically, save, scale_bar, styled
from microsr.physics.pooling import average_pool
from microsr.preprocessing.patch_files import read_index
from microsr.volume.storage import Volume, open_mask, open_volume

SLICES = 3
SQUARES = 6
PIXELS = 700
"""Most pixels of a panel along a side; larger slices are averaged by areas."""
COVERAGE = LinearSegmentedColormap.from_list(
    "coverage", [(0.94, 0.89, 0.26, 0.1), (0.95, 0.66, 0.0, 0.5), (0.84, 0.30, 0.0, 0.7)]
)


def make_patches(volume: Path, index: Path, output: Path, settings: config.Figures | None = None) -> list[int]:
    """Write the picture of where patches were taken and return the slices drawn.

    volume: in the working format, with a mask. index: the patches' .csv (case, modality, slice, row, column, size).
    output: path without extension. settings: its display window counts.
    """
    window = (settings or config.Figures()).display_window_hu
    table = read_index(index)
    source, mask = open_volume(volume), open_mask(volume)
    ends = (table["slice"] + 1, table["row"] + table["size"], table["column"] + table["size"])
    if any(end.max() > limit for end, limit in zip(ends, source.shape, strict=True)):
        raise UserError(f"{index} lists patches beyond {volume}; give the volume that they were taken from")
    chosen = fullest_slices(table)
    save(draw_patches(source, mask, table, chosen, window), output)
    return chosen


def fullest_slices(table: pd.DataFrame, number: int = SLICES) -> list[int]:
    """The slices with most patches, at most `number`, in anatomical order; of equals the first."""
    counts = table["slice"].value_counts().sort_index()
    return sorted(int(z) for z in counts.sort_values(ascending=False, kind="stable").index[:number])


def coverage(table: pd.DataFrame, shape: tuple[int, int]) -> np.ndarray:
    """How many of the patches in `table` hold each pixel of a slice, [rows, columns]."""
    change = np.zeros((shape[0] + 1, shape[1] + 1), np.int64)
    top, left = table["row"].to_numpy(), table["column"].to_numpy()
    bottom, right = top + table["size"].to_numpy(), left + table["size"].to_numpy()
    for rows, columns, sign in ((top, left, 1), (bottom, right, 1), (top, right, -1), (bottom, left, -1)):
        np.add.at(change, (rows, columns), sign)
    return change.cumsum(0).cumsum(1)[:-1, :-1]


@styled
def draw_patches(
    volume: Volume, mask: np.ndarray, table: pd.DataFrame, slices: list[int], window: tuple[float, float]
) -> Figure:
    """Draw the given slices, grey in `window` (HU), with mask outline, coverage, centres of all patches and a few of
    the squares; axes in mm.
    """
    edge, gap, heading, foot = 0.04, 0.06, 0.42, 0.5
    side = (PAGE - 2 * edge - gap * (SLICES - 1)) / SLICES
    rows, columns = volume.shape[1:]
    x, y = volume.spacing[:2]
    panel = min(side * rows * y / (columns * x), 1.6 * side)
    height = heading + panel + foot
    figure = new_figure(PAGE, height)
    first = table.iloc[0]
    unit = "uCT" if first["modality"] == "micro" else "clinical CT"
    figure.text(
        edge / PAGE, 1 - 0.05 / height,
        f"Case {first['case']}, {unit}: {len(table)} patches of {first['size']}×{first['size']} pixels "
        f"({first['size'] * x:.3g} mm) from {table['slice'].nunique()} slices",
        fontsize=8, fontweight="bold", va="top",
    )  # fmt: skip
    layers = [coverage(table[table["slice"] == z], (rows, columns)) for z in slices]
    most = max(int(layer.max()) for layer in layers)
    factor = -(-max(rows, columns) // PIXELS)
    for place, (z, layer) in enumerate(zip(slices, layers, strict=True)):
        box = ((edge + place * (side + gap)) / PAGE, foot / height, side / PAGE, panel / height)
        axes = figure.add_axes(box, aspect="equal")
        here = table[table["slice"] == z]
        shape = (rows // factor * factor, columns // factor * factor)
        extent = (0, shape[1] * x, shape[0] * y, 0)
        grey = average_pool(np.asarray(volume.array[z], np.float32), factor)
        axes.imshow(grey, cmap="gray", vmin=window[0], vmax=window[1], extent=extent)
        heat = axes.imshow(
            np.ma.masked_equal(average_pool(layer, factor), 0), cmap=COVERAGE, vmin=0, vmax=most, extent=extent
        )
        inside = average_pool((np.asarray(mask[z]) > 0).astype(np.float32), factor)
        if inside.min() < 0.5 < inside.max():
            ys, xs = ((np.arange(n) + 0.5) * factor * p for n, p in zip(inside.shape, (y, x), strict=True))
            axes.contour(xs, ys, inside, levels=[0.5], colors=[COLOURS[5]], linewidths=0.8)
        half = here["size"] / 2
        axes.plot(
            (here["column"] + half) * x,
            (here["row"] + half) * y,
            ".",
            color="white",
            markersize=1.2,
            markeredgewidth=0,
            alpha=0.8,
        )
        for _, patch in here.iloc[:: -(-len(here) // SQUARES)].iterrows():
            corner = (patch["column"] * x, patch["row"] * y)
            axes.add_patch(
                Rectangle(corner, patch["size"] * x, patch["size"] * y, fill=False, edgecolor="white", linewidth=0.7)
            )
        axes.set_title(f"slice {z}: {len(here)} patches", loc="left", pad=3)
        orient_radiologically(axes, volume.direction)
        scale_bar(axes, columns * x)
        bare(axes)
    _key(figure, heat, height, edge)
    return figure


def _key(figure: Figure, heat, height: float, edge: float) -> None:
    axes = figure.add_axes(((edge + 0.02) / PAGE, 0.24 / height, 1.6 / PAGE, 0.09 / height), facecolor="#777777")
    bar = figure.colorbar(heat, cax=axes, orientation="horizontal")
    bar.outline.set_linewidth(0.5)
    bar.ax.xaxis.get_major_locator().set_params(integer=True)
    figure.text((edge + 1.75) / PAGE, 0.285 / height, "patches over a pixel", fontsize=6.5, va="center")
    figure.text(
        1 - edge / PAGE, 0.285 / height, "blue line: mask   white squares: some of the patches   dots: centres of all",
        fontsize=6.5, va="center", ha="right",
    )  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr figures patches`."""
    parser.add_argument("--volume", required=True, type=Path, help="volume with its mask (OME-Zarr)")
    parser.add_argument("--index", required=True, type=Path, help="index of its patches (.csv)")
    config.add_flags(parser, config.Figures, without=["slice", "insets"])


def draw(ns: argparse.Namespace) -> Record:
    """Draw the figure from its command line."""
    settings = config.from_flags(ns, config.Figures)
    slices = make_patches(ns.volume, ns.index, ns.output, settings)
    return Record(
        {"display_window_hu": settings.display_window_hu},
        [ns.volume, ns.index],
        {"slices": slices, "slices_read": {ns.volume: slices}},
    )
