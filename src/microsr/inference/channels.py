"""Lay volumes of one grid over each other as the channels of one OME-Zarr, which a viewer opens at once: the mean of
draws, their SD and the draws themselves, or what several methods made of a scan.

In: super-resolved volumes, or others of the working format. Out: an OME-Zarr with the axes channel, slice, row, column,
in which each channel has its name and grey scale, and run.json. As a chunk holds one slice of one volume, nothing is
computed or, on one disk, copied: files are linked.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr

from microsr.core.errors import UserError
from microsr.core.files import link_or_copy, replacing
from microsr.core.provenance import write_run
from microsr.formats.outputs import check_replaceable
from microsr.volume import viewing
from microsr.volume.storage import Volume, open_levels, open_volume

SAME_PLACE = 0.1
"""Largest distance, voxels, between corners that should coincide."""
NOT_SAID_AGAIN = ", not for diagnosis"
CHANNEL_AXIS = {"name": "c", "type": "channel"}


class _Opened(NamedTuple):
    path: Path
    volume: Volume
    levels: list[zarr.Array]
    shown: dict[str, Any]
    """What OME-Zarr says of it as a channel."""


def channels(volumes: list[Path], output: Path, names: list[str] | None = None) -> None:
    """Make the OME-Zarr `output` whose channels are the `volumes`, in order, which stay as they are.

    names: of the channels; None: what the volumes say of themselves. It has the levels that all of them have. The first
    channel is shown when it is opened, the others when they are chosen.

    Raises
    ------
    UserError
        A volume lies elsewhere than the first or has another unit than HU or per cent, or two have one name.
    """
    started = time.time()
    check_replaceable(output, "ome-zarr")
    opened = [_open(Path(path)) for path in volumes]
    for other in opened[1:]:
        _check_same_grid(opened[0], other)
    called = _choose_names(opened, names)
    shown = [one.shown | {"active": one is opened[0], "label": name} for one, name in zip(opened, called, strict=True)]
    with replacing(output) as whole:
        count = min(len(one.levels) for one in opened)
        _create(whole, output.name.split(".")[0], opened[0], count, shown)
        for number, one in enumerate(opened):
            for level in range(count):
                chunks = one.path / str(level) / "c"
                for file in chunks.rglob("*"):
                    if file.is_file():
                        link_or_copy(file, whole / str(level) / "c" / str(number) / file.relative_to(chunks))
    write_run(output, "channels", {"names": called}, volumes, started)


def _open(path: Path) -> _Opened:
    volume = open_volume(path)
    shown = viewing.channel(volume)
    if shown is None:
        raise UserError(f"{path}: has unit '{volume.unit}', which no grey scale is known for; give volumes in HU or %")
    return _Opened(path, volume, [level.array for level in open_levels(path, mode="r")], shown)


def _choose_names(opened: list[_Opened], names: list[str] | None) -> list[str]:
    """The channels' names: those given, else what the volumes are, as short as a viewer's list asks for."""
    if names is not None and len(names) != len(opened):
        raise UserError(f"--names: {len(names)} names of {len(opened)} volumes; give one for each")
    found = names or [one.shown["label"].removesuffix(NOT_SAID_AGAIN) for one in opened]
    if twice := [name for name in found if found.count(name) > 1]:
        raise UserError(f"--names: '{twice[0]}' would be the name of several channels; give each its own by --names")
    return found


def _check_same_grid(first: _Opened, other: _Opened) -> None:
    """Refuse a volume of other voxels than the first, or one that is stored in another way."""

    def storage(one: _Opened) -> tuple:
        return one.levels[0].dtype, one.levels[0].chunks, one.levels[0].metadata.codecs

    last = tuple(n - 1 for n in first.volume.shape)
    corners = [(0, 0, 0), (last[0], 0, 0), (0, last[1], last[2])]
    apart = max(np.linalg.norm(first.volume.point(c) - other.volume.point(c)) for c in corners)
    if (
        first.volume.shape != other.volume.shape
        or apart > SAME_PLACE * min(first.volume.spacing)
        or storage(first) != storage(other)
    ):
        raise UserError(
            f"{other.path} and {first.path} have other voxels ({_tell(other)} and {_tell(first)}), or lie {apart:.3g} "
            "mm apart; give volumes of the same slices of one scan"
        )


def _tell(one: _Opened) -> str:
    return f"{'x'.join(map(str, one.volume.shape))} {one.levels[0].dtype}"


def _create(whole: Path, name: str, first: _Opened, levels: int, shown: list[dict[str, Any]]) -> None:
    """Create the store without its chunks. name: what a viewer calls it."""
    group = zarr.create_group(str(whole))
    scales = zarr.open_group(str(first.path), mode="r").attrs["ome"]["multiscales"][0]
    datasets = []
    for level, dataset in enumerate(scales["datasets"][:levels]):
        old = first.levels[level]
        group.create_array(
            str(level),
            shape=(len(shown), *old.shape),
            chunks=(1, *old.chunks),
            dtype=old.dtype,
            filters=old.filters,
            serializer=old.serializer,
            compressors=old.compressors,
            dimension_names=["c", *(old.metadata.dimension_names or "zyx")],
        )
        scale, translation = dataset["coordinateTransformations"]
        steps = [scale | {"scale": [1.0, *scale["scale"]]}]
        steps.append(translation | {"translation": [0.0, *translation["translation"]]})
        datasets.append({"path": str(level), "coordinateTransformations": steps})
    multiscale = {"name": name, "axes": [CHANNEL_AXIS, *scales["axes"]], "datasets": datasets}
    omero = {"channels": shown, "rdefs": {"model": "color"}}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale], "omero": omero}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr channels`."""
    parser.add_argument("volumes", type=Path, nargs="+", help="volumes of the same slices of one scan (OME-Zarr)")
    parser.add_argument("--names", nargs="+", help="of the channels, in order; default: what the volumes are")
    parser.add_argument("--output", type=Path, required=True, help="all of them, OME-Zarr")


def main(namespace: argparse.Namespace) -> None:
    """Run `microsr channels`."""
    channels(namespace.volumes, namespace.output, namespace.names)
