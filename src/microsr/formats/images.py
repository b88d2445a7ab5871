"""2-D images, one or a folder of them: PNG, TIFF, JPEG 2000 and BMP, and the log of a SkyScan that says their size.

Each kind tells rows, columns and type from its head, and is decoded when its slice is asked for: PNG by ITK, TIFF by
tifffile, JPEG 2000 by imagecodecs (OpenJPEG); BMP is not packed.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from microsr.config.sheet import Scan
from microsr.core.errors import UserError
from microsr.core.progress import logger
from microsr.formats import headers
from microsr.formats.rawfile import cache_slices, damage_error
from microsr.volume.slices import Slices
from microsr.volume.storage import IDENTITY, Volume

Head = tuple[int, int, np.dtype]
"""Rows, columns, type."""


@dataclass(frozen=True)
class Kind:
    """A kind of image: its name, what tells its head and what decodes it."""

    name: str
    head: Callable[[Path], Head]
    decode: Callable[[Path], np.ndarray]


def read_images(files: list[Path], scan: Scan, scratch: Path | None) -> Volume:
    """2-D images in the order given: a stack with three numbers of spacing or a SkyScan's log, else independent slices.

    Raises
    ------
    UserError
        They have no size, differ, are in colour, damaged or truncated.
    """
    files, given = without_previews(files), headers.sheet_spacing(scan)
    size = None if given else log_spacing(files)
    if not given and size is None:
        raise UserError(
            f"{scan.path}: 2-D images have no pixel size of their own; give it, mm, X or XxY for independent slices, "
            "XxYxZ for a stack: <modality>_spacing in the sheet, or --spacing"
        )
    first, end = headers.choose_range(scan, len(files))
    chosen = files[first:end]
    rows, columns, dtype = _require_alike(chosen)
    array = Slices(lambda z: kind_of(chosen[z]).decode(chosen[z]), (len(chosen), rows, columns), dtype)
    if chosen[0].stat().st_size < rows * columns * dtype.itemsize:
        array = cache_slices(array, scratch)
    stack = len(given) != 1 and len(given) != 2
    if stack:
        _check_names(chosen, scan.path)
    numbers = list(size) if size else [given[0], given[min(1, len(given) - 1)], given[2] if stack else given[0]]
    source = {
        "format": kind_of(files[0]).name, "size": [columns, rows, len(files)],
        "spacing": [*numbers[:2], numbers[2] if stack else None], "spacing_from": "sheet" if given else "file",
    }  # fmt: skip
    attributes = {"source": source} if stack else {"source": source, "independent_slices": True}
    origin = (0.0, 0.0, first * numbers[2] if stack else 0.0)
    return Volume(array, tuple(numbers), origin, IDENTITY, "grey", attributes)


def kind_of(path: Path) -> Kind:
    """The kind of an image, by its ending."""
    return KINDS[path.suffix.lower()]


def _require_alike(files: list[Path]) -> Head:
    """Rows, columns and type of 2-D images, which must be the same in all."""
    found = None
    for path in files:
        here = kind_of(path).head(path)
        found = found or here
        if here != found:
            raise UserError(
                f"{path}: is {here[1]}x{here[0]} ({here[2]}), the images before it are "
                f"{found[1]}x{found[0]} ({found[2]}); make them alike, or give each its own case"
            )
    return found


def _check_names(files: list[Path], where: str) -> None:
    """Warn of a stack whose names are not those of one scan without a gap; refuse several kinds of images.

    Raises
    ------
    UserError
        The images are of several kinds.
    """
    kinds = sorted({kind_of(path).name for path in files})
    if len(kinds) > 1:
        raise UserError(f"{where}: holds images of several kinds ({', '.join(kinds)}); keep one scan in a folder")
    numbered: dict[tuple[str, str], list[tuple[int, Path]]] = {}
    for path in files:
        before, number, after = re.fullmatch(r"(.*?)(\d*)(\D*)", path.stem).groups()
        numbered.setdefault((before, after), []).append((int(number or 0), path))
    if len(numbered) > 1:
        (_, one), (_, other) = (names[0] for names in list(numbered.values())[:2])
        logger.warning(
            "%s: images of several names, as %s and %s, are taken for one stack; keep one scan in a folder",
            *(where, one.name, other.name),
        )
    for names in numbered.values():
        steps = np.diff([number for number, _ in names])
        if len(steps) == 0:
            continue
        usual = int(min(steps, key=lambda step: (-np.count_nonzero(steps == step), step)))
        gaps = [
            (a.name, b.name) for (_, a), (_, b), step in zip(names, names[1:], steps, strict=False) if step != usual
        ]
        if gaps:
            logger.warning(
                "%s: by their numbers slices are missing between %s and %s (%d such gaps); they are placed as if none "
                "were, so that what follows lies too near",
                *(where, *gaps[0], len(gaps)),
            )


# SkyScan


def without_previews(files: list[Path]) -> list[Path]:
    """Images without the preview (..._spr.bmp) that SkyScan's NRecon lays beside its slices."""
    found = [path for path in files if not path.stem.lower().endswith("_spr")]
    return found or files


