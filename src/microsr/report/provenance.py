"""The report's last section: settings that are not the defaults, the steps, the code, the packages, models and original
files.

In: the experiment's settings, and records, run.json. Out: plain values. Nothing is told that the records do not hold;
times are left out, so that the same results give the same page.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from microsr import config
from microsr.report.lineage import trace

PAGE = Path(__file__).parent / "page"
"""Template, style sheet and script of the report."""
NO_RESULT = ("experiment", "compute", "cases", "superresolve.formats", "train.repeats")
"""Settings that decide no result, or that the report shows otherwise."""
MOST_FILES = 40
"""Original files that are named."""


def changed_settings(experiment: config.Experiment) -> list[str]:
    """The settings that are not the defaults of `microsr.config` and decide a result: "train.epochs=3", in the order of
    the experiment.
    """
    default = config.Experiment(experiment=experiment.experiment).model_dump(mode="json")
    given = experiment.model_dump(mode="json")
    default["methods"] = {
        name: default["methods"].get(name, _defaults_of(method["kind"])) for name, method in given["methods"].items()
    }
    return [
        f"{key}={json.dumps(value, ensure_ascii=False)}"
        for key, value in _leaves(given)
        if not any(key == name or key.startswith(f"{name}.") for name in NO_RESULT) and value != _at(default, key)
    ]


def _defaults_of(kind: str) -> dict[str, Any]:
    """What a method of this kind has if nothing else is said of it than its kind, which is told unless it is KIND."""
    return config.KINDS[kind](kind=kind).model_dump(mode="json") | {"kind": config.KIND}


def as_tree(settings: list[str]) -> dict[str, Any]:
    """`["train.epochs=3"]` as {"train": {"epochs": 3}}; values that are no JSON are text."""
    tree: dict[str, Any] = {}
    for setting in settings:
        key, _, text = setting.partition("=")
        *outer, last = key.split(".")
        level = tree
        for name in outer:
            level = level.setdefault(name, {})
        try:
            level[last] = json.loads(text)
        except ValueError:
            level[last] = text
    return tree


def summarise_making(results: list[Path]) -> dict[str, Any]:
    """How results were made: "steps" (name, times run), "code", "packages", "models", "files" and what is "amiss".

    Raises
    ------
    UserError
        A result has no record, or a record is damaged.
    """
    records: dict[str, Any] = {}
    for result in results:
        records |= trace(result, check=False)["records"]
    inputs = [given for run in records.values() for given in run["inputs"]]
    models = {given["file"]: given["sha256"] for given in inputs if given["file"].endswith("generator.pt")}
    files = {given["file"]: given["sha256"] for given in inputs if given["record"] is None}
    code = Counter(_code(run) for run in records.values())
    packages = Counter(pair for run in records.values() for pair in run.get("packages", {}).items())
    return {
        "steps": sorted(Counter(run["step"] for run in records.values()).items()),
        "code": sorted(code.items()),
        "packages": sorted(packages, key=lambda pair: (pair[0] != "python", pair[0].lower(), pair[1])),
        "models": sorted(models.items()),
        "files": sorted(files.items())[:MOST_FILES],
        "more_files": max(0, len(files) - MOST_FILES),
    }


@functools.cache
def page_version() -> str:
    """Fingerprint of the page's files: they decide the report as its code does."""
    digest = hashlib.sha256()
    for file in sorted(PAGE.iterdir()):
        if file.is_file():
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _code(run: dict[str, Any]) -> str:
    code = run["code"]
    commit = f"commit {code['commit'][:12]}" if code.get("commit") else "no commit known"
    return f"microsr {code.get('microsr')}, {commit}" + (
        " with uncommitted changes" if code.get("uncommitted_changes") else ""
    )


def _leaves(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            found += _leaves(value, f"{prefix}{key}.")
        elif value != {}:
            found.append((f"{prefix}{key}", value))
    return found


def _at(tree: dict[str, Any], key: str) -> Any:
    for name in key.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree
