"""Mutants of a module: its text with one fault each, of the kinds that a person makes and a test should see."""

from __future__ import annotations

import ast
import copy
import difflib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.MatMult: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
SAME = ("float", "np.asarray", "tolist")
"""Functions that are not dropped: what they convert is as good before, as NumPy's float64 is a float."""
EITHER_WAY = ("min", "max", "np.minimum", "np.maximum", "np.hypot", "np.logical_or")
"""Functions whose arguments are not swapped: their order does not matter."""
LEFT = ("overwrite_x", "non_blocking", "copy", "strict", "encoding")
"""Named arguments that are left alone: speed, a guard against what cannot happen, as zip's, or what ruff looks
after.
"""


@dataclass(frozen=True)
class Mutant:
    """One fault: `old` at the bytes start:end of a module's text became `new`."""

    start: int
    end: int
    old: str
    new: str
    within: str
    """Name of the outermost function that holds it, of a method with its class; empty in the module itself."""
    lines: tuple[int, int]
    """First and last line of that function, its decorators included, or of the whole module."""

    def text(self, source: str) -> str:
        """The module with the fault."""
        whole = source.encode()
        return (whole[: self.start] + self.new.encode() + whole[self.end :]).decode()

    def order(self, seed: int, source: str) -> str:
        """By which a sample is drawn: it hangs on what the fault is, not on where it lies, so that other edits leave a
        sample alone.
        """
        return hashlib.sha256(f"{seed} {self.within} {self.before(source)} {self.after(source)}".encode()).hexdigest()

    def diff(self, source: str, name: str) -> str:
        """What `diff -u` would print."""
        old, new = (text.splitlines(keepends=True) for text in (source, self.text(source)))
        return "".join(difflib.unified_diff(old, new, name, name, n=1))

    def before(self, source: str) -> str:
        """The lines that the fault changes, without their indentation."""
        return self._changed(source, 0)

    def after(self, source: str) -> str:
        """The same lines with the fault."""
        return self._changed(source, 1)

    def _changed(self, source: str, side: int) -> str:
        whole = source.encode()
        first = whole.rfind(b"\n", 0, self.start) + 1
        last = whole.find(b"\n", self.end)
        last = len(whole) if last < 0 else last
        part = whole[first : self.start] + (self.new if side else self.old).encode() + whole[self.end : last]
        return "\n".join(line.strip() for line in part.decode().splitlines())


def mutants(source: str) -> list[Mutant]:
    """All of them, as they lie in the text. Annotations, docstrings and messages of errors are left alone."""
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    whole = source.encode()
    found = {}
    for node, new, scope in _changes(ast.parse(source)):
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        code = ast.unparse(ast.fix_missing_locations(new))
        code = code if isinstance(new, ast.stmt | ast.Slice | ast.keyword) or _is_atom(new) else f"({code})"
        old = whole[start:end].decode()
        name, lines = scope or ("", (1, len(starts)))
        if old != code:
            found[start, end, code] = Mutant(start, end, old, code, name, lines)
    return sorted(found.values(), key=lambda mutant: (mutant.start, mutant.end, mutant.new))


def _is_atom(node: ast.AST) -> bool:
    negative = isinstance(node, ast.Constant) and isinstance(node.value, int | float) and node.value < 0
    return isinstance(node, ast.Constant | ast.Name | ast.Call | ast.Attribute | ast.Subscript) and not negative


def _changes(tree: ast.Module) -> Iterator[tuple[Any, ast.AST, tuple[str, tuple[int, int]] | None]]:
    """Nodes, what may stand in their place, and the function that holds them with its lines."""
    waiting: list[tuple[ast.AST, tuple | None, str]] = [(tree, None, "")]
    while waiting:
        node, scope, prefix = waiting.pop()
        for new in _faults(node):
            yield node, new, scope
        if scope is None and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            scope = (prefix + node.name, (first, node.end_lineno))
        elif scope is None and isinstance(node, ast.ClassDef):
            prefix += f"{node.name}."
        waiting += [(child, scope, prefix) for child in _children(node)]


def _children(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.keyword) and node.arg in LEFT:
        return
    for field, value in ast.iter_fields(node):
        unread = field in ("annotation", "returns", "type_comment", "decorator_list")
        if unread or isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Assert):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child


def _with(node: ast.AST, **fields: object) -> ast.AST:
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def _faults(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in the place of one node."""
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            if type(operator) in COMPARISONS:
                ops = [*node.ops[:place], COMPARISONS[type(operator)](), *node.ops[place + 1 :]]
                yield _with(node, ops=ops)
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS and not _is_text(node.left):
        yield _with(node, op=OPERATORS[type(node.op)]())
    elif isinstance(node, ast.AugAssign):
        if type(node.op) in OPERATORS:
            yield _with(node, op=OPERATORS[type(node.op)]())
        yield ast.Pass()
    elif isinstance(node, ast.BoolOp):
        yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
        for place in range(len(node.values)):
            rest = node.values[:place] + node.values[place + 1 :]
            yield rest[0] if len(rest) == 1 else _with(node, values=rest)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
        yield node.operand
    elif isinstance(node, ast.Constant):
        yield from _other_constants(node)
    elif isinstance(node, ast.IfExp):
        yield _with(node, body=node.orelse, orelse=node.body)
    elif isinstance(node, ast.Call):
        yield from _other_calls(node)
    elif isinstance(node, ast.Slice):
        yield from (_with(node, **{end: None}) for end in ("lower", "upper", "step") if getattr(node, end) is not None)
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple) and len(node.slice.elts) == 2:
        yield _with(node, slice=_with(node.slice, elts=node.slice.elts[::-1]))
    elif (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)) or isinstance(
        node, ast.Continue | ast.Break
    ):
        yield ast.Pass()


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _other_constants(node: ast.Constant) -> Iterator[ast.AST]:
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
        if value > 1:
            yield ast.Constant(value - 1)
    elif isinstance(value, float):
        yield ast.Constant(1.25 * value if value else 1.0)


def _other_calls(node: ast.Call) -> Iterator[ast.AST]:
    """The call without its function, without one of its named arguments, with two arguments swapped."""
    plain = [argument for argument in node.args if not isinstance(argument, ast.Starred)]
    if isinstance(node.func, ast.Attribute) and not isinstance(node.func.value, ast.Name):
        if node.func.attr not in SAME:
            yield node.func.value
    elif len(node.args) == 1 and plain and not node.keywords and ast.unparse(node.func) not in SAME:
        yield node.args[0]
    for place, keyword in enumerate(node.keywords):
        if keyword.arg is not None and keyword.arg not in LEFT:
            yield _with(node, keywords=node.keywords[:place] + node.keywords[place + 1 :])
    alike = len(plain) < 2 or plain != node.args or ast.dump(plain[0]) == ast.dump(plain[1])
    if not alike and ast.unparse(node.func) not in EITHER_WAY:
        yield _with(node, args=[plain[1], plain[0], *plain[2:]])
