"""Every message that microsr has for its user, found in its code: errors, warnings, and the reasons that errors repeat.

A message is a pattern: what is filled in stands in angle brackets, `<path>: does not exist; correct the path`.
"""

from __future__ import annotations

import ast
import functools
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "microsr"
ERRORS = {"UserError", "DivergedError"}
REASONS = {
    *(
        ("core.files", "explain"),
        ("config.loading", "describe"),
        ("preprocessing.patches", "_no_position"),
        ("training.checkpoint", "load_state"),
    ),
    *(("formats.dicom", "_header"), ("formats.dicom", "_find_damage"), ("formats.dicom", "_choose_series")),
}
"""Functions that say why, for an error that is made elsewhere."""
NAMES = {
    **{
        "GetNumberOfComponents": "number",
        "GetFileName": "path",
        "GetPixelID": "type",
        "pop": "type",
        "tolist": "numbers",
    },
    **{
        "str": "sizes",
        "f_bavail": "free",
        "lower": "tissue",
        "IN_WORDS": "form",
        "name__": "kind",
    },
    **{"removeprefix": "number", "samplesperpixel": "number", "dtype": "type", "shape": "size", "Tissue": "number"},
    **{
        "journal": "value",
        "removesuffix": "state",
        "sum": "number",
        "LARGE": "number",
        "AERATED_HU": "number",
        "COLUMNS": "columns",
        "SHEET_COLUMNS": "columns",
        "FORMATS": "formats",
    },
}
"""What a value is called whose name in the code says nothing to a reader."""
PASSED_ON = re.compile(r"[\W\d]*(<[^<>]*>[\W\d]*)+")
"""A message of nothing but what another function says."""


@dataclass(frozen=True)
class Message:
    """One place in the code that has a message for the user, and what it says."""

    module: str
    """By its dotted name in microsr."""
    kind: str
    first: int
    last: int
    text: str

    @property
    def file(self) -> Path:
        """The module, as a path in the repository."""
        path = Path("src/microsr", *self.module.split("."))
        return path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py")

    @property
    def name(self) -> str:
        """A file name of its own."""
        return f"{self.module}.{self.first}"

    @property
    def is_passed_on(self) -> bool:
        """Whether it only passes on what another place in the code says."""
        return bool(PASSED_ON.fullmatch(self.text))

    def met(self, file: Path, line: int, text: str) -> bool:
        """Whether it is what was said at a line of a file; a reason is met in the text of any message."""
        if self.kind == "reason":
            return bool(self.regex.search(text))
        own = self.file.parts
        return file.parts[-len(own) :] == own and self.first <= line <= self.last

    @functools.cached_property
    def regex(self) -> re.Pattern:
        """Matches what the pattern may become."""
        return re.compile(".+?".join(re.escape(part) for part in re.split("<[^<>]*>", self.text)))


@functools.cache
def messages() -> tuple[Message, ...]:
    """All of them, by module and line."""
    found = []
    for file in sorted(SOURCE.rglob("*.py")):
        found += sorted(_of_module(file), key=lambda message: message.first)
    return tuple(found)


def _of_module(file: Path) -> Iterator[Message]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    module = ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            text, where = node.args[0], (node.lineno, node.end_lineno)
            if called in ERRORS:
                yield Message(module, "error", *where, pattern(text, module))
            elif called == "warning":
                yield Message(module, "warning", *where, _of_log(node, module))
            elif called == "_fail" or (called == "ValueError" and module.startswith("config.")):
                yield from _reasons(text, module)
        elif isinstance(node, ast.FunctionDef) and (module, node.name) in REASONS:
            for part in ast.walk(node):
                saved_as = {getattr(target, "id", "") for target in getattr(part, "targets", [])}
                if isinstance(part, ast.Return) or saved_as & {"problem", "what", "message", "done"}:
                    yield from _reasons(getattr(part, "value", None), module)
                elif isinstance(part, ast.Call) and getattr(part.func, "attr", "") == "append":
                    yield from _reasons(part.args[0], module)


def _reasons(node: ast.expr | None, module: str) -> Iterator[Message]:
    """What an expression says, if it says something of its own."""
    if isinstance(node, ast.IfExp):
        yield from _reasons(node.body, module)
        yield from _reasons(node.orelse, module)
    elif isinstance(node, ast.JoinedStr | ast.BinOp) or isinstance(getattr(node, "value", None), str):
        message = Message(module, "reason", node.lineno, node.end_lineno, pattern(node, module))
        if re.search("[a-z]{2}", re.sub("<[^<>]*>", "", message.text)):
            yield message


def pattern(node: ast.expr, module: str) -> str:
    """What a string becomes, with what is filled in as <name>."""
    if isinstance(node, ast.JoinedStr):
        return "".join(pattern(part, module) for part in node.values)
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.FormattedValue):
        return pattern(node.value, module)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return pattern(node.left, module) + pattern(node.right, module)
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
        return pattern(node.value, module)
    if (known := _constant(node, module)) is not None:
        return known
    return f"<{_called(node)}>"


def _of_log(node: ast.Call, module: str) -> str:
    """A message of the log, whose values are its further arguments."""
    values = [part for value in node.args[1:] for part in getattr(getattr(value, "value", None), "elts", [value])]
    values = [f"<{_called(value)}>" for value in values]
    text = pattern(node.args[0], module)
    parts = re.split(r"%[-+.\d]*[a-z]", text)
    values += ["<value>"] * (len(parts) - 1 - len(values))
    return "".join(part for pair in zip(parts, [*values, ""], strict=False) for part in pair).replace("%%", "%")


def _constant(node: ast.expr, module: str) -> str | None:
    """The text or number that the name of a constant stands for."""
    code = ast.unparse(node)
    if not re.fullmatch(r"(\w+\.)?[A-Z][A-Z_]+", code):
        return None
    known = functools.reduce(getattr, code.split("."), importlib.import_module(f"microsr.{module}"))
    return str(known) if isinstance(known, str | int | float) else None


def _called(node: ast.expr) -> str:
    """What the page calls a value: as the code does, in lower case, if that says anything to a reader."""
    name = _name(node).strip("_")
    return NAMES.get(name, name).lower()


def _name(node: ast.expr) -> str:
    """What to call a value: the last name in its expression."""
    match node:
        case ast.Starred() | ast.FormattedValue() | ast.Subscript() | ast.Await():
            return _name(node.value)
        case ast.Name():
            return node.id
        case ast.Attribute():
            return node.attr
        case ast.Call(args=[first, *_]) if not isinstance(first, ast.Constant):
            return _name(first)
        case ast.Call():
            return _name(node.func)
        case ast.BinOp():
            return _name(node.left)
        case ast.IfExp():
            return _name(node.body)
        case ast.GeneratorExp() | ast.ListComp():
            return _name(node.generators[0].iter)
        case ast.BoolOp():
            return _name(node.values[0])
        case _:
            return "value"


if __name__ == "__main__":
    for message in messages():
        print(f"{message.name} {message.kind}{' (passed on)' if message.is_passed_on else ''}: {message.text}")
