"""Import: clinical CT in HU with a lung mask, uCT calibrated to the HU-like scale with a specimen mask, and truth volumes.

In: what readers.read_scan reads. Out: a volume in the working format, and <name>.run.json beside it. uCT is resampled to the
clinical pixel size / 8 (`matched`) or kept (`native`); Table 1 of the paper comes from the headers kept here.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from microsr import SCALE, UserError, config, resampling
from microsr.calibration import Mapping, fit, levels, tissue_threshold
from microsr.config import ClinicalVolume, MicroVolume, Scan
from microsr.masks import at_full_size, lung_mask, padded, specimen_outline
from microsr.progress import Progress, logger
from microsr.provenance import write_run
from microsr.readers import read_scan
from microsr.resampling import Axis
from microsr.storage import Volume, create_volume, open_volume, write_volume

AIR_HU = -1000
LOWEST_HU = -1500
"""No tissue and no noise in air is below this: padding."""
AERATED_SHARE = 1e-3
"""A CT of the chest in HU has at least this share of voxels below -300 HU."""
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
    volume = read_scan(scan)
    if volume.attributes.get("independent_slices"):
        raise UserError(f"{scan.path}: a clinical CT needs its slice distance; give clinical_spacing as XxYxZ, mm")
    hu, padding = _to_hu(volume, scan.path)
    try:
        lung = lung_mask(hu, volume.spacing, settings, padding)
    except UserError as error:
        raise UserError(f"{scan.path}: {error}") from None
    attributes = {"case": case, "modality": "clinical", **volume.attributes}
    volume = replace(volume, array=hu, unit="HU", attributes=attributes)
    write_volume(output, volume, lung)
    litres = float(lung.sum() * np.prod(volume.spacing) / 1e6)
    logger.info("%s, lung %.2f L, mean %.0f HU", _described(volume), litres, hu[lung].mean())
    _record(output, settings, scan, started, lung_litres=litres)


def import_as_is(scan: Scan, case: str, modality: str, output: Path) -> None:
    """Import a truth, in HU already, or its tissue labels: values as they are, no mask."""
    started = time.time()
    volume = read_scan(scan)
    attributes = {"case": case, "modality": modality, **volume.attributes}
    volume = replace(volume, unit={"truth": "HU", "labels": "label"}[modality], attributes=attributes)
    write_volume(output, volume)
    logger.info("%s", _described(volume))
    _record(output, None, scan, started)


def import_micro(scan: Scan, case: str, settings: MicroVolume, output: Path, like: Path | None = None) -> None:
    """Import a uCT volume: int16 HU-like values, specimen mask inside, sampled as set.

    like: the same case's clinical volume, whose pixel size / 8 is the target of `matched` where none is set.

    Raises
    ------
    UserError
        The scan cannot be read with certainty or calibrated, holds no specimen, or would have to be up-sampled.
    """
    started = time.time()
    volume = read_scan(scan)
    axes = _sampling(volume, settings, like, scan.path)
    fill = (0, volume.attributes["source"].get("padding") or 0)
    outline, mapping = _specimen(volume, settings, fill, scan.path)

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
    shape = tuple(axis.size for axis in axes[::-1])
    voxels, inside = create_volume(output, shape, geometry, mask=True)
    count = _write_micro(volume.array, outline, fill, mapping, axes, voxels, inside, settings.calibration.air_hu)
    if count == 0:
        raise UserError(f"{scan.path}: nothing of the specimen is left after resampling; choose a smaller pixel size")
    written = Volume(voxels, **geometry)
    facts = mapping.facts
    logger.info(
        "%s, specimen %.0f %%, mean %.0f HU, SD %.0f HU before resampling",
        _described(written), 100 * count / np.prod(shape), facts["specimen_mean_hu"], facts["specimen_sd_hu"],
    )  # fmt: skip
    _record(output, settings, scan, started, like=like, calibration=facts)


def table(volumes: list[Path], output: Path) -> None:
    """Write the paper's Table 1: one row for each volume, from what the original headers said."""
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
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(output, index=False, float_format="%.6g")