def log_spacing(files: list[Path]) -> tuple[float, float, float] | None:
    """Spacing (x, y, z, mm) that SkyScan's NRecon wrote into the log beside its slices; None: there is no such log.

    It is named as the slices without their numbers. Of the pixel sizes in it that of the section Reconstruction counts;
    slices may be some steps apart.
    """
    stem = re.sub(r"\d+$", "", files[0].stem)
    for log in sorted(files[0].parent.glob("*.log")):
        if not stem.startswith(log.stem):
            continue
        text = log.read_bytes()[: 1 << 20].decode("latin-1")
        section = re.split(r"^\[", text, flags=re.MULTILINE)
        (lines,) = [part for part in section if part.startswith("Reconstruction]")][:1] or [""]
        said = dict(re.findall(r"^([^=\r\n]+?)[ \t]*=[ \t]*([^\r\n]*?)[ \t]*\r?$", lines, re.MULTILINE))
        try:
            pixel = float(said["Pixel Size (um)"]) / 1000
            spacing = (pixel, pixel, pixel * int(said.get("Section to Section Step", "1")))
        except (KeyError, ValueError):
            continue
        if all(headers.FINEST <= v <= headers.COARSEST for v in spacing):
            return spacing
    return None


# Kinds


def _png_head(path: Path) -> Head:
    from microsr.formats import readers  # which asks here

    headers.check_png(path)
    reader = readers.itk_reader(path)
    return reader.GetSize()[1], reader.GetSize()[0], readers.itk_dtype(reader, np.dtype(object))


def _png(path: Path) -> np.ndarray:
    from microsr.formats import readers

    return readers.itk_array(readers.itk_reader(path))[0]


def _tiff(path: Path) -> Slices:
    from microsr.formats.tiff import read_stack

    slices = read_stack(path, None).slices
    if len(slices) != 1:
        raise UserError(f"{path}: is a stack inside a folder of images; give the file itself")
    return slices


def _tiff_head(path: Path) -> Head:
    slices = _tiff(path)
    return slices.shape[1], slices.shape[2], slices.dtype


