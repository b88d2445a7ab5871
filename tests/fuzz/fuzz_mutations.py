"""Ways to spoil a sound input. Which one, and where, is decided by the kind of input and a number alone."""

import copy
import gzip
import io
import json
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz_seeds
import numpy as np
import yaml

Files = dict[str, bytes]
EXTREMES = [
    *(struct.pack(order + kind, number) for order in "<>" for kind, numbers in {
        "h": (0, -1, 1, 2, 32767, -32768), "i": (0, -1, 2**31 - 1, -(2**31), 65536), "q": (0, -1, 2**63 - 1, 2**40),
        "f": (0, -1, 1e30, float("nan"), float("inf"), 1e-30), "d": (0, -1, 1e300, float("nan"), float("-inf")),
    }.items() for number in numbers),
]  # fmt: skip
"""Binary numbers that a program may not expect."""
WORDS = [
    "0",
    "-1",
    "1",
    "nan",
    "inf",
    "1e30",
    "-1e30",
    "1e-30",
    "99999999999999999999",
    "65536",
    "abc",
    "",
    "0 0",
    "1,2",
    "True",
    "\\",
    "\xe9",
]
"""Texts that it may not expect."""
WRONG = [
    None, True, False, 0, -1, 1, 2**31, 2**70, 1e30, -0.5, 1e-30, float("nan"), float("inf"), "", "x", "1", "1:2", [],
    {}, [1], [1, 2, 3], {"x": 1}, [None], "a\nb", "-1", "1e5", [[1]],
]  # fmt: skip
"""Values of other types and sizes."""


def mutated(kind: str, number: int, folder: Path) -> tuple[str, Files, Files]:
    """A spoilt input: the file or folder to read, its files, and those of the sound input that it was made of."""
    rng = np.random.default_rng([zlib.crc32(kind.encode()), number])
    seeds = fuzz_seeds.seeds(kind, folder)
    target, sound = seeds[number % len(seeds)]
    files = dict(sound)
    for _ in range(1 + int(rng.integers(3) == 0)):
        ways = [*GENERIC, *OF_KIND.get(kind, []) * 2]
        ways[rng.integers(len(ways))](files, rng)
    return target, files, sound


def _pick(rng: np.random.Generator, items: Any) -> Any:
    items = list(items)
    return items[int(rng.integers(len(items)))]


def on_a_file(change: Callable[[bytearray, np.random.Generator], Any]) -> Callable[[Files, np.random.Generator], None]:
    """A way to spoil files out of one to spoil bytes."""

    def way(files: Files, rng: np.random.Generator) -> None:
        name = _pick(rng, [name for name, content in files.items() if content] or files)
        content = bytearray(files[name])
        if content:
            changed = change(content, rng)
            files[name] = bytes(content if changed is None else changed)

    return way


def _place(content: bytearray, rng: np.random.Generator) -> int:
    """Somewhere, half of the time in the first 512 bytes, where headers are."""
    end = len(content) if rng.integers(2) else min(512, len(content))
    return int(rng.integers(end))


def flip(content: bytearray, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(1, 4))):
        content[_place(content, rng)] ^= 1 << int(rng.integers(8))


def truncate(content: bytearray, rng: np.random.Generator) -> None:
    del content[int(rng.integers(len(content) + 1)) :]


def delete(content: bytearray, rng: np.random.Generator) -> None:
    start = _place(content, rng)
    del content[start : start + int(2 ** rng.uniform(0, 8))]


def repeat(content: bytearray, rng: np.random.Generator) -> None:
    start = _place(content, rng)
    block = content[start : start + int(2 ** rng.uniform(0, 8))]
    content[start:start] = block


def blank(content: bytearray, rng: np.random.Generator) -> None:
    start = _place(content, rng)
    size = min(int(2 ** rng.uniform(0, 6)), len(content) - start)
    content[start : start + size] = bytes([_pick(rng, (0, 255, 32))]) * size


def extreme(content: bytearray, rng: np.random.Generator) -> None:
    number, start = _pick(rng, EXTREMES), _place(content, rng)
    start -= start % int(_pick(rng, (1, 2, 4)))
    number = number[: len(content) - start]
    content[start : start + len(number)] = number


GENERIC = [on_a_file(change) for change in (flip, truncate, delete, repeat, blank, extreme)]


def text_number(content: bytearray, rng: np.random.Generator) -> bytearray | None:
    """Another text for a number in the first lines."""
    head = bytes(content[:2000])
    found = list(re.finditer(rb"(?<![\w.])-?\d[\d.eE+-]*", head))
    if not found:
        return None
    match = _pick(rng, found)
    return content[: match.start()] + bytearray(_pick(rng, WORDS).encode()) + content[match.end() :]


def text_line(content: bytearray, rng: np.random.Generator) -> bytearray:
    """A line twice, gone, or elsewhere."""
    lines = bytes(content).split(b"\n")
    here, there = (int(n) for n in rng.integers(min(len(lines), 16), size=2))
    line = lines[here]
    way = int(rng.integers(3))
    if way:
        del lines[here]
    if way != 1:
        lines.insert(there, line)
    return bytearray(b"\n".join(lines))