def _to_hu(volume: Volume, where: str) -> tuple[np.ndarray, np.ndarray]:
    """HU as int16 with padding turned into air, and the padding (bool)."""
    declared = volume.attributes["source"].get("padding")
    lowest = float(volume.array.min())
    # A padding value among the tissues (0, say) cannot be told from tissue and is left as it is.
    fill = tuple(v for v in (declared, lowest) if v is not None and v <= AIR_HU)
    hu = np.empty(volume.shape, np.int16)
    padding = np.empty(volume.shape, bool)
    aerated = extreme = 0
    for z in range(volume.shape[0]):
        grey = volume.array[z]
        padding[z] = (grey < LOWEST_HU) | padded(grey, fill)
        aerated += np.count_nonzero((grey < -300) & ~padding[z])
        extreme += np.count_nonzero(grey > 4000)
        hu[z] = np.where(padding[z], AIR_HU, np.clip(np.rint(grey), -32768, 32767))
    if aerated < AERATED_SHARE * hu.size or extreme > 0.01 * hu.size:
        raise UserError(
            f"{where}: values from {lowest:g} to {float(volume.array.max()):g} are not the HU of a chest CT (air -1000, water 0); "
            "give the scan with its rescale slope and intercept applied"
        )
    return hu, padding


def _specimen(volume: Volume, settings: MicroVolume, fill: tuple[float, ...], where: str) -> tuple[np.ndarray, Mapping]:
    """Coarse outline of the specimen, and the calibration, from grey values as scanned."""
    array = volume.array
    chosen = np.unique(np.linspace(0, len(array) - 1, CALIBRATION_SLICES).astype(int))
    slices = [array[z] for z in chosen]
    fields = [~padded(grey, fill) for grey in slices]
    try:
        threshold = tissue_threshold(slices, fields)
        independent = bool(volume.attributes.get("independent_slices"))
        outline = specimen_outline(array, levels(slices, fields, threshold), independent, fill)
        specimens = [at_full_size(outline[z], array.shape[1:]) & f for z, f in zip(chosen, fields, strict=True)]
        if not any(s.any() for s in specimens):
            raise UserError("holds no specimen: no region denser than air; check that dense tissue is bright")
        return outline, fit(settings.calibration, slices, fields, specimens, threshold)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _sampling(volume: Volume, settings: MicroVolume, like: Path | None, where: str) -> tuple[Axis, Axis, Axis]:
    """New grid along x, y and z."""
    sizes, independent = volume.shape[::-1], bool(volume.attributes.get("independent_slices"))
    keep = resampling.unchanged(sizes[2], volume.spacing[2])
    if settings.sampling == "native":
        x, y = (
            resampling.averaged(n, s, settings.area_average) for n, s in zip(sizes[:2], volume.spacing[:2], strict=True)
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
        x, y, z = (resampling.resampled(n, s, target) for n, s in zip(sizes, volume.spacing, strict=True))
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
            f"{where}: matched sampling needs the clinical CT of the same case (--like), or volumes.micro.matched_spacing_mm"
        )
    x, y, _ = open_volume(like).spacing
    if abs(x / y - 1) > 0.01:
        raise UserError(f"{like}: its pixels are not square ({x:g} x {y:g} mm); set volumes.micro.matched_spacing_mm")
    return x / SCALE


