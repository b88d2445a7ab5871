"""The comparison figure (Zheng et al. 2020, Fig. 2): clinical CT, each method's super-resolved CT and, where it exists,
the truth.

All panels show the same field of the same slice in the same window. In: volumes in the working format. Out: a figure.
The clinical CT is shown as its pixels are; a super-resolved slice is averaged by areas for the overview only.
"""

from __future__ import annotations

import argparse
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy import ndimage

from microsr import config
from microsr.config import Figures, Inset
from microsr.core.errors import UserError
from microsr.core.progress import logger
from microsr.evaluation.names import method_name
from microsr.figures.figure import Record
from microsr.figures.style import (
    DPI,
    GREY,
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
from microsr.physics.pooling import average_pool
from microsr.preprocessing.positions import admissible
from microsr.volume import alignment
from microsr.volume.alignment import scale_of
from microsr.volume.storage import Volume, open_mask, open_volume

MARGIN_MM = 5.0
MOST_COLUMNS = 6
DENSE_HU = -500.0
"""Vessels, airway walls and tumours are above this, parenchyma below it."""
PARENCHYMA_DENSE_SHARE = 0.05
INSET_STYLES = (("#E69F00", "-"), ("#56B4E9", (0, (4, 1.5))), ("#009E73", (0, (1, 1))), ("#CC79A7", (0, (5, 1, 1, 1))))
"""Colour and line of each inset's frame: told apart in grey print too."""


@dataclass(frozen=True)
class Field:
    """A rectangle of a slice, in clinical pixels; ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.bottom - self.top, self.right - self.left


@dataclass(frozen=True)
class Panel:
    """One column of the figure: slice `index` of a volume with `scale` pixels to a clinical pixel."""

    name: str
    volume: Volume
    index: int
    scale: int
    is_spread: bool = False
    """Whether it is an SD, shown in colours from 0, not in grey in the figure's window."""

    def crop(self, field: Field, finest: int) -> np.ndarray:
        """The field in HU, float32, with `finest` pixels to a clinical one along each side; larger pixels are
        repeated.
        """
        s = self.scale
        rows, columns = slice(field.top * s, field.bottom * s), slice(field.left * s, field.right * s)
        pixels = np.asarray(self.volume.array[self.index, rows, columns], np.float32)
        return pixels.repeat(finest // s, axis=0).repeat(finest // s, axis=1)


def make_comparison(
    clinical: Path,
    superresolved: dict[str, Path],
    settings: Figures,
    output: Path,
    truth: Path | None = None,
    title: str | None = None,
    note: str | None = None,
) -> dict[str, Any]:
    """Write the comparison figure of one case and return what it shows: slice, insets, the slice read of each large
    volume.

    clinical: volume with a lung mask. superresolved: method -> volume made from it. truth: volume on the magnified
    grid.
    output: path without extension. note: a line below the panels.

    Raises
    ------
    UserError
        The volumes do not belong together, or the slice or an inset is not in them.
    """
    volume, mask = open_volume(clinical), open_mask(clinical)
    found, drawn = {name: (path, open_volume(path)) for name, path in superresolved.items()}, {}
    mask = mask if truth is None else alignment.where_known(mask, truth)
    index = choose_slice(mask, {path: _slices(path, sr) for path, sr in found.values()}, settings.slice)
    panels = [Panel("Clinical CT", volume, index, 1)]
    for name, (path, sr) in found.items():
        scale = _check_grid(path, sr, clinical, volume)
        panels.append(Panel(method_name(name), sr, _slices(path, sr).index(index), scale))
        drawn[path] = [panels[-1].index]
    if truth is not None:
        true = open_volume(truth)
        scale = _check_grid(truth, true, clinical, volume)
        panels.append(Panel("Truth", true, _slice_at(truth, true, volume, index), scale))
        drawn[truth] = [panels[-1].index]

    lung = np.asarray(mask[index]) > 0
    pixels = np.asarray(volume.array[index], np.float32)
    insets = settings.insets or choose_insets(pixels, lung)
    if not insets:
        logger.warning("slice %d of %s has too little lung for an inset; give figures.insets", index, clinical)
    _check_insets(insets, lung.shape)
    field = lung_field(lung, volume.spacing, insets)
    figure = draw_comparison(panels, field, insets, settings.display_window_hu, title, note)
    save(figure, output)
    return {"slice": index, "insets": [inset.model_dump() for inset in insets], "slices_read": drawn}


def choose_slice(mask: Any, available: dict[Path, list[int]], wanted: int | None) -> int:
    """The clinical slice to show: `wanted`, or of those that every method has the one with most lung.

    mask: [slices, rows, columns]. available: super-resolved volume -> the clinical slices in it.
    """
    if wanted is not None:
        for path, slices in available.items():
            if wanted not in slices:
                raise UserError(
                    f"figures.slice is {wanted}, but {path} holds the clinical slices {_brief(slices)}; choose one of "
                    "them"
                )
        return wanted
    common = sorted(set.intersection(*(set(slices) for slices in available.values())))
    if not common:
        raise UserError(
            f"{', '.join(map(str, available))} have no slice in common; super-resolve the same slices with each method"
        )
    return max(common, key=lambda z: int(np.count_nonzero(mask[z])))


def choose_insets(pixels: np.ndarray, lung: np.ndarray, size: int = Inset.model_fields["size"].default) -> list[Inset]:
    """At most two squares wholly inside the lung that do not overlap, where the clinical CT has most structure.

    pixels: [rows, columns], HU. lung: the same shape, true inside. Structure is the variance after a Gaussian of one
    pixel, which leaves noise out, among lung pixels weighted towards the square's centre. The first may hold anything
    (vessels, airways, a tumour); the second is parenchyma, that is, at most 5 % of it above -500 HU, if there is such a
    square. Where no square of `size` fits, half of it is tried.
    """
    smooth = ndimage.gaussian_filter(pixels.astype(float), 1.0)
    while size >= 4:
        inside = admissible(lung, size, 1.0)
        if inside.any():
            break
        size //= 2
    else:
        return []
    weight, mean, square = (ndimage.gaussian_filter(lung * smooth**power, size / 4) for power in (0, 1, 2))
    half = size // 2
    centres = slice(half, half + inside.shape[0]), slice(half, half + inside.shape[1])
    variance = square[centres] / weight[centres].clip(1e-6) - (mean[centres] / weight[centres].clip(1e-6)) ** 2
    place = _best(variance, inside)
    rows, columns = np.ogrid[: inside.shape[0], : inside.shape[1]]
    apart = inside & ((abs(rows - place[0]) >= size) | (abs(columns - place[1]) >= size))
    parenchyma = apart & admissible(pixels <= DENSE_HU, size, 1 - PARENCHYMA_DENSE_SHARE)
    places = [place]
    if apart.any():
        places.append(_best(variance, parenchyma if parenchyma.any() else apart))
    return [Inset(row=row, column=column, size=size) for row, column in places]


def require_insets(
    given: list[Inset], pixels: np.ndarray, lung: np.ndarray, clinical: Path, index: int
) -> list[Inset]:  # fmt: skip
    """The insets that are given, or those of `choose_insets`; clinical, index: where the slice is from.

    Raises
    ------
    UserError
        None is given, and the lung has no room for one.
    """
    insets = given or choose_insets(pixels, lung)
    if not insets:
        raise UserError(
            f"{clinical}: slice {index} has too little lung for the figure; give figures.insets or another slice"
        )
    return insets


def crop_inset(image: Any, inset: Inset, scale: int, name: str) -> np.ndarray:
    """The inset's part of an image [scale * rows, scale * columns], float32; name: of the inset, for the message.

    Raises
    ------
    UserError
        The inset reaches beyond the image.
    """
    rows, columns = (slice(scale * first, scale * (first + inset.size)) for first in (inset.row, inset.column))
    found = np.asarray(image[rows, columns], np.float32)
    if found.shape != (scale * inset.size,) * 2:
        raise UserError(f"figures.insets: {name} does not lie in the slice of {len(image) // scale} rows")
    return found


def lung_field(lung: np.ndarray, spacing: tuple[float, ...], insets: list[Inset]) -> Field:
    """The bounding box of lung and insets with a margin of 5 mm, within the slice; the whole slice where there is no
    lung.
    """
    shown = lung.copy()
    for inset in insets:
        shown[inset.row : inset.row + inset.size, inset.column : inset.column + inset.size] = True
    if not lung.any():
        shown[:] = True
    ends = []
    for axis, pixel in ((1, spacing[1]), (0, spacing[0])):
        margin = int(np.ceil(MARGIN_MM / pixel))
        where = np.flatnonzero(shown.any(axis=axis))
        ends += [max(0, int(where[0]) - margin), min(lung.shape[1 - axis], int(where[-1]) + 1 + margin)]
    return Field(*ends)


@styled
def draw_comparison(
    panels: list[Panel],
    field: Field,
    insets: list[Inset],
    window: tuple[float, float],
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Draw the panels side by side: the field in the first row, one row for each inset below, all in `window` (HU).

    Axes are in mm from the corner of the field; each row has a scale bar in its first panel. More than MOST_COLUMNS
    panels stand in two bands, one below the other. Panels of an SD have a scale of their own.
    """
    gap, edge, heading, foot = 0.05, 0.04, 0.36, 0.5
    top = 0.3 if title else 0.04
    columns = len(panels) if len(panels) <= MOST_COLUMNS else -(-len(panels) // 2)
    bands = -(-len(panels) // columns)
    clinical = panels[0].volume
    x, y = clinical.spacing[:2]
    finest = max(panel.scale for panel in panels)
    fields = [field, *(Field(i.row, i.row + i.size, i.column, i.column + i.size) for i in insets)]
    shapes = [f.shape[0] * y / (f.shape[1] * x) for f in fields]
    column_width = (PAGE - 2 * edge - gap * (columns - 1)) / columns
    rest = top + foot + bands * (heading + gap * (len(fields) - 1))
    side = fitting(column_width, rest, bands * sum(shapes))
    height = rest + bands * side * sum(shapes)
    figure = new_figure(PAGE, height)
    if title:
        figure.text(edge / PAGE, 1 - 0.08 / height, title, fontsize=9, fontweight="bold", va="top")
    upper = height - top
    for first in range(0, len(panels), columns):
        upper -= heading
        for row, (shown, shape) in enumerate(zip(fields, shapes, strict=True)):
            for column, panel in enumerate(panels[first : first + columns]):
                left = edge + column * (column_width + gap)
                box = (left / PAGE, (upper - side * shape) / height, side / PAGE, side * shape / height)
                axes = figure.add_axes(box)
                _show(axes, panel, shown, field, window, side, finest)
                if row == 0:
                    _heading(axes, first + column, panel)
                    _mark_insets(axes, insets, field, x, y)
                    bare(axes)
                else:
                    bare(axes, *INSET_STYLES[(row - 1) % len(INSET_STYLES)])
                if column == 0:
                    scale_bar(axes, shown.shape[1] * x)
            upper -= side * shape + (gap if row < len(shapes) - 1 else 0)
    bar, begin = min(column_width, 1.7), PAGE - edge
    boxes = []
    for _ in range(1 + any(panel.is_spread for panel in panels)):
        begin -= bar
        boxes.append((begin / PAGE, 0.19 / height, bar / PAGE, 0.09 / height))
        begin -= 0.2
    grey_bar(figure, boxes[0], window)
    for box in boxes[1:]:
        colour_bar(figure, box, (0, SPREAD_HU), SPREAD_COLOURS, "SD (HU)")
    if note:
        lines = textwrap.fill(note, int((begin - 0.16) / 0.052))
        figure.text((edge + 0.01) / PAGE, 0.4 / height, lines, fontsize=6.5, color=GREY, va="top")
    return figure


def _show(
    axes, panel: Panel, shown: Field, origin: Field, window: tuple[float, float], side: float, finest: int
) -> None:
    pixels = panel.crop(shown, finest)
    factor = 1
    while factor < finest and pixels.shape[1] / (2 * factor) >= side * DPI:
        factor *= 2
    rows, columns = shown.shape
    averaged = average_pool(pixels, factor)
    x, y = panel.volume.spacing[0] * panel.scale, panel.volume.spacing[1] * panel.scale
    left, upper = (shown.left - origin.left) * x, (shown.top - origin.top) * y
    colours, low, high = (SPREAD_COLOURS, 0, SPREAD_HU) if panel.is_spread else ("gray", *window)
    axes.imshow(
        averaged, cmap=colours, vmin=low, vmax=high, aspect="auto",
        # Enlarged pixels stay what they are; only an image finer than the print is filtered, so that nothing aliases.
        interpolation="nearest" if averaged.shape[1] <= side * DPI else "auto",
        extent=(left, left + columns * x, upper + rows * y, upper),
    )  # fmt: skip
    orient_radiologically(axes, panel.volume.direction)


def _heading(axes, column: int, panel: Panel) -> None:
    text = f"({chr(ord('a') + column)}) {panel.name}"
    # 0.62: a bold letter's width, of its height.
    room = axes.get_position().width * axes.get_figure().get_figwidth() * 72 / (0.62 * len(text))
    axes.set_title(text, loc="left", fontsize=min(8, max(6, room)), fontweight="bold", pad=13)
    x, y = panel.volume.spacing[:2]
    size = f"{x:.3g}" if np.isclose(x, y, rtol=1e-3) else f"{x:.3g} × {y:.3g}"
    axes.text(0, 1, f"{size} mm pixels", transform=axes.transAxes, fontsize=6.5, color=GREY, va="bottom").set_y(1.015)


def _mark_insets(axes, insets: list[Inset], field: Field, x: float, y: float) -> None:
    for number, inset in enumerate(insets):
        colour, line = INSET_STYLES[number % len(INSET_STYLES)]
        corner = ((inset.column - field.left) * x, (inset.row - field.top) * y)
        axes.add_patch(
            Rectangle(
                corner, inset.size * x, inset.size * y, fill=False, edgecolor=colour, linewidth=1.1, linestyle=line
            )
        )


def _slices(path: Path, volume: Volume) -> list[int]:
    try:
        slices = list(volume.attributes["slices"])
    except KeyError:
        raise UserError(
            f"{path} does not say which clinical slices it holds; make it with `microsr superresolve`"
        ) from None
    if len(slices) != volume.shape[0]:
        raise UserError(f"{path} names {len(slices)} clinical slices but has {volume.shape[0]}; make it anew")
    return slices


def _check_grid(path: Path, volume: Volume, clinical_path: Path, clinical: Volume) -> int:
    """The scale of a volume on the grid of the clinical CT, magnified."""
    scale = scale_of(volume, clinical)
    wanted = tuple(scale * n for n in clinical.shape[1:])
    spacing = np.multiply(volume.spacing[:2], scale)
    if volume.shape[1:] != wanted or not np.allclose(spacing, clinical.spacing[:2], rtol=1e-3):
        raise UserError(
            f"{path} has {volume.shape[1]} x {volume.shape[2]} pixels of {volume.spacing[0]:.4g} mm; on the grid of "
            f"{clinical_path} magnified {scale} times there are {wanted[0]} x {wanted[1]} of "
            f"{clinical.spacing[0] / scale:.4g} mm; give volumes of the same case"
        )
    return scale


def _slice_at(path: Path, volume: Volume, clinical: Volume, index: int) -> int:
    """Index of the slice of `volume` that lies where slice `index` of the clinical CT does."""
    offset = np.reshape(volume.direction, (3, 3)).T @ (clinical.point((index, 0, 0)) - volume.origin)
    place = offset[2] / volume.spacing[2]
    if not -0.25 <= place <= volume.shape[0] - 0.75:
        raise UserError(
            f"{path} has no slice where slice {index} of the clinical CT lies; give the truth of the same case"
        )
    return round(place)


def _check_insets(insets: list[Inset], shape: tuple[int, int]) -> None:
    for inset in insets:
        if inset.row + inset.size > shape[0] or inset.column + inset.size > shape[1]:
            raise UserError(
                f"figures.insets: row {inset.row}, column {inset.column}, size {inset.size} reaches beyond the "
                f"clinical slice of {shape[0]} x {shape[1]} pixels; choose a smaller one"
            )


def _best(score: np.ndarray, allowed: np.ndarray) -> tuple[int, int]:
    row, column = np.unravel_index(np.argmax(np.where(allowed, score, -np.inf)), score.shape)
    return int(row), int(column)


def _brief(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) if len(numbers) <= 12 else f"{numbers[0]} to {numbers[-1]}"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr figures comparison`."""
    parser.add_argument("--clinical", required=True, type=Path, help="clinical CT with its lung mask (OME-Zarr)")
    parser.add_argument(
        "--superresolved", required=True, nargs="+", metavar="NAME=PATH", help="super-resolved CT, in panel order"
    )
    parser.add_argument("--truth", type=Path, help="truth on the super-resolved grid (OME-Zarr)")
    parser.add_argument("--title", help="title above the panels")
    parser.add_argument("--note", help="line below the panels")
    config.add_flags(parser, config.Figures)


def draw(ns: argparse.Namespace) -> Record:
    """Draw the figure from its command line."""
    settings = config.from_flags(ns, config.Figures)
    superresolved = config.named_paths(ns.superresolved, "superresolved")
    shown = make_comparison(
        ns.clinical, superresolved, settings, ns.output, truth=ns.truth, title=ns.title, note=ns.note
    )
    volumes = [ns.clinical, *superresolved.values(), *([ns.truth] if ns.truth else [])]
    return Record(settings.model_dump(mode="json") | {"title": ns.title, "note": ns.note}, volumes, shown)
