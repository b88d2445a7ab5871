"""What may come of a spoilt input: one line that refuses it, what an independent reader finds in it, or what was there
before.

Independent are the readers of tests/independent.py.
"""

import ast
import contextlib
import csv
import io
import json
import math
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import fuzz_seeds
import numpy as np
from independent import (
    Image,
    by_bytes,
    by_frames,
    by_h5py,
    by_hand,
    by_nibabel,
    by_nrrd,
    by_olefile,
    by_pillow,
    by_pydicom,
    by_skyscan,
    by_tensorstore,
    by_tifffile,
    place,
)

from microsr.core.errors import UserError

REFUSED, SOUND, AGREED = "refused", "as it was", "as another reader says"


class WrongError(Exception):
    """Something else came of it."""


def judge(kind: str, target: Path, sound: Path) -> str:
    """REFUSED, SOUND or AGREED. target: a spoilt input, in a folder of its own; sound: the one it was made of.

    Raises
    ------
    WrongError
        It is read as something else, or refused in more than a line, without a name, or with a text out of a header.
    """
    try:
        return JUDGES[kind](target, sound)
    except UserError as error:
        message = str(error)
        names = [target.parent.name] + (["a.yaml", "config: "] if kind == "config" else [])
        if "\n" in message or "\r" in message or fuzz_seeds.SENTINEL in message or not any(n in message for n in names):
            raise WrongError(f"refused by {message!r}") from None
        return REFUSED


def _compare(ours: Image, theirs: Image | None, before: Callable[[], Image]) -> str:
    if theirs is not None and (difference := _difference(ours, theirs)) is None:
        return AGREED
    if _difference(ours, before()) is None:
        return SOUND
    if theirs is None:
        raise WrongError("read as something new, which no other program can read")
    raise WrongError(f"read otherwise than by another program: {difference}")


def _difference(one: Image, other: Image) -> str | None:
    if one.array.shape != other.array.shape:
        return f"shapes {one.array.shape} and {other.array.shape}"
    if not np.allclose(one.array, other.array, rtol=1e-5, atol=1e-5):
        where = np.unravel_index(np.argmax(~np.isclose(one.array, other.array, rtol=1e-5, atol=1e-5)), one.array.shape)
        return f"values {one.array[where]} and {other.array[where]}"
    if not np.allclose(one.spacing, other.spacing, rtol=max(1e-4, other.tolerance / 10)):
        return f"spacings {one.spacing} and {other.spacing}"
    if one.affine is not None and other.affine is not None:
        corners = np.array([(x, y, z, 1) for z in (0, len(one.array) - 1) for y in (0, 4) for x in (0, 5)], float)
        apart = np.abs((one.affine - other.affine) @ corners.T).max()
        if not apart <= other.tolerance * min(one.spacing) + 1e-5 * np.abs(one.affine @ corners.T).max():
            return f"places {one.affine[:3].tolist()} and {other.affine[:3].tolist()}"
    return None


def by_microsr(path: Path, spacing: str | None = None) -> Image:
    from microsr.config.sheet import Scan
    from microsr.formats.readers import read_scan

    volume = read_scan(Scan(path=str(path), spacing=spacing), path.parent)
    array = np.asarray(volume.array)
    return Image(array.astype(float), volume.spacing, place(volume.spacing, volume.origin, volume.direction))


def _volume_judge(other: Callable[[Path], Image], spacing: str | None = None) -> Callable[[Path, Path], str]:
    def judge_it(target: Path, sound: Path) -> str:
        ours = by_microsr(target, spacing)
        for file in sound.iterdir() if target.is_dir() else ():
            if not (target / file.name).exists():
                file.unlink()  # a slice that is gone at the end of a series leaves no gap
        theirs = None
        with warnings.catch_warnings(action="ignore"):
            with contextlib.suppress(Exception):  # a library that cannot read it is no judge
                theirs = other(target)
            return _compare(ours, theirs, lambda: other(sound))

    return judge_it


