"""Tiles that cannot be seen: a slice super-resolved tile by tile beside the same slice super-resolved in one piece.

In: a clinical CT with its lung mask, and trained generators; bicubic interpolation is always shown. Out: a figure with
a row for each method, and a table of the largest differences. For comparison, what a halo avoids: the same tiles, each
by itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from scipy.ndimage import uniform_filter

from microsr import config
from microsr.config import DEFAULT_SCALE, Figures
from microsr.core.errors import UserError
from microsr.core.files import write_csv
from microsr.evaluation.names import method_name
from microsr.figures.figure import Record
from microsr.figures.pictures.comparison import choose_slice
from microsr.figures.style import (
    DPI,
    GREY,
    PAGE,
    bare,
    fitting,
    grey_bar,
    new_figure,
    orient_radiologically,
    save,
    scale_bar,
    styled,
)
from microsr.inference.upsamplers import Bicubic, Generator, Magnifier, Upsampler, tiles, upsample_slice, whole_slice
from microsr.volume.alignment import open_clinical
from microsr.volume.slices import take_slices
from microsr.volume.storage import Volume, open_mask

SIZE = 128
"""Side of the square that is shown, clinical pixels."""
TILE = 32
"""Side of a tile, clinical pixels: small, so that there are many borders."""
COLUMNS = ["method", "tiles", "tile_px", "halo_px", "largest_hu", "rms_hu"]
WITH_HALO, ALONE = "halo", "alone"
DIFFERENCE_HU = (1e-5, 1e3)
"""Ends of the colour scale, HU; it is logarithmic, as seams are a million times the rounding of float32."""
COLOUR_MAP = "magma"

Row = tuple[np.ndarray, np.ndarray, np.ndarray]
"""A method's square in one piece, and the absolute differences from it in tiles with a halo and in tiles alone, HU."""


def make_tiling(
    clinical: Path,
    models: dict[str, Path],
    settings: Figures,
    output: Path,
    table: Path,
    size: int = SIZE,
    tile: int = TILE,
) -> dict[str, Any]:
    """Write the figure and the table of one clinical CT and return what it shows: slice, and first row and column of
    the square.

    models: method -> generator.pt. The square, with `size` clinical pixels a side or the slice's, is the one with most
    lung, and is super-resolved as if it were the slice; in float32 on the CPU. output: path without extension. table:
    .csv with COLUMNS, of each method a row for the tiles with a halo and one for the tiles alone.

    Raises
    ------
    UserError
        The slice does not exist, is not in HU, a side is no size, or a model cannot be used.
    """
    for name, side in (("size", size), ("tile", tile)):
        if side < 1:
            raise UserError(f"--{name} is {side}, must be at least 1")
    ct, mask = open_clinical(clinical), open_mask(clinical)
    index = choose_slice(mask, {clinical: list(range(ct.shape[0]))}, settings.slice)
    row, column = most_lung(np.asarray(mask[index]) > 0, size)
    upsamplers: dict[str, Upsampler] = {name: Generator(path, "cpu", "float32") for name, path in models.items()}
    scale = next((upsampler.scale for upsampler in upsamplers.values()), DEFAULT_SCALE)
    upsamplers = {"bicubic": Bicubic(scale)} | upsamplers
    square = (..., slice(row, row + size), slice(column, column + size))

    def take(slices: int) -> np.ndarray:
        return take_slices(ct.array.__getitem__, index, ct.shape[0], slices)[square]

    rows = {name: compare(take(one.slices), index, one, tile) for name, one in upsamplers.items()}
    halos = {name: upsampler.reach for name, upsampler in upsamplers.items()}
    save(draw_tiling(rows, halos, ct, settings.display_window_hu, tile, scale), output)
    write_csv(table, tabulate(rows, halos, tile), float_format="%.3g")
    return {"slice": index, "row": row, "column": column}


