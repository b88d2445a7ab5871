"""Sub-commands of a step whose modules are loaded when they are used, so that `--help` and the others do not wait."""

from __future__ import annotations

import argparse
import importlib
from typing import Any


class LazyParser(argparse.ArgumentParser):
    """A parser that gets its arguments from a module, by its function `arguments`, when it is used.

    The module is then `module` in the namespace.
    """

    module: str | None = None
    """Its dotted name."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Load the module first."""
        if self.module is not None:
            module = importlib.import_module(self.module)
            module.arguments(self)
            self.set_defaults(module=module)
            self.module = None
        return super().parse_known_args(args, namespace)


def add_subcommands(parser: argparse.ArgumentParser, metavar: str) -> argparse._SubParsersAction:
    """Let a step have sub-commands; `metavar`: what `--help` calls one."""
    return parser.add_subparsers(dest="command", required=True, metavar=metavar, parser_class=LazyParser)


def add_subcommand(
    commands: argparse._SubParsersAction, name: str, summary: str, module: str | None = None
) -> LazyParser:
    """Add a sub-command, with the dotted name of the module that has its arguments; None: the caller adds them."""
    description = f"{summary[0].upper()}{summary[1:]}."
    parser = commands.add_parser(name, help=summary, description=description, allow_abbrev=False)
    parser.set_defaults(module=None)
    parser.module = module
    return parser
