"""OME-Zarr 0.4 (Zarr 2) and 0.5 (Zarr 3), of whatever program: one level of its resolutions, as a scan.

Spec: ngff.openmicroscopy.org. Its axes have names, by which they are taken, and units, which become mm. It has no
direction: a volume lies along the axes, x, y and z. Arrays are decoded by zarr.
"""

from __future__ import annotations

import asyncio
import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from microsr.core.errors import UserError, brief
from microsr.formats import headers
from microsr.formats.rawfile import damage_error
from microsr.formats.stores.chunked import ChunkedSlices
from microsr.formats.units import in_mm
from microsr.volume.slices import Slices
from microsr.volume.storage import IDENTITY, Volume, is_volume, open_volume

if TYPE_CHECKING:
    from microsr.config.sheet import Scan
    from microsr.formats.stores.access import Files

VERSIONS = ("0.4", "0.5")
SPACE = ("z", "y", "x")
Numbers = Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(max_length=5)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)


class _Axis(_Part):
    name: str
    type: str | None = None
    unit: str | None = None


class _Transformation(_Part):
    type: Literal["scale", "translation", "identity"]
    scale: Numbers = []
    translation: Numbers = []


class _Dataset(_Part):
    path: Annotated[str, Field(min_length=1)]
    steps: Annotated[list[_Transformation], Field(max_length=2, alias="coordinateTransformations")] = []


class _Multiscale(_Part):
    axes: Annotated[list[_Axis], Field(min_length=2, max_length=5)]
    datasets: Annotated[list[_Dataset], Field(min_length=1)]
    steps: Annotated[list[_Transformation], Field(max_length=2, alias="coordinateTransformations")] = []


def read(files: Files, scan: Scan, scratch: Path | None) -> Volume:
    """Open a level of a store, whose chunks are read when they are asked for; see `formats.readers.read_scan`.

    Raises
    ------
    UserError
        It is no image of one channel with axes z, y and x, contradicts itself, or lacks chunks.
    """
    said, zarr_format = _metadata(files)
    if "://" not in files.name and is_volume(Path(files.name)):
        return _own(files.name, scan)
    levels = said.datasets
    level = choose_level(scan, len(levels), files.name)
    array, store = _open(files, levels[level].path, zarr_format)
    names = [axis.name for axis in said.axes]
    single = [n for n, name in enumerate(names) if name not in SPACE]
    extra = [array.shape[n] for n in single if n < array.ndim]
    place = "".join(names[len(single) :])
    if single != list(range(len(single))) or set(place) != set(SPACE) or len(place) != 3:
        raise UserError(
            f"{files.name}: its axes ({len(names)} of them) are not time, channel and then z, y and x, once each, as "
            "OME-Zarr "
            "has it; save it anew"
        )
    if array.ndim != len(names) or _names_of(array) not in (None, names):
        raise UserError(
            f"{files.name}: its axes by OME-Zarr are not those of its array of {array.ndim} dimensions; save it anew"
        )
    if any(extent != 1 for extent in extra):
        raise UserError(
            f"{files.name}: has several channels or times (shape {'x'.join(map(str, array.shape))}); save one of them"
        )
    if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8 or 0 in array.shape:
        raise UserError(
            f"{files.name}: holds no grey values (type {array.dtype.kind}{array.dtype.itemsize}); save it anew"
        )
    order = [len(single) + place.index(name) for name in SPACE]
    scale, translation = _geometry(files.name, said, level)

    def lengths(numbers: np.ndarray) -> tuple[float, float, float]:
        return tuple(in_mm(numbers[n], said.axes[n].unit or "") for n in reversed(order))

    spacing = headers.spacing_of(
        scan, lambda: headers.require_positive(() if scale is None else lengths(scale), files.name)
    )
    origin = (0.0, 0.0, 0.0) if translation is None else lengths(translation)
    if not np.isfinite(origin).all():  # without a unit, where the sheet gives the spacing
        origin = (0.0, 0.0, 0.0)
    slices = _slices(files, array, store, order, scan, scratch)
    volume = headers.place_scan(slices, "OME-Zarr", spacing, origin, IDENTITY, scan)
    volume.attributes["source"] |= {"level": level, "levels": len(levels)}
    return volume


