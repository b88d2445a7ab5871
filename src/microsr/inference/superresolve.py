"""Super-resolve a clinical CT in-plane with any of `microsr.inference.upsamplers`.

In: any readable scan, or an imported volume. Out: a volume in the format of the output's ending, slice after slice, in
memory that does not grow with their number; a run that was stopped goes on where it was. Reading, the networks, and
compressing and writing go on side by side.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from microsr import config
from microsr.config.sheet import Scan
from microsr.core.code_version import code_version
from microsr.core.errors import UserError
from microsr.core.progress import Progress, logger
from microsr.core.provenance import checksum, write_run
from microsr.formats.outputs import FORMATS, Partial, kind_of
from microsr.formats.readers import read_scan
from microsr.inference.draws import Draws, Images
from microsr.inference.upsamplers import Generator, Known, Magnifier, Region, Upsampler, interpolation, whole_slice
from microsr.networks.devices import available_cpus, choose_algorithms
from microsr.preprocessing.hounsfield import clinical_hu
from microsr.preprocessing.plausible import check_clinical
from microsr.volume.alignment import open_clinical
from microsr.volume.slices import Slices, take_slices
from microsr.volume.storage import Volume, is_volume, magnified_geometry
from microsr.volume.viewing import image_window

UNLIKE = 0.15
"""Pixel sizes that differ by more than this share are worth a warning: so much do scans of one protocol differ."""
AHEAD = {"cpu": 1, "cuda": 4}
"""Slices that are read, and their noise drawn, ahead of the network."""
NOT_HERE = ("formats", "draws")
"""Settings of the step that are a matter of the pipeline; --draws has more to say here."""
WAITING = 2
"""Slices that may wait to be written."""


def open_input(
    path: Path, slices: str | Sequence[int] = "all", organ: str = "lung", around: int = 0, **scan: Any
) -> Volume:
    """A clinical CT in HU, read when it is asked for: an imported volume, or any scan that `microsr volumes` reads.

    slices: as for `choose_slices`; of a scan only what lies between the first and the last of them is read and judged,
    so that a series with a fault elsewhere can be used (not if it is resampled: they are counted after that). organ:
    other than lung, it need not be a chest CT. around: slices before and after them that are read too. scan: series,
    spacing, resample and level as in the case sheet, for a scan.

    Raises
    ------
    UserError
        It cannot be read with certainty, or is not the HU of a CT.
    """
    if is_volume(path):
        return open_clinical(path)
    part = slices if isinstance(slices, str) else f"{min(slices)}:{max(slices) + 1}"
    part = "all" if scan.get("resample") else part
    try:
        chosen = Scan(path=str(path), slices=None if part == "all" else part, **scan)
    except ValidationError as error:
        raise UserError(config.describe(error, "command line")) from None
    volume = read_scan(chosen)
    if around and part != "all":
        (first, end), count = volume.attributes["slices"], volume.attributes["source"]["size"][2]
        wider = f"{max(first - around, 0)}:{min(end + around, count)}"
        volume = read_scan(chosen.model_copy(update={"slices": wider}))
    check_clinical(volume, str(path), organ == "lung")
    volume = clinical_hu(volume, str(path), organ == "lung")
    volume.attributes["organ"] = organ
    first, _ = volume.attributes.pop("slices", (0, 0))
    return volume if part == "all" else _number_as_whole(volume, first)


def _number_as_whole(volume: Volume, first: int) -> Volume:
    """The slices of a scan from `first` on, numbered as in the whole scan."""
    array, count = volume.array, volume.attributes["source"]["size"][2]
    if len(array) == count:
        return volume
    origin = tuple(float(v) for v in volume.point((-first, 0, 0)))
    slices = Slices(lambda z: array[z - first], (count, *array.shape[1:]), array.dtype)
    return replace(volume, array=slices, origin=origin)


def choose_slices(slices: str | Sequence[int], count: int, source: Path) -> list[int]:
    """Indices of the slices "all", "first:end" (end excluded) or a list of indices, of a volume of `count` slices.

    Raises
    ------
    UserError
        One does not exist.
    """
    if isinstance(slices, str):
        first, _, end = slices.removeprefix("all").partition(":")
        start, stop = int(first or 0), int(end or count)
        wanted = list(range(start, stop))
        if not wanted:
            raise UserError(f"superresolve.slices: {slices} holds no slice")
    else:
        wanted = sorted(set(slices))
    if wanted[-1] >= count:
        raise UserError(f"superresolve.slices: {wanted[-1]} does not exist; {source} has slices 0 to {count - 1}")
    return wanted


def parse_region(text: str, size: tuple[int, int], source: Path) -> Region:
    """Rows and columns of "first:end,first:end", clinical pixels, end excluded; one left out is the border's.

    Raises
    ------
    UserError
        It is malformed, empty or reaches beyond the slice.
    """
    parts = []
    for number, length in zip(text.split(","), size, strict=False):
        match = re.fullmatch(r"(\d*):(\d*)", number.strip())
        if match:
            parts.append(slice(int(match[1] or 0), int(match[2] or length)))
    if text.count(",") != 1 or len(parts) != 2:
        raise UserError(f"--region {text!r} is malformed; give rows and columns, as 100:300,50:250")
    if not all(0 <= part.start < part.stop <= length for part, length in zip(parts, size, strict=True)):
        raise UserError(f"--region {text} does not fit: {source} has {size[0]} rows and {size[1]} columns, from 0 on")
    return parts[0], parts[1]


def superresolve(
    source: Path,
    output: Path,
    upsampler: Upsampler,
    slices: str | Sequence[int] = "all",
    tile: int | None = None,
    region: str | None = None,
    kind: str | None = None,
    threads: int = 1,
    series: str | None = None,
    part: tuple[int, int] = (1, 1),
    volume: Volume | None = None,
    draw: int = 0,
    draws: Draws | None = None,
) -> None:
    """Super-resolve `slices` of the clinical CT at `source` into a volume at `output`, int16 HU.

    slices: as for `choose_slices`. tile: see `Magnifier`. region: see `parse_region`. kind: the output's format (see
    `outputs.kind_of`); None: by its ending. threads: of a CPU. series: of `source`, where it holds several. part: (k,
    n) makes the k-th of n blocks of slices only, in a volume as of all of them; `gather` puts the n volumes together.
    volume: the input, where it is open already. draw: number of the random draw (see `Upsampler.draw`). draws: several
    draws in place of the one, whose mean is then the volume at `output`; what else they say is written beside it
    (`Draws.paths`).

    The output's attribute "slices" lists the clinical slices it holds; its geometry makes it overlay the input when
    they are consecutive; run.json lies beside it. A run that is stopped leaves what it has written beside `output`, and
    the same call goes on from there.

    Raises
    ------
    UserError
        The input cannot be read; a slice or the region does not exist; the disk has no room.
    """
    started = time.time()
    source, output = Path(source), Path(output)
    volume = volume or open_input(source, slices, series=series)
    count, *size = volume.shape
    wanted = choose_slices(slices, count, source)
    where = whole_slice(size) if region is None else parse_region(region, (size[0], size[1]), source)
    _check_neighbours(volume, source, upsampler)
    trained = upsampler.spacing_mm
    pixel = max(volume.spacing[:2], key=lambda size: abs(size / (trained or size) - 1))
    if trained is not None and abs(pixel / trained - 1) > UNLIKE:
        logger.warning(
            "%s has pixels of %.3g mm, the model was trained on %.3g mm: it draws structures of the wrong size",
            *(source, pixel, trained),
        )
    contents = {"draw": {"draw": draw}} if draws is None else draws.contents()
    paths = {"draw": output} if draws is None else draws.paths(output)
    shape = (len(wanted), *(upsampler.scale * (p.stop - p.start) for p in where))
    block = tuple(len(wanted) * k // part[1] for k in (part[0] - 1, part[0]))
    inputs = {source: checksum(source), **upsampler.inputs}
    fingerprint = {
        "input": inputs[source], "slices": wanted, "region": region, "part": list(part),
        "code": code_version("superresolve"), **upsampler.facts,
    }  # fmt: skip
    kind = kind_of(output, kind)
    origin = {"source": source, "series": series} if kind == "dicom" and _is_dicom(volume, source) else {}
    if origin:
        logger.info("%s names neither the patient nor the study of %s (docs/data.md)", output, source)
    with Magnifier(upsampler, tile, threads) as magnify, contextlib.ExitStack() as stack:
        partials = {}
        for what, own in contents.items():
            facts = upsampler.facts | own
            geometry = _geometry(volume, wanted, where, upsampler.scale, facts)
            writer = Partial(paths[what], kind, shape, geometry, fingerprint | own, block=block, **origin)
            partials[what] = stack.enter_context(writer)
        done = min(partial.done for partial in partials.values())
        progress = Progress(block[1] - block[0], "slices", start=done, interval=10.0)
        left = wanted[block[0] + done : block[1]]
        numbers = itertools.count(done)

        def write(images: Images) -> None:
            number = next(numbers)
            for what, image in images().items():
                if partials[what].done == number:  # of several volumes, some may be a slice ahead of the others
                    partials[what].write(image)
            progress.advance()

        def make_images(index: int, hu: np.ndarray, random: list[Tensor]) -> Images:
            if draws is None:
                return _landing(magnify(hu, random, where, torch.int16))
            images = magnify.several(hu, index, draws.numbers, draws.summarise, where)
            return lambda: images

        _stream(volume, left, draw if draws is None else None, upsampler, make_images, write)
        progress.close()
        for partial in partials.values():
            partial.finish()
    block_fact = {} if part[1] == 1 else {"part": part}
    for what, own in contents.items():
        settings = {"slices": slices, "region": region} | upsampler.facts | own
        write_run(paths[what], "superresolve", settings, inputs, started, device=upsampler.device, **block_fact)


def _check_neighbours(volume: Volume, source: Path, upsampler: Upsampler) -> None:
    """Refuse a scan whose neighbouring slices are not as in the training of a model that sees them."""
    if upsampler.slice_mm is None:
        return
    said = f"the model sees {upsampler.slices} neighbouring slices"
    if volume.shape[0] == 1 or volume.attributes.get("independent_slices"):
        raise UserError(f"{source} has slices without neighbours, and {said}; give a model of methods.<name>.slices: 1")
    (nearest, farthest), apart = upsampler.slice_mm, volume.spacing[2]
    if not nearest * (1 - UNLIKE) <= apart <= farthest * (1 + UNLIKE):
        trained = f"{nearest:.3g} mm" if farthest / nearest < 1.01 else f"{nearest:.3g} to {farthest:.3g} mm"
        raise UserError(
            f"{source} has slices {apart:.3g} mm apart, and {said}, trained with {trained}; train one with "
            "pairs.slice_spacing_mm about the scan's, or give a model of methods.<name>.slices: 1"
        )


def _is_dicom(volume: Volume, source: Path) -> bool:
    """Whether the volume was read from a DICOM series of single slices as it stands there."""
    facts = volume.attributes.get("source", {})
    as_is = (facts.get("format"), facts.get("spacing_from")) == ("DICOM", "file")
    return as_is and not {"resampled", "enhanced"} & facts.keys() and not is_volume(source)


def _stream(
    volume: Volume, indices: list[int], draw: int | None, upsampler: Upsampler,
    make_images: Callable[[int, np.ndarray, list[Tensor]], Images], write: Callable[[Images], None],
) -> None:  # fmt: skip
    """Super-resolve slices one after the other, while the next ones are read and the ones before are written, in
    order. draw: number of the draw whose noise is made ahead; None: none is.
    """
    reading, ahead = threading.Lock(), AHEAD[upsampler.device]
    # Of neighbours, each slice is read once: as many are held as the slices in work see.
    read = functools.lru_cache(upsampler.slices + ahead if upsampler.slices > 1 else 0)(volume.array.__getitem__)

    def load(index: int) -> tuple[np.ndarray, list[Tensor]]:
        with reading:
            hu = take_slices(read, index, volume.shape[0], upsampler.slices)
        return hu, [] if draw is None else upsampler.draw(index, hu.shape[-2:], draw)

    with ThreadPoolExecutor(ahead) as readers, ThreadPoolExecutor(1) as writer:
        loads: deque[Future] = deque(readers.submit(load, index) for index in indices[:ahead])
        writes: deque[Future] = deque()
        for number, index in enumerate(indices):
            hu, random = loads.popleft().result()
            loads.extend(readers.submit(load, index) for index in indices[number + ahead : number + ahead + 1])
            writes.append(writer.submit(write, make_images(index, hu, random)))
            if len(writes) > WAITING:
                writes.popleft().result()
        for done in writes:
            done.result()


def _landing(image: Tensor) -> Images:
    """What waits for the one image to be in the CPU's memory; meanwhile a GPU goes on with the next one."""
    if image.is_cpu:
        return lambda: {"draw": image.numpy()}
    landed, there = torch.empty(image.shape, dtype=image.dtype, pin_memory=True), torch.cuda.Event()
    landed.copy_(image, non_blocking=True)
    there.record()

    def wait() -> dict[str, np.ndarray]:
        there.synchronize()
        return {"draw": landed.numpy()}

    return wait