def most_lung(lung: np.ndarray, size: int) -> tuple[int, int]:
    """First row and column of the square of `size` pixels a side, or the image's, that holds most of `lung` [rows,
    columns].
    """
    sides = [min(size, n) for n in lung.shape]
    share = uniform_filter(lung.astype(float), sides, mode="constant")
    places = tuple(slice(side // 2, side // 2 + n - side + 1) for side, n in zip(sides, lung.shape, strict=True))
    row, column = np.unravel_index(np.argmax(share[places]), share[places].shape)
    return int(row), int(column)


def compare(hu: np.ndarray, index: int, upsampler: Upsampler, tile: int) -> Row:
    """Super-resolve a slice, HU [rows, columns] or with its neighbours [slices, rows, columns], in one piece, in tiles
    with a halo, and in tiles each by itself.

    index: the slice's number in its volume. tile: side, clinical pixels. Returns float32 [scale * rows, scale *
    columns] each.
    """
    one = upsample_slice(hu, index, upsampler, max(hu.shape[-2:]))
    return one, *(np.abs(way(hu, index, upsampler, tile) - one) for way in (upsample_slice, each_alone))


def each_alone(hu: np.ndarray, index: int, upsampler: Upsampler, tile: int) -> np.ndarray:
    """What `upsample_slice` does not do: super-resolve each tile of a slice as if nothing were around it (same
    noise).
    """
    scale, whole = upsampler.scale, hu.shape[-2:]
    found = np.empty([scale * n for n in whole], np.float32)
    random = upsampler.draw(index, whole)
    with Magnifier(upsampler, tile) as magnify:
        for one in tiles(whole_slice(whole), whole, tile, halo=0):
            found[_magnify_region(one.keep, scale)] = magnify(
                hu[(..., *one.keep)],
                [plane[..., *_magnify_region(one.keep, plane.shape[-1] // whole[1])] for plane in random],
            ).numpy()
    return found


def _magnify_region(region: tuple[slice, slice], scale: int) -> tuple[slice, ...]:
    return tuple(slice(scale * p.start, scale * p.stop) for p in region)


def tabulate(rows: dict[str, Row], halos: dict[str, int], tile: int) -> pd.DataFrame:
    """COLUMNS: of each method, the largest and the root mean square difference from one piece, HU."""
    found = []
    for name, (_, *differences) in rows.items():
        for way, halo, difference in zip((WITH_HALO, ALONE), (halos[name], 0), differences, strict=True):
            rms = np.sqrt(np.mean(np.square(difference, dtype=float)))
            found.append((name, way, tile, halo, float(difference.max()), float(rms)))
    return pd.DataFrame(found, columns=COLUMNS)


@styled
def draw_tiling(
    rows: dict[str, Row], halos: dict[str, int], volume: Volume, window: tuple[float, float], tile: int, scale: int
) -> Figure:
    """Draw a row for each method: in one piece, the difference in tiles with a halo, the difference in tiles alone.

    halos: clinical pixels around a tile that influence it. volume: the clinical CT, which gives pixel size and
    direction. scale: pixels of the images along a clinical one. The differences
    share one logarithmic scale, DIFFERENCE_HU; a pixel of print shows the largest difference under it, and a panel says
    the largest of all. Ticks are where tiles meet.
    """
    edge, gap, head, foot, between = 0.15, 0.15, 0.42, 0.42, 0.22
    first = next(iter(rows.values()))[0]
    x, y = volume.spacing[:2]
    across, down = first.shape[1] / scale * x, first.shape[0] / scale * y
    column_width = (PAGE - 2 * edge - 2 * gap) / 3
    side = fitting(column_width, head + len(rows) * between + foot, len(rows) * down / across)
    panel = side * down / across
    height = head + len(rows) * (panel + between) + foot
    figure = new_figure(PAGE, height)
    headings = "(a) In one piece", "(b) In tiles: difference", "(c) Without a halo: difference"
    for column, heading in enumerate(headings):
        left = (edge + column * (column_width + gap)) / PAGE
        figure.text(left, 1 - 0.06 / height, heading, fontsize=8, fontweight="bold", va="top")

    def show(row: int, column: int, title: str, image: np.ndarray, **how: Any) -> Axes:
        left, bottom = edge + column * (column_width + gap), height - head - row * (panel + between) - panel
        axes = figure.add_axes((left / PAGE, bottom / height, side / PAGE, panel / height))
        axes.imshow(image, extent=(0, across, down, 0), **how)
        axes.set_title(title, loc="left", pad=3)
        bare(axes, GREY)
        for spine in axes.spines.values():
            spine.set_linewidth(0.5)
        orient_radiologically(axes, volume.direction)
        return axes

    for row, (name, (image, *differences)) in enumerate(rows.items()):
        grey = {"cmap": "gray", "vmin": window[0], "vmax": window[1]}
        scale_bar(show(row, 0, method_name(name), image, **grey), across)
        titles = [f"tiles of {tile} pixels, {how}" for how in (f"halo of {halos[name]}", "each by itself")]
        for column, (title, difference) in enumerate(zip(titles, differences, strict=True), start=1):
            # What is beyond the scale, nothing too, has the colour of its end.
            shown = np.maximum(_coarsen(difference, int(side * DPI), scale), DIFFERENCE_HU[0])
            colours = {"cmap": COLOUR_MAP, "norm": LogNorm(*DIFFERENCE_HU), "interpolation": "nearest"}
            axes = show(row, column, title, shown, **colours)
            axes.set_xticks(np.arange(tile * x, across - x / 2, tile * x), [])
            axes.set_yticks(np.arange(tile * y, down - y / 2, tile * y), [])
            axes.text(
                0.97, 0.03, f"at most {_short(difference.max())} HU", transform=axes.transAxes, ha="right", va="bottom",
                fontsize=6.5, bbox={"facecolor": "white", "alpha": 0.85, "linewidth": 0, "pad": 1.2},
            )  # fmt: skip
    grey_bar(figure, (edge / PAGE, 0.21 / height, 0.8 * column_width / PAGE, 0.08 / height), window)
    left, width = edge + column_width + gap, 2 * column_width + gap
    _colour_bar(figure, (left / PAGE, 0.21 / height, width / PAGE, 0.08 / height))
    return figure


def _coarsen(image: np.ndarray, pixels: int, scale: int) -> np.ndarray:
    """The largest value of each block of 1, 2, 4, ... pixels a side, up to the scale, so that not much more than
    `pixels` are left along a side.
    """
    factor = 1
    while factor < scale and image.shape[1] > factor * pixels:
        factor *= 2
    rows, columns = (n // factor for n in image.shape)
    return image.reshape(rows, factor, columns, factor).max(axis=(1, 3))


def _short(value: float) -> str:
    """Two digits, in powers of ten where it is small."""
    if value == 0 or value >= 0.01:
        return f"{value:.2g}" if value < 10 else f"{value:.0f}"
    power = int(np.floor(np.log10(value)))
    return rf"${value / 10.0**power:.1f} \times 10^{{{power}}}$"


def _colour_bar(figure: Figure, box: tuple[float, float, float, float]) -> None:
    axes = figure.add_axes(box, label="colour scale")
    low, high = np.log10(DIFFERENCE_HU)
    axes.imshow(np.linspace(0, 1, 256)[None], cmap=COLOUR_MAP, aspect="auto", extent=(low, high, 0, 1))
    powers = np.arange(low, high + 1, 2).astype(int)
    beyond = {low: "≤ ", high: "≥ "}
    axes.set_xticks(powers, [f"{beyond.get(power, '')}$10^{{{power}}}$" for power in powers])
    axes.set_yticks([])
    axes.set_title("|in tiles − in one piece|, HU", fontsize=6.5, pad=2)
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.5)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr figures tiling`."""
    parser.add_argument("--clinical", required=True, type=Path, help="clinical CT with its lung mask (OME-Zarr)")
    parser.add_argument(
        "--models",
        nargs="+",
        default=[],
        metavar="NAME=PATH",
        help="generator.pt of each method; bicubic is always shown",
    )
    parser.add_argument("--size", default=SIZE, type=int, help="side of the square shown, clinical pixels")
    parser.add_argument("--tile", default=TILE, type=int, help="side of a tile, clinical pixels")
    parser.add_argument("--table", required=True, type=Path, help="table of the differences, to be written (.csv)")
    config.add_flags(parser, config.Figures, without=["insets"])


def draw(ns: argparse.Namespace) -> Record:
    """Draw the figure from its command line."""
    settings = config.from_flags(ns, config.Figures)
    models = config.named_paths(ns.models, "models")
    shown = make_tiling(ns.clinical, models, settings, ns.output, ns.table, ns.size, ns.tile)
    described = settings.model_dump(mode="json", exclude={"insets"}) | {"size": ns.size, "tile": ns.tile}
    return Record(described, [ns.clinical, *models.values()], shown)
