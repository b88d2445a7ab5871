"""Where patches and metrics of a scan come from, by the way that its settings name (`volumes.<modality>.mask`), and the
calibration of a uCT, which the tissue of its specimen gives.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from microsr.config import ClinicalVolume, MicroVolume
from microsr.config.sheet import Scan
from microsr.core.errors import UserError
from microsr.preprocessing.calibration import Mapping, Sample, fit
from microsr.preprocessing.components import Masks
from microsr.preprocessing.masks import Padding, at_full_size, coarse_factor, lung_mask, specimen_outline
from microsr.preprocessing.regions.given import read_mask
from microsr.preprocessing.regions.values import values_outline
from microsr.volume.slices import Slices, refuse_constant
from microsr.volume.storage import Volume

CALIBRATION_SLICES = 32
"""The calibration looks at about this many slices, evenly spread."""


def find_region(
    settings: ClinicalVolume, mask: str | None, scan: Scan, grey: Volume, volume: Volume, scratch: Path
) -> Slices:
    """Where patches and metrics of a clinical CT come from; grey: as it was read, volume: in HU."""
    hu, padding = volume.array, volume.array.padding
    if settings.mask == "file":
        given = read_mask(_require_mask(mask, "clinical", scan), scan, grey, scratch)
        return Slices(lambda z: given[z] & ~padding[z], hu.shape, bool)
    if settings.mask == "none":
        return Slices(lambda z: ~padding[z], hu.shape, bool)
    try:
        if settings.mask == "lung":
            return lung_mask(hu, volume.spacing, settings, padding)
        outline = values_outline(hu, volume.spacing[:2], settings, padding)
    except UserError as error:
        raise UserError(f"{scan.path}: {error}") from None
    return Slices(lambda z: outline[z] & ~padding[z], hu.shape, bool)


def read_given_mask(settings: MicroVolume, mask: str | None, scan: Scan, volume: Volume, scratch: Path) -> Masks | None:
    """The mask of a uCT that is in a file, if that is asked for; mask: its path."""
    return read_mask(_require_mask(mask, "micro", scan), scan, volume, scratch) if settings.mask == "file" else None


def _require_mask(mask: str | None, modality: str, scan: Scan) -> str:
    """The path of the mask that is asked for."""
    if mask is None:
        raise UserError(
            f"{scan.path}: volumes.{modality}.mask is file, but no file is given; fill {modality}_mask in the sheet "
            "(--mask_file of the command), or choose another mask"
        )
    return mask


def outline_and_calibrate(
    volume: Volume,
    settings: MicroVolume,
    padding: Padding,
    where: str,
    scratch: Path,
    given: Masks | None = None,
) -> tuple[Slices, Mapping]:
    """Mask of the specimen at full size, and the calibration, from grey values as scanned.

    where: the file, for messages. scratch: folder of a temporary file. given: the mask, where it is a file.

    Raises
    ------
    UserError
        There is no specimen, or no calibration.
    """
    array = volume.array
    # Of a mask that is given, few slices may hold anything: it is those that the calibration looks at.
    known = range(len(array)) if given is None else [z for z in range(len(array)) if given.packed_slice(z)]
    chosen = np.asarray(known)[np.unique(np.linspace(0, len(known) - 1, CALIBRATION_SLICES).astype(int))]
    few = (len(chosen), *array.shape[1:])
    fields = Slices(lambda n: ~padding[int(chosen[n])], few, bool)
    sample = Sample(Slices(lambda n: array[int(chosen[n])], few, array.dtype), fields)
    try:
        specimen = _make_specimen(volume, settings, padding, sample, scratch, given)
        specimens = Slices(lambda n: specimen[int(chosen[n])] & fields[n], few, bool)
        if not any(s.any() for s in specimens):
            raise UserError("holds no specimen: no region denser than air; check that dense tissue is bright")
        return specimen, fit(settings.calibration, sample, specimens)
    except UserError as error:
        refuse_constant(min(grey.min() for grey in array), max(grey.max() for grey in array), where)
        raise UserError(f"{where}: {error}") from None


def _make_specimen(
    volume: Volume, settings: MicroVolume, padding: Padding, sample: Sample, scratch: Path, given: Masks | None
) -> Slices:
    """Mask of the specimen at full size, found when a slice is asked for."""
    array, independent = volume.array, bool(volume.attributes.get("independent_slices"))
    if given is not None:
        return given
    if settings.mask == "none":
        return Slices(lambda z: ~padding[z], array.shape, bool)
    if settings.mask == "values":
        factor = coarse_factor(array.shape[1:])
        outline = values_outline(array, volume.spacing[:2], settings, padding, factor, independent)
    else:
        outline = specimen_outline(array, sample.levels, independent, padding, scratch)
    return Slices(lambda z: at_full_size(outline[z], array.shape[1:]), array.shape, bool)
