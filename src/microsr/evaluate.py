"""Metrics of super-resolved CT as tidy tables: `metrics` for one case, `collect` to put all of them into one file.

In: a super-resolved volume, its clinical input with the lung mask, the uCT that it should look like, and the truth
where one exists. Out: rows of case, method, training_set, protocol, metric, value, unit. The formulas are in
metrics.py.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from microsr import SCALE, UserError, config, metrics, patches, spectrum
from microsr.progress import Progress, logger
from microsr.provenance import write_run
from microsr.storage import Volume, magnified_geometry, open_mask, open_volume

COLUMNS = ["case", "method", "training_set", "protocol", "metric", "value", "unit"]
WINDOWS = 256
"""Windows drawn from each volume for its spectrum."""
WINDOW_SIZES = (128, 64, 32)
"""Sides of the windows, pixels: the largest that fits is used. Multiples of 16, so that the clinical Nyquist limit
and the checkerboard's frequencies fall on exact steps."""
ENOUGH_ROOM = 8
"""Windows, each half overlapping the next, that must fit into a volume's mask for a size to be taken."""
WINDOW_SEED = 0
"""The windows' places are always the same, so that methods are compared on the same tissue."""
OVERLAY_TOLERANCE = 0.1
"""Largest distance, super-resolved pixels, between corners that should coincide; headers in float32 stay far below."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Command-line arguments of the step."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    one = commands.add_parser("metrics", help="metrics of one super-resolved case", allow_abbrev=False)
    one.add_argument("--case", required=True, help="name of the case")
    one.add_argument("--method", required=True, help="name of the method")
    one.add_argument("--training_set", required=True, help="name of the training set, or none")
    one.add_argument("--superresolved", required=True, type=Path, help="super-resolved CT (OME-Zarr)")
    one.add_argument("--clinical", required=True, type=Path, help="its input (OME-Zarr with the lung mask)")
    one.add_argument("--truth", type=Path, help="truth on the super-resolved grid, every clinical slice (OME-Zarr)")
    one.add_argument(
        "--micro", required=True, nargs="+", type=Path, help="uCT volumes (OME-Zarr with the specimen mask)"
    )
    one.add_argument("--output", required=True, type=Path, help="table (.csv)")
    config.add_flags(one, config.Evaluate)
    many = commands.add_parser("collect", help="put the tables of all cases into one", allow_abbrev=False)
    many.add_argument("--inputs", required=True, nargs="+", type=Path, help="tables of `microsr evaluate metrics`")
    many.add_argument("--output", required=True, type=Path, help="table (.csv)")


def main(ns: argparse.Namespace) -> None:
    """Run the step from its command line."""
    if ns.command == "collect":
        collect(ns.inputs, ns.output)
        return
    settings = config.from_flags(ns, config.Evaluate)
    names = (ns.case, ns.method, ns.training_set)
    evaluate(names, ns.superresolved, ns.clinical, ns.micro, ns.truth, ns.output, settings)


def evaluate(
    names: tuple[str, str, str],
    superresolved: Path,
    clinical: Path,
    micro: list[Path],
    truth: Path | None,
    output: Path,
    settings: config.Evaluate,
) -> None:
    """Write the metrics of one super-resolved volume as a tidy .csv with COLUMNS.

    names: case, method and training set. superresolved: HU, 8 times the clinical size in-plane, its attribute
    `slices` the clinical slices that it holds. truth: HU on the same grid, all clinical slices; None: no metrics of
    protocol truth.

    Raises
    ------
    UserError
        A volume is not in HU, the volumes do not overlay, or there is no lung in the super-resolved slices.
    """
    started = time.time()
    sr, ct = open_volume(superresolved), open_volume(clinical)
    references = [open_volume(path) for path in micro]
    true = None if truth is None else open_volume(truth)
    for path, volume in zip([superresolved, clinical, *micro, truth], [sr, ct, *references, true], strict=True):
        if volume is not None and volume.unit != "HU":
            raise UserError(
                f"{path} has unit '{volume.unit}', metrics need HU; calibrate it (volumes.micro.calibration)"
            )
    slices = _slices(sr, superresolved, ct, clinical)
    grid = Volume(array=None, **magnified_geometry(ct))
    _check_overlay(sr, superresolved, grid, (ct.shape[0], SCALE * ct.shape[1], SCALE * ct.shape[2]), clinical, slices)
    if true is not None:
        _check_overlay(sr, superresolved, true, true.shape, truth, slices)

    mask = open_mask(clinical)
    rows = _slice_metrics(sr, ct, true, mask, slices, superresolved, settings.data_range_hu)
    rows += _spectral_metrics(sr, superresolved, mask, slices, references, micro)
    table = pd.DataFrame([(*names, *row) for row in rows], columns=COLUMNS)
    output.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(output, index=False, float_format="%.6g")
    write_run(
        output.with_suffix(".run.json"),
        step="evaluate",
        settings=settings.model_dump(mode="json"),
        inputs=[p for p in (superresolved, clinical, truth, *micro) if p is not None],
        started=started,
        slices=slices,
    )


def collect(inputs: list[Path], output: Path) -> None:
    """Put the tables of several cases and methods into one, sorted by case, method, training set, protocol and metric.

    Values are copied as they are written. Raises UserError for a file with other columns, an empty one or a row twice.
    """
    rows: dict[tuple[str, ...], list[str]] = {}
    for path in inputs:
        with path.open(encoding="utf-8", newline="") as stream:
            header, *body = list(csv.reader(stream)) or [[]]
        if header != COLUMNS:
            raise UserError(f"{path} has columns {', '.join(header) or '(none)'}; expected {', '.join(COLUMNS)}")
        if not body:
            raise UserError(f"{path} holds no metrics; make it again with `microsr evaluate metrics`")
        for row in body:
            key = tuple(row[:5])
            if key in rows:
                raise UserError(f"{path} has a second row for {', '.join(key)}; give each table once")
            rows[key] = row
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([COLUMNS, *(rows[key] for key in sorted(rows))])


def _slices(sr: Volume, sr_path: Path, clinical: Volume, clinical_path: Path) -> list[int]:
    """The clinical slices that the super-resolved volume holds, in rising order, checked."""
    slices = sr.attributes.get("slices")
    known = range(clinical.shape[0])
    if slices is None or len(slices) != sr.shape[0] or sorted({*slices} & {*known}) != slices:
        raise UserError(
            f"{sr_path} holds {sr.shape[0]} slices and says they are {slices} of {clinical_path} "
            f"({clinical.shape[0]} slices); super-resolve it again from that volume"
        )
    return slices


def _check_overlay(
    sr: Volume, sr_path: Path, other: Volume, shape: tuple[int, int, int], other_path: Path, slices: list[int]
) -> None:
    """Refuse volumes whose corners are not in the same place. other, shape: on the SR grid, all clinical slices."""
    _, rows, columns = sr.shape
    if (rows, columns) != shape[1:] or max(slices) >= shape[0]:
        raise UserError(
            f"{sr_path} ({rows}x{columns} pixels, up to clinical slice {max(slices)}) and {other_path} ({shape[1]}x{shape[2]} "
            f"on the super-resolved grid, {shape[0]} slices) do not overlay; check the sheet's paths and slices"
        )
    corners = [(0, slices[0], r, c) for r in (0, rows - 1) for c in (0, columns - 1)]
    if slices == list(
        range(slices[0], slices[0] + len(slices))
    ):  # chosen slices that are apart have no spacing to check
        corners.append((len(slices) - 1, slices[-1], 0, 0))
    gap = max(np.linalg.norm(sr.point((i, r, c)) - other.point((z, r, c))) for i, z, r, c in corners)
    if gap > OVERLAY_TOLERANCE * min(sr.spacing[:2]):
        raise UserError(
            f"{sr_path} and {other_path} do not overlay: corners are {gap:.3g} mm apart (spacing {_mm(sr.spacing)} and "
            f"{_mm(other.spacing)}, origin {_mm(sr.origin)} and {_mm(other.origin)} on the super-resolved grid); "
            f"give both the same geometry"
        )


def _mm(values: tuple[float, ...]) -> str:
    return "x".join(f"{v:.6g}" for v in values)


def _slice_metrics(
    sr: Volume,
    clinical: Volume,
    truth: Volume | None,
    mask: Any,
    slices: list[int],
    path: Path,
    data_range: float,
) -> list[tuple[str, str, float, str]]:
    """Metrics that compare pixel with pixel, in one pass over the super-resolved slices."""
    against_input, against_truth, similarity = metrics.Moments(), metrics.Moments(), metrics.Moments()
    progress = Progress(len(slices), "slices")
    for i, z in enumerate(slices):
        image, lung = np.asarray(sr.array[i]), np.asarray(mask[z])
        against_input.add(metrics.pooled_difference(image, clinical.array[z], lung))
        if truth is not None:
            true, inside = np.asarray(truth.array[z]), metrics.magnify(lung)
            against_truth.add(metrics.truth_difference(image, true, inside))
            similarity.add(metrics.ssim_values(image, true, inside, data_range))
        progress.advance()
    progress.close()
    if not against_input.number:
        raise UserError(f"{path}: no lung in its slices {slices}; choose others with superresolve.slices")
    rows = [
        ("no_reference", "consistency_rmse", metrics.consistency_rmse(against_input), "HU"),
        ("no_reference", "mean_shift", metrics.mean_shift(against_input), "HU"),
    ]
    if truth is not None:
        rows += [
            ("truth", "psnr", metrics.psnr(against_truth, data_range), "dB"),
            ("truth", "ssim", metrics.ssim(similarity), "1"),
        ]
    return rows


def _spectral_metrics(
    sr: Volume, sr_path: Path, mask: Any, slices: list[int], references: list[Volume], paths: list[Path]
) -> list[tuple[str, str, float, str]]:
    """Metrics of the texture, from windows inside the lung of the SR volume and inside the uCT specimens."""
    masks = [open_mask(path) for path in paths]
    size, counts = _window_size(mask, slices, sr_path, masks, paths)
    logger.info("spectra from %d windows of %dx%d pixels in each volume", WINDOWS, size, size)
    stream = np.random.default_rng(WINDOW_SEED)
    places = patches.draw_positions(mask, size // SCALE, 1.0, WINDOWS, stream, counts[0], slices)
    places = np.column_stack([np.searchsorted(slices, places[:, 0]), SCALE * places[:, 1:]])
    power = spectrum.mean_power(spectrum.windows_at(sr.array, places, size))
    total = np.zeros_like(power)
    for volume, specimen, count in zip(references, masks, counts[1:], strict=True):
        places = patches.draw_positions(specimen, size, 1.0, WINDOWS, stream, count)
        total += spectrum.mean_power(spectrum.windows_at(volume.array, places, size))
    distance = metrics.spectrum_distance(power, total / len(references))
    return [
        ("no_reference", "spectrum_distance", distance, "log10 power"),
        ("no_reference", "checkerboard", metrics.checkerboard(power), "log10 ratio"),
    ]


def _window_size(
    mask: Any, slices: list[int], sr_path: Path, masks: list[Any], paths: list[Path]
) -> tuple[int, list[np.ndarray]]:
    """The largest window with room in every volume, and the number of its positions on each slice of each volume."""
    for size in WINDOW_SIZES:
        counts = [patches.count_positions(mask, size // SCALE, 1.0, slices)]
        counts += [patches.count_positions(m, size, 1.0) for m in masks]
        steps = [size // SCALE / 2] + [size / 2] * len(masks)
        if all(c.sum() >= ENOUGH_ROOM * step**2 for c, step in zip(counts, steps, strict=True)):
            return size, counts
    for count, path, what in zip(counts, [sr_path, *paths], ["lung"] + ["specimen"] * len(paths), strict=True):
        if not count.sum():
            raise UserError(
                f"{path}: its {what} mask has no room for a window of {size}x{size} pixels, which the spectrum needs; "
                f"correct the mask or choose other slices"
            )
    return size, counts