def _write_micro(
    array: np.ndarray, outline: np.ndarray, fill: tuple[float, ...], mapping: Mapping, axes: tuple[Axis, Axis, Axis],
    voxels: Any, inside: Any, air_hu: float,
) -> int:  # fmt: skip
    """Fill the new volume slice by slice; returns the number of voxels in the specimen."""
    x, y, z = axes

    def through(load: Callable[[int], np.ndarray], kind: str):
        return resampling.apply(load, getattr(y, kind), getattr(x, kind), getattr(z, kind), len(array))

    def outside(index: int) -> np.ndarray:
        return padded(array[index], fill)

    def specimen(index: int) -> np.ndarray:
        return at_full_size(outline[index], array.shape[1:]) & ~outside(index)

    streams = through(lambda i: array[i], "weights"), through(outside, "cover"), through(specimen, "cover")
    limits = np.iinfo(np.int16)
    count = 0
    progress = Progress(z.size, "slices")
    for index, (grey, beyond, tissue) in enumerate(zip(*streams, strict=True)):
        hu = np.where(beyond > 0.02, air_hu, mapping(grey))
        mask = (tissue > 0.5) & (beyond <= 0.02)
        voxels[index] = np.clip(np.rint(hu), limits.min, limits.max).astype(np.int16)
        inside[index] = mask.astype(np.uint8)
        count += np.count_nonzero(mask)
        progress.advance()
    progress.close()
    return count


def _described(volume: Volume) -> str:
    slices, rows, columns = volume.shape
    spacing = " x ".join(f"{v:.4g}" for v in volume.spacing[: 2 if volume.attributes.get("independent_slices") else 3])
    return f"{slices} slices of {columns} x {rows}, {spacing} mm"


def _record(output: Path, settings: Any, scan: Scan, started: float, like: Path | None = None, **facts: Any) -> None:
    name = output.name.removesuffix(".ome.zarr")
    chosen = {"scan": scan.model_dump(), **({} if settings is None else settings.model_dump(mode="json"))}
    inputs = [Path(scan.path)] + ([like] if like is not None else [])
    write_run(output.with_name(f"{name}.run.json"), "volumes", chosen, inputs, started, **facts)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Sub-commands clinical, micro, truth, labels, downsample and table."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in (
        ("clinical", "clinical CT: HU and lung mask"),
        ("micro", "uCT: calibration, sampling and specimen mask"),
        ("truth", "truth of a simulated case, in HU"),
        ("labels", "tissue labels of a simulated case"),
    ):
        sub = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        sub.add_argument("--case", required=True, help="name of the case")
        sub.add_argument("--input", required=True, help="file, or folder of a DICOM series or of 2-D images")
        sub.add_argument("--series", help="DICOM SeriesInstanceUID, where the folder holds several")
        sub.add_argument("--slices", help="range of slices first:end, end excluded")
        sub.add_argument("--spacing", help="mm as X, XxY or XxYxZ; overrides the file's")
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
        table(ns.volumes, ns.output)
        return
    if ns.command == "downsample":
        _pooling().run(ns)
        return
    scan = _scan(ns)
    ns.output.parent.mkdir(parents=True, exist_ok=True)
    if ns.command == "clinical":
        import_clinical(scan, ns.case, config.from_flags(ns, ClinicalVolume), ns.output)
    elif ns.command == "micro":
        import_micro(scan, ns.case, config.from_flags(ns, MicroVolume), ns.output, ns.like)
    else:
        import_as_is(scan, ns.case, ns.command, ns.output)


def _pooling() -> ModuleType:
    # By name: a change there, or in the metrics that it uses, makes no imported volume old (see `provenance.code_version`).
    return importlib.import_module("microsr.pooling")


def _scan(ns: argparse.Namespace) -> Scan:
    try:
        return Scan(path=ns.input, series=ns.series, slices=ns.slices, spacing=ns.spacing)
    except config.ValidationError as error:
        raise UserError(config.describe(error, "command line")) from None


def clinical_hu(volume: Volume, where: str) -> Volume:
    """The volume as int16 HU with padding as air; `where` names it in errors.

    Raises
    ------
    UserError
        It is not in HU, or holds no lung.
    """
    return replace(volume, array=_to_hu(volume, where)[0], unit="HU")