def _own(path: str, scan: Scan) -> Volume:
    """A volume in the working format as a scan, with its direction, which OME-Zarr does not have."""
    volume = open_volume(Path(path))
    array = Slices(lambda z: volume.array[z], volume.shape, volume.array.dtype)
    spacing = headers.spacing_of(scan, lambda: volume.spacing)
    return headers.place_scan(array, "OME-Zarr", spacing, volume.origin, volume.direction, scan)


def choose_level(scan: Scan, count: int, name: str) -> int:
    """The level that `scan` chooses of `count`; a UserError if there is none such."""
    level = scan.level or 0
    if level >= count:
        raise UserError(f"{name}: has no level {level}: it has {count}, the finest is 0")
    return level


def _metadata(files: Files) -> tuple[_Multiscale, int]:
    """What a store says of itself, and its version of Zarr."""
    attributes: Any = {}
    zarr_format = 3 if (text := files.get("zarr.json")) is not None else 2
    text = text if zarr_format == 3 else files.get(".zattrs")
    try:
        attributes = json.loads(text or "{}")
        attributes = attributes["attributes"].get("ome", {}) if zarr_format == 3 else attributes
        found = attributes.get("multiscales")
    except (ValueError, KeyError, AttributeError, RecursionError):
        raise damage_error(files.name, "its metadata are no JSON of Zarr") from None
    if not found:
        raise UserError(
            f"{files.name}: is a Zarr store, but no image of OME-Zarr; give the folder in it whose metadata have "
            "multiscales "
            "(of several images one, as IMAGE.ome.zarr/0; of a single array the folder above it), or save it as "
            "OME-Zarr"
        )
    try:
        first = found[0]
        version = attributes.get("version") if zarr_format == 3 else first.get("version", VERSIONS[0])
        if version not in VERSIONS:
            raise UserError(
                f"{files.name}: is of a version of OME-Zarr that is not supported; save it as {' or '.join(VERSIONS)}"
            )
        return _Multiscale.model_validate(first), zarr_format
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise damage_error(files.name, f"its multiscales are not as OME-Zarr has them: {key}") from None
    except (AttributeError, KeyError, TypeError, RecursionError):
        raise damage_error(files.name, "its multiscales are not as OME-Zarr has them") from None


