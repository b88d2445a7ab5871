"""What all figures share: one look, colours safe for colour-blind readers, scale bars in mm, files that are the same
byte for byte.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.style import context

from microsr.core.files import replacing
from microsr.core.progress import logger

COLUMN, PAGE, TALLEST = 3.5, 7.16, 8.5
"""One and two columns of a journal and the tallest figure, inches: 88.9, 181.9 and 215.9 mm, as IEEE's journals ask
for.
"""
SMALLEST_PANEL = 0.4
"""The narrowest panel of an image, inches."""
DPI = 300
SMALLEST_TEXT = 6.0
"""Points in print; only sub- and superscripts are smaller."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Okabe and Ito's palette (blue, vermillion, green, purple, orange, sky blue, black) and a grey."""
LINES = ("-", (0, (5, 1.4)), (0, (1.2, 1.1)), (0, (5, 1.2, 1.2, 1.2)))
"""One for each curve of a panel: in grey print the first three colours are one."""
GREY = "#555555"
SPREAD_HU, SPREAD_COLOURS = 300.0, "magma"
"""End of the scale of SD and error, which begins at 0, and its colours."""

styled = context(
    [
        "default",
        {
            # Comes with matplotlib, so that the bytes do not depend on the machine's fonts.
            "font.family": "DejaVu Sans",
            "font.size": 7,
            "axes.titlesize": 7.5,
            "axes.labelsize": 7,
            "xtick.labelsize": 6,
            "ytick.labelsize": 6,
            "legend.fontsize": 6.5,
            "legend.frameon": False,
            "axes.linewidth": 0.6,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "xtick.major.size": 2.5,
            "ytick.major.size": 2.5,
            "xtick.minor.size": 1.5,
            "ytick.minor.size": 1.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "lines.linewidth": 1.1,
            "mathtext.fontset": "dejavusans",
            "pdf.fonttype": 42,
            "savefig.dpi": DPI,
            "figure.dpi": DPI,
        },
    ]
)
"""Decorator and context: figures are drawn and saved in it, whatever the user's own matplotlib settings are."""


@styled
def save(figure: Figure, output: Path) -> list[Path]:
    """Write `figure` as <output>.png (300 dpi) and <output>.pdf (fonts embedded); same figure, same bytes.

    output: path without extension; its folder is made if need be.
    """
    if figure.get_figheight() > TALLEST + 0.005:
        logger.warning("%s is %.1f in tall, a page %.1f; show fewer methods", output, figure.get_figheight(), TALLEST)
    files = [output.with_name(f"{output.name}.{kind}") for kind in ("png", "pdf")]
    for file, metadata in zip(
        files, ({"Software": None}, {"Creator": None, "Producer": None, "CreationDate": None}), strict=True
    ):
        save_picture(figure, file, metadata)
    return files


@styled
def save_picture(figure: Figure, file: Path, metadata: dict[str, str | None]) -> None:
    """Write `figure` as one file, in the format of its ending. metadata: as Matplotlib's `savefig` takes it."""
    with replacing(file) as temporary:
        figure.savefig(temporary, metadata=metadata, facecolor="white")


def nice_length(extent_mm: float) -> float:
    """The largest of 1, 2, 5 x 10^n mm that is at most 30 % of `extent_mm`."""
    limit = 0.3 * extent_mm
    decade = 10.0 ** np.floor(np.log10(limit))
    return float(max(step * decade for step in (1, 2, 5) if step * decade <= limit * (1 + 1e-9)))


def scale_bar(axes: Axes, extent_mm: float) -> None:
    """Draw a scale bar at the lower right of an image whose x axis is in mm and `extent_mm` wide."""
    length = nice_length(extent_mm)
    label = f"{length:g} mm"
    bar = length / extent_mm
    place = axes.get_position()
    inch_x, inch_y = 1 / (place.width * axes.figure.get_figwidth()), 1 / (place.height * axes.figure.get_figheight())
    box = max(bar, 0.06 * len(label) * inch_x) + 0.08 * inch_x
    middle = 1 - 0.04 * inch_x - box / 2
    style = dict(transform=axes.transAxes, zorder=3)
    corner = (middle - box / 2, 0.04 * inch_y)
    axes.add_patch(Rectangle(corner, box, 0.235 * inch_y, facecolor="black", alpha=0.55, linewidth=0, **style))
    ends, level = [middle - bar / 2, middle + bar / 2], 0.095 * inch_y
    axes.plot(ends, [level, level], color="white", linewidth=1.8, solid_capstyle="butt", label="scale bar", **style)
    axes.text(middle, 0.13 * inch_y, label, color="white", ha="center", va="bottom", fontsize=6.5, **style)


def orient_radiologically(axes: Axes, direction: tuple[float, ...]) -> None:
    """Turn an image panel so that anterior is up and the patient's right is on the left, however the file is stored.

    direction: 3x3 cosines of an axial volume, row by row (LPS).
    """
    if direction[0] < 0:
        axes.invert_xaxis()
    if direction[4] < 0:
        axes.invert_yaxis()


def bare(axes: Axes, colour: str | None = None, linestyle: str = "-") -> None:
    """Take the ticks off an image panel; with `colour`, frame it, else take the frame off too."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(colour is not None)
        spine.set(edgecolor=colour or "none", linewidth=1.4, linestyle=linestyle)


def grey_bar(figure: Figure, box: tuple[float, float, float, float], window: tuple[float, float]) -> None:
    """Draw the grey scale of `window` (HU) as a horizontal bar in `box` (left, bottom, width, height of the figure)."""
    colour_bar(figure, box, window, "gray", "HU", label="grey scale")


def colour_bar(
    figure: Figure,
    box: tuple[float, float, float, float],
    limits: tuple[float, float],
    colours: str,
    title: str,
    label: str = "colour scale",
) -> None:
    """Draw a scale of colours (a Matplotlib map) as a horizontal bar in `box`, with its ends and its middle."""
    axes = figure.add_axes(box, label=label)
    axes.imshow(np.linspace(0, 1, 256)[None], cmap=colours, aspect="auto", extent=(*limits, 0, 1))
    low, high = limits
    ticks = (low, (low + high) / 2, high)
    axes.set_xticks(ticks, [f"{v:g}".replace("-", "−") for v in ticks])
    labels = axes.get_xticklabels()
    labels[0].set_horizontalalignment("left")  # within the bar, which may begin where the figure does
    labels[-1].set_horizontalalignment("right")
    axes.set_yticks([])
    axes.set_title(title, fontsize=6.5, pad=2)
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.5)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, drawn without any window system."""
    return matplotlib.figure.Figure(figsize=(width, height))


def fitting(widest: float, rest: float, rows: float) -> float:
    """Width of image panels, inches: `widest`, or less where the figure would be taller than TALLEST.

    rest: height of all that is no panel. rows: height of all panels together, in widths of a panel. No panel becomes
    narrower than SMALLEST_PANEL: with so many methods the figure is taller than a page, of which `save` warns.
    """
    return max(min(widest, (TALLEST - rest) / rows), min(widest, SMALLEST_PANEL))


def tidy_panel(axes: Axes, values: str = "y") -> None:
    """Give a panel of curves or bars a light grid and short numbers along the axis of the `values`, x or y."""
    axes.grid(axis=values, color="#DDDDDD", linewidth=0.4, zorder=0)
    axes.set_axisbelow(True)
    if axes.get_yscale() == "linear":
        axes.ticklabel_format(axis=values, style="sci", scilimits=(-2, 5), useMathText=True)
        (axes.yaxis if values == "y" else axes.xaxis).get_offset_text().set_fontsize(SMALLEST_TEXT)
