"""A section as the flags of a command, and back."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from microsr.config.loading import describe
from microsr.config.methods import KIND, KINDS, Method, TrainedMethod
from microsr.config.section import DEFAULT_SCALE, SCALES, SLICES, Section
from microsr.config.sheet import OF_A_SCAN, Scan
from microsr.core.errors import UserError
from microsr.core.registry.methods import METHODS

SectionT = TypeVar("SectionT", bound=Section)


def flags(section: Section, without: Sequence[str] = ()) -> str:
    """The section as command-line flags, `--key value` or `--outer.inner value`, in a fixed order, shell-quoted.

    A method's `train` has no flag: it reaches the command as the section that `Experiment.training_of` gives. A value
    that starts with a minus sign is joined to its key, as argparse takes -1e-05 for a flag.
    without: keys to leave out, which then do not count as a setting of the step.
    """
    given = []
    for key, value in _leaves(section):
        if key not in without:
            text = value if isinstance(value, str) else json.dumps(value)
            given.append(f"--{key}{'=' if text.startswith('-') else ' '}{shlex.quote(text)}")
    return " ".join(given)


def add_flags(parser: argparse.ArgumentParser, model: type[Section], without: Sequence[str] = ()) -> None:
    """Give `parser` one flag for each setting of `model`, those in `without` left out; values are written as in
    YAML.
    """
    for key, description in _describe(model):
        if key in without:
            continue
        _add_flag(parser, key, description)


def _add_flag(parser: argparse.ArgumentParser, key: str, description: str) -> None:
    text = description.replace("%", "%%")
    parser.add_argument(f"--{key}", dest=f"setting:{key}", metavar="VALUE", type=_value, help=text)


def add_scale(parser: argparse.ArgumentParser, default: int | None = DEFAULT_SCALE, more: str = "") -> None:
    """Give `parser` the flag --scale; more: what its help says beside the values and the default."""
    said = ", ".join(map(str, SCALES))
    text = f"clinical pixel / pixel of the super-resolved grid: {said}" + (f" (default: {default})" if default else "")
    parser.add_argument("--scale", type=int, choices=SCALES, default=default, help=text + more)


def add_scan_flags(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the flags that say which part of an input is meant, and its spacing: those of `Scan`."""
    parser.add_argument("--series", help="DICOM SeriesInstanceUID, or path of a data set in HDF5, if there are several")
    parser.add_argument("--slices", help="range of slices first:end, end excluded")
    parser.add_argument("--spacing", help="mm as X, XxY or XxYxZ; overrides the file's")
    parser.add_argument("--resample", help="even: put DICOM slices that are uneven or tilted on an even grid")
    parser.add_argument("--level", type=int, help="resolution level of an OME-Zarr or N5 store, 0 the finest")
    parser.add_argument("--region", help="rows and columns first:end,first:end, ends excluded")


def scan_from_flags(ns: argparse.Namespace) -> Scan:
    """The input `ns.input`, as the flags of `add_scan_flags` say.

    Raises
    ------
    UserError
        One of them is malformed.
    """
    try:
        return Scan(path=ns.input, **{key: getattr(ns, key) for key in OF_A_SCAN})
    except ValidationError as error:
        raise UserError(describe(error, "command line")) from None


def add_display(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the flag --display, which `display_from_flags` reads."""
    parser.add_argument(
        "--display",
        nargs=2,
        type=float,
        metavar=("BLACK", "WHITE"),
        help="HU that viewers show black and white; default: the scan's own window where it suits, else a lung's, or "
        "bone's of another organ",
    )


def display_from_flags(namespace: argparse.Namespace) -> dict[str, list[float]]:
    """The attribute `display` of a volume that --display asks for; nothing if it does not.

    Raises
    ------
    UserError
        It does not rise.
    """
    if namespace.display is None:
        return {}
    black, white = namespace.display
    if not black < white:
        raise UserError(
            f"--display {black:g} {white:g} does not rise; give the HU shown black, then the HU shown white"
        )
    return {"display": [black, white]}


def add_method_flags(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the flags of all kinds of trained methods: --kind, and the settings of each."""
    known = {name: text for model in _trained_kinds() for name, text in _describe(model)}
    known["kind"] = f"what is trained: {', '.join(METHODS)} (default: {json.dumps(KIND)})"
    for name, description in known.items():
        _add_flag(parser, name, description)


def method_from_flags(namespace: argparse.Namespace) -> TrainedMethod:
    """The method that the flags of `add_method_flags` gave, of the kind that they name.

    Raises
    ------
    UserError
        There is no such kind, or it has no such setting.
    """
    kind = getattr(namespace, "setting:kind") or KIND
    if kind not in METHODS:
        raise UserError(f"command line: kind: must be one of {', '.join(METHODS)}, not {kind!r}")
    own = KINDS[kind]
    for name in (name for model in _trained_kinds() for name, _ in _describe(model)):
        if getattr(namespace, f"setting:{name}") is not None and name not in dict(_describe(own)):
            allowed = ", ".join(name for name, _ in _describe(own))
            raise UserError(f"command line: {name}: unknown key for kind {kind}; allowed here: {allowed}")
    return from_flags(namespace, own)


def _trained_kinds() -> list[type[Method]]:
    return [KINDS[kind] for kind in METHODS]


def named_paths(pairs: list[str], flag: str) -> dict[str, Path]:
    """`["proposed=a.ome.zarr", ...]` as {name: path}, in the same order.

    Raises
    ------
    UserError
        A pair without name or path, or a name given twice.
    """
    found: dict[str, Path] = {}
    for pair in pairs:
        name, _, path = pair.partition("=")
        if not name or not path or name in found:
            raise UserError(f"--{flag}: '{pair}' must be NAME=PATH, with a name that is given once")
        found[name] = Path(path)
    return found


def _value(text: str) -> Any:
    """As in YAML, but a range of slices is no number to the base of 60, and what is no YAML is a text."""
    try:
        return text if re.fullmatch(SLICES, text) else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return text


def from_flags(namespace: argparse.Namespace, model: type[SectionT]) -> SectionT:
    """The section that `add_flags` had parsed; what was not given takes its default."""
    nested: dict[str, Any] = {}
    for name, _ in _describe(model):
        value = getattr(namespace, f"setting:{name}", None)
        if value is not None:
            *outer, key = name.split(".")
            level = nested
            for part in outer:
                level = level.setdefault(part, {})
            level[key] = value
    try:
        return model.model_validate(nested)
    except ValidationError as error:
        raise UserError(describe(error, "command line")) from None


def _leaves(section: Section, prefix: str = "") -> list[tuple[str, Any]]:
    plain = section.model_dump(mode="json")
    found = []
    for key in type(section).model_fields:
        value = getattr(section, key)
        if isinstance(value, Section):
            found += _leaves(value, f"{prefix}{key}.")
        elif value is not None and not isinstance(value, dict):
            found.append((f"{prefix}{key}", plain[key]))
    return found


def _describe(model: type[Section], prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for key, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found += _describe(field.annotation, f"{prefix}{key}.")
        elif not isinstance(field.default, dict):
            found.append((f"{prefix}{key}", f"{field.description} (default: {json.dumps(field.default)})"))
    return found
