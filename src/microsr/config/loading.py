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
from microsr.config.methods import Method
from microsr.config.section import IN_WORDS
from microsr.config.train import Train
from microsr.core.errors import UserError


def describe(error: ValidationError, where: str) -> str:
    """One line for the first problem in `error`: file, key, what is wrong, what is allowed."""
    first = error.errors()[0]
    parts = (" ".join(str(part).split()) for part in first["loc"] if not _is_union_branch(part))  # one line
    key = ".".join(parts) or "(top level)"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        allowed = _keys_at(Experiment, first["loc"][:-1])
        message = "unknown key" + (f"; allowed here: {', '.join(allowed)}" if allowed else "")
    elif first["type"] == "missing":
        message = "is missing"
    elif first["type"] == "string_pattern_mismatch":
        message = f"must be {IN_WORDS[first['ctx']['pattern']]}, not {first['input']!r}"
    else:
        message += "" if isinstance(first["input"], dict) else f", not {first['input']!r}"[:120]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{where}: {key}: {message}{more}"


def _is_union_branch(part: str | int) -> bool:
    return isinstance(part, str) and bool(re.search(r"[\[\]]", part))


def _keys_at(model: type[BaseModel], location: tuple) -> list[str]:
    """Names of the keys allowed at a location of the configuration."""
    for part in location:
        field = model.model_fields.get(part) if model is not None else None
        if field is None:
            continue  # the name of a method, or an index
        annotation = {"methods": Method, "insets": Inset, "train": Train}.get(part, field.annotation)
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
        return Experiment.model_validate(config)
    except ValidationError as error:
        raise UserError(describe(error, _origin(error.errors()[0]["loc"], files))) from None


def _origin(location: tuple[str | int, ...], files: Sequence[Path]) -> str:
    """The first of `files` that sets the key at `location`; "config" if none does, as for a key from the command
    line.
    """
    for file in files:
        level = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
        found = bool(location)
        for part in location:
            if not isinstance(level, dict):
                break  # inside a value
            found = part in level
            if not found:
                break
            level = level[part]
        if found and level is not None:
            return str(file)
    return "config"
