"""Readers of volumes that share no code with microsr: nibabel, pynrrd, pydicom, tifffile, tensorstore, Pillow, and a
few lines for MetaImage.

Each raises whatever its library raises for what it cannot read.
"""

import json
import math
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass
class Image:
    """Voxels [slices, rows, columns] and their place."""

    array: np.ndarray
    spacing: tuple[float, ...]
    affine: np.ndarray | None = None
    """From voxel (x, y, z, 1) to LPS, mm; None: the file does not say."""
    tolerance: float = 1e-3
    """Of the place, in voxels."""


def place(spacing: Any, origin: Any, direction: Any) -> np.ndarray:
    """From voxel (x, y, z, 1) to LPS, mm."""
    found = np.eye(4)
    found[:3, :3], found[:3, 3] = np.reshape(direction, (3, 3)) * spacing, origin
    return found


def by_nibabel(path: Path) -> Image:
    import nibabel

    image = nibabel.load(path)
    data = np.asarray(image.dataobj)
    if data.dtype.kind not in "iuf":
        raise ValueError("no numbers")
    data = data.reshape(*data.shape[:3], *[1] * (3 - data.ndim)) if data.size == math.prod(data.shape[:3]) else data
    header = image.header
    unit = {"mm": 1.0, "meter": 1000.0, "micron": 0.001}.get(header.get_xyzt_units()[0], 1.0)
    spacing = tuple(unit * float(v) for v in (*header.get_zooms(), 1.0, 1.0)[:3])
    affine = None
    if header["sform_code"] > 0 or header["qform_code"] > 0:
        affine = np.diag([-1, -1, 1, 1]) @ image.affine
        affine[:3] *= unit
    return Image(data.T.astype(float), spacing, affine, 0.01)


NRRD_SPACES = {
    "right-anterior-superior": [-1, -1, 1], "ras": [-1, -1, 1], "left-anterior-superior": [1, -1, 1], "las": [1, -1, 1],
}  # fmt: skip
"""What turns a space into LPS."""


def by_nrrd(path: Path) -> Image:
    import nrrd

    data, header = nrrd.read(str(path))
    space = str(header.get("space", "")).lower()
    flip = np.diag(NRRD_SPACES.get(space, [1, 1, 1]))
    if "space directions" in header:
        axes = flip @ np.array(header["space directions"], float).T
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = axes, flip @ np.array(header.get("space origin", (0, 0, 0)), float)
        spacing = np.linalg.norm(axes, axis=0)
    else:
        affine, spacing = None, np.array(header["spacings"], float)
    return Image(data.T.astype(float), tuple(spacing), affine)


def by_hand(path: Path) -> Image:
    """A MetaImage of int16, with what ITK takes for granted where a field is missing."""
    content = path.read_bytes()
    fields: dict[str, str] = {}
    start = 0
    while "ElementDataFile" not in fields:
        end = content.index(b"\n", start)
        line, start = content[start:end], end + 1
        key, _, value = line.decode().partition(" = ")
        if key in fields:
            raise ValueError(key)
        fields[key] = value
    if (
        fields.get("ElementType") != "MET_SHORT"
        or fields.get("NDims") != "3"
        or fields.get("BinaryData", "True") != "True"
    ):
        raise ValueError("another kind")
    size = [int(n) for n in fields["DimSize"].split()]
    file = fields["ElementDataFile"]
    raw = content[start:] if file == "LOCAL" else (path.parent / file).read_bytes()
    raw = zlib.decompressobj().decompress(raw) if fields.get("CompressedData", "False") == "True" else raw
    order = {"True": ">", "False": "<"}[fields.get("BinaryDataByteOrderMSB", "False")]
    array = np.frombuffer(raw, f"{order}i2", math.prod(size)).reshape(size[::-1])
    spacing = tuple(map(float, fields["ElementSpacing"].split()))
    origin = tuple(map(float, fields.get("Offset", "0 0 0").split()))
    direction = np.reshape([float(v) for v in fields.get("TransformMatrix", "1 0 0 0 1 0 0 0 1").split()], (3, 3)).T
    return Image(array.astype(float), spacing, place(spacing, origin, direction))


def _as_stack(array: np.ndarray) -> Image:
    array = array if array.ndim == 3 else array[None]
    return Image(array.astype(float), (0.1, 0.1, 0.2))


def by_tifffile(path: Path) -> Image:
    import tifffile

    with tifffile.TiffFile(path) as file:
        return _as_stack(np.stack([page.asarray() for page in file.pages]))


