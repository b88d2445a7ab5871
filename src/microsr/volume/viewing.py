"""With which grey scale a viewer opens a volume: the values that it shows black and white.

Of HU it is the window of a lung, or of bone where a volume says that it is of another organ; the window that its scan
came with stands in its place where it shows as much, so that both look alike side by side, and the attribute `display`
in the place of either. What is made of several draws has its own: their standard deviation, and shares in per cent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from microsr.volume.storage import Volume

Window = tuple[float, float]
"""Value shown black, and value shown white."""

LUNG_WINDOW: Window = (-1350.0, 150.0)
"""HU: centre -600, width 1500, as radiologists look at lungs."""
BONE_WINDOW: Window = (-500.0, 1500.0)
"""HU, of another organ: centre 500, width 2000, as they look at bone."""
ERROR_WINDOW: Window = (-400.0, 400.0)
"""HU, of what an image has and the truth has not."""
SHARE_WINDOW: Window = (0.0, 100.0)
"""Per cent."""
SHOWN, WIDEST = 0.5, 2.0
"""A scan's own window is taken if it shows this share of the usual one and is at most so many times as wide: of a lung
that was read in a mediastinal window, nothing would be seen."""
SPREAD_PART = 0.2
"""White of a standard deviation, as a part of the images' window: 300 HU of a lung. It is the same for all volumes, so
that an equal grey is an equal standard deviation."""
NAMES = {"clinical": "Clinical CT", "micro": "uCT", "truth": "Truth", "thick_truth": "Truth, over the slice profile"}
"""Of volumes that have no description, by their modality."""
SLIDER: Window = (-1024.0, 3071.0)
"""HU between which a viewer lets its user choose: those of 12 bits."""


def display_window(volume: Volume) -> Window | None:
    """Values shown black and white; None of what is in no unit of its own: grey values, labels."""
    if volume.unit == "%":
        return SHARE_WINDOW
    if volume.unit != "HU":
        return None
    low, high = image_window(volume)
    return (0.0, SPREAD_PART * (high - low)) if volume.attributes.get("holds") == "sd" else (low, high)


def image_window(volume: Volume) -> Window:
    """HU shown black and white where the volume is of images, not of how they differ."""
    if chosen := volume.attributes.get("display"):
        return float(chosen[0]), float(chosen[1])
    usual = LUNG_WINDOW if volume.is_lung else BONE_WINDOW
    own = (volume.attributes.get("source") or {}).get("window")
    return (float(own[0]), float(own[1])) if own and _suits(own, usual) else usual


def _suits(own: Window, usual: Window) -> bool:
    """Whether a scan's own window shows what the usual one is for."""
    width = usual[1] - usual[0]
    shown = min(own[1], usual[1]) - max(own[0], usual[0])
    return shown >= SHOWN * width and own[1] - own[0] <= WIDEST * width


def channel(volume: Volume) -> dict[str, Any] | None:
    """What OME-Zarr says of a channel for viewers (`omero`): its name, its colour and its window; None as for
    `display_window`.
    """
    window = display_window(volume)
    if window is None:
        return None
    start, end = window
    least, most = SLIDER if volume.unit == "HU" else SHARE_WINDOW
    limits = {
        "min": start if volume.attributes.get("holds") == "sd" else min(least, start),
        "max": max(most, end),
        "start": start,
        "end": end,
    }
    return {"label": name(volume), "color": "FFFFFF", "active": True, "window": limits}


def name(volume: Volume) -> str:
    """What a volume is called in a viewer."""
    facts = volume.attributes
    return facts.get("description") or NAMES.get(facts.get("modality"), "CT")