def _bmp(path: Path) -> tuple[Head, int, bool]:
    """Head, place of the first row and whether that is the uppermost, of a BMP of 8 bits with the greys as palette."""
    content = path.read_bytes()
    try:
        mark, _, _, _, place = struct.unpack_from("<2sIHHI", content)
        size, columns, rows, _, bits, packed, _, _, _, colours, _ = struct.unpack_from("<IiiHHIIiiII", content, 14)
        colours = colours or 256
        palette = np.frombuffer(content, np.uint8, 4 * colours, 14 + size).reshape(-1, 4)[:, :3] if bits == 8 else None
        if mark != b"BM" or size < 40 or columns < 1 or rows == 0:
            raise ValueError("no BMP")
    except (struct.error, ValueError):
        raise damage_error(path, "its header is not that of a BMP") from None
    if bits != 8 or packed:
        raise UserError(f"{path}: is a BMP of {bits} bits or a packed one, not of 8 bits; save it as grey values")
    if not (palette == np.arange(colours)[:, None]).all():
        raise UserError(f"{path}: its colours are no plain scale of greys; save it as grey values")
    needed = place + abs(rows) * (-(-columns // 4) * 4)
    if len(content) < needed:
        raise damage_error(path, f"{needed} bytes expected")
    return (abs(rows), columns, np.dtype(np.uint8)), place, rows < 0


def _decode_bmp(path: Path) -> np.ndarray:
    (rows, columns, _), place, downwards = _bmp(path)
    width = -(-columns // 4) * 4
    image = np.frombuffer(path.read_bytes(), np.uint8, rows * width, place).reshape(rows, width)[:, :columns]
    return image if downwards else image[::-1]


def _jpeg2000_head(path: Path) -> Head:
    """From the marker SIZ of the codestream (ISO/IEC 15444-1, A.5.1)."""
    content = path.read_bytes()
    start = content.find(b"\xff\x4f\xff\x51")
    try:
        right, bottom, left, top = struct.unpack_from(">4I", content, start + 8)
        parts, depth = struct.unpack_from(">HB", content, start + 40)
    except struct.error:
        start = -1
    if start < 0 or right <= left or bottom <= top:
        raise damage_error(path, "its header is not that of JPEG 2000")
    if parts != 1:
        raise UserError(f"{path}: has {parts} values in a pixel (colour); save it as grey values")
    bits, kind = (depth & 127) + 1, "i" if depth & 128 else "u"
    if bits > 16:
        raise UserError(f"{path}: has {bits} bits in a pixel, more than are read; save it with 16")
    return bottom - top, right - left, np.dtype(f"{kind}{1 if bits <= 8 else 2}")


def _jpeg2000(path: Path) -> np.ndarray:
    import imagecodecs

    rows, columns, dtype = _jpeg2000_head(path)
    content = path.read_bytes()
    try:
        _check_tile_parts(content)
        image = imagecodecs.jpeg2k_decode(content)
        if image.shape != (rows, columns) or image.dtype != dtype:
            raise ValueError(f"{image.shape[1]}x{image.shape[0]}")
    except Exception as error:  # whatever OpenJPEG says of a damaged file
        raise damage_error(path, headers.reason(error)) from None
    return image


def _check_tile_parts(content: bytes) -> None:
    """Refuse a codestream whose tile-parts do not follow each other to its end (A.4): OpenJPEG fills up what is gone.

    Raises
    ------
    ValueError
        One is cut off, or something is gone within it.
    """
    place = content.index(b"\xff\x4f\xff\x51") + 2
    while (marker := content[place : place + 2]) != b"\xff\x90":
        if marker[:1] != b"\xff" or len(content) < place + 4:
            raise ValueError("its main header is damaged")
        place += 2 + struct.unpack_from(">H", content, place + 2)[0]
    while content[place : place + 2] == b"\xff\x90":
        (length,) = struct.unpack_from(">I", content.ljust(place + 12), place + 6)
        place = place + length if length else len(content) - 2
    if content[place : place + 2] != b"\xff\xd9":
        raise ValueError("its tiles do not end where they say")


_PNG = Kind("PNG", _png_head, _png)
_TIFF = Kind("TIFF", _tiff_head, lambda path: _tiff(path)[0])
_JPEG_2000 = Kind("JPEG 2000", _jpeg2000_head, _jpeg2000)
KINDS = {
    ".png": _PNG, ".tif": _TIFF, ".tiff": _TIFF, ".jp2": _JPEG_2000, ".j2k": _JPEG_2000,
    ".bmp": Kind("BMP", lambda path: _bmp(path)[0], _decode_bmp),
}  # fmt: skip
"""By the ending of a file."""
