"""Import: clinical CT in HU with the mask of a lung or what else is looked at, uCT calibrated to the HU-like scale with
that of a specimen, and truth volumes.

In: what readers.read_scan reads. Out: a volume in the working format, and <name>.run.json beside it. uCT is resampled
to the clinical pixel size / scale (`matched`) or kept (`native`); Table 1 of the paper comes from the headers kept
here.
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

from microsr import config
from microsr.config import ClinicalVolume, MicroVolume
from microsr.config.sheet import Scan
from microsr.core import code_version
from microsr.core.errors import UserError
from microsr.core.files import replacing, write_csv
from microsr.core.progress import Progress, logger
from microsr.core.provenance import checksums_beside, write_run
from microsr.formats.readers import read_scan
from microsr.preprocessing import resampling
from microsr.preprocessing.hounsfield import as_int16, clinical_hu
from microsr.preprocessing.masks import Padding
from microsr.preprocessing.plausible import check_clinical, check_micro
from microsr.preprocessing.regions.find import find_region, outline_and_calibrate, read_given_mask
from microsr.preprocessing.regridding import Regridded
from microsr.preprocessing.resampling import Axis
from microsr.volume.chunks import SliceWriter
from microsr.volume.slices import in_order, refuse_constant
from microsr.volume.storage import Volume, create_volume, open_volume


def import_clinical(
    scan: Scan,
    case: str,
    settings: ClinicalVolume,
    output: Path,
    mask: str | None = None,
    shown: dict[str, list[float]] | None = None,
) -> None:
    """Import a clinical CT: int16 HU, padding as air (-1000 HU), mask inside.

    mask: the label volume, where `settings.mask` is file. shown: the attribute `display`, if it is chosen.

    Raises
    ------
    UserError
        The scan or its mask cannot be read with certainty, it is not in HU, or nothing is inside the mask.
    """
    started = time.time()
    with checksums_beside([scan.path] + ([mask] if mask is not None else [])) as checksums:
        volume = _open_scan(scan, output)
        if volume.attributes.get("independent_slices"):
            raise UserError(f"{scan.path}: a clinical CT needs its slice distance; give clinical_spacing as XxYxZ, mm")
        check_clinical(volume, scan.path, settings.is_lung)
        grey = volume
        volume = clinical_hu(volume, scan.path, settings.is_lung)
        if not settings.is_lung:
            logger.info("another organ than the lung: not checked to be a chest CT; metrics of lungs are left out")
        region = find_region(settings, mask, scan, grey, volume, output.parent)
        facts = {"case": case, "modality": "clinical", "mask": settings.mask}
        facts["organ"] = "lung" if settings.is_lung else "other"
        volume = replace(volume, attributes={**facts, **volume.attributes, **(shown or {})})

        def finish_slice(z: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
            hu, inside = volume.array[z], region[z]
            return hu, inside, (np.count_nonzero(inside), int(hu[inside].sum(dtype=np.int64)))

        with replacing(output) as temporary:
            counts, sums = _fill(temporary, volume.shape, volume, finish_slice, range(len(region))).sum(axis=0)
            if counts == 0:
                raise UserError(f"{scan.path}: its mask is empty: all of it lies outside the field of view; correct it")
        millilitres = float(counts * np.prod(volume.spacing) / 1e3)
        logger.info("%s, %s, mean %.0f HU", _describe(volume), _amount(settings, millilitres), sums / counts)
        _record(output, settings, scan, started, checksums(), mask_millilitres=millilitres)


def _amount(settings: ClinicalVolume, millilitres: float) -> str:
    if settings.mask == "lung":
        return f"lung {millilitres / 1e3:.2f} L"
    return f"mask {millilitres / 1e3:.2f} L" if millilitres > 100 else f"mask {millilitres:.3g} mL"


def import_as_is(
    scan: Scan, case: str, modality: str, output: Path, shown: dict[str, list[float]] | None = None
) -> None:
    """Import a truth, in HU already, or its tissue labels: values as they are, no mask.

    shown: see `import_clinical`.
    """
    started = time.time()
    with checksums_beside([scan.path]) as checksums:
        volume = _open_scan(scan, output)
        attributes = {"case": case, "modality": modality, **volume.attributes, **(shown or {})}
        volume = replace(volume, unit="label" if modality == "labels" else "HU", attributes=attributes)

        def finish_slice(z: int) -> tuple[np.ndarray, None, tuple[float, float]]:
            image = volume.array[z]
            return as_int16(image), None, (image.min(), image.max())

        with replacing(output) as temporary:
            lows, highs = _fill(temporary, volume.shape, volume, finish_slice, range(volume.shape[0]), mask=False).T
            refuse_constant(lows.min(), highs.max(), scan.path)
        logger.info("%s", _describe(volume))
        _record(output, None, scan, started, checksums())


def import_micro(
    scan: Scan,
    case: str,
    settings: MicroVolume,
    output: Path,
    like: Path | None = None,
    mask: str | None = None,
    scale: int = config.DEFAULT_SCALE,
    shown: dict[str, list[float]] | None = None,
) -> None:
    """Import a uCT volume: int16 HU-like values, mask inside, sampled as set.

    like: the same case's clinical volume, whose pixel size / scale is the target of `matched` where none is set. mask:
    the label volume, on the grid of the scan, where `settings.mask` is file. shown: see `import_clinical`.

    Raises
    ------
    UserError
        The scan cannot be read with certainty or calibrated, holds no specimen, or would have to be up-sampled.
    """
    started = time.time()
    with checksums_beside([scan.path, *(path for path in (like, mask) if path is not None)]) as checksums:
        volume = _open_scan(scan, output)
        volume.attributes["source"].pop("window", None)  # of grey values, not of HU
        check_micro(volume, scan.path)
        axes = _sampling(volume, settings, like, scale, scan.path)
        padding = Padding(volume.array, (0, volume.attributes["source"].get("padding") or 0))
        given = read_given_mask(settings, mask, scan, volume, output.parent)
        specimen, mapping = outline_and_calibrate(volume, settings, padding, scan.path, output.parent, given)

        old, new = volume.spacing, tuple(axis.spacing for axis in axes)
        shift = [(n / o - 1) / 2 for n, o in zip(new, old, strict=True)]
        attributes = {
            "case": case,
            "modality": "micro",
            "mask": settings.mask,
            **volume.attributes,
            **(shown or {}),
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
        grid = Regridded(volume.array, padding, specimen, axes, mapping, settings.calibration.air_hu)
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


def _sampling(
    volume: Volume, settings: MicroVolume, like: Path | None, scale: int, where: str
) -> tuple[Axis, Axis, Axis]:
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
        target = _target(settings, like, scale, where)
        coarsest = max(volume.spacing[: 2 if independent else 3])
        if target < resampling.UPSAMPLING * coarsest:
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


def _target(settings: MicroVolume, like: Path | None, scale: int, where: str) -> float:
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
    return x / scale


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


def arguments(parser: argparse.ArgumentParser) -> None:
    """Sub-commands clinical, micro, truth, thick_truth, labels, downsample, registered and table."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in (
        ("clinical", "clinical CT: HU and mask"),
        ("micro", "uCT: calibration, sampling and mask"),
        ("truth", "truth of a simulated case, in HU"),
        ("thick_truth", "truth of a simulated case, averaged over the slice profile, in HU"),
        ("labels", "tissue labels of a simulated case"),
    ):
        sub = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        sub.add_argument("--case", required=True, help="name of the case")
        sub.add_argument(
            "--input", required=True, help="file, folder of a DICOM series or of 2-D images, or URL of a store"
        )
        config.add_scan_flags(sub)
        sub.add_argument("--output", type=Path, required=True, help="volume in the working format (<name>.ome.zarr)")
        if name != "labels":
            config.add_display(sub)
        if name == "clinical":
            sub.add_argument("--mask_file", help="label volume on the scan's grid; for mask file")
            config.add_flags(sub, ClinicalVolume)
        elif name == "micro":
            sub.add_argument("--like", type=Path, help="clinical volume that gives the matched pixel size")
            sub.add_argument("--mask_file", help="label volume on the scan's grid; for mask file")
            config.add_scale(sub)
            config.add_flags(sub, MicroVolume)
    summary = "a uCT average-pooled to a clinical-like volume"
    sub = commands.add_parser("downsample", help=summary, description=summary, allow_abbrev=False)
    _step("volumes.downsample").arguments(sub)
    summary = "truth of a real case inside its specimen: its uCT, brought into its CT by a registration"
    sub = commands.add_parser("registered", help=summary, description=summary, allow_abbrev=False)
    _step("volumes.registered").arguments(sub)
    summary = "the paper's Table 1"
    sub = commands.add_parser("table", help=summary, description=summary, allow_abbrev=False)
    sub.add_argument("--volumes", type=Path, nargs="+", required=True, help="imported volumes")
    sub.add_argument("--output", type=Path, required=True, help="CSV file")


def main(ns: argparse.Namespace) -> None:
    """Run one of the sub-commands."""
    if ns.command == "table":
        write_table(ns.volumes, ns.output)
        return
    if ns.command in ("downsample", "registered"):
        _step(f"volumes.{ns.command}").run(ns)
        return
    scan = config.scan_from_flags(ns)
    ns.output.parent.mkdir(parents=True, exist_ok=True)
    shown = {} if ns.command == "labels" else config.display_from_flags(ns)
    if ns.command == "clinical":
        import_clinical(scan, ns.case, config.from_flags(ns, ClinicalVolume), ns.output, ns.mask_file, shown)
    elif ns.command == "micro":
        settings = config.from_flags(ns, MicroVolume)
        import_micro(scan, ns.case, settings, ns.output, ns.like, ns.mask_file, ns.scale, shown)
    else:
        import_as_is(scan, ns.case, ns.command, ns.output, shown)


def _step(name: str) -> ModuleType:
    # By name: a change there, or in the metrics that it uses, makes no imported volume old (see `code_version`).
    return importlib.import_module(code_version.STEPS[name])
