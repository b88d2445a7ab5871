"""Import: clinical CT in HU with a lung mask, uCT calibrated to the HU-like scale with a specimen mask, and truth
volumes.

In: what readers.read_scan reads. Out: a volume in the working format, and <name>.run.json beside it. uCT is resampled
to the clinical pixel size / 8 (`matched`) or kept (`native`); Table 1 of the paper comes from the headers kept here.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from pydantic import ValidationError

from microsr import config
from microsr.config import ClinicalVolume, MicroVolume
from microsr.config.sheet import OF_A_SCAN, Scan
from microsr.core.errors import UserError
from microsr.core.files import replacing, write_csv
from microsr.core.progress import Progress, logger
from microsr.core.provenance import checksums_beside, write_run
from microsr.core.scale import SCALE
from microsr.formats.readers import read_scan
from microsr.preprocessing import resampling
from microsr.preprocessing.calibration import Mapping, Sample, fit
from microsr.preprocessing.components import Masks
from microsr.preprocessing.hounsfield import as_int16, clinical_hu
from microsr.preprocessing.masks import Padding, at_full_size, lung_mask, specimen_outline
from microsr.preprocessing.plausible import check_clinical, check_micro
from microsr.preprocessing.regridding import Regridded
from microsr.preprocessing.resampling import Axis
from microsr.volume.chunks import SliceWriter
from microsr.volume.slices import Slices, in_order, refuse_constant
from microsr.volume.storage import Volume, create_volume, open_volume

CALIBRATION_SLICES = 32
"""The calibration looks at about this many slices, evenly spread."""
UPSAMPLING = 0.9
"""Resampling to as little as this share of the voxel size passes for none."""


def import_clinical(scan: Scan, case: str, settings: ClinicalVolume, output: Path) -> None:
    """Import a clinical CT: int16 HU, padding as air (-1000 HU), lung mask inside.

    Raises
    ------
    UserError
        The scan cannot be read with certainty, is not in HU, or holds no lung.
    """
    started = time.time()
    with checksums_beside([scan.path]) as checksums:
        volume = _open_scan(scan, output)
        if volume.attributes.get("independent_slices"):
            raise UserError(f"{scan.path}: a clinical CT needs its slice distance; give clinical_spacing as XxYxZ, mm")
        check_clinical(volume, scan.path)
        volume = clinical_hu(volume, scan.path)
        try:
            lung = lung_mask(volume.array, volume.spacing, settings, volume.array.padding)
        except UserError as error:
            raise UserError(f"{scan.path}: {error}") from None
        volume = replace(volume, attributes={"case": case, "modality": "clinical", **volume.attributes})

        def finish_slice(z: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
            hu, inside = volume.array[z], lung[z]
            return hu, inside, (np.count_nonzero(inside), int(hu[inside].sum(dtype=np.int64)))

        with replacing(output) as temporary:
            counts, sums = _fill(temporary, volume.shape, volume, finish_slice, range(len(lung))).sum(axis=0)
        litres = float(counts * np.prod(volume.spacing) / 1e6)
        logger.info("%s, lung %.2f L, mean %.0f HU", _describe(volume), litres, sums / max(counts, 1))
        _record(output, settings, scan, started, checksums(), lung_litres=litres)


def import_as_is(scan: Scan, case: str, modality: str, output: Path) -> None:
    """Import a truth, in HU already, or its tissue labels: values as they are, no mask."""
    started = time.time()
    with checksums_beside([scan.path]) as checksums:
        volume = _open_scan(scan, output)
        attributes = {"case": case, "modality": modality, **volume.attributes}
        volume = replace(volume, unit="label" if modality == "labels" else "HU", attributes=attributes)

        def finish_slice(z: int) -> tuple[np.ndarray, None, tuple[float, float]]:
            image = volume.array[z]
            return as_int16(image), None, (image.min(), image.max())

        with replacing(output) as temporary:
            lows, highs = _fill(temporary, volume.shape, volume, finish_slice, range(volume.shape[0]), mask=False).T
            refuse_constant(lows.min(), highs.max(), scan.path)
        logger.info("%s", _describe(volume))
        _record(output, None, scan, started, checksums())


def import_micro(scan: Scan, case: str, settings: MicroVolume, output: Path, like: Path | None = None) -> None:
    """Import a uCT volume: int16 HU-like values, specimen mask inside, sampled as set.

    like: the same case's clinical volume, whose pixel size / 8 is the target of `matched` where none is set.

    Raises
    ------
    UserError
        The scan cannot be read with certainty or calibrated, holds no specimen, or would have to be up-sampled.
    """
    started = time.time()
    with checksums_beside([scan.path] + ([like] if like is not None else [])) as checksums:
        volume = _open_scan(scan, output)
        check_micro(volume, scan.path)
        axes = _sampling(volume, settings, like, scan.path)
        padding = Padding(volume.array, (0, volume.attributes["source"].get("padding") or 0))
        outline, mapping = outline_and_calibrate(volume, settings, padding, scan.path, output.parent)

        old, new = volume.spacing, tuple(axis.spacing for axis in axes)
        shift = [(n / o - 1) / 2 for n, o in zip(new, old, strict=True)]
        attributes = {
            "case": case,
            "modality": "micro",
            **volume.attributes,
            "sampling": {"method": settings.sampling, "area_average": settings.area_average},
            "calibration": mapping.facts,
        }
        geometry = {
            "spacing": new,
            "origin": tuple(float(v) for v in volume.point(tuple(shift[::-1]))),
            "direction": volume.direction,
            "unit": "HU",
            "attributes": attributes,
        }
        grid = Regridded(volume.array, padding, outline, axes, mapping, settings.calibration.air_hu)
        with replacing(output) as temporary:
            count = _fill(temporary, grid.shape, geometry, grid.finish_slice, grid.stacks()).sum()
            if count == 0:
                raise UserError(
                    f"{scan.path}: nothing of the specimen is left after resampling; choose a smaller pixel size"
                )
        facts = mapping.facts
        logger.info(
            "%s, specimen %.0f %%, mean %.0f HU, SD %.0f HU before resampling",
            _describe(open_volume(output)), 100 * count / np.prod(grid.shape),
            facts["specimen_mean_hu"], facts["specimen_sd_hu"],
        )  # fmt: skip
        _record(output, settings, scan, started, checksums(), calibration=facts)


def write_table(volumes: list[Path], output: Path) -> None:
    """Write the paper's Table 1: one row for each volume, from what the original headers said."""
    import pandas as pd  # only here: an import is done before pandas is loaded

    started = time.time()
    rows = []
    for path in volumes:
        attributes = open_volume(path).attributes
        source = attributes["source"]
        (columns, rows_px, slices), (x, y, z) = source["size"], source["spacing"]
        rows.append({
            "case": attributes["case"],
            "modality": attributes["modality"],
            "format": source["format"],
            "columns_px": columns,
            "rows_px": rows_px,
            "slices": slices,
            "pixel_x_mm": x,
            "pixel_y_mm": y,
            "slice_spacing_mm": z,
            "slice_thickness_mm": source.get("slice_thickness"),
            "spacing_from": source["spacing_from"],
        })  # fmt: skip
    write_csv(output, pd.DataFrame(rows), float_format="%.6g")
    write_run(output, "volumes", {}, volumes, started, slices_read=dict.fromkeys(volumes, ()))