def describe_output(scale: int) -> dict[str, str]:
    """What a DICOM viewer shows of the output."""
    return {
        "description": "Super-resolved CT, not for diagnosis",
        "derivation": f"Super-resolved {scale} times in-plane; what is finer than the scan resolves is plausible, "
        "not measured",
    }


def _geometry(volume: Volume, wanted: list[int], region: Region, scale: int, facts: dict[str, Any]) -> dict[str, Any]:
    """Geometry and attributes of the output."""
    corner = volume.point((wanted[0], region[0].start, region[1].start))
    geometry = magnified_geometry(replace(volume, array=None, origin=tuple(float(v) for v in corner)), scale)
    x, y, z = geometry["spacing"]
    if len(wanted) > 1:
        geometry["spacing"] = (x, y, z * (wanted[1] - wanted[0]))
    kept = {k: v for k, v in volume.attributes.items() if k in ("case", "modality")}
    place = {} if (region[0].start, region[1].start) == (0, 0) else {"corner": [part.start for part in region]}
    facts = {"unit": volume.unit} | facts
    unit = facts.pop("unit")
    shown = {"display": list(image_window(volume))}
    attributes = kept | {"scale": scale, "slices": wanted} | place | shown | describe_output(scale) | facts
    return geometry | {"unit": unit, "attributes": attributes}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr superresolve`."""
    parser.add_argument(
        "scan",
        type=Path,
        metavar="SCAN",
        help="clinical CT: DICOM folder, NIfTI, NRRD, MetaImage, TIFF stack, or an imported volume",
    )
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--model", type=Path, help="a trained model: generator.pt, or .safetensors")
    way.add_argument("--upsampler", choices=config.INTERPOLATIONS, help="interpolation")
    way.add_argument("--known", type=Path, help="take the slices of this volume (OME-Zarr), as of the truth")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        help="super-resolved volume; its ending gives the format: .ome.zarr, .nii, .nii.gz, .nrrd, .mha; none: a "
        "folder of DICOM slices",
    )
    parser.add_argument("--format", choices=FORMATS, help="format of the output, where its ending does not say it")
    config.add_scale(parser, None, "; of a model and of a known volume their own, and refused if it is another")
    parser.add_argument("--region", help="rows and columns first:end,first:end, clinical pixels (default: all)")
    parser.add_argument("--series", help="DICOM SeriesInstanceUID, or path of a data set in HDF5, if there are several")
    parser.add_argument("--spacing", help="mm as XxYxZ; overrides the scan's")
    parser.add_argument("--resample", help="even: put DICOM slices that are uneven or tilted on an even grid")
    parser.add_argument("--level", type=int, help="resolution level of an OME-Zarr or N5 store, 0 the finest")
    parser.add_argument(
        "--organ",
        choices=("lung", "other"),
        default="lung",
        help="other: the scan is not checked to be a chest CT (default: %(default)s)",
    )
    parser.add_argument(
        "--part", type=int, help="make only this one of --parts blocks of slices, from 1 on (see `microsr gather`)"
    )
    parser.add_argument(
        "--draw",
        type=int,
        default=0,
        help="number of the random draw, from 0 on: other noise for the same scan; of --draws, the first one's",
    )
    parser.add_argument(
        "--draws",
        type=int,
        help="as many draws of a model of kind posterior: the output is their mean, and their SD and P(solid) "
        "are written beside it",
    )
    parser.add_argument("--keep", type=int, default=0, help="of --draws, so many are written too, from number 0 on")
    parser.add_argument("--threads", type=int, default=available_cpus(), help="CPU threads (default: all)")
    config.add_display(parser)
    config.add_flags(parser, config.Superresolve, without=NOT_HERE)
    config.add_flags(parser, config.Compute, without=["threads", *config.OF_TRAINING])


def main(namespace: argparse.Namespace) -> None:
    """Run `microsr superresolve`."""
    settings = config.from_flags(namespace, config.Superresolve)
    compute = config.from_flags(namespace, config.Compute)
    choose_algorithms(compute.deterministic)
    scan, output = namespace.scan, namespace.output
    words = {name: getattr(namespace, name) for name in ("series", "spacing", "resample", "level")}
    generator = Generator(namespace.model, compute.device, settings.precision) if namespace.model else None
    around = generator.slices // 2 if generator else 0
    volume = open_input(scan, settings.slices, namespace.organ, around, **words)
    volume.attributes.update(config.display_from_flags(namespace))
    if generator:
        upsampler: Upsampler = generator
    elif namespace.known:
        upsampler = Known(namespace.known, volume, scan)
    else:
        upsampler = interpolation(namespace.upsampler, namespace.scale or config.DEFAULT_SCALE)
    if namespace.scale not in (None, upsampler.scale):
        raise UserError(
            f"{namespace.model or namespace.known} is for a scale of {upsampler.scale}, not of {namespace.scale}; give "
            "one of that scale, or leave --scale out"
        )
    part = (1, 1) if namespace.part is None else (namespace.part, compute.parts)
    if not 1 <= part[0] <= part[1]:
        raise UserError(f"--part {part[0]} does not exist: there are {part[1]} parts, from 1 on")
    if namespace.draw < 0:
        raise UserError(f"--draw {namespace.draw} does not exist: draws are numbered from 0 on")
    superresolve(
        scan, output, upsampler, settings.slices, None if compute.tile == "auto" else compute.tile, namespace.region,
        namespace.format, namespace.threads, namespace.series, part, volume, namespace.draw,
        _draws(namespace, upsampler),
    )  # fmt: skip


def _draws(namespace: argparse.Namespace, upsampler: Upsampler) -> Draws | None:
    """The draws that a command asks for; None: the one of --draw."""
    count, keep = namespace.draws, namespace.keep
    if count is None and not keep:
        return None
    if count is None or count < 2 or not 0 <= keep <= count:
        raise UserError(
            f"--draws {count} --keep {keep} do not go together; give --draws from 2 on, and --keep of at most as many"
        )
    kind = upsampler.kind if isinstance(upsampler, Generator) else upsampler.facts["upsampler"]
    if kind != "posterior":
        raise UserError(
            f"{namespace.model or kind}: is of kind {kind}, whose draws do not say what the scan leaves open; give "
            "a model of kind posterior, or leave --draws out"
        )
    return Draws(count, keep, namespace.draw)
