"""Settings from files: checked, or refused in one line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from microsr.config.experiment import Experiment
from microsr.config.figures import Inset
from microsr.config.methods import KINDS
from microsr.config.section import IN_WORDS
from microsr.config.train import Train
from microsr.core.errors import UserError

NULLS = ("null", "Null", "NULL", "~")
"""Words of YAML for nothing."""


def describe(error: ValidationError, where: str) -> str:
    """One line for the first problem in `error`: file, key, what is wrong, what is allowed."""
    first = error.errors()[0]
    location, kind = _without_kind(first["loc"])
    steps = (" ".join(str(step).split()) for step in location if not _is_union_branch(step))  # one line
    key = ".".join(steps) or "(top level)"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        allowed = _keys_at(location[:-1], kind)
        of_kind = f" for kind {kind}" if len(location) == 3 and kind else ""
        message = "unknown key" + of_kind + (f"; allowed here: {', '.join(allowed)}" if allowed else "")
    elif first["type"] == "union_tag_invalid":
        key += ".kind"
        kind = first["ctx"]["tag"]
        message = f"must be one of {', '.join(KINDS)}, not {kind!r}"
    elif first["type"] == "missing":
        message = "is missing"
    elif first["type"] == "string_pattern_mismatch":
        message = f"must be {IN_WORDS[first['ctx']['pattern']]}, not {first['input']!r}"
    else:
        message += "" if isinstance(first["input"], dict) else f", not {first['input']!r}"[:120]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{where}: {key}: {message}{more}"


def _is_union_branch(step: str | int) -> bool:
    return isinstance(step, str) and bool(re.search(r"[\[\]]", step))


def _without_kind(location: tuple) -> tuple[tuple, str | None]:
    """The place of an error as the settings have it, and the kind of the method that it is in, which pydantic puts
    behind the method's name.
    """
    if len(location) > 2 and location[0] == "methods" and location[2] in KINDS:
        return location[:2] + location[3:], location[2]
    return location, None


def _keys_at(location: tuple, kind: str | None) -> list[str]:
    """Names of the keys allowed at a place of the settings; kind: of the method that it is in."""
    model: type[BaseModel] = Experiment
    for step in location:
        field = model.model_fields.get(step)
        if field is None:
            continue  # the name of a method, or an index
        annotation = {"methods": KINDS.get(kind), "insets": Inset, "train": Train}.get(step, field.annotation)
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)


def load(config: dict[str, Any], files: Sequence[Path] = ()) -> Experiment:
    """Check a configuration as Snakemake or YAML gives it.

    files: the YAML files that were merged into `config`, the one that counts most first; an error names the one it is
    in.

    Raises
    ------
    UserError
        One line that names the file, the key, what is wrong and what is allowed.
    """
    try:
        return Experiment.model_validate(_with_nulls(config))
    except ValidationError as error:
        raise UserError(describe(error, _origin(_without_kind(error.errors()[0]["loc"])[0], files))) from None


def _with_nulls(value: Any) -> Any:
    """Settings whose texts "null" are None: Snakemake reads all words of `--config` as texts, and a file does not."""
    if isinstance(value, dict):
        return {key: _with_nulls(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_with_nulls(one) for one in value]
    return None if isinstance(value, str) and value in NULLS else value


def _origin(location: tuple[str | int, ...], files: Sequence[Path]) -> str:
    """The first of `files` that sets the key at `location`; "config" if none does, as for a key from the command
    line.
    """
    for file in files:
        level = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
        found = bool(location)
        for step in location:
            if not isinstance(level, dict):
                break  # inside a value
            found = step in level
            if not found:
                break
            level = level[step]
        if found and level is not None:
            return str(file)
    return "config"