def _open_scan(scan: Scan, output: Path) -> Volume:
    """The scan, unread; what has to be unpacked is so beside the output."""
    output.parent.mkdir(parents=True, exist_ok=True)
    return read_scan(scan, output.parent)


def outline_and_calibrate(
    volume: Volume, settings: MicroVolume, padding: Padding, where: str, scratch: Path
) -> tuple[Masks, Mapping]:
    """Coarse outline of the specimen, and the calibration, from grey values as scanned.

    where: the file, for messages. scratch: folder of a temporary file.

    Raises
    ------
    UserError
        There is no specimen, or no calibration.
    """
    array = volume.array
    chosen = np.unique(np.linspace(0, len(array) - 1, CALIBRATION_SLICES).astype(int))
    few = (len(chosen), *array.shape[1:])
    fields = Slices(lambda n: ~padding[chosen[n]], few, bool)
    sample = Sample(Slices(lambda n: array[chosen[n]], few, array.dtype), fields)
    try:
        independent = bool(volume.attributes.get("independent_slices"))
        outline = specimen_outline(array, sample.levels, independent, padding, scratch)
        specimens = Slices(lambda n: at_full_size(outline[chosen[n]], few[1:]) & fields[n], few, bool)
        if not any(s.any() for s in specimens):
            raise UserError("holds no specimen: no region denser than air; check that dense tissue is bright")
        return outline, fit(settings.calibration, sample, specimens)
    except UserError as error:
        refuse_constant(min(grey.min() for grey in array), max(grey.max() for grey in array), where)
        raise UserError(f"{where}: {error}") from None


