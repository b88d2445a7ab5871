"""Whether a scan can be what it is given as, by its pixel size and the plane of its slices: what its values do not say.

A size in um that is read as mm, a uCT in the place of a clinical CT and slices that are no axial ones would otherwise
pass as something else.
"""

from __future__ import annotations

import numpy as np

from microsr.core.errors import UserError
from microsr.core.progress import logger
from microsr.preprocessing.hounsfield import AERATED_SHARE
from microsr.volume.orientation import plane
from microsr.volume.storage import Volume

FINEST_CLINICAL, COARSEST_CLINICAL = 0.1, 5.0
"""Pixel sizes, mm, beyond which no scanner makes a clinical CT."""
THICKEST_CLINICAL = 30.0
"""Slice distance, mm, beyond which no series of slices shows a chest."""
COARSEST_MICRO = 0.3
"""Pixel size, mm, above which a volume with the HU of air is no uCT."""
NO_MICRO, NO_OPTICS = 0.5, 1e-4
"""Voxel sizes, mm, above and below which nothing is a uCT."""
GIVE_SIZE = "give its true size, mm: <modality>_spacing in the sheet, or --spacing"


def check_clinical(volume: Volume, where: str, is_chest: bool = True) -> None:
    """Refuse a clinical CT whose pixels are no clinical CT's, whatever its values are; warn where its slices are not
    axial.

    is_chest: False where what is small and finely scanned, as a joint or a rock, may be clinical too.

    Raises
    ------
    UserError
        The pixels are those of a uCT, or too large for any CT.
    """
    if is_chest and min(volume.spacing[:2]) < FINEST_CLINICAL:
        raise UserError(
            f"{where}: its pixels of {min(volume.spacing[:2]):g} mm are those of a uCT, not of a clinical CT; give it "
            "in the column 'micro', or its true size as clinical_spacing (another organ: volumes.clinical.organ, or "
            "--organ, other)"
        )
    _refuse_large(volume, where, COARSEST_CLINICAL, THICKEST_CLINICAL, "clinical CT")
    if (found := plane(volume.direction)) != "axial":
        logger.warning(
            "%s: its slices are %s, not axial: masks, networks and metrics are made for axial slices; give the axial "
            "series, or the volume saved with axial slices",
            *(where, found),
        )


def check_micro(volume: Volume, where: str) -> None:
    """Refuse a uCT with pixels that no uCT has, and a clinical CT in its place.

    Raises
    ------
    UserError
        The pixels are too large, or those of a clinical CT with the HU of air.
    """
    middle = np.asarray(volume.array[len(volume.array) // 2])
    if min(volume.spacing[:2]) > COARSEST_MICRO and np.mean(middle < -300) > AERATED_SHARE:
        raise UserError(
            f"{where}: its pixels of {volume.spacing[0]:g} mm and its values are those of a clinical CT, not of a uCT; "
            "give it in the column 'clinical', or its true size as micro_spacing"
        )
    independent = volume.attributes.get("independent_slices")
    _refuse_large(volume, where, NO_MICRO, np.inf if independent else NO_MICRO, "uCT")
    if min(volume.spacing[:2]) < NO_OPTICS:
        raise UserError(f"{where}: pixels of {min(volume.spacing[:2]):g} mm are no uCT's (m for mm?); {GIVE_SIZE}")


def _refuse_large(volume: Volume, where: str, coarsest: float, thickest: float, what: str) -> None:
    x, y, z = volume.spacing
    if max(x, y) > coarsest or z > thickest:
        raise UserError(f"{where}: voxels of {x:g} x {y:g} x {z:g} mm are no {what}'s (um for mm?); {GIVE_SIZE}")
