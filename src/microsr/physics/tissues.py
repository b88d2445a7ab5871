"""What each pixel of a simulated truth is, the codes of its label volume; and from which HU on tissue is solid."""

from __future__ import annotations

from enum import IntEnum

SOLID_HU = -300.0
"""Brighter is more than two thirds tissue: vessels, tumour and airway walls, not ground glass (up to -450 HU)."""


class Tissue(IntEnum):
    """Codes of labels.nii.gz, uint8, on the grid of the truth; the tissue at the pixel's centre."""

    OUTSIDE = 0
    """Chest wall."""
    PARENCHYMA = 1
    """Alveoli and their walls."""
    LUMEN = 2
    """Air inside an airway."""
    WALL = 3
    """Airway wall."""
    VESSEL = 4
    """Artery or vein."""
    SEPTUM = 5
    """Interlobular septum."""
    TUMOUR = 6
    """Solid tumour with its spicules."""
    GLASS = 7
    """Ground glass: parenchyma denser than normal around the tumour."""