def by_pillow(path: Path) -> Image:
    """An image, or those of a folder."""
    from PIL import Image as Pillow

    found = []
    files = sorted(file for file in path.iterdir() if file.suffix != ".log") if path.is_dir() else [path]
    for file in files:
        with Pillow.open(file) as image:
            grey = image.convert("L") if image.mode == "P" and _is_grey(image) else image
            if grey.mode not in ("L", "I;16", "I"):
                raise ValueError(image.mode)
            found.append(np.asarray(grey))
    return _as_stack(np.stack(found))


def by_olefile(path: Path) -> Image:
    """A TXM of 16 bits."""
    import olefile

    with olefile.OleFileIO(path) as store:

        def number(name: str, kind: str) -> Any:
            return np.frombuffer(store.openstream(["ImageInfo", name]).read(), kind)[0]

        shape = number("ImageHeight", "<u4"), number("ImageWidth", "<u4")
        if number("DataType", "<u4") != 5:
            raise ValueError("another type")
        streams = [store.openstream(f"ImageData1/Image{z + 1}").read() for z in range(number("NoOfImages", "<u4"))]
        array = np.stack([np.frombuffer(content, "<u2").reshape(shape) for content in streams])
        return Image(array.astype(float), (float(number("PixelSize", "<f4")) / 1000,) * 3)


def by_h5py(path: Path) -> Image:
    import h5py

    with h5py.File(path, "r") as file:
        spacing = tuple(float(v) / 1000 for v in file["v"].attrs["element_size_um"])[::-1]
        return Image(file["v"][()].astype(float), spacing)


def by_bytes(path: Path) -> Image:
    """ISQ, AIM 030, .raw and .vgi as the seeds have them, by their known places in the file."""
    content, position = path.read_bytes(), None
    if path.suffix == ".isq":
        size, lengths = (np.array(struct.unpack_from("<3i", content, place)) for place in (44, 56))
        start = 512 * (1 + struct.unpack_from("<i", content, 508)[0])
        if content[:16] != b"CTDATA-HEADER_V1" or struct.unpack_from("<i", content, 16) != (3,) or start < 512:
            raise ValueError("another kind")
        spacing, position, voxels = lengths / size / 1000, np.zeros(3), content[start:]
    elif path.suffix == ".aim":
        before, facts, log = struct.unpack_from("<3q", content, 16)
        (kind,) = struct.unpack_from("<i", content, 68)
        if content[:12] != b"AIMDATA_V030" or kind != 0x20002 or (before, facts) != (40, 224):
            raise ValueError("another kind")
        position, size = (np.array(struct.unpack_from("<3q", content, place)) for place in (72, 96))
        spacing = np.array(struct.unpack_from("<3q", content, 240)) * 1e-6
        voxels = content[16 + before + facts + log :]
    else:
        return _by_text(path)
    array = np.frombuffer(voxels[: 2 * math.prod(map(int, size))], "<i2").reshape(size[::-1])
    return Image(array.astype(float), tuple(spacing), place(spacing, position * spacing, np.eye(3)))


def _by_text(path: Path) -> Image:
    """a.raw or a.vgi, with what is said of it in lines `key: value` or `key = value`."""
    text = (path.with_name("a.raw.yaml") if path.suffix == ".raw" else path).read_bytes().decode("latin-1").lower()
    pairs = [re.split("[:=]", line, maxsplit=1) for line in text.splitlines() if re.search("^[a-z]+ ?[:=]", line)]
    said = {key.strip(): re.sub(r"[\[\],]", " ", value).strip() for key, value in pairs}
    if said.get("dtype", said.get("datatype")) not in ("int16", "integer") or said.get("bitsperelement", "16") != "16":
        raise ValueError("another type")
    size = np.array(said["size"].split(), int)
    factor = {"um": 0.001, "mm": 1.0}[said.get("unit", "mm")]
    spacing = factor * np.array(said.get("spacing", said.get("resolution")).split(), float)
    order = {"little": "<", "big": ">"}[said.get("order", "little")]
    voxels = (path.with_name("a.vol") if path.suffix == ".vgi" else path).read_bytes()[int(said.get("offset", "0")) :]
    return Image(np.frombuffer(voxels, f"{order}i2").reshape(size[::-1]).astype(float), tuple(spacing))


def by_skyscan(path: Path) -> Image:
    """Slices with the log v.log."""
    lines = (path / "v.log").read_bytes().decode("latin-1").splitlines()
    said = dict(line.split("=", 1) for line in lines[lines.index("[Reconstruction]") :] if "=" in line)
    size, step = float(said["Pixel Size (um)"]) / 1000, int(said.get("Section to Section Step", "1"))
    image = by_pillow(path)
    return Image(image.array, (size, size, size * step))


