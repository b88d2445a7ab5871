"""The network figure (Zheng et al. 2020, Fig. 1), drawn from the settings in use: networks, patch sizes, losses and
weights.

Upper row: a clinical patch A through G1 and back through G2. Lower row: a uCT patch B through G2 and back through G1.
Blue blocks are the losses that the paper adds to CycleGAN; a loss of weight 0 is not drawn.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

from microsr import config
from microsr.config import CycleGANMethod, Train, TrainedMethod
from microsr.core.errors import UserError
from microsr.evaluation.names import method_name
from microsr.figures.figure import Record
from microsr.figures.style import GREY, PAGE, new_figure, save, styled

LOW, HIGH = 0.46, 0.84
"""Sides of a patch on the clinical and on the uCT grid, inches."""
INPUT, FIRST, MIDDLE, SECOND, LAST = 0.62, 2.1, 3.6, 5.1, 6.58
"""Where the columns stand, inches: input patch, generator, its output, other generator, cycle."""
CLINICAL, MICRO = ("#F6E3B4", "#B98A1D"), ("#D9D9D9", "#6E6E6E")
GENERATOR, DISCRIMINATOR = ("#DCEFE6", "#2F7D5B"), ("#F7DCCB", "#B5521B")
PROPOSED, CYCLEGAN = ("#0072B2", "#00507D"), ("#FFFFFF", "#555555")
Loss = tuple[str, float, str]
"""Its name in the training log, its weight and its formula."""
LINE = dict(color="#333333", linewidth=0.9)
NAMES = {
    "A": r"$\mathbf{A}$", "A_SR": r"$\mathbf{A}_{\mathrm{SR}}$", "A_cycle": r"$\mathbf{A}_{\mathrm{cycle}}$",
    "B": r"$\mathbf{B}$", "B_LR": r"$\mathbf{B}_{\mathrm{LR}}$", "B_cycle": r"$\mathbf{B}_{\mathrm{cycle}}$",
}  # fmt: skip


def make_network(
    method: TrainedMethod, train: Train, patches: tuple[int, int], output: Path, title: str | None = None
) -> list[str]:
    """Write the network figure and return the losses in it.

    patches: sides of a clinical and a uCT patch, pixels. output: path without extension. title: the method.
    """
    figure = draw_network(method, train, patches, title)
    save(figure, output)
    return [name for text in figure.axes[0].texts if text.get_gid() for name in text.get_gid().split(", ")]


@styled
def draw_network(method: TrainedMethod, train: Train, patches: tuple[int, int], title: str | None = None) -> Figure:
    """Draw the networks and the losses of non-zero weight; the gid of a loss's text is the loss's name in the
    history.
    """
    if not isinstance(method, CycleGANMethod):
        raise UserError(f"kind is {method.kind}: only the networks of a cyclegan are drawn; give a method of this kind")
    losses = method.losses
    norm = losses.pixel_norm.upper()
    upper_losses = _active(
        ("downsample_loss", losses.downsample, f"{norm}({NAMES['A']}, f({NAMES['A_SR']}))"),
        ("clinical_ssim_loss", losses.clinical_ssim, f"1 − SSIM({NAMES['A']}, f({NAMES['A_SR']}))"),
    )
    lower_losses = _active(
        ("upsample_loss", losses.upsample, f"{norm}({NAMES['B']}, g({NAMES['B_LR']}))"),
        ("micro_ssim_loss", losses.micro_ssim, f"1 − SSIM({NAMES['B']}, g({NAMES['B_LR']}))"),
    )
    above, below = (_height(bool(found), losses.cycle > 0) for found in (upper_losses, lower_losses))
    between = 2.75 if losses.adversarial else 1.75
    beyond = _beyond_the_paper(method, train)
    heading, legend = 0.34, 0.58 + 0.14 * len(beyond)
    height = legend + below + HIGH + between + above + heading
    figure = new_figure(PAGE, height)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, PAGE), ylim=(0, height))
    axes.set_axis_off()
    low_row = legend + below + HIGH / 2
    top_row = low_row + between

    name = f"{method_name(title)}: " if title else ""
    axes.text(
        0.12,
        height - 0.1,
        f"{name}{train.network} networks, ×{patches[1] // patches[0]} in-plane",
        fontsize=9,
        fontweight="bold",
        va="top",
    )
    _row(axes, top_row, ("A", "A_SR", "A_cycle"), patches, losses.cycle > 0)
    _row(axes, low_row, ("B", "B_LR", "B_cycle"), patches, losses.cycle > 0)
    _losses(axes, top_row, 1, upper_losses, ("cycle_clinical", losses.cycle, f"L1({NAMES['A']}, {NAMES['A_cycle']})"))
    _losses(axes, low_row, -1, lower_losses, ("cycle_micro", losses.cycle, f"L1({NAMES['B']}, {NAMES['B_cycle']})"))
    if losses.adversarial:
        _discriminator(axes, top_row - HIGH / 2, top_row - 0.96, "1", "B", losses.adversarial)
        _discriminator(axes, low_row + LOW / 2, low_row + 0.92, "2", "A", losses.adversarial)
    if method.mix_fraction:
        _mix(axes, low_row, top_row, method.mix_fraction)
    for line, words in enumerate(reversed(beyond)):
        axes.text(0.12, 0.16 + 0.14 * line, words, va="center", fontsize=6, color=PROPOSED[1])
    _legend(
        axes,
        0.14 * len(beyond),
        patches[1] // patches[0],
        bool(upper_losses),
        bool(lower_losses),
        bool(method.mix_fraction),
        losses.adversarial > 0,
        losses.cycle > 0,
    )
    return figure


def _beyond_the_paper(method: CycleGANMethod, train: Train) -> list[str]:
    """Lines on what a method and its training do that the paper does not."""
    penalty = f"R1 penalty on $D_1$ and $D_2$, weight {train.gradient_penalty:g}" if train.gradient_penalty else ""
    average = f"the model is the moving average of $G_1$, decay {train.ema_decay:g}" if train.ema_decay else ""
    start = f"a start of {train.start_steps} steps on pairs: MSE({NAMES['B']}, $G_1$(f({NAMES['B']}) + noise))"
    gain = f"random planes {train.noise_gain:g} times as strong at first" if train.noise_gain != 1 else ""
    further = [f"{key}_loss, weight {weight:g}" for key, weight in method.losses.further.items()]
    found = [*further, "; ".join(filter(None, (penalty, average))), start if train.start_steps else "", gain]
    return [f"Beyond the paper: {words}" for words in found if words]


def _active(*found: Loss) -> list[Loss]:
    return [loss for loss in found if loss[1] > 0]


def _height(proposed: bool, cycle: bool) -> float:
    """Room for the losses above or below a row, inches."""
    return 0.34 + 0.62 * proposed + 0.56 * cycle


def _row(axes: Axes, y: float, names: tuple[str, str, str], patches: tuple[int, int], cycle: bool) -> None:
    """One direction: patch, generator, output and, if the cycle counts, the way back."""
    up = names[0] == "A"
    side = 1 if up else -1
    ends, middle = ("clinical", "micro") if up else ("micro", "clinical")
    reach = {"clinical": LOW / 2, "micro": HIGH / 2}
    what = {"A": "clinical CT", "A_SR": "super-resolved", "A_cycle": "back again"}
    what |= {"B": "uCT", "B_LR": "clinical-like", "B_cycle": "back again"}
    places = [(INPUT, names[0], ends), (MIDDLE, names[1], middle), *([(LAST, names[2], ends)] if cycle else [])]
    for x, name, grid in places:
        pixels = patches[0] if grid == "clinical" else patches[1]
        _patch(axes, x, y, grid, NAMES[name])
        edge = y + side * (reach[grid] + 0.06)
        axes.text(
            x,
            edge,
            f"{what[name]}, {pixels}×{pixels}",
            ha="center",
            va="bottom" if up else "top",
            fontsize=6,
            color=GREY,
        )
    generators = [(FIRST, up), *([(SECOND, not up)] if cycle else [])]
    for (x, magnifies), left, right in zip(generators, places, places[1:], strict=False):
        _arrow(axes, (left[0] + reach[left[2]] + 0.03, y), (x - 0.43, y))
        _generator(axes, x, y, magnifies, patches[1] // patches[0])
        _arrow(axes, (x + 0.43, y), (right[0] - reach[right[2]] - 0.03, y))


def _patch(axes: Axes, x: float, y: float, grid: str, name: str, side: float | None = None) -> None:
    """A square with pixels: coarse for the clinical grid, fine for uCT."""
    fill, line = CLINICAL if grid == "clinical" else MICRO
    side = side or (LOW if grid == "clinical" else HIGH)
    cells = round(side / (0.115 if grid == "clinical" else 0.0525))
    left, bottom = x - side / 2, y - side / 2
    for k in range(1, cells):
        at = k * side / cells
        axes.plot([left + at, left + at], [bottom, bottom + side], color=line, linewidth=0.25, alpha=0.55, zorder=2)
        axes.plot([left, left + side], [bottom + at, bottom + at], color=line, linewidth=0.25, alpha=0.55, zorder=2)
    axes.add_patch(Rectangle((left, bottom), side, side, facecolor=fill, edgecolor="none", zorder=1))
    axes.add_patch(Rectangle((left, bottom), side, side, facecolor="none", edgecolor=line, linewidth=0.9, zorder=3))
    backing = dict(boxstyle="round,pad=0.12", facecolor=fill, edgecolor="none", alpha=0.9)
    axes.text(x, y, name, ha="center", va="center", fontsize=7.5 if side < HIGH else 9, zorder=4, bbox=backing)


def _generator(axes: Axes, x: float, y: float, magnifies: bool, scale: int) -> None:
    """G1 widens from the clinical to the uCT grid, G2 narrows."""
    left, right = (0.24, 0.4) if magnifies else (0.4, 0.24)
    corners = [(x - 0.4, y - left), (x - 0.4, y + left), (x + 0.4, y + right), (x + 0.4, y - right)]
    axes.add_patch(Polygon(corners, facecolor=GENERATOR[0], edgecolor=GENERATOR[1], linewidth=1.0, joinstyle="round"))
    axes.text(x, y + 0.07, "$G_1$" if magnifies else "$G_2$", ha="center", va="center", fontsize=10)
    axes.text(x, y - 0.13, f"{'×' if magnifies else '÷'}{scale}", ha="center", va="center", fontsize=6.5, color=GREY)


def _losses(axes: Axes, y: float, side: int, proposed: list[Loss], cycle: Loss) -> None:
    """The losses that compare patches of a row, on brackets above (side 1) or below (side -1) it."""
    level = y + side * (HIGH / 2 + 0.5)
    ends = {"A": LOW / 2, "B": HIGH / 2} if side > 0 else {"A": HIGH / 2, "B": LOW / 2}
    start, output = (ends["A"], ends["B"])
    caption = 0.21
    if proposed:
        shift = 0.1 if cycle[1] else 0.0
        _bracket(
            axes,
            INPUT + shift,
            y + side * (start + caption),
            MIDDLE,
            y + side * (output + caption),
            level + side * 0.08,
        )
        xs = [1.45, 2.77] if len(proposed) == 2 else [(INPUT + MIDDLE) / 2]
        for x, loss in zip(xs, proposed, strict=True):
            _block(axes, x, level + side * 0.08, loss, PROPOSED)
        level += side * 0.62
    if cycle[1]:
        shift = 0.1 if proposed else 0.0
        _bracket(axes, INPUT - shift, y + side * (start + caption), LAST, y + side * (start + caption), level)
        _block(axes, SECOND if proposed else MIDDLE, level, cycle, CYCLEGAN)


def _bracket(axes: Axes, x0: float, y0: float, x1: float, y1: float, level: float) -> None:
    axes.plot([x0, x0, x1, x1], [y0, level, level, y1], solid_joinstyle="round", zorder=1, **LINE)


def _block(axes: Axes, x: float, y: float, loss: Loss, colours: tuple[str, str]) -> None:
    """A loss: its name, its formula and its weight."""
    name, weight, formula = loss
    width, height = 1.24, 0.46
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=colours[0],
            edgecolor=colours[1],
            linewidth=0.9,
            zorder=3,
        )
    )
    ink = "white" if colours is PROPOSED else "black"
    axes.text(
        x, y + 0.135, name, ha="center", va="center", fontsize=6.5, fontweight="bold", color=ink, zorder=4, gid=name
    )
    axes.text(x, y, formula, ha="center", va="center", fontsize=6.5, color=ink, zorder=4)
    axes.text(x, y - 0.145, f"weight {weight:g}", ha="center", va="center", fontsize=6, color=ink, zorder=4)


def _discriminator(axes: Axes, tile: float, y: float, number: str, real: str, weight: float) -> None:
    """D1 or D2 at height y, judging the patch whose edge is at height `tile` against a real one."""
    width, height = 0.62, 0.36
    box = (MIDDLE - width / 2, y - height / 2)
    axes.add_patch(
        FancyBboxPatch(
            box,
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=DISCRIMINATOR[0],
            edgecolor=DISCRIMINATOR[1],
            linewidth=1.0,
            zorder=3,
        )
    )
    axes.text(MIDDLE, y, f"$D_{number}$", ha="center", va="center", fontsize=10, zorder=4)
    towards = 1 if tile > y else -1
    _arrow(axes, (MIDDLE, tile - towards * 0.03), (MIDDLE, y + towards * (height / 2 + 0.02)))
    _patch(axes, 2.5, y, "micro" if real == "B" else "clinical", NAMES[real], side=0.34)
    axes.text(
        2.27, y, f"real {'uCT' if real == 'B' else 'clinical CT'}", ha="right", va="center", fontsize=6, color=GREY
    )
    _arrow(axes, (2.7, y), (MIDDLE - width / 2 - 0.02, y))
    _arrow(axes, (MIDDLE + width / 2 + 0.02, y), (SECOND - 0.64, y))
    _block(axes, SECOND, y, (f"G{number}_adversarial, D{number}", weight, "least squares"), CYCLEGAN)


def _mix(axes: Axes, low_row: float, top_row: float, fraction: float) -> None:
    """The share of the clinical inputs that are average-pooled uCT patches: from B up to A."""
    middle = (low_row + top_row) / 2 + 0.05
    _arrow(axes, (INPUT, low_row + HIGH / 2 + 0.03), (INPUT, middle - 0.17))
    axes.add_patch(
        Rectangle((INPUT - 0.2, middle - 0.15), 0.4, 0.3, facecolor="white", edgecolor=GREY, linewidth=0.9, zorder=3)
    )
    axes.text(INPUT, middle, "f", ha="center", va="center", fontsize=8, zorder=4)
    _arrow(axes, (INPUT, middle + 0.15), (INPUT, top_row - LOW / 2 - 0.03))
    axes.text(
        INPUT + 0.28,
        middle,
        f"{100 * fraction:g} % of the\nclinical inputs\nare f({NAMES['B']})",
        va="center",
        fontsize=6,
        color=GREY,
    )


def _legend(
    axes: Axes, raised: float, scale: int, upper: bool, lower: bool, mix: bool, adversarial: bool, cycle: bool
) -> None:
    x, y = 0.12, 0.32 + raised
    for colours, text, wanted in (
        (PROPOSED, "proposed loss", upper or lower),
        (CYCLEGAN, "CycleGAN's loss", adversarial or cycle),
        (GENERATOR, "generator", True),
        (DISCRIMINATOR, "discriminator", adversarial),
        (CLINICAL, "patch on the clinical grid", True),
        (MICRO, "patch on the uCT grid", True),
    ):
        if wanted:
            axes.add_patch(Rectangle((x, y), 0.14, 0.1, facecolor=colours[0], edgecolor=colours[1], linewidth=0.8))
            axes.text(x + 0.19, y + 0.05, text, va="center", fontsize=6)
            x += 0.42 + 0.043 * len(text)
    functions = [f"f: average pooling, {scale}×{scale} to 1"] * (upper or mix) + [
        f"g: nearest neighbour, 1 to {scale}×{scale}"
    ] * lower
    axes.text(0.12, 0.16 + raised, "   ".join(functions), va="center", fontsize=6)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    arrow = FancyArrowPatch(
        start, end, arrowstyle="-|>,head_length=3.2,head_width=1.6", shrinkA=0, shrinkB=0, zorder=2, **LINE
    )
    axes.add_patch(arrow)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr figures network`."""
    parser.add_argument(
        "--patches",
        required=True,
        nargs=2,
        type=int,
        metavar=("CLINICAL", "MICRO"),
        help="sides of the patches, pixels",
    )
    parser.add_argument("--title", help="name of the method")
    config.add_method_flags(parser)
    config.add_flags(parser, config.Train)


def draw(ns: argparse.Namespace) -> Record:
    """Draw the figure from its command line."""
    method, train = config.method_from_flags(ns), config.from_flags(ns, config.Train)
    losses = make_network(method, train, tuple(ns.patches), ns.output, ns.title)
    settings = {"method": method.model_dump(mode="json"), "train": train.model_dump(mode="json")}
    return Record(settings, [], {"losses": losses})
