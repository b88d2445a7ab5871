"""A volume and its working format: OME-Zarr 0.5, one chunk row per slice, geometry and mask inside.

Voxels are indexed [slice, row, column]; spacing, origin and direction are in the order x, y, z (column, row, slice) and
in patient coordinates (LPS, mm), as in SimpleITK. OME-Zarr has no direction: its axes bear the names of the patient's
axes that they run along, an axis that runs against one is stored the other way round (and so opened again), and the
attribute `microsr` holds the full geometry of the array as it is stored. `microsr.volume.viewing` says with which grey
scale a viewer opens it.

A volume may have further levels, each with half the rows and columns of the one before, for programs that show it. No
chunk holds two slices at any level, so several processes may write slices of one volume, and volumes that were created
with the same arguments and hold different slices become one by moving their chunks into one folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import zarr
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from zarr.codecs import BloscCodec, Crc32cCodec

from microsr import config
from microsr.core.errors import UserError, brief
from microsr.volume import viewing
from microsr.volume.orientation import Reversed, nearest_axes, stored_order

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
STRAIGHT = 5e-3
"""Largest deviation of direction cosines from perpendicular unit vectors."""
CHUNK = 1024
"""Rows and columns of a chunk, at most."""
MASK_COLOUR = [0, 158, 115, 96]
"""In which viewers lay the mask over the voxels: red, green, blue, opacity."""
SMALLEST = 512
"""Pixels of the longer side at which no coarser level is made."""
WHOLE = {"write_empty_chunks": True}
"""How arrays are written: chunks of zeros too, as Zarr reads zeros where a chunk is missing."""


Number = Annotated[float, Field(allow_inf_nan=False)]
Length = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Index = Annotated[int, Field(ge=0)]


def _perpendicular(direction: list[float]) -> list[float]:
    matrix = np.reshape(direction, (3, 3))
    if not np.abs(matrix.T @ matrix - np.eye(3)).max() <= STRAIGHT:
        raise ValueError("its axes are not perpendicular")
    return direction


class _Attributes(BaseModel):
    """What is relied on of a volume's attributes, where they are there."""

    model_config = ConfigDict(strict=True)

    case: str | None = None
    modality: str | None = None
    slices: list[Index] = []
    corner: Annotated[list[Index], Field(min_length=2, max_length=2)] = []
    independent_slices: bool = False
    source: dict[str, Any] = {}
    display: Annotated[list[Number], Field(min_length=2, max_length=2)] = []


class _Facts(BaseModel):
    """The attribute `microsr` of a volume."""

    model_config = ConfigDict(strict=True)

    spacing: Annotated[list[Length], Field(min_length=3, max_length=3)]
    origin: Annotated[list[Number], Field(min_length=3, max_length=3)]
    direction: Annotated[list[Number], Field(min_length=9, max_length=9), AfterValidator(_perpendicular)]
    unit: str
    attributes: _Attributes
    reversed: list[Literal["x", "y", "z"]] = []
    """Axes that are stored against the order in which the volume numbers slices, rows and columns."""
    first: list[Number] = []
    """Where its first voxel lies, if there are such axes."""


@dataclass(frozen=True)
class Volume:
    """Voxels with their place in the patient.

    array: [slices, rows, columns]; a NumPy array, or a Zarr array that reads what is indexed (`volume.array[3]`).
    spacing, origin: x, y, z in mm. direction: 3x3 cosines, row by row. unit: "HU" or "grey" (uncalibrated).
    attributes: further plain facts (slice indices, calibration); never a name or an id from a DICOM header.
    """

    array: Any
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = IDENTITY
    unit: str = "HU"
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        return self.array.shape

    @property
    def is_lung(self) -> bool:
        """Whether what is meant for lungs alone applies to it: a clinical CT's attribute `organ` says otherwise."""
        return self.attributes.get("organ", "lung") == "lung"

    def point(self, index: tuple[float, float, float]) -> np.ndarray:
        """Patient coordinates (x, y, z in mm) of a fractional voxel index given as (slice, row, column)."""
        offset = np.asarray(index[::-1], float) * self.spacing
        return np.asarray(self.origin) + np.reshape(self.direction, (3, 3)) @ offset

    def slices(self, start: int, stop: int) -> Volume:
        """The slices start to stop (excluded), in place."""
        origin = tuple(float(v) for v in self.point((start, 0, 0)))
        return replace(self, array=self.array[start:stop], origin=origin)