def text_word(content: bytearray, rng: np.random.Generator) -> bytearray | None:
    """Another word, out of the same text or not."""
    head = bytes(content[:2000])
    found = list(re.finditer(rb"[A-Za-z_]{2,}|\t", head))
    if not found:
        return None
    match, other = (
        _pick(rng, found),
        _pick(rng, [*(m[0] for m in found), b"", b"\t", b'"', b"\x00", b"\xef\xbb\xbf", b"um", b"\r"]),
    )
    return content[: match.start()] + bytearray(other) + content[match.end() :]


TEXT = [on_a_file(change) for change in (text_number, text_line, text_word)]

NIFTI_FIELDS = {
    **{40 + 2 * i: "h" for i in range(8)}, 68: "h", 70: "h", 72: "h", **{76 + 4 * i: "f" for i in range(8)}, 108: "f",
    112: "f", 116: "f", 123: "b", 252: "h", 254: "h", **{256 + 4 * i: "f" for i in range(6)},
    **{280 + 4 * i: "f" for i in range(12)}, 344: "i",
}  # fmt: skip
"""Place and type of what a NIfTI header says of shape, type, place and scaling."""


def nifti_field(content: bytearray, rng: np.random.Generator) -> None:
    if len(content) < 348:
        return
    place, kind = _pick(rng, NIFTI_FIELDS.items())
    order = "<" if content[0] == 92 else ">"
    whole = (0, 1, 2, 3, 4, 5, 6, 8, 16, 32, 64, 100, 127, -1)
    number = _pick(rng, (*whole, 0.5, 1e30, float("nan"), float("inf")) if kind == "f" else whole)
    struct.pack_into(order + kind, content, place, number)


def inside_gzip(
    change: Callable[[bytearray, np.random.Generator], Any],
) -> Callable[[bytearray, np.random.Generator], bytearray]:
    """The same with what is packed."""

    def way(content: bytearray, rng: np.random.Generator) -> bytearray:
        try:
            inner = bytearray(gzip.decompress(content))
        except (OSError, EOFError, zlib.error):
            return content
        if inner:
            changed = change(inner, rng)
            inner = inner if changed is None else changed
        return bytearray(gzip.compress(inner, mtime=0))

    return way


def png_chunk(content: bytearray, rng: np.random.Generator) -> bytearray:
    """Something else in a chunk, with the checksum that belongs to it."""
    out, place = content[:8], 8
    chosen = int(rng.integers(4))
    number = 0
    while place + 12 <= len(content):
        (size,) = struct.unpack_from(">I", content, place)
        kind, body = bytes(content[place + 4 : place + 8]), bytearray(content[place + 8 : place + 8 + size])
        if number == chosen and body:
            _pick(rng, (flip, extreme, truncate, blank))(body, rng)
        out += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        place, number = place + 12 + size, number + 1
    return out


def tiff_tag(content: bytearray, rng: np.random.Generator) -> None:
    """Another number in an entry of the first directory."""
    order = "<" if content[:2] == b"II" else ">"
    if len(content) < 8:
        return
    (place,) = struct.unpack_from(order + "I", content, 4)
    if place + 2 > len(content):
        return
    (count,) = struct.unpack_from(order + "H", content, place)
    entry = place + 2 + 12 * int(rng.integers(max(count, 1)))
    if entry + 12 <= len(content):
        field, kind = _pick(rng, ((0, "H"), (2, "H"), (4, "I"), (8, "H"), (8, "I"), (8, "H"), (8, "I")))
        number = _pick(
            rng, (0, 1, 2, 3, 4, 7, 8, 16, 32, 255, 32946, 65535, *((2**31 - 1, 2**32 - 1) if kind == "I" else ()))
        )
        struct.pack_into(order + kind, content, entry + field, number)


LONG = (b"OB", b"OW", b"OF", b"SQ", b"UN", b"UT", b"UC", b"UR")


def _elements(content: bytes) -> list[tuple[bytes, bytes, bytes]] | None:
    """Tag, value representation and value of each element of an explicit little-endian DICOM file."""
    found, place = [], 132
    while place + 8 <= len(content):
        tag, kind = content[place : place + 4], content[place + 4 : place + 6]
        if not kind.isalpha():
            return None
        head = 12 if kind in LONG else 8
        (size,) = struct.unpack_from("<I" if kind in LONG else "<H", content, place + head - (4 if kind in LONG else 2))
        if size == 0xFFFFFFFF:
            return None
        found.append((tag, kind, content[place + head : place + head + size]))
        place += head + size
    return found


