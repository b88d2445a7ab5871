"""The version of the code that decides a step's result: a fingerprint that does not depend on where a module lies.

In a fingerprint count what modules do, not their names, their folders or the lines that import them. So a module that
is moved makes no result old, and an edit of it does.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import re
from pathlib import Path
from typing import NamedTuple

import microsr
from microsr.core.registry.figures import FIGURES
from microsr.core.registry.protocols import PROTOCOLS

SOURCE = Path(microsr.__file__).parent
STEPS = {
    "simulate": "microsr.simulation.simulate",
    "validate": "microsr.simulation.validation.validate",
    "volumes": "microsr.preprocessing.volumes",
    "volumes.downsample": "microsr.preprocessing.downsample",
    "volumes.registered": "microsr.preprocessing.registered.truth",
    "scan": "microsr.preprocessing.scan",
    "patches": "microsr.preprocessing.patches",
    "pairs": "microsr.preprocessing.pairs",
    "domain": "microsr.preprocessing.checks.domain",
    "scanner": "microsr.preprocessing.checks.scanner",
    "train": "microsr.training.train",
    "superresolve": "microsr.inference.superresolve",
    "gather": "microsr.inference.gather",
    "channels": "microsr.inference.channels",
    "export": "microsr.inference.export",
    "export.model": "microsr.report.models.export",
    "features": "microsr.evaluation.tissue_features",
    "evaluate": "microsr.evaluation.evaluate",
    "evaluate.collect": "microsr.evaluation.collect",
    "evaluate.summarise": "microsr.evaluation.summary",
    "evaluate.search": "microsr.evaluation.selection.tabulate_search",
    "evaluate.choices": "microsr.evaluation.selection.tabulate_choices",
    "evaluate.choose": "microsr.evaluation.selection.choose_model",
    "evaluate.validate": "microsr.evaluation.validation.validate",
    "figures": "microsr.figures.figures",
    "report": "microsr.report.report",
    "report.calibration": "microsr.report.calibration",
    "report.panels": "microsr.report.panels",
    **{f"evaluate.{name}": entry.module for name, entry in PROTOCOLS.items()},
    **{f"figures.{name}": entry.module for name, entry in FIGURES.items()},
}
"""The module of each step. A step is named as its command, with dots: it is what run.json says, wherever the module
lies.
"""
NOT_DECISIVE = (
    "training.attempts",
    "cli",
    "core.code_version",
    "config",
    "core.files",
    "core.progress",
    "core.provenance",
    "core.registry.figures",
    "core.registry.protocols",
    "core.streams",
    "core.subcommands",
    "__main__",
    "core.errors",
)
"""Modules and packages that decide no result by themselves: settings reach a step by value, a stream's name draws the
same for ever, an attempt at a training changes nothing of it, and each figure and protocol is a step of its own."""


def step_version(step: str) -> str:
    """Fingerprint of the code that decides what a step makes: of a figure, its module and the command that calls it."""
    command = f"{code_version('figures', alone=True)} " if step.startswith("figures.") else ""
    return command + code_version(step)


def code_version(step: str, alone: bool = False) -> str:
    """Fingerprint of the code that decides a step's result: its module and all of microsr that it imports.

    alone: without what it imports. Comments, docstrings and layout do not count.

    Raises
    ------
    KeyError
        There is no such step in STEPS.
    """
    return fingerprint(STEPS[step], alone)


@functools.cache
def fingerprint(module: str, alone: bool = False, source: Path = SOURCE) -> str:
    """Fingerprint of a module of microsr and, unless `alone`, all of microsr that it imports.

    module: its dotted name. source: the folder of the package `microsr`.
    """
    if alone:  # what the module is helped by is no part of it
        return _code(module, source).digest[:16]
    parts = {_meaning(name, source) for name in decisive_modules(module, source)}
    return hashlib.sha256(json.dumps(sorted(parts)).encode()).hexdigest()[:16]


def decisive_modules(module: str, source: Path = SOURCE) -> set[str]:
    """The module and all of microsr that it imports, directly or not, by their dotted names: what decides its
    results.
    """
    found: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        if name not in found and _decides(name):
            found.add(name)
            code = _code(name, source)
            todo += (bound.module for bound in (*code.numbered, *code.imported))
    return found


def _decides(module: str) -> bool:
    """Whether a module counts; the package `microsr` itself does not."""
    return not any(f"{module}.".startswith(f"microsr.{other}.") for other in NOT_DECISIVE) and module != "microsr"


class _Bound(NamedTuple):
    """What a name in a module stands for: all of another module of microsr, or one thing in it."""

    module: str
    thing: str


class _Code(NamedTuple):
    """What a module does, and what of microsr it does it with."""

    digest: str
    """Of the syntax, in which each name that is bound to a module of microsr is a number."""
    numbered: tuple[_Bound, ...]
    """What the numbers stand for."""
    imported: frozenset[_Bound]
    """What is imported."""


def _meaning(module: str, source: Path) -> str:
    """What a module does, with whose help: the other modules count by what they do, not by their names."""

    def tell(bound: _Bound) -> list[str]:
        return [bound.thing, _code(bound.module, source).digest if _decides(bound.module) else ""]

    code = _code(module, source)
    return json.dumps([code.digest, [tell(bound) for bound in code.numbered], sorted(map(tell, code.imported))])


@functools.cache
def _code(module: str, source: Path) -> _Code:
    """A module, read once, however many steps share it."""
    file = _file(module, source)
    if file is None:
        raise ModuleNotFoundError(f"{module}: no such module in {source}")
    reading = _Reading(ast.parse(file.read_text(encoding="utf-8")), source)
    digest = hashlib.sha256(ast.dump(reading.plain).encode()).hexdigest()
    return _Code(digest, tuple(reading.numbered), frozenset(reading.imported))


def _file(module: str, source: Path) -> Path | None:
    """The file of a module or package; None of anything else."""
    path = source.joinpath(*module.split(".")[1:])
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


class _Reading(ast.NodeTransformer):
    """Takes from a module's syntax what decides nothing: docstrings, and the names and places of other modules."""

    def __init__(self, tree: ast.Module, source: Path) -> None:
        self._source = source
        self._named: dict[str, str] = {}
        self.numbered: list[_Bound] = []
        self.imported: set[_Bound] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "microsr":
                self._note(node)
            elif isinstance(node, ast.Import):
                self.imported |= {_Bound(a.name, a.name) for a in node.names if a.name.startswith("microsr.")}
        self.plain = self.visit(tree)

    def _note(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            module = f"{node.module}.{alias.name}"
            if _file(module, self._source):
                self._named[alias.asname or alias.name] = module
                self.imported.add(_Bound(module, ""))
            else:
                self.imported.add(_Bound(node.module, f"{alias.name} {alias.asname or ''}"))

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Without docstrings, nor imports from microsr."""
        if isinstance(body := getattr(node, "body", None), list):
            body[:] = [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
        return super().generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        """Imports from microsr are in `imported`."""
        return None if (node.module or "").partition(".")[0] == "microsr" else node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """A module is called by its number."""
        return self._number(self._named[node.id], "") if node.id in self._named else node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """In a function, what has a module's name may be a value of its own."""
        outside, own = self._named, set()
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                own.add(inner.id)
            elif isinstance(inner, ast.arg):
                own.add(inner.arg)
        node.args = self.visit(node.args)
        self._named = {name: module for name, module in outside.items() if name not in own}
        node = self.generic_visit(node)
        self._named = outside
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        """What is imported later: "microsr.networks.families:RESNET" counts; "microsr.preprocessing.downsample" does
        not, being a step of its own.
        """
        if isinstance(node.value, str) and re.fullmatch(r"microsr(\.\w+)+(:\w+)?", node.value):
            module, _, thing = node.value.partition(":")
            if _file(module, self._source):
                return self._number(module, thing) if thing else ast.Constant("microsr")
        return node

    def visit_keyword(self, node: ast.keyword) -> ast.AST | None:
        """What is said for `--help` decides nothing."""
        return None if node.arg == "help" else self.generic_visit(node)

    def _number(self, module: str, thing: str) -> ast.Name:
        bound = _Bound(module, thing)
        if bound not in self.numbered:
            self.numbered.append(bound)
        return ast.Name(f"microsr {self.numbered.index(bound)}", ast.Load())