def magnified_geometry(volume: Volume, scale: int) -> dict[str, Any]:
    """Spacing, origin and direction of `volume` magnified in-plane: it covers the same area, so that the two overlay.

    The first pixel's centre moves by half the difference of the pixel sizes.
    """
    x, y, z = volume.spacing
    shift = (1 / scale - 1) / 2
    origin = tuple(float(v) for v in volume.point((0, shift, shift)))
    return {"spacing": (x / scale, y / scale, z), "origin": origin, "direction": volume.direction}


def geometry_of(like: Volume | dict[str, Any]) -> Volume:
    """The geometry, unit and attributes of a Volume, or of the keyword arguments of one, as a Volume without voxels."""
    return replace(like, array=None) if isinstance(like, Volume) else Volume(array=None, **like)


def create_volume(
    path: Path,
    shape: tuple[int, int, int],
    like: Volume | dict[str, Any],
    dtype: str = "int16",
    mask: bool = False,
    levels: int | None = 1,
) -> tuple[Stored, Stored | None]:
    """Create an empty volume at `path` (replacing one that is there) and return its voxels and mask, to be filled by
    slice.

    like: the Volume, or the keyword arguments of one, that gives geometry, unit and attributes. levels: number of
    resolutions, the full one included; None: until the longer side has at most SMALLEST pixels. What is returned is the
    full resolution; `open_levels` and `write_slice` fill all of them. The same arguments give the same bytes.
    """
    volume = geometry_of(like)
    shapes = level_shapes(shape, levels)
    if Path(path).exists():
        shutil.rmtree(path)
    group = zarr.create_group(str(path))
    order = stored_order(volume.direction)
    stored = _turn(volume, shape, order)
    shown = viewing.channel(volume)
    omero = {} if shown is None else {"omero": {"channels": [shown], "rdefs": {"model": "greyscale"}}}
    group.attrs["ome"] = _multiscale("voxels", stored, len(shapes)) | omero
    group.attrs["microsr"] = {
        "spacing": list(map(float, stored.spacing)),
        "origin": list(map(float, stored.origin)),
        "direction": list(map(float, stored.direction)),
        "unit": volume.unit,
        "attributes": volume.attributes,
    }
    if any(order):
        names = [name for name, turned in zip("zyx", order, strict=True) if turned]
        facts = group.attrs["microsr"] | {"reversed": names, "first": list(map(float, volume.origin))}
        group.attrs["microsr"] = facts
    voxels = Stored(_create_levels(group, shapes, dtype, stored), order)
    if not mask:
        return voxels, None
    labels = group.create_group("labels")
    labels.attrs["ome"] = {"version": "0.5", "labels": ["mask"]}
    label = labels.create_group("mask")
    label.attrs["ome"] = {
        **_multiscale("mask", stored, len(shapes)),
        "image-label": {"colors": [{"label-value": 1, "rgba": MASK_COLOUR}], "source": {"image": "../../"}},
    }
    return voxels, Stored(_create_levels(label, shapes, "uint8", stored), order)


def _turn(volume: Volume, shape: tuple[int, int, int], order: Reversed) -> Volume:
    """The same volume with the numbers of some axes in the other order: geometry only."""
    corner = [(count - 1) * turned for count, turned in zip(shape, order, strict=True)]
    signs = [-1.0 if turned else 1.0 for turned in order[::-1]]
    direction = np.reshape(volume.direction, (3, 3)) * signs + 0.0
    origin = volume.point(tuple(corner)) if any(order) else volume.origin
    return replace(volume, origin=tuple(map(float, origin)), direction=tuple(map(float, direction.ravel())))