def dicom_element(content: bytearray, rng: np.random.Generator) -> bytearray | None:
    """Another value of an element that matters, or that element gone or twice."""
    elements = _elements(bytes(content))
    if not elements:
        return None
    decisive = [
        i
        for i, (tag, _, _) in enumerate(elements)
        if tag[:2] in (b"\x28\x00", b"\x20\x00", b"\x02\x00") or tag == b"\x18\x00\x50\x00"
    ]
    index = _pick(rng, decisive or range(len(elements)))
    tag, kind, value = elements[index]
    way = int(rng.integers(6))
    if way == 0:
        del elements[index]
    elif way == 1:
        elements.insert(index, elements[index])
    elif kind in (b"US", b"SS", b"UL"):
        number = _pick(rng, (0, 1, 2, 5, 6, 7, 8, 10, 12, 15, 16, 32, 255, 4096, 65535))
        elements[index] = (tag, kind, struct.pack("<H", number))
    else:
        parts = value.decode("latin-1").split("\\")
        parts[int(rng.integers(len(parts)))] = _pick(rng, [*WORDS, "0.7", "-3.5", "MONOCHROME1", "2.5 "])
        text = "\\".join(parts).encode("latin-1")
        elements[index] = (tag, kind, text + b" " * (len(text) % 2))
    out = bytearray(content[:132])
    for tag, kind, value in elements:
        out += (
            tag
            + kind
            + (b"\0\0" + struct.pack("<I", len(value)) if kind in LONG else struct.pack("<H", len(value) & 0xFFFF))
            + value
        )
    return out


def other_files(files: Files, rng: np.random.Generator) -> None:
    """A file of a series gone, twice, or under the name of another."""
    names = sorted(files)
    one, other = _pick(rng, names), _pick(rng, names)
    way = int(rng.integers(3))
    if way == 0 and len(files) > 1:
        del files[one]
    elif way == 1:
        files[f"copy-{one}"] = files[one]
    else:
        files[one], files[other] = files[other], files[one]


def _spoil(tree: Any, rng: np.random.Generator) -> Any:
    """A tree of dicts and lists in which a value is another, or gone."""
    tree = copy.deepcopy(tree)
    places: list[tuple[Any, Any]] = []

    def walk(level: Any) -> None:
        for key in level if isinstance(level, dict) else range(len(level)):
            places.append((level, key))
            if isinstance(level[key], dict | list):
                walk(level[key])

    if isinstance(tree, dict | list):
        walk(tree)
    if not places:
        return _pick(rng, WRONG)
    level, key = _pick(rng, places)
    way = int(rng.integers(6))
    if way == 0:
        del level[key]
    elif way == 1 and isinstance(level, dict):
        level[_pick(rng, ("x", "", 1, "a\nb", f"{key}s"))] = level.pop(key)
    else:
        level[key] = copy.deepcopy(_pick(rng, WRONG))
    return tree


def json_value(files: Files, rng: np.random.Generator) -> None:
    name = _pick(rng, [name for name in files if name.endswith((".json", ".zattrs", ".zarray"))])
    try:
        files[name] = json.dumps(_spoil(json.loads(files[name]), rng)).encode()
    except ValueError:
        return


def yaml_value(files: Files, rng: np.random.Generator) -> None:
    try:
        files["a.yaml"] = yaml.safe_dump(_spoil(yaml.safe_load(files["a.yaml"]), rng)).encode()
    except (yaml.YAMLError, ValueError):
        return


def model_value(files: Files, rng: np.random.Generator) -> None:
    import torch

    try:
        saved = torch.load(io.BytesIO(files["generator.pt"]), weights_only=True)
    except Exception:  # spoilt already
        return
    weights = saved.get("weights") if isinstance(saved, dict) else None
    if isinstance(weights, dict) and rng.integers(3) == 0:
        saved["weights"] = _spoil(weights, rng)
    else:
        saved = _spoil({key: value for key, value in saved.items() if key != "weights"}, rng) | {"weights": weights}
    stream = io.BytesIO()
    torch.save(saved, stream)
    files["generator.pt"] = stream.getvalue()


OF_KIND: dict[str, list[Callable[[Files, np.random.Generator], None]]] = {
    "nifti": [on_a_file(nifti_field)] * 4,
    "nifti.gz": [
        on_a_file(inside_gzip(change)) for change in (nifti_field, nifti_field, flip, truncate, repeat, delete)
    ],
    "nrrd": TEXT,
    "metaimage": TEXT,
    "tiff": [on_a_file(tiff_tag)] * 4,
    "png": [on_a_file(png_chunk)] * 4,
    "txm": [on_a_file(extreme)],
    "hdf5": [on_a_file(extreme)],
    "scanco": [on_a_file(extreme)] * 4,
    "raw": [*TEXT, *TEXT],
    "bmp": [*TEXT, other_files],
    "jpeg2000": [other_files],
    "dicom": [on_a_file(dicom_element)] * 5,
    "enhanced": [on_a_file(dicom_element)] * 3,
    "series": [*[on_a_file(dicom_element)] * 4, other_files],
    "zarr": [*[json_value] * 4, other_files],
    "n5": [*[json_value] * 4, other_files],
    "volume": [json_value] * 4,
    "config": [*[yaml_value] * 4, *TEXT],
    "sheet": TEXT * 2,
    "model": [model_value] * 5,
    "patches": [json_value, *TEXT],
}
"""Ways for a kind of input, each tried twice as often as a generic one."""
KINDS = tuple(OF_KIND)