def _sampling(volume: Volume, settings: MicroVolume, like: Path | None, where: str) -> tuple[Axis, Axis, Axis]:
    """New grid along x, y and z."""
    sizes, independent = volume.shape[::-1], bool(volume.attributes.get("independent_slices"))
    keep = resampling.identity_axis(sizes[2], volume.spacing[2])
    if settings.sampling == "native":
        x, y = (
            resampling.averaging_axis(n, s, settings.area_average)
            for n, s in zip(sizes[:2], volume.spacing[:2], strict=True)
        )
        axes = (x, y, keep)
    else:
        target = _target(settings, like, where)
        coarsest = max(volume.spacing[: 2 if independent else 3])
        if target < UPSAMPLING * coarsest:
            raise UserError(
                f"{where}: its voxels of {coarsest:g} mm are coarser than the matched pixel size of {target:g} mm; set "
                "volumes.micro.sampling to native, or a larger matched_spacing_mm"
            )
        x, y, z = (resampling.resampling_axis(n, s, target) for n, s in zip(sizes, volume.spacing, strict=True))
        axes = (x, y, keep if independent else z)
    if min(axis.size for axis in axes) < 1:
        raise UserError(
            f"{where}: is smaller than one pixel of the new grid; choose a smaller pixel size or area_average"
        )
    return axes


def _target(settings: MicroVolume, like: Path | None, where: str) -> float:
    if settings.matched_spacing_mm is not None:
        return settings.matched_spacing_mm
    if like is None:
        raise UserError(
            f"{where}: matched sampling needs the clinical CT of the same case (--like), or "
            "volumes.micro.matched_spacing_mm"
        )
    x, y, _ = open_volume(like).spacing
    if abs(x / y - 1) > 0.01:
        raise UserError(f"{like}: its pixels are not square ({x:g} x {y:g} mm); set volumes.micro.matched_spacing_mm")
    return x / SCALE


def _fill(
    output: Path,
    shape: tuple[int, int, int],
    like: Volume | dict[str, Any],
    finish: Callable[[Any], tuple[np.ndarray, np.ndarray | None, Any]],
    items: Iterable[Any],
    mask: bool = True,
) -> np.ndarray:
    """Write a volume: for each of `items` the HU and mask (or None) that `finish` makes of it.

    Returns the numbers that it gives in addition, one row a slice.
    """
    arrays = create_volume(output, shape, like, mask=mask)
    voxels, inside = (None if array is None else SliceWriter(array) for array in arrays)

    def write(numbered: tuple[int, Any]) -> Any:
        z, item = numbered
        hu, region, facts = finish(item)
        voxels[z] = hu
        if inside is not None:
            inside[z] = region.view(np.uint8)
        return facts

    progress, found = Progress(shape[0], "slices"), []
    for facts in in_order(write, enumerate(items)):
        found.append(facts)
        progress.advance()
    progress.close()
    return np.array(found)