class Stored:
    """A Zarr array [slices, rows, columns] to which slices are written as the volume numbers them."""

    def __init__(self, array: zarr.Array, order: Reversed) -> None:
        self.array, self.order = array, order

    def __getattr__(self, name: str) -> Any:
        """What the array knows of itself."""
        return getattr(self.array, name)

    def __setitem__(self, z: int, image: np.ndarray) -> None:
        """Write a slice [rows, columns]."""
        self.array[self.order.stored_position(z, self.array.shape[0])] = self.order.stored_image(image)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read what is written."""
        return self.order.read(self.array, key)


def level_shapes(shape: tuple[int, int, int], levels: int | None) -> list[tuple[int, int, int]]:
    """Shape of each level; see `create_volume`. An odd last row or column is a pixel of the next level by itself."""
    shapes = [tuple(shape)]
    while len(shapes) < levels if levels is not None else max(shapes[-1][1:]) > SMALLEST:
        slices, rows, columns = shapes[-1]
        shapes.append((slices, -(-rows // 2), -(-columns // 2)))
    return shapes


def _create_levels(group: zarr.Group, shapes: list[tuple[int, int, int]], dtype: str, volume: Volume) -> zarr.Array:
    """Create the arrays of all levels and return the full one."""
    # Of CT values mostly the low bits vary: sorted by bits they pack well, and four times as fast as by Zarr's default.
    codec = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=np.dtype(dtype).itemsize)
    arrays = [
        group.create_array(
            str(level),
            shape=shape,
            chunks=(1, min(shape[1], CHUNK), min(shape[2], CHUNK)),
            dtype=dtype,
            compressors=[codec, Crc32cCodec()],  # Blosc itself unpacks a damaged chunk into something else
            dimension_names=_axis_names(volume),
            config=WHOLE,
        )
        for level, shape in enumerate(shapes)
    ]
    return arrays[0]


def open_levels(path: Path, name: str = "", mode: str = "r+") -> list[Stored]:
    """All levels of the volume at `path`, the full one first, to be filled further (mode "r+") or read ("r").

    name: "" for the voxels, "labels/mask" for the mask.

    Raises
    ------
    UserError
        There is no such volume.
    """
    try:
        group = zarr.open_group(str(path), mode=mode)
        names = group.attrs["microsr"].get("reversed", [])
        order = Reversed(*(axis in names for axis in "zyx"))
        group = group[name] if name else group
        datasets = group.attrs["ome"]["multiscales"][0]["datasets"]
        return [Stored(group[one["path"]].with_config(WHOLE), order) for one in datasets]
    except PermissionError:
        raise
    except Exception as error:  # whatever damaged metadata provoke in Zarr
        raise _foreign_error(path, brief(error)) from None


def write_slice(levels: list[Stored], position: int, image: np.ndarray) -> None:
    """Write one slice into all `levels` of a volume, from `open_levels`; several processes may write different slices.

    image: [rows, columns] of the volume's type. A coarser pixel is the mean of the full pixels under it, rounded.
    """
    order = levels[0].order
    mean, place = order.stored_image(image), order.stored_position(position, levels[0].shape[0])
    for level in levels:
        if level is not levels[0]:
            mean = _halve(mean)
        level.array[place] = mean if mean.dtype == level.dtype else np.rint(mean).astype(level.dtype)


def _halve(image: np.ndarray) -> np.ndarray:
    """Means of 2x2 pixels, float32; what an odd last row or column lacks is repeated."""
    if image.shape[0] % 2 or image.shape[1] % 2:
        image = np.pad(image, [(0, n % 2) for n in image.shape], mode="edge")
    rows = np.add(image[0::2], image[1::2], dtype=np.float32)
    return (rows[:, 0::2] + rows[:, 1::2]) * np.float32(0.25)


def write_volume(path: Path, volume: Volume, mask: np.ndarray | None = None) -> None:
    """Write a volume that is in memory; HU are rounded to int16.

    mask: [slices, rows, columns], true inside the lung or specimen.
    """
    voxels, inside = create_volume(path, volume.shape, volume, mask=mask is not None)
    limits = np.iinfo(np.int16)
    for z in range(volume.shape[0]):
        voxels[z] = np.clip(np.rint(volume.array[z]), limits.min, limits.max).astype(np.int16)
        if mask is not None:
            inside[z] = mask[z].astype(np.uint8)


def is_volume(path: Path) -> bool:
    """Whether a path is a volume in the working format, sound or not; OME-Zarr of other programs is none."""
    try:
        found = json.loads((Path(path) / "zarr.json").read_bytes())
        return "microsr" in found["attributes"]
    except OSError:
        return False
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return True


def open_volume(path: Path) -> Volume:
    """Open a volume in the working format without reading its voxels.

    Raises
    ------
    UserError
        `path` is not such a volume.
    """
    try:
        group = zarr.open_group(str(path), mode="r")
        attributes = group.attrs.asdict()
        array = group["0"]
        if not isinstance(array, zarr.Array) or array.ndim != 3 or 0 in array.shape or array.dtype.kind not in "iuf":
            raise ValueError("its array 0 holds no slices of numbers")
        facts = _Facts.model_validate(attributes["microsr"])
        order = Reversed(*(axis in facts.reversed for axis in "zyx"))
        voxels = _Voxels(array, path, order)
        volume = Volume(voxels, tuple(facts.spacing), tuple(facts.origin), tuple(facts.direction), facts.unit)
        said = attributes["ome"]["multiscales"][0]["datasets"][0]
        if said != _multiscale("voxels", volume, 1)["multiscales"][0]["datasets"][0]:
            raise ValueError("its attributes ome and microsr give different places")
        if any(order):
            volume = _turn(volume, array.shape, order)
            if not np.allclose(facts.first, volume.origin, rtol=1e-6, atol=1e-6 * min(volume.spacing)):
                raise ValueError("its attribute microsr gives two places")
            volume = replace(volume, origin=tuple(facts.first))
        return replace(volume, attributes=attributes["microsr"]["attributes"])
    except PermissionError:
        raise
    except ValidationError as error:
        raise _foreign_error(path, config.describe(error, "microsr")) from None
    except Exception as error:  # whatever damaged metadata provoke in Zarr
        raise _foreign_error(path, brief(error)) from None


def open_mask(path: Path) -> Any:
    """The mask of a volume in the working format, uint8 [slices, rows, columns]: 1 inside the lung or specimen.

    Raises
    ------
    UserError
        There is none, or it does not fit the volume.
    """
    try:
        group = zarr.open_group(str(path), mode="r")
        mask = group["labels/mask/0"]
        if not isinstance(mask, zarr.Array) or (mask.shape, mask.dtype) != (group["0"].shape, np.uint8):
            raise ValueError("it does not fit the voxels")
        names = group.attrs["microsr"].get("reversed", [])
    except PermissionError:
        raise
    except (KeyError, FileNotFoundError):
        raise UserError(f"{path} has no mask; make it with `microsr volumes`") from None
    except Exception as error:  # whatever damaged metadata provoke in Zarr
        raise UserError(f"{path} has no sound mask ({brief(error)}); make it with `microsr volumes`") from None
    return _Voxels(mask, path, Reversed(*(axis in names for axis in "zyx")))


def _foreign_error(path: Path, why: str) -> UserError:
    return UserError(f"{path} is not a volume in the working format ({why}); make it with `microsr volumes`")


class _Voxels:
    """A Zarr array, for reading, whose damaged or missing chunks are an error that names the volume."""

    def __init__(self, array: zarr.Array, path: Path, order: Reversed) -> None:
        self._array, self._path, self._order = array, path, order

    def __getattr__(self, name: str) -> Any:
        return getattr(self._array, name)

    def __len__(self) -> int:
        return self._array.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[z] for z in range(len(self)))

    def __getitem__(self, key: Any) -> np.ndarray:
        try:
            found = self._order.read(self._array, key) if any(self._order) else self._array[key]
            self._check_there(key[0] if isinstance(key, tuple) else key)
            return found
        except (IndexError, OSError, MemoryError, UserError):
            raise
        except Exception as error:  # whatever a damaged chunk provokes in its codec
            raise UserError(
                f"{self._path}: has damaged voxels ({brief(error)}); copy it again, or make it again"
            ) from None

    def _check_there(self, slices: Any) -> None:
        """Refuse slices of which a chunk's file is missing."""
        rows, columns = self._array.cdata_shape[1:]
        folder, key = Path(self._array.store.root) / self._array.path, self._array.metadata.encode_chunk_key
        for z in np.atleast_1d(np.arange(len(self))[slices]):
            stored = self._order.stored_position(int(z), len(self))
            for place in np.ndindex(rows, columns):
                if not (folder / key((stored, *place))).exists():
                    raise UserError(
                        f"{self._path}: its slice {z} is missing or not whole; copy it again, or make it again"
                    )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


def _axis_names(volume: Volume) -> list[str]:
    """What slices, rows and columns are counted along: names of the patient's axes."""
    along, _ = nearest_axes(volume.direction)
    return ["xyz"[axis] for axis in along[::-1]]


def _multiscale(name: str, volume: Volume, levels: int) -> dict[str, Any]:
    """What OME-Zarr says of axes and levels; the centre of a level's first pixel is that of the full pixels under
    it.
    """
    axes = [{"name": name, "type": "space", "unit": "millimeter"} for name in _axis_names(volume)]
    along, _ = nearest_axes(volume.direction)
    spacing, origin = np.array(volume.spacing[::-1], float), np.array([volume.origin[a] for a in along[::-1]], float)
    datasets = []
    for level in range(levels):
        factor = np.array([1, 2**level, 2**level])
        transformations = [
            {"type": "scale", "scale": (spacing * factor).tolist()},
            {"type": "translation", "translation": (origin + spacing * (factor - 1) / 2).tolist()},
        ]
        datasets.append({"path": str(level), "coordinateTransformations": transformations})
    return {"version": "0.5", "multiscales": [{"name": name, "axes": axes, "datasets": datasets}]}