def judge_working_format(target: Path, sound: Path) -> str:
    import tensorstore

    from microsr.volume.storage import open_mask, open_volume

    def theirs(path: Path, name: str) -> np.ndarray:
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / name)}}
        return tensorstore.open(spec, read=True).result().read().result()

    def image(path: Path) -> Image:
        facts = json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"]
        scale, translation = facts["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
        spacing, origin = scale["scale"][::-1], translation["translation"][::-1]
        return Image(
            theirs(path, "0").astype(float), tuple(spacing), place(spacing, origin, facts["microsr"]["direction"])
        )

    volume = open_volume(target)
    ours = Image(
        np.asarray(volume.array).astype(float), volume.spacing, place(volume.spacing, volume.origin, volume.direction)
    )
    try:
        again = image(target)
    except Exception:  # as above
        again = None
    found = _compare(ours, again, lambda: image(sound))
    try:
        mask = np.asarray(open_mask(target))
    except UserError:
        return found
    for path in (target, sound):
        try:
            if np.array_equal(mask, theirs(path, "labels/mask/0")):
                return found
        except Exception:  # as above
            continue
    raise WrongError("another mask")


def judge_config(target: Path, sound: Path) -> str:
    """What is accepted keeps its meaning when it is written down, and on a command line."""
    import argparse
    import shlex

    import yaml

    from microsr import config

    try:
        tree = yaml.safe_load(target.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError):  # Snakemake reads it first, and says so
        return REFUSED
    experiment = config.load(tree, [target])
    if config.load(yaml.safe_load(yaml.safe_dump(experiment.model_dump(mode="json")))) != experiment:
        raise WrongError("means something else when it is written down")
    sections = [
        experiment.volumes.micro,
        experiment.patches,
        experiment.train,
        experiment.compute,
        experiment.evaluate,
        experiment.scanner,
    ]
    sections += [method.model_copy(update={"train": {}}) for method in experiment.trained_methods.values()]
    for section in [*sections, experiment.superresolve]:
        without = ["formats"] if section is experiment.superresolve else []
        parser = argparse.ArgumentParser(exit_on_error=False)
        config.add_flags(parser, type(section), without)
        again = config.from_flags(parser.parse_args(shlex.split(config.flags(section, without))), type(section))
        if again != section.model_copy(update={"formats": []} if without else {}):
            raise WrongError(f"{section!r} is {again!r} on a command line")
    return AGREED


def judge_sheet(target: Path, sound: Path) -> str:
    """What is accepted is what the cells say, and is the same when it is written down."""
    from microsr import config
    from microsr.config.sheet import read_sheet, sheet_text

    cases = read_sheet(config.Cases(sheet=str(target), data_root=str(target.parent)))
    rows = list(csv.reader(io.StringIO(target.read_bytes().decode("utf-8-sig"), newline=""), delimiter="\t"))
    rows = [[cell.strip() for cell in row] for row in rows]
    rows = [row for row in rows if any(row) and not row[0].startswith("#")]
    found = [dict(zip(rows[0], row, strict=False)) for row in rows[1:]]
    ours = [
        (
            c.case,
            c.split,
            c.clinical and Path(c.clinical.path).name,
            c.clinical and c.clinical.series,
            c.micro and c.micro.spacing,
        )
        for c in cases
    ]
    columns = ("case", "split", "clinical", "clinical_series", "micro_spacing")
    if ours != [tuple(row.get(c) or None for c in columns) for row in found]:
        raise WrongError(f"{ours} for {found}")
    copy = target.with_name("cases.copy.tsv")
    copy.write_text(sheet_text(cases), encoding="utf-8")
    if read_sheet(config.Cases(sheet=str(copy), data_root=".")) != cases:
        raise WrongError("other cases when they are written down")
    return AGREED


def judge_model(target: Path, sound: Path) -> str:
    """Weights and facts as they are in the file; an image that it makes is one of finite numbers."""
    import torch

    from microsr.info import describe
    from microsr.networks.model_file import load_generator

    g1, facts = load_generator(target)
    saved = torch.load(target, map_location="cpu", weights_only=True)
    weights = g1.state_dict()
    if facts != saved["facts"] or not all(
        torch.equal(weights[name], saved["weights"][name].to(weights[name].dtype)) for name in weights
    ):
        raise WrongError("other facts or weights than those in the file")
    low, high = facts["window_hu"]
    if not low < high or facts["seed"] < 0:
        raise WrongError(f"facts that are none: {facts}")
    if describe(target)["window_hu"] != [low, high]:
        raise WrongError("described otherwise")
    return AGREED


def judge_patches(target: Path, sound: Path) -> str:
    from microsr.info import describe
    from microsr.preprocessing.patch_files import open_patches, read_index
    from microsr.training.train import spacing_of

    spacing = spacing_of([target])
    if spacing is not None and not 0 < spacing < math.inf:
        raise WrongError(f"a pixel size of {spacing}")
    patches = np.array(open_patches(target))
    content = target.read_bytes()
    (size,) = struct.unpack_from("<H", content, 8)
    head = ast.literal_eval(content[10 : 10 + size].decode("latin-1"))
    theirs = np.frombuffer(content[10 + size :], head["descr"]).reshape(
        head["shape"], order="F" if head["fortran_order"] else "C"
    )
    if not np.array_equal(patches, theirs, equal_nan=True):
        raise WrongError("other patches than those in the file")
    index = read_index(target.with_suffix(".csv"))
    if (index[["slice", "row", "column"]] < 0).to_numpy().any() or (index["size"] <= 0).any():
        raise WrongError(f"places that are none: {index}")
    describe(target)
    return AGREED


JUDGES: dict[str, Callable[[Path, Path], str]] = {
    "nifti": _volume_judge(by_nibabel),
    "nifti.gz": _volume_judge(by_nibabel),
    "nrrd": _volume_judge(by_nrrd),
    "metaimage": _volume_judge(by_hand),
    "tiff": _volume_judge(by_tifffile, fuzz_seeds.SHEET_SPACING),
    "png": _volume_judge(by_pillow, fuzz_seeds.SHEET_SPACING),
    "scanco": _volume_judge(by_bytes),
    "txm": _volume_judge(by_olefile),
    "hdf5": _volume_judge(by_h5py),
    "raw": _volume_judge(by_bytes),
    "bmp": _volume_judge(by_skyscan),
    "jpeg2000": _volume_judge(by_pillow, fuzz_seeds.SHEET_SPACING),
    "dicom": _volume_judge(by_pydicom),
    "series": _volume_judge(by_pydicom),
    "enhanced": _volume_judge(by_frames),
    "zarr": _volume_judge(by_tensorstore),
    "n5": _volume_judge(by_tensorstore),
    "volume": judge_working_format,
    "config": judge_config,
    "sheet": judge_sheet,
    "model": judge_model,
    "patches": judge_patches,
}
