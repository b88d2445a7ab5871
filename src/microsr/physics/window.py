"""The intensity window: HU to what the networks see, [-1, 1], and back."""

from __future__ import annotations

import torch
from torch import Tensor


def normalise(hu: Tensor, window_hu: tuple[float, float]) -> Tensor:
    """HU to [-1, 1], float32; values outside the window are clipped."""
    low, high = window_hu
    scale = 2 / (high - low)
    # One copy and two passes over it: at 256x256 pixels that is most of what a batch costs.
    image = hu.to(torch.float32, copy=True)
    return torch.add(image.new_full((), -1 - low * scale), image, alpha=scale, out=image).clamp_(-1, 1)


def to_hu(image: Tensor, window_hu: tuple[float, float]) -> Tensor:
    """[-1, 1] back to HU."""
    low, high = window_hu
    return (image + 1) * ((high - low) / 2) + low