def _describe(volume: Volume) -> str:
    slices, rows, columns = volume.shape
    spacing = " x ".join(f"{v:.4g}" for v in volume.spacing[: 2 if volume.attributes.get("independent_slices") else 3])
    return f"{slices} slices of {columns} x {rows}, {spacing} mm"


def _record(output: Path, settings: Any, scan: Scan, started: float, checksums: dict[Path, str], **facts: Any) -> None:
    chosen = {"scan": scan.model_dump(), **({} if settings is None else settings.model_dump(mode="json"))}
    write_run(output, "volumes", chosen, checksums, started, **facts)


def add_scan_flags(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the flags that say which part of an input is meant, and its spacing: those of `Scan`."""
    parser.add_argument("--series", help="DICOM SeriesInstanceUID, or path of a data set in HDF5, if there are several")
    parser.add_argument("--slices", help="range of slices first:end, end excluded")
    parser.add_argument("--spacing", help="mm as X, XxY or XxYxZ; overrides the file's")
    parser.add_argument("--resample", help="even: put DICOM slices that are uneven or tilted on an even grid")
    parser.add_argument("--level", type=int, help="resolution level of an OME-Zarr or N5 store, 0 the finest")
    parser.add_argument("--region", help="rows and columns first:end,first:end, ends excluded")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Sub-commands clinical, micro, truth, thick_truth, labels, downsample and table."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in (
        ("clinical", "clinical CT: HU and lung mask"),
        ("micro", "uCT: calibration, sampling and specimen mask"),
        ("truth", "truth of a simulated case, in HU"),
        ("thick_truth", "truth of a simulated case, averaged over the slice profile, in HU"),
        ("labels", "tissue labels of a simulated case"),
    ):
        sub = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        sub.add_argument("--case", required=True, help="name of the case")
        sub.add_argument(
            "--input", required=True, help="file, folder of a DICOM series or of 2-D images, or URL of a store"
        )
        add_scan_flags(sub)
        sub.add_argument("--output", type=Path, required=True, help="volume in the working format (<name>.ome.zarr)")
        if name == "clinical":
            config.add_flags(sub, ClinicalVolume)
        elif name == "micro":
            sub.add_argument("--like", type=Path, help="clinical volume that gives the matched pixel size")
            config.add_flags(sub, MicroVolume)
    summary = "a uCT average-pooled to a clinical-like volume"
    sub = commands.add_parser("downsample", help=summary, description=summary, allow_abbrev=False)
    _pooling().arguments(sub)
    summary = "the paper's Table 1"
    sub = commands.add_parser("table", help=summary, description=summary, allow_abbrev=False)
    sub.add_argument("--volumes", type=Path, nargs="+", required=True, help="imported volumes")
    sub.add_argument("--output", type=Path, required=True, help="CSV file")


def main(ns: argparse.Namespace) -> None:
    """Run one of the sub-commands."""
    if ns.command == "table":
        write_table(ns.volumes, ns.output)
        return
    if ns.command == "downsample":
        _pooling().run(ns)
        return
    scan = scan_from_flags(ns)
    ns.output.parent.mkdir(parents=True, exist_ok=True)
    if ns.command == "clinical":
        import_clinical(scan, ns.case, config.from_flags(ns, ClinicalVolume), ns.output)
    elif ns.command == "micro":
        import_micro(scan, ns.case, config.from_flags(ns, MicroVolume), ns.output, ns.like)
    else:
        import_as_is(scan, ns.case, ns.command, ns.output)


def _pooling() -> ModuleType:
    # By name: a change there, or in the metrics that it uses, makes no imported volume old (see `code_version`).
    return importlib.import_module("microsr.preprocessing.downsample")


def scan_from_flags(ns: argparse.Namespace) -> Scan:
    """The input `ns.input`, as the flags of `add_scan_flags` say.

    Raises
    ------
    UserError
        One of them is malformed.
    """
    try:
        return Scan(path=ns.input, **{key: getattr(ns, key) for key in OF_A_SCAN})
    except ValidationError as error:
        raise UserError(config.describe(error, "command line")) from None