def _is_grey(image: Any) -> bool:
    """Whether the palette is that of the values themselves."""
    return np.array_equal(image.getpalette(), np.repeat(np.arange(len(image.getpalette()) // 3), 3))


def by_tensorstore(path: Path) -> Image:
    """An OME-Zarr store with axes z, y and x, or s0 of an N5 store, in mm or um."""
    import tensorstore

    def read(driver: str, level: str) -> np.ndarray:
        spec = {"driver": driver, "kvstore": {"driver": "file", "path": str(path / level)}}
        return tensorstore.open(spec, read=True).result().read().result()

    def said(name: str) -> Any:
        return json.loads((path / name).read_text(encoding="utf-8"))

    if (path / "s0").exists():
        facts = said("s0/attributes.json")
        factor = {"um": 0.001, "mm": 1.0}[facts["pixelResolution"]["unit"]]
        spacing = tuple(factor * float(v) for v in facts["pixelResolution"]["dimensions"])
        return Image(read("n5", "s0").T.astype(float), spacing, place(spacing, (0, 0, 0), np.eye(3)))
    whole = said("zarr.json")["attributes"]["ome"] if (path / "zarr.json").exists() else said(".zattrs")
    (facts,) = whole["multiscales"]
    axes = [(axis["name"], {"micrometer": 0.001, "millimeter": 1.0}[axis["unit"]]) for axis in facts["axes"]]
    (level,) = facts["datasets"]
    scale, shift = level["coordinateTransformations"]
    if [name for name, _ in axes] != ["z", "y", "x"] or "coordinateTransformations" in facts:
        raise ValueError("other axes")
    (spacing, origin) = (
        tuple(float(v) * factor for v, (_, factor) in zip(numbers, axes, strict=True))[::-1]
        for numbers in (scale["scale"], shift["translation"])
    )
    array = read("zarr3" if (path / "zarr.json").exists() else "zarr", level["path"])
    return Image(array.astype(float), spacing, place(spacing, origin, np.eye(3)))


def by_frames(path: Path) -> Image:
    """An enhanced CT whose frames share orientation and pixel size."""
    import pydicom

    data = pydicom.dcmread(path)
    shared, groups = data.SharedFunctionalGroupsSequence[0], data.PerFrameFunctionalGroupsSequence
    row, column = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    row, column = row / np.linalg.norm(row), column / np.linalg.norm(column)
    normal = np.cross(row, column)
    places = np.array([group.PlanePositionSequence[0].ImagePositionPatient for group in groups], float)
    rescale = [group.PixelValueTransformationSequence[0] for group in groups]
    values = data.pixel_array.astype(float)
    images = [v * float(r.RescaleSlope) + float(r.RescaleIntercept) for v, r in zip(values, rescale, strict=True)]
    order = np.argsort(places @ normal)
    y, x = (float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing)
    z = (places[order[-1]] - places[order[0]]) @ normal / (len(order) - 1)
    affine = place((x, y, z), places[order[0]], np.stack([row, column, normal], axis=1))
    return Image(np.stack([images[n] for n in order]), (x, y, z), affine, 0.01)


def by_pydicom(path: Path) -> Image:
    """A file, or the files of a folder in the order of their positions."""
    import pydicom

    found = []
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        data = pydicom.dcmread(file, force=True)
        if "Rows" not in data:
            raise ValueError("no image")
        slope, intercept = (
            float(data.get(f"Rescale{k}") or v) if data.get(f"Rescale{k}") != 0 else 0.0
            for k, v in (("Slope", 1), ("Intercept", 0))
        )
        array = data.pixel_array * slope + intercept
        found.append(
            (np.array(data.ImagePositionPatient, float), np.array(data.ImageOrientationPatient, float), data, array)
        )
    row, column = found[0][1].reshape(2, 3)
    row, column = row / np.linalg.norm(row), column / np.linalg.norm(column)
    normal = np.cross(row, column)
    found.sort(key=lambda one: float(one[0] @ normal))
    data = found[0][2]
    z = (found[-1][0] - found[0][0]) @ normal / (len(found) - 1) if len(found) > 1 else float(data.SliceThickness)
    y, x = (float(v) for v in data.PixelSpacing)
    affine = place((x, y, z), found[0][0], np.stack([row, column, normal], axis=1))
    for number, one in enumerate(found):
        drift = (one[0] - (affine @ (0, 0, number, 1))[:3]) / min(x, y)
        if np.abs(drift - (drift @ normal) * normal).max() > 0.51 or abs(drift @ normal) > 0.2 * z / min(x, y):
            raise ValueError("uneven")
        if np.abs(one[1] - found[0][1]).max() > 2e-3 or [float(v) for v in one[2].PixelSpacing] != [y, x]:
            raise ValueError("several grids")
    return Image(np.stack([one[3] for one in found]).astype(float), (x, y, z), affine, 0.01)
