"""What many draws of a scan say together: their mean, their standard deviation, and how many of them show something.

In: the draws of a slice, one after the other. Out: the images of the volumes that `superresolve` writes beside one
another, each in memory of a few slices, however many draws there are. docs/uncertainty.md says what they mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from microsr.formats.writers import ENDINGS
from microsr.physics.tissues import SOLID_HU


@dataclass(frozen=True)
class Draws:
    """Several draws of a scan, and what is written of them."""

    count: int
    """Draws; the standard deviation needs two."""
    keep: int = 0
    """How many of them, the first ones, are written themselves."""
    first: int = 0
    """Number of the first one; the others have the next ones."""

    @property
    def numbers(self) -> range:
        """Their numbers."""
        return range(self.first, self.first + self.count)

    def contents(self) -> dict[str, dict[str, Any]]:
        """Each volume that is written, by what it holds, with the facts that go into its attributes."""
        of = f"of {self.count} draws, not for diagnosis"
        words = {
            "mean": (f"Mean {of}", "HU, the mean of the draws; not an image of a lung, as it is smoother"),
            "sd": (f"SD {of}", "HU, the standard deviation of the draws: where it is large, the scan leaves it open"),
            "solid": (f"P(solid) {of}", f"per cent of the draws above {SOLID_HU:g} HU: vessel, wall or tumour"),
        }
        for number in self.numbers[: self.keep]:
            words[f"draw{number}"] = (f"Draw {number} {of}", "HU, one image that the scan allows")
        unit = {"solid": {"unit": "%"}}
        from_on = {"first_draw": self.first} if self.first else {}
        return {
            what: {"holds": what, "draws": self.count, **from_on, "description": short, "derivation": long}
            | unit.get(what, {})
            for what, (short, long) in words.items()
        }

    def paths(self, output: Path) -> dict[str, Path]:
        """Where each volume is written: the mean at `output`, the others beside it, as sr_sd.ome.zarr."""
        ending = next((ending for ending in ENDINGS if output.name.lower().endswith(ending)), "")
        stem = output.name[: len(output.name) - len(ending)]
        names = {what: f"{stem}_{what}{output.name[len(stem) :]}" for what in self.contents()}
        return {what: output.with_name(name) for what, name in names.items()} | {"mean": output}

    def summarise(self, images: Iterable[Tensor]) -> dict[str, np.ndarray]:
        """The volumes' images of a slice, int16 [rows, columns], from its draws in order, float32 HU."""
        found, number = {}, 0
        for number, image in enumerate(images, start=1):
            if number == 1:
                mean, square = torch.zeros_like(image), torch.zeros_like(image)
                solid = torch.zeros(image.shape, dtype=torch.int16, device=image.device)
            # Welford's way: sums of squares of HU would lose the digits of a small SD.
            change = image - mean
            mean += change / number
            square += change * (image - mean)
            solid += image > SOLID_HU
            if number <= self.keep:
                found[f"draw{self.first + number - 1}"] = _round_hu(image)
        sd = (square / max(number - 1, 1)).sqrt()
        return {"mean": _round_hu(mean), "sd": _round_hu(sd), "solid": _round_hu(100 * solid / number)} | found


def _round_hu(image: Tensor) -> np.ndarray:
    limits = torch.iinfo(torch.int16)
    return image.round().clamp(limits.min, limits.max).to(torch.int16).cpu().numpy()


Images = Callable[[], dict[str, np.ndarray]]
"""Waits for the images of a slice, and gives them by what they hold."""
