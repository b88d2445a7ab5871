"""Write a volume of the working format in a format that other programs read: NIfTI, NRRD, MetaImage, DICOM or OME-Zarr.

In: an imported or super-resolved volume. Out: the same int16 values in the same place, slice by slice, so that a volume
of any size passes through little memory; beside it `<output>.run.json`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from microsr import config
from microsr.config.sheet import Scan
from microsr.core.code_version import code_version
from microsr.core.errors import UserError
from microsr.core.progress import Progress
from microsr.core.provenance import checksum, write_run
from microsr.formats.headers import choose_range
from microsr.formats.outputs import FORMATS, Partial, kind_of
from microsr.volume.storage import Volume, open_volume


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr export`."""
    parser.add_argument("volume", type=Path, help="imported or super-resolved volume (OME-Zarr), or a trained model")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        help="of a volume .nii, .nii.gz, .nrrd, .mha, .ome.zarr; DICOM: a folder; of a model .safetensors, .onnx, .zip",
    )
    parser.add_argument("--format", choices=FORMATS, help="default: what the output's ending says")
    parser.add_argument("--slices", help="first:end, from 0, end excluded; default: all")
    parser.add_argument(
        "--source",
        type=Path,
        help="DICOM only: folder of the scan it was made from, for how it was taken; no name and no id go along",
    )
    config.add_display(parser)
    parser.add_argument("--series", help="UID of the series in that folder, if there are several")


def main(namespace: argparse.Namespace) -> None:
    """Run `microsr export`."""
    shown = config.display_from_flags(namespace)
    words = namespace.format, namespace.slices, namespace.source, namespace.series
    export(namespace.volume, namespace.output, *words, shown)


def export(
    volume: Path,
    output: Path,
    kind: str | None = None,
    slices: str | None = None,
    source: Path | None = None,
    series: str | None = None,
    shown: dict[str, list[float]] | None = None,
) -> None:
    """Write `slices` ("first:end"; None: all) of the volume at `volume` to `output`, in the format `kind` or of its
    ending.

    A run that was stopped goes on where it was. source, series: the DICOM series that the volume was made from, for a
    DICOM output; see `formats.dicom_series.DerivedSeries`. shown: the attribute `display`, if
    it is chosen anew.

    Raises
    ------
    UserError
        The format is not known or cannot hold the volume, the slices do not exist, or the disk is full.
    """
    started = time.time()
    volume, output = Path(volume), Path(output)
    kind = kind_of(output, kind)
    if source is not None and kind != "dicom":
        raise UserError(f"{output}: only DICOM refers to a source; leave --source out, or write DICOM")
    held = open_volume(volume)
    if held.array.dtype != np.int16:
        raise UserError(f"{volume}: holds {held.array.dtype}, only int16 is exported")
    if volume.resolve() == output.resolve():
        raise UserError(f"{output}: is the volume itself; give another name")
    first, end = _range(volume, slices, held.shape[0])
    part = _take(held, first, end)
    part.attributes.update(shown or {})
    content = checksum(volume)
    fingerprint = {"volume": content, "slices": [first, end], "code": code_version("export")}
    shape = (end - first, *held.shape[1:])
    with Partial(output, kind, shape, part, fingerprint, source, series) as partial:
        progress = Progress(shape[0], "slice", start=partial.done, interval=10.0)
        for position in range(partial.done, shape[0]):
            partial.write(held.array[first + position])
            progress.advance()
        progress.close()
        partial.finish()
    settings = {"format": kind, "slices": slices or "all", "source": source and str(source), "series": series}
    write_run(output, "export", settings, [volume], started)


def _range(volume: Path, slices: str | None, count: int) -> tuple[int, int]:
    try:
        return choose_range(Scan(path=str(volume), slices=slices), count)
    except ValidationError as error:
        raise UserError(config.describe(error, str(volume))) from None


def _take(volume: Volume, first: int, end: int) -> Volume:
    """Geometry, unit and attributes of the slices first to end."""
    attributes = dict(volume.attributes)
    listed = attributes.get("slices", [])
    if "source" not in attributes and len(listed) == volume.shape[0]:  # of an import they are the range that was taken
        attributes["slices"] = listed[first:end]
    origin = tuple(float(v) for v in volume.point((first, 0, 0)))
    return Volume(None, volume.spacing, origin, volume.direction, volume.unit, attributes)