def _geometry(name: str, said: _Multiscale, level: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Scale and translation of a level, in the order and units of its axes; None: it says nothing of them."""
    scale, translation = np.ones(len(said.axes)), np.zeros(len(said.axes))
    steps = [*said.datasets[level].steps, *said.steps]
    for step in steps:
        for values, length in ((step.scale, step.type == "scale"), (step.translation, step.type == "translation")):
            if len(values) != len(scale) * length:
                raise damage_error(name, "its coordinateTransformations do not fit its axes")
        if step.type == "scale":
            scale, translation = scale * step.scale, translation * step.scale
        elif step.type == "translation":
            translation = translation + step.translation
    return (scale, translation) if any(step.type == "scale" for step in steps) else (None, None)


def _open(files: Files, path: str, zarr_format: int) -> tuple[Any, Any]:
    """An array of a store, unread, and its store for zarr."""
    import zarr

    if ".." in path.split("/") or path.startswith("/"):
        raise damage_error(files.name, "a level of it lies elsewhere")
    store = _zarr_store(files, path)
    try:
        array = zarr.open_array(store, mode="r", zarr_format=zarr_format)
        if len(array.chunks) != array.ndim or 0 in array.chunks:
            raise ValueError("no chunks")
        store.blosc = _by_blosc(array)
        return array, store
    except UserError:
        raise
    except Exception as error:  # whatever damaged or missing metadata provoke in zarr
        raise damage_error(files.name, f"a level of it has no sound metadata: {type(error).__name__}") from None


def _by_blosc(array: Any) -> bool | None:
    """See `_Store.blosc`."""
    if array.metadata.zarr_format == 2:
        return False if getattr(array.metadata.compressor, "codec_id", "") == "blosc" else None
    codecs = array.metadata.codecs
    inner = codecs[0].codecs if array.shards else codecs
    return bool(array.shards) if type(inner[-1]).__name__ == "BloscCodec" else None


def check_blosc(content: bytes) -> None:
    """Refuse a frame of Blosc that is cut off, which Blosc itself unpacks into whatever lies behind it in memory.

    Raises
    ------
    ValueError
        Its length is not what it says.
    """
    if len(content) < 16 or struct.unpack_from("<I", content, 12)[0] != len(content):
        raise ValueError("a frame of Blosc is cut off")


def _names_of(array: Any) -> list[str] | None:
    """Names of the dimensions, as Zarr 3 may have them."""
    names = getattr(array.metadata, "dimension_names", None)
    return None if names is None or None in names else list(names)


def _slices(files: Files, array: Any, store: Any, order: list[int], scan: Scan, scratch: Path | None) -> ChunkedSlices:
    """An array as slices. order: which of its dimensions are z, y and x."""
    outer = array.shards or array.chunks
    fill = array.fill_value

    def name_chunk(index: tuple[int, int, int]) -> tuple[list[int], str]:
        key = [0] * array.ndim
        for dimension, number in zip(order, index, strict=True):
            key[dimension] = number
        place = (n * c // o for n, c, o in zip(key, array.chunks, outer, strict=True))
        return key, array.metadata.encode_chunk_key(tuple(place))

    def load(index: tuple[int, int, int]) -> np.ndarray | None:
        key, name = name_chunk(index)
        box = tuple(slice(n * c, min((n + 1) * c, s)) for n, c, s in zip(key, array.chunks, array.shape, strict=True))
        try:
            chunk = np.asarray(array[box])
        except UserError:
            raise
        except Exception as error:  # whatever a damaged chunk provokes in its codec
            raise damage_error(files.name, f"its chunk {name}: {brief(error)}") from None
        if name in store.missing:
            if fill is None:
                raise damage_error(files.name, f"it lacks chunk {name}, and says nothing of what to take for it")
            return None
        rest = [n for n in range(array.ndim) if n not in order]
        chunk = chunk.transpose([*rest, *order]).reshape([chunk.shape[n] for n in order])
        return np.ascontiguousarray(chunk, chunk.dtype.newbyteorder("="))

    shape, chunk = (tuple(int(sizes[n]) for n in order) for sizes in (array.shape, array.chunks))
    dtype = array.dtype.newbyteorder("=")
    return ChunkedSlices(
        load, lambda index: files.has(f"{store.path}/{name_chunk(index)[1]}"), shape, chunk, dtype, fill or 0,
        files.name, scratch, choose_box(scan, shape), keep="://" in files.name,
    )  # fmt: skip


def choose_box(scan: Scan, shape: tuple[int, int, int]) -> tuple[slice, slice, slice]:
    """The slices, rows and columns that `scan` chooses."""
    return slice(*headers.choose_range(scan, shape[0])), *headers.choose_region(scan, shape[1:])


def _zarr_store(files: Files, path: str) -> Any:
    """The files below a path of a store, as zarr asks for them; `missing` holds the names of those not there."""
    from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest

    class _Store(Store):
        supports_writes = supports_deletes = supports_listing = False

        def __init__(self) -> None:
            super().__init__(read_only=True)
            self.path, self.missing = path, set[str]()
            self.blosc: bool | None = None
            """Whether chunks are packed by Blosc: within a shard (True), or each in a file (False); None: they are not.
            """

        def __eq__(self, other: object) -> bool:
            return self is other

        async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
            part: tuple = (None, None)
            if isinstance(byte_range, RangeByteRequest):
                part = byte_range.start, byte_range.end - byte_range.start
            elif isinstance(byte_range, OffsetByteRequest):
                part = byte_range.offset, None
            elif isinstance(byte_range, SuffixByteRequest):
                part = -byte_range.suffix, None
            content = await asyncio.to_thread(files.get, f"{path}/{key}", *part)
            if content is None:
                self.missing.add(key)
                return None
            if self.blosc is not None and self.blosc == isinstance(byte_range, RangeByteRequest):
                check_blosc(content)
            return prototype.buffer.from_bytes(content)

        async def get_partial_values(self, prototype: Any, key_ranges: Any) -> list[Any]:
            return [await self.get(key, prototype, part) for key, part in key_ranges]

        async def exists(self, key: str) -> bool:
            return await asyncio.to_thread(files.get, f"{path}/{key}", 0, 1) is not None

        async def set(self, key: str, value: Any) -> None:
            raise NotImplementedError

        async def delete(self, key: str) -> None:
            raise NotImplementedError

        def list(self) -> Any:
            raise NotImplementedError

        def list_prefix(self, prefix: str) -> Any:
            raise NotImplementedError

        def list_dir(self, prefix: str) -> Any:
            raise NotImplementedError

    return _Store()
