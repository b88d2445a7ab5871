"""A picture in a minute: super-resolve a slab of a simulated lung, with a model, both of which the package holds.

In: nothing. Out: one PNG with a slice of the slab: the clinical CT, bicubic interpolation, one draw of the model, the
mean and the SD of all draws, and the truth. docs/development.md says how model and slab are made.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from microsr import config
from microsr.core.errors import UserError
from microsr.core.folders import PACKAGE
from microsr.core.progress import logger

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from microsr.figures.pictures.comparison import Panel

SHIPPED = PACKAGE / "data" / "demo"
SLAB, TRUTH, MODEL = SHIPPED / "clinical.nii.gz", SHIPPED / "truth.nii.gz", SHIPPED / "posterior.safetensors"
"""A clinical CT of a few slices, the truth of the middle one, and a model of kind posterior that saw neither."""
DRAWS = 16
OUTPUT = Path("microsr-demo.png")
MAKER = "microsr demo"
"""What the picture says of itself, in its text `Software`, so that the next run may replace it."""
SAID = (
    "A simulated lung that the model was not trained on. The model is small and was trained on simulated lungs alone: "
    "for trying only, not for diagnosis. The scan allows each draw; where the SD is large, it leaves the image open."
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr demo`."""
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the PNG to write (default: %(default)s)")


def main(namespace: argparse.Namespace) -> None:
    """Run `microsr demo`."""
    output = namespace.output
    check_output(output)
    from microsr.figures.style import save_picture

    save_picture(draw_demo(superresolve_slab()), output, {"Software": MAKER, "Description": SAID})
    logger.info(
        "%s is written: clinical CT, bicubic interpolation, a draw, mean and SD of %d draws, and truth of a simulated "
        "lung", output, DRAWS,
    )  # fmt: skip


def check_output(output: Path) -> None:
    """Refuse to write anything but a PNG, and to replace anything but an earlier picture of this command.

    Raises
    ------
    UserError
        The name is another format's, or something else has it.
    """
    if output.suffix.lower() != ".png":
        raise UserError(f"{output}: the picture is a PNG; give a name that ends in .png")
    if output.exists() and not _is_own(output):
        raise UserError(f"{output}: exists and is no earlier output of this kind; give another name, or remove it")


def _is_own(path: Path) -> bool:
    """Whether a file is a picture that this command has made."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return picture.info.get("Software") == MAKER
    except (OSError, Image.DecompressionBombError):  # a folder, no picture, one that may not be read, a giant
        return False


def superresolve_slab() -> list[Panel]:
    """The middle slice of the slab as each panel shows it, super-resolved on the CPU in float32, so that it looks the
    same on every machine; the clinical CT is the first.
    """
    import numpy as np

    from microsr.config.sheet import Scan
    from microsr.figures.pictures.comparison import Panel
    from microsr.formats.readers import read_scan
    from microsr.inference.draws import Draws
    from microsr.inference.superresolve import open_input
    from microsr.inference.upsamplers import Generator, Magnifier, interpolation
    from microsr.networks.devices import available_cpus
    from microsr.volume.storage import Volume, magnified_geometry

    clinical = open_input(SLAB)
    middle = clinical.shape[0] // 2
    hu = np.asarray(clinical.array[middle])
    model, draws = Generator(MODEL, "cpu", "float32"), Draws(DRAWS, keep=1)
    with Magnifier(model, threads=available_cpus()) as magnify:
        images = magnify.several(hu, middle, draws.numbers, draws.summarise)
    with Magnifier(interpolation("bicubic", model.scale)) as magnify:
        bicubic = magnify(hu, []).numpy()
    truth = np.asarray(read_scan(Scan(path=str(TRUTH))).array[0])

    fine = Volume(array=None, **magnified_geometry(clinical, model.scale))

    def panel(name: str, image: np.ndarray, is_spread: bool = False) -> Panel:
        return Panel(name, replace(fine, array=image[None]), 0, model.scale, is_spread)

    return [
        Panel("Clinical CT", clinical, middle, 1),
        panel("Bicubic", bicubic),
        panel("One draw", images["draw0"]),
        panel(f"Mean of {DRAWS}", images["mean"]),
        panel(f"SD of {DRAWS}", images["sd"], is_spread=True),
        panel("Truth", truth),
    ]


def draw_demo(panels: list[Panel]) -> Figure:
    """Draw the panels side by side: the lung, and two insets that are chosen by the clinical CT alone."""
    import numpy as np

    from microsr.figures.pictures.comparison import choose_insets, draw_comparison, lung_field
    from microsr.preprocessing.masks import lung_mask

    clinical, middle = panels[0].volume, panels[0].index
    mask = lung_mask(clinical.array, clinical.spacing, config.ClinicalVolume(), clinical.array.padding)
    lung = np.asarray(mask[middle])
    insets = choose_insets(np.asarray(clinical.array[middle]), lung)
    field = lung_field(lung, clinical.spacing, insets)
    return draw_comparison(panels, field, insets, config.Figures().display_window_hu, note=SAID)
